"""While the log cannot be written, nothing is delivered that the next start would deliver again.

Each test queues 400 messages behind a smarthost of two connections that takes 40 a second, lets the log fail, and then
lets the smarthost go on. Twice arrives at most what was in flight, and what it took within the second after which
delivery must have stopped. Needs root, for mounting and strace.
"""

import os
import signal
import subprocess
import tempfile
import threading
import time
import unittest

from ground import Case, ask, meter, send, within

MESSAGES, CONNECTIONS, PAUSE = 400, 2, 0.05
# Two in flight, and a second's worth of the smarthost.
MOST_TWICE = CONNECTIONS + CONNECTIONS * int(1 / PAUSE)
SETTINGS = {"[smarthost]": [f"max_connections = {CONNECTIONS}"], "[queue]": ['retry = ["1s"]', 'min_free = "1MiB"']}
CALLS = "write,writev,pwrite64,pwritev,fsync,fdatasync"


class Log(Case):
    def queued(self, data=None):
        """400 messages are queued and two of them wait for the smarthost's reply."""
        sink = self.sink()
        sink.pause = PAUSE
        sink.gate.clear()
        relay = self.relay(sink, SETTINGS, data)
        relay.start()
        sent = send(relay, MESSAGES)
        self.assertEqual(sink.copies(), 0)
        return sink, relay, sent

    def fails_with(self, relay, error):
        """Every write to the log fails from now on; a function that ends that."""
        names = [f"{n:016}.{kind}" for n in range(1, 100) for kind in ("log", "new")]
        paths = [word for name in names for word in ("-P", os.path.join(relay.data, "log", name))]
        trace = os.path.join(relay.folder, "trace")
        strace = subprocess.Popen(["strace", "-f", "-p", str(relay.process.pid), "-o", trace, *paths,
                                   "-e", f"trace={CALLS}", "-e", f"inject={CALLS}:error={error}"],
                                  stderr=subprocess.PIPE, text=True)
        said = strace.stderr.readline()
        self.assertIn("attached", said)
        threading.Thread(target=strace.stderr.read, daemon=True).start()

        def end():
            if strace.poll() is None:
                strace.send_signal(signal.SIGTERM)
            strace.wait()
            strace.stderr.close()
        self.addCleanup(end)
        return end

    def stands_still(self, relay, sink):
        """Waits until it says that delivery stands still, and sees that it does; copies that were taken."""
        found = within(lambda: (found if (found := ask(relay.api, "/healthz"))[0] == 503 else None), 15)
        self.assertTrue(found, f"/healthz says nothing; {sink.copies()} of {MESSAGES} were delivered meanwhile")
        text = found[1]
        self.assertIn("delivery: stands still", text)
        self.assertRegex(text, r"log: outcomes cannot be written for \d+ s")
        time.sleep(0.5)
        before = sink.copies()
        time.sleep(1.5)
        self.assertEqual(sink.copies(), before, "delivery goes on")
        self.assertGreaterEqual(meter(relay, "trackpost_log_stuck_seconds"), 1)
        return before

    def test_after_a_stop_only_what_was_in_flight_is_sent_again_and_the_exit_says_how_much(self):
        sink, relay, sent = self.queued()
        end = self.fails_with(relay, "EIO")
        sink.gate.set()
        taken = self.stands_still(relay, sink)
        self.assertLessEqual(taken, MOST_TWICE)
        self.assertEqual(relay.stop(), 3)
        self.assertIn(f"{taken} copies that were delivered will be sent again", relay.last_line())
        end()
        relay.start()
        self.eventually("everything arrives", lambda: not sink.lacks(sent), 40)
        self.eventually("what was in flight arrives twice", lambda: sink.copies() >= MESSAGES + taken)
        self.assertEqual(sink.copies(), MESSAGES + taken)
        self.assertEqual(relay.stop(), 0)

    def test_once_the_log_is_written_again_delivery_goes_on_and_nothing_arrives_twice(self):
        sink, relay, sent = self.queued()
        end = self.fails_with(relay, "EIO")
        sink.gate.set()
        self.stands_still(relay, sink)
        end()
        self.eventually("everything arrives", lambda: not sink.lacks(sent), 40)
        self.eventually("/healthz", lambda: ask(relay.api, "/healthz")[0] == 200)
        self.assertEqual(meter(relay, "trackpost_log_stuck_seconds"), 0)
        self.assertEqual(relay.stop(), 0)
        relay.start()
        send(relay, 1, "last")
        self.eventually("a later message", lambda: not sink.lacks({"last0"}))
        self.assertEqual(sink.copies(), MESSAGES + 1)

    def test_a_full_disk_and_kill_9_repeat_only_what_was_in_flight(self):
        mounted = tempfile.mkdtemp(prefix="trackpost-full-")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", mounted], check=True)
        self.addCleanup(lambda: (subprocess.run(["umount", "-l", mounted], check=True), os.rmdir(mounted)))
        sink, relay, sent = self.queued(os.path.join(mounted, "data"))
        full = threading.Event()
        # Somebody else takes what is given up as well.
        filler = threading.Thread(target=fill, args=(os.path.join(mounted, "foreign"), full), daemon=True)
        filler.start()
        self.eventually("the disk is full", lambda: free(mounted) == 0)
        sink.gate.set()
        taken = self.stands_still(relay, sink)
        relay.kill()
        full.set()
        filler.join()
        os.remove(os.path.join(mounted, "foreign"))
        relay.start()
        self.eventually("everything arrives", lambda: not sink.lacks(sent), 40)
        send(relay, 1, "last")
        self.eventually("a later message", lambda: not sink.lacks({"last0"}))
        # Some outcomes had room in the last block that was the log's already.
        self.assertLessEqual(sink.copies() - MESSAGES - 1, min(taken, MOST_TWICE))


def free(folder):
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def fill(path, done):
    """Takes every byte that is free, until told to stop."""
    with open(path, "wb", buffering=0) as file:
        size = 1 << 20
        while not done.is_set():
            try:
                file.write(bytes(size))
            except OSError:
                size = 4096
                time.sleep(0.001)


if __name__ == "__main__":
    unittest.main()
