"""What leaves verifies: all fixtures, and 500 messages made to be awkward, through the real program, by three
verifiers.

A failure names its message: `g-17` is `generated.message(17)`.
"""

import dataclasses
import pathlib
import re
import unittest

import paths  # noqa: F401, I001: it says where some of the others are
import generated
import verifiers
from signing import DOMAIN, Ground, split, without_trace
from support import POLICY, fixtures, folder, verify

COUNT = 500
OURS = dataclasses.replace(POLICY, on_signed="rewrite")


class Signatures(unittest.TestCase):
    """One relay for all, since nothing is changed here."""

    @classmethod
    def setUpClass(cls):
        cls.ground = Ground(pathlib.Path(cls.enterClassContext(folder())) / "ground")
        cls.addClassCleanup(cls.ground.close)
        cls.ground.signed()

    def through(self, messages):
        """What arrived of each, by name; all of it signed once, and fit to be verified."""
        arrived = dict(zip(messages, self.ground.send(list(messages.values())), strict=True))
        self.assertEqual(self.ground.failures(arrived), {})
        return arrived

    def test_every_fixture(self):
        messages = {name: fixtures.load(name)[0] for name in fixtures.names()}
        self.assertGreater(len(messages), 80)
        arrived = self.through(messages)
        faults = {}
        for name, original in messages.items():
            # SMTP knows no last line without its end, here that of a pixel in a body that had no line.
            sent = arrived[name] if original.partition(b"\r\n\r\n")[2] else arrived[name].removesuffix(b"\r\n")
            report = verify.verify(original.removesuffix(b"\r\n") + b"\r\n", sent, OURS, signed=True)
            faults |= {name: report["violations"]} if report["violations"] else {}
        self.assertEqual(faults, {})

    def test_awkward_messages(self):
        messages = {f"g-{seed}": generated.message(seed) for seed in range(COUNT)}
        arrived = self.through(messages)
        rewritten = sum(b"/c/" in message for message in arrived.values())
        # Enough of each kind, or the whole says little.
        self.assertGreater(rewritten, COUNT // 4)
        self.assertGreater(sum(map(verifiers.is_unread, messages.values())), COUNT // 50)
        self.assertGreater(sum(not message.isascii() for message in messages.values()), COUNT // 2)
        self.assertGreater(sum(message.endswith(b"\r\n\r\n") for message in messages.values()), COUNT // 20)
        untouched = [name for name, message in arrived.items() if self.rest(message).startswith(messages[name])]
        self.assertGreater(len(untouched), COUNT // 4)

    def rest(self, message):
        return without_trace(split(message)[1])

    def test_what_is_changed_on_the_way_no_longer_verifies(self):
        """The verifiers do look."""
        arrived = self.ground.one(fixtures.load("newsletter")[0])
        self.assertEqual(self.ground.failures({"as it came": arrived}), {})
        field, rest = split(arrived)
        changed = {
            "body": field + rest[:-40] + b"x" + rest[-40:],
            "subject": field + re.sub(rb"\r\nSubject: ", b"\r\nSubject: Re: ", rest, count=1),
            "another From": b"From: evil@example.org\r\n" + arrived,
            "no Date": field + re.sub(rb"\r\nDate: .*", b"", rest, count=1),
            "selector": field.replace(b"s=trackpost;", b"s=other;") + rest,
            "nothing behind b=": re.sub(rb"b=[^;]*;\r\n\Z", b"b=;\r\n", field) + rest,
        }
        theirs = verifiers.opendkim(changed, self.ground.on_53)
        perls = verifiers.mail_dkim(changed, DOMAIN, self.ground.dns.address)
        for name, message in changed.items():
            said = (theirs[name], perls[name], verifiers.dkimpy(message, DOMAIN, self.ground.dns.address))
            with self.subTest(name):
                self.assertNotIn(None, said)

    def test_what_may_change_on_the_way_does_not_matter(self):
        arrived = self.ground.one(fixtures.load("newsletter")[0])
        field, rest = split(arrived)
        head, body = rest.split(b"\r\n\r\n", 1)
        changed = {
            "trace": b"Received: from a by b; Tue, 24 Nov 2026 06:00:00 +0000\r\n" + arrived,
            "folding": field.replace(b"\r\n\t", b"\r\n  \t") + re.sub(rb"\r\nSubject: ", b"\r\nSUBJECT:\r\n\t ", rest),
            "blanks": field + head + b"\r\n\r\n" + body.replace(b"\r\n", b" \t\r\n"),
            "empty lines": arrived + b"\r\n \r\n\r\n",
        }
        self.assertEqual(self.ground.failures(changed), {})

    def test_everybody_gets_a_signature_of_their_own(self):
        original = fixtures.load("newsletter")[0]
        before = len(self.ground.smarthost.copies)
        recipients = [f"r{n}@example.net" for n in range(7)]
        self.ground.send([original], recipients=recipients)
        copies = self.ground.of_recipients(recipients, before)
        self.assertEqual(self.ground.failures(copies), {})
        bodies = {re.search(rb"bh=([^;]*)", split(message)[0])[1] for message in copies.values()}
        self.assertEqual(len(bodies), len(recipients), "each has links of their own")
