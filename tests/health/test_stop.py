"""SIGTERM under clicks: every redirect that was answered is on record after the next start."""

import contextlib
import json
import re
import socket
import subprocess
import unittest

from ground import BINARY, DOMAIN, Case, Client, Sink, letter, within

ROUNDS, CONNECTIONS, TOGETHER = 10, 40, 20
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"


class Stop(Case):
    def test_every_hit_that_was_answered_is_on_record(self):
        sink = Sink(keep=True)
        relay = self.relay(sink)
        relay.start()
        relay.add_domain()
        messages = ROUNDS * CONNECTIONS * TOGETHER // 20
        with Client(relay.smtp) as client:
            for n in range(messages):
                self.assertTrue(client.send(f"r{n}", letter(f"r{n}", 1_000)).startswith("250"))
        self.eventually("the mail", lambda: len(sink.taken) >= messages)
        # Each link is followed once, so that no two hits are one.
        paths = []
        for bodies in sink.taken.values():
            text = bodies[0].replace(b"=\r\n", b"").replace(b"=3D", b"=").decode()
            paths += re.findall(rf'href="http://links\.{re.escape(DOMAIN)}(?::\d+)?(/[^"]+)"', text)
        self.assertGreaterEqual(len(paths), messages * 20)
        answered = []
        for turn in range(ROUNDS):
            share, paths = paths[:CONNECTIONS * TOGETHER], paths[CONNECTIONS * TOGETHER:]
            answered.append(self.stopped_amid(relay, share, turn))
            relay.start()
        # Some rounds end before the relay has begun, and some after it is done.
        self.assertGreater(sum(answered), CONNECTIONS)
        within(lambda: self.recorded(relay) >= sum(answered), 10)
        self.assertEqual(self.recorded(relay), sum(answered), f"answered in each round: {answered}")

    def stopped_amid(self, relay, paths, turn):
        """SIGTERM comes while the connections send their requests; how many were answered."""
        end = f" HTTP/1.1\r\nHost: links.{DOMAIN}\r\nUser-Agent: {AGENT}\r\n\r\n"
        connections = [socket.create_connection(("127.0.0.1", relay.web), 20) for _ in range(CONNECTIONS)]
        for number, connection in enumerate(connections):
            now, paths = paths[:TOGETHER], paths[TOGETHER:]
            with contextlib.suppress(OSError):
                connection.sendall("".join(f"GET {path}{end}" for path in now).encode())
            if number == (turn + 1) * CONNECTIONS // (ROUNDS + 1):
                relay.process.terminate()
        self.assertEqual(relay.process.wait(30), 0)
        return sum(read(connection).count(b"HTTP/1.1 302 ") for connection in connections)

    def recorded(self, relay):
        """Clicks on record."""
        ran = subprocess.run([BINARY, "--config", relay.config, "events", "export"], capture_output=True, text=True)
        events = [json.loads(line) for line in ran.stdout.splitlines()]
        return sum(event["type"] == "email.clicked" for event in events)


def read(connection):
    """All that was answered, to the end of the connection."""
    got = b""
    with connection:
        try:
            while piece := connection.recv(1 << 16):
                got += piece
        except ConnectionError:
            pass
    return got


if __name__ == "__main__":
    unittest.main()
