"""What these tests share: the relay, a smarthost whose replies wait for a gate, and what the relay says of itself."""

import http.client
import os
import pathlib
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "campaigns"))
from common import DOMAIN, Client, Relay, Sink, letter, within  # noqa: E402

TOP = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("TRACKPOST_BIN", TOP / "target/debug/trackpost")).resolve()


class Case(unittest.TestCase):
    def sink(self, down=False):
        sink = Sink(down=down)
        self.addCleanup(sink.gate.set)
        return sink

    def relay(self, sink, settings=None, data=None):
        relay = Relay(BINARY, sink.port, settings, data)
        self.addCleanup(relay.cleanup)
        return relay

    def eventually(self, what, done, seconds=20):
        found = within(done, seconds)
        self.assertTrue(found, f"{what}: not within {seconds} s")
        return found


def ask(port, path, timeout=5, headers=None):
    """Status and text."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def meter(relay, name):
    """The value of a meter, or None where there is none."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", ask(relay.api, "/metrics")[1], re.M)
    return float(found[1]) if found else None


def send(relay, count, prefix="m"):
    """Sends so many messages to recipients of their own; their names."""
    names = [f"{prefix}{n}" for n in range(count)]
    with Client(relay.smtp) as client:
        for name in names:
            reply = client.send(name, letter(name, 1_000))
            assert reply.startswith("250"), reply
    return set(names)
