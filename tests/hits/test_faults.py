"""A store or a disk that fails while people open and click: links go on, and what can be recorded is, later."""
import pathlib, shutil, time, unittest

from disks import Disk
from ground import Client, Hits, binary, until, whose
from web import Steady

# Seconds that nobody should wait for a link, on a busy machine.
PROMPT = 3
RATE = 400


class Faults(unittest.TestCase):
    def server(self, settings=None, data=None):
        server = Hits(binary(), settings, data)
        self.addCleanup(server.close)
        return server

    def disk(self, *words, **more):
        disk = Disk(*words, **more)
        self.addCleanup(disk.remove)
        return disk

    def store(self, server, **more):
        """The store on a file system of its own."""
        server.relay.stop()
        store = pathlib.Path(server.relay.data, "store")
        shutil.rmtree(store)
        disk = self.disk(64, folder=store, **more)
        server.relay.start()
        return disk

    def tokens(self, server, count):
        """So many links that nobody has asked for yet."""
        names = server.post(f"t{count}", 20, -(-count // 20))
        meant = {}
        for copy in server.copies(names).values():
            meant.update({path: (copy.who, number) for number, path in enumerate(copy.links)})
        return dict(list(meant.items())[:count])

    def asked(self, server, paths, rate=RATE):
        """Asks for all; each must lead on, and soon."""
        steady = Steady(server.relay.web, paths, rate)
        steady.join(60)
        self.assertEqual(steady.others, [])
        self.assertEqual(steady.answered.keys(), set(paths))
        self.assertLess(steady.slowest, PROMPT)

    def recorded(self, server, meant):
        """Each once, and nothing else."""
        until("all to be in the counts", lambda: server.relay.ready() and server.counted() >= len(meant), 60, 0.3)
        events = server.export()
        self.assertEqual(sorted(map(str, map(whose, events))), sorted(map(str, meant.values())))
        self.assertTrue(all(event["count"] == 1 for event in events))
        self.assertEqual(server.counted(), len(meant))
        self.assertEqual(server.relay.panics(), [])

    def mail_flows(self, server, ident):
        server.copies(server.post(ident, 1), 30)

    def test_a_store_that_is_deleted_under_it(self):
        server = self.server()
        meant = self.tokens(server, 300)
        paths = list(meant)
        self.asked(server, paths[:100])
        shutil.rmtree(pathlib.Path(server.relay.data, "store"))
        self.asked(server, paths[100:200])
        self.mail_flows(server, "deleted")
        server.relay.stop()
        server.relay.start()
        self.asked(server, paths[200:])
        self.recorded(server, meant)
        self.assertEqual(server.lost(), 0)

    def test_a_store_without_room(self):
        server = self.server()
        disk = self.store(server)
        meant = self.tokens(server, 1_000)
        paths = list(meant)
        self.asked(server, paths[:100])
        until("the first hits in the counts", lambda: server.counted() >= 100)
        disk.fill()
        # What is written must outgrow what the store has set aside.
        self.asked(server, paths[100:800], rate=500)
        until("it to say that it is not ready", lambda: not server.relay.ready(), 30)
        self.assertGreater(server.metric("trackpost_store_write_failures_total"), 0)
        self.asked(server, paths[800:])
        self.mail_flows(server, "without-room")
        disk.clear()
        self.recorded(server, meant)
        self.assertEqual(server.lost(), 0)

    def test_a_recorder_that_is_stuck(self):
        server = self.server()
        disk = self.store(server, ext4=True)
        meant = self.tokens(server, 1_200)
        paths = list(meant)
        self.asked(server, paths[:100])
        disk.freeze()
        self.asked(server, paths[100:])
        self.mail_flows(server, "stuck")
        self.assertEqual(server.lost(), 0)
        disk.thaw()
        self.recorded(server, meant)
        self.assertEqual(server.lost(), 0)

    def test_a_log_that_is_stuck(self):
        disk = self.disk(256, ext4=True)
        server = self.server({"[queue]": ['min_free = "1MiB"']}, str(disk.folder / "data"))
        meant = self.tokens(server, 600)
        disk.freeze()
        self.asked(server, list(meant))
        disk.thaw()
        self.recorded(server, meant)
        self.assertEqual(server.lost(), 0)

    def test_a_disk_that_is_nearly_full(self):
        disk = self.disk(128)
        server = self.server({"[queue]": ['min_free = "32MiB"', 'retry = ["1s"]']}, str(disk.folder / "data"))
        meant = self.tokens(server, 600)
        paths = list(meant)
        self.asked(server, paths[:200])
        until("the first hits in the counts", lambda: server.counted() >= 200)
        server.sink.defer = b"451 4.3.0 later\r\n"
        waiting = server.post("waiting", 1)
        disk.fill(left=16 << 20)

        def refused():
            with Client(server.relay.smtp) as client:
                return client.say(b"MAIL FROM:<news@shop.example.com>\r\n").startswith("452")

        until("mail to be refused", refused)
        # Links lead on, and their hits leave what room there is to the outcomes of mail.
        self.asked(server, paths[200:400])
        until("200 hits to be counted as lost", lambda: server.lost() >= 200, 20)
        self.assertEqual(server.lost(), 200)
        # What was accepted is delivered.
        server.sink.defer = None
        server.copies(waiting, 30)
        disk.clear()
        until("mail to be taken again", lambda: not refused(), 30)
        self.asked(server, paths[400:])
        self.recorded(server, {path: meant[path] for path in paths[:200] + paths[400:]})
        self.assertEqual(server.lost(), 200)
        self.mail_flows(server, "after")


if __name__ == "__main__":
    unittest.main()
