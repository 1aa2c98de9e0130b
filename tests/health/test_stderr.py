"""A stderr that nobody reads holds nobody up, and a refused start is told in full."""

import os
import re
import socket
import subprocess
import time
import unittest

from ground import BINARY, Case, ask, meter, send

MESSAGES = 1_000


class Stderr(Case):
    def test_mail_health_and_redirects_go_on_and_what_is_dropped_is_said_later(self):
        sink = self.sink()
        relay = self.relay(sink)
        relay.start()
        relay.add_domain()
        relay.stop()
        read, write = os.pipe()
        relay.process = subprocess.Popen([BINARY, "--config", relay.config, "serve"], stdin=subprocess.DEVNULL,
                                         stdout=subprocess.DEVNULL, stderr=write)
        os.close(write)
        self.addCleanup(lambda: relay.lives() and relay.kill())
        self.eventually("it greets", lambda: relay.greets(1))
        # Four lines each, of which a pipe holds some 600.
        sent = send(relay, MESSAGES)
        self.eventually("all is delivered", lambda: not sink.lacks(sent), 60)
        self.assertEqual(ask(relay.api, "/healthz")[0], 200)
        self.assertEqual(ask(relay.web, "/", headers={"Host": "links.shop.example.com"})[0] // 100 in (2, 3, 4), True)
        send(relay, 2_500, "n")
        dropped = self.eventually("lines are dropped", lambda: meter(relay, "trackpost_log_lines_dropped_total"), 60)
        # Now it is read, and says how many are missing.
        os.set_blocking(read, False)
        seen = bytearray()

        def said():
            try:
                while piece := os.read(read, 1 << 16):
                    seen.extend(piece)
            except BlockingIOError:
                pass
            return re.findall(rb"nobody read stderr.*lines=(\d+)", re.sub(rb"\x1b\[[0-9;]*m", b"", seen))
        self.eventually("the line that says so", lambda: max(map(int, said()), default=0) >= dropped)
        self.assertIn(b"ready", seen)
        # A polite stop ends as well when nobody reads its last words.
        send(relay, 500, "o")
        relay.process.terminate()
        began = time.monotonic()
        self.assertEqual(relay.process.wait(30), 0)
        self.assertLess(time.monotonic() - began, 20)
        os.close(read)

    def test_why_it_does_not_start_is_its_last_line(self):
        sink = self.sink()
        relay = self.relay(sink)
        taken = socket.create_server(("127.0.0.1", relay.smtp))
        self.addCleanup(taken.close)
        ended = subprocess.run([BINARY, "--config", relay.config, "serve"], capture_output=True, text=True, timeout=30)
        self.assertEqual(ended.returncode, 1)
        lines = ended.stderr.splitlines()
        self.assertRegex(lines[-1], r"^trackpost: cannot listen on 127\.0\.0\.1:\d+: ")
        self.assertIn("log recovered", lines[-2])


if __name__ == "__main__":
    unittest.main()
