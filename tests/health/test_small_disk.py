"""History gives way to mail: on a small disk with an empty queue, mail is taken again within a bounded time, whatever the
history fills, and whether its store opens or not. Needs root, for mounting.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

from ground import DOMAIN, Case, Client, ask, letter, meter

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "faults"))
import parallel  # noqa: E402

MIB = 1 << 20
SETTINGS = {"[queue]": ['retry = ["1s"]', 'min_free = "1MiB"'], "[spool]": ['segment_size = "1MiB"']}
# Until history is given up, and what goes with it.
PATIENCE = 40


def load_tests(_loader, tests, _pattern):
    return parallel.Suite(tests)


class SmallDisk(Case):
    def ground(self):
        self.disk = tempfile.mkdtemp(prefix="trackpost-small-")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", self.disk], check=True)
        self.addCleanup(lambda: (subprocess.run(["umount", "-l", self.disk], check=True), os.rmdir(self.disk)))
        self.sent = 0
        self.sink_ = self.sink()
        relay = self.relay(self.sink_, SETTINGS, os.path.join(self.disk, "data"))
        self.store = os.path.join(relay.data, "store")
        return relay

    def send(self, relay, recipients=500, size=1_000):
        """The reply to a message to so many recipients, each of whom the history has a row for."""
        self.sent += 1
        who = "".join(f"RCPT TO:<{'x' * 40}{self.sent}-{n}@example.net>\r\n" for n in range(recipients))
        with Client(relay.smtp) as client:
            reply = client.say(f"MAIL FROM:<news@{DOMAIN}>\r\n".encode())
            if reply.startswith("250"):
                client.connection.sendall(who.encode() + b"DATA\r\n")
                reply = [client.reply() for _ in range(recipients + 1)][-1]
            return client.say(letter("x", size) + b".\r\n") if reply.startswith("354") else reply

    def until_refused(self, relay, seconds=45, **what):
        deadline = time.monotonic() + seconds
        while (reply := self.send(relay, **what)).startswith("250"):
            self.assertLess(time.monotonic(), deadline, "the disk does not get full")
        self.assertTrue(reply.startswith("452 4.3.1"), reply)

    def takes_mail_again(self, relay, seconds=PATIENCE):
        self.eventually("an empty queue", lambda: self.queued(relay) == 0)
        self.eventually("mail is taken again", lambda: self.send(relay, 1).startswith("250"), seconds)
        self.eventually("it leaves", lambda: self.queued(relay) == 0)

    def queued(self, relay):
        return sum(meter(relay, f'trackpost_queue_messages{{state="{state}"}}')
                   for state in ("ready", "deferred", "sending"))

    def fill(self):
        """Somebody else leaves less than mail needs, though not nothing."""
        with open(os.path.join(self.disk, "foreign"), "wb") as file:
            os.posix_fallocate(file.fileno(), 0, free(self.disk) - MIB // 2)

    def test_history_that_has_filled_the_disk_gives_way(self):
        relay = self.ground()
        with open(os.path.join(self.disk, "foreign"), "wb") as file:
            os.posix_fallocate(file.fileno(), 0, 8 * MIB)
        relay.start()
        self.until_refused(relay)
        self.assertGreater(size(self.store), 10 * MIB, "history is not what fills the disk")
        self.takes_mail_again(relay)
        self.eventually("/readyz", relay.ready)

    def test_a_store_that_does_not_open_keeps_nothing_of_the_log(self):
        relay = self.ground()
        # Where sled has a file.
        os.makedirs(os.path.join(self.store, "db"))
        relay.start()
        self.assertEqual(meter(relay, "trackpost_store_open"), 0)
        self.until_refused(relay, recipients=1, size=300_000)
        self.assertGreater(size(os.path.join(relay.data, "log")), 10 * MIB)
        self.takes_mail_again(relay, 20)
        self.eventually("the log is small", lambda: size(os.path.join(relay.data, "log")) < 4 * MIB)

    def test_a_large_store_that_does_not_open_gives_way(self):
        relay = self.ground()
        os.makedirs(os.path.join(self.store, "db"))
        with open(os.path.join(self.store, "db", "old"), "wb") as file:
            file.write(os.urandom(20 * MIB))
        relay.start()
        self.fill()
        self.eventually("mail is refused", lambda: self.send(relay, 1).startswith("452"))
        self.takes_mail_again(relay)
        self.eventually("history is written again", lambda: meter(relay, "trackpost_store_open") == 1)

    def test_a_damaged_store_that_was_put_aside_goes_before_the_history(self):
        relay = self.ground()
        os.makedirs(f"{self.store}.bad")
        with open(os.path.join(f"{self.store}.bad", "db"), "wb") as file:
            file.write(os.urandom(20 * MIB))
        relay.start()
        self.assertTrue(self.send(relay).startswith("250"))
        self.fill()
        self.eventually("mail is refused", lambda: self.send(relay, 1).startswith("452"))
        self.takes_mail_again(relay)
        self.assertFalse(os.path.exists(f"{self.store}.bad"))
        self.assertEqual(relay.logged("the history is given up"), [])

    def test_how_much_history_may_take_follows_the_disk(self):
        relay = self.ground()
        relay.start()
        while size(self.store) < 16 * MIB:
            self.assertTrue(self.send(relay).startswith("250"))
        self.assertEqual(ask(relay.api, "/healthz")[0], 200)
        self.assertEqual(relay.stop(), 0)
        self.assertEqual(relay.logged("the history takes too much"), [])
        for spare in ("reserve", "store.ballast"):
            os.remove(os.path.join(relay.data, spare))
        subprocess.run(["mount", "-o", "remount,size=30m", self.disk], check=True)
        found = os.statvfs(self.disk)
        relay.start()
        (line,) = self.eventually("the history is cut", lambda: relay.logged("the history takes too much"), 40)
        self.assertIn(f" most={(found.f_blocks * found.f_frsize - MIB) // 2}", line)


def free(folder):
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def size(folder):
    paths = (os.path.join(where, name) for where, _, names in os.walk(folder) for name in names)
    return sum(os.path.getsize(path) for path in paths if os.path.exists(path))


if __name__ == "__main__":
    unittest.main()
