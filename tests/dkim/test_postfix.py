"""All fixtures from a real Postfix through the relay into the mailboxes of another: the signatures hold in the end."""

import pathlib
import smtplib
import unittest

import paths  # noqa: F401, I001: it says where some of the others are
import verifiers
from around import Around
from knot import Knot
from route import Route
from signing import DOMAIN, txt
from support import SENDER, fixtures, folder, until


class PostfixOnBothSides(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.on_53 = verifiers.address()
        cls.dns = Knot(pathlib.Path(cls.enterClassContext(folder())) / "dns", (cls.on_53,))
        cls.addClassCleanup(cls.dns.stop)
        cls.users = {name: f"u{number}" for number, name in enumerate(fixtures.names())}
        more = {"dns": {"servers": ["%s:%d" % cls.dns.address]}}
        cls.route = cls.enterClassContext(Route(tuple(cls.users.values()), more=more))
        sign(cls.route.relay, cls.dns)

    def test_every_fixture(self):
        for name, user in self.users.items():
            self.route.front.sendmail(fixtures.load(name)[0], [f"{user}@example.net"], sender=SENDER)
        until(lambda: f"all mail to arrive: {self.route.waiting()}",
              lambda: all(self.route.behind.delivered(user) for user in self.users.values()), 120)
        arrived = {name: self.route.behind.wait_for(user).message for name, user in self.users.items()}
        self.assertEqual(verifiers.failures(arrived, DOMAIN, self.dns.address, self.on_53), {})
        self.assertGreater(sum(b"/c/" in message for message in arrived.values()), 40)


class OnePostfixAroundTheRelay(unittest.TestCase):
    """What leaves is signed and tracked; mail of a stranger who writes the same domain into From is neither."""

    def setUp(self):
        self.on_53 = verifiers.address()
        self.dns = Knot(pathlib.Path(self.enterContext(folder())) / "dns", (self.on_53,))
        self.addCleanup(self.dns.stop)
        settings = {"dns": {"servers": ["%s:%d" % self.dns.address]}}
        self.around = self.enterContext(Around(("ada", "grace", "edsger"), both=True, settings=settings))
        sign(self.around.relay, self.dns)

    def test_what_leaves_and_what_comes_in(self):
        original = fixtures.load("newsletter")[0]
        postfix = self.around.postfix
        postfix.sendmail(original, ["ada@example.net"], sender=SENDER)
        self.send(self.around.submission, original, "grace")
        self.send(self.around.port, original, "edsger")
        leaving = {user: postfix.wait_for(user).message for user in ("ada", "grace")}
        self.assertEqual(verifiers.failures(leaving, DOMAIN, self.dns.address, self.on_53), {})
        for message in leaving.values():
            self.assertIn(b"/c/", message)
        came = postfix.wait_for("edsger").message
        self.assertTrue(came.endswith(original), "not an octet of it is changed")
        self.assertIn(b"by relay.example.net", came)
        self.assertNotIn(b"DKIM-Signature:", came)

    def send(self, port, message, user):
        with smtplib.SMTP("127.0.0.1", port, "stranger.example.org") as client:
            client.sendmail("stranger@example.org", [f"{user}@example.net"], message)


def sign(relay, dns):
    """From now on mail of the domain is signed."""
    domain = relay.json("domain", "update", DOMAIN, "--dkim", "true")
    (record,) = (record for record in domain["records"] if record["record"] == "DKIM")
    dns.zone(DOMAIN, txt(record))
    relay.command("domain", "verify", DOMAIN)
