"""Damage on the disk costs no message that can still be read, and names the one that it costs.

Messages are queued for a smarthost that is down, the relay ends, and the log's one segment is damaged: the envelope of a
message stands in its record and once more right behind it, with the message between the two. Politely stopped, the relay
leaves an index of the segment; after kill -9 it has to read all of it. Needs strace.
"""

import os
import re
import unittest

from ground import Case, Client, letter, within

MESSAGES, DAMAGED = 12, "m5"
SETTINGS = {"[queue]": ['retry = ["1s"]', 'min_free = "1MiB"']}


class Damage(Case):
    def ended(self, kill):
        """The relay, not running; queue ids by recipient."""
        sink = self.sink(down=True)
        relay = self.relay(sink, SETTINGS)
        relay.start()
        ids = {}
        with Client(relay.smtp) as client:
            for name in (f"m{n}" for n in range(MESSAGES)):
                reply = client.send(name, letter(name, 1_000))
                self.assertTrue(reply.startswith("250"), reply)
                ids[name] = reply.split()[-1]
        if kill:
            relay.kill()
        else:
            self.assertEqual(relay.stop(), 0)
        return sink, relay, ids

    def segment(self, relay):
        return os.path.join(relay.data, "log", f"{1:016}.log")

    def envelopes(self, relay, name):
        """Where the recipient stands in the two envelopes of a message. What lies between is the message itself."""
        with open(self.segment(relay), "rb") as file:
            text = file.read()
        places = [found.start() for found in re.finditer(re.escape(f"{name}@example.net".encode()), text)]
        self.assertGreaterEqual(len(places), 3)
        return places[0], places[-1]

    def flip(self, relay, place):
        with open(self.segment(relay), "r+b") as file:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 4]))

    def delivers(self, sink, names):
        """All of them once the smarthost is there, each once, and no other."""
        sink.up()
        self.eventually("everything arrives", lambda: not sink.lacks(set(names)))
        within(lambda: sink.copies() > len(names), 1.5)
        self.assertEqual(dict(sink.arrived), dict.fromkeys(names, 1))

    def test_a_first_block_that_cannot_be_read_is_read_from_its_copy(self):
        for kill in (True, False):
            with self.subTest(kill=kill):
                sink, relay, ids = self.ended(kill)
                trace = os.path.join(relay.folder, "trace")
                # Of its first thread alone, which opens the log.
                relay.start(["strace", "-D", "-o", trace, "-P", self.segment(relay), "-e", "trace=pread64",
                             "-e", "inject=pread64:error=EIO:when=1"])
                with open(trace) as file:
                    reads = [line for line in file if line.startswith("pread64")]
                self.assertRegex(reads[0], r", 0\) += -1 EIO .*\(INJECTED\)")
                self.assertRegex(reads[1], r", 4096\) += \d+$")
                self.assertEqual(relay.logged("ERROR"), [])
                told = relay.logged(f"WARN.*is read from its copy.*{re.escape(self.segment(relay))}.*error=.*error 5")
                self.assertEqual(len(told), 1, relay.logged("WARN"))
                self.delivers(sink, ids)
                self.assertEqual(relay.stop(), 0)

    def test_one_flipped_bit_in_an_envelope_costs_no_message(self):
        for kill in (True, False):
            for which in (0, 1):
                with self.subTest(kill=kill, which=which):
                    sink, relay, ids = self.ended(kill)
                    self.flip(relay, self.envelopes(relay, DAMAGED)[which])
                    before = relay.log_size()
                    relay.start()
                    # All of the log is read only where there is no index.
                    told = relay.logged(f"its second head is used.*{ids[DAMAGED]}", before)
                    self.assertEqual(len(told), int(kill and which == 0))
                    self.delivers(sink, ids)
                    self.assertEqual(relay.stop(), 0)

    def test_a_message_whose_two_envelopes_are_damaged_is_named_and_costs_no_other(self):
        for kill in (True, False):
            with self.subTest(kill=kill):
                sink, relay, ids = self.ended(kill)
                for place in self.envelopes(relay, DAMAGED):
                    self.flip(relay, place)
                before = relay.log_size()
                relay.start()
                lost = ids.pop(DAMAGED) if kill else ids[DAMAGED]
                if kill:
                    # All of the log is read: nothing is left of the message but its id.
                    self.assertTrue(relay.logged(f"ERROR.*{lost}", before), relay.logged("ERROR", before))
                self.delivers(sink, ids)
                if not kill:
                    # The log's index knows the rest, and the history the envelope.
                    self.assertTrue(relay.logged(f"WARN.*that of the history is used.*{lost}", before))
                self.assertEqual(relay.stop(), 0)
                self.assertFalse([name for name in ids if relay.logged(f"ERROR.*{ids[name]}", before)])


if __name__ == "__main__":
    unittest.main()
