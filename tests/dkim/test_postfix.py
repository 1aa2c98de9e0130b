"""All fixtures from a real Postfix through the relay into the mailboxes of another: the signatures hold in the end."""

import pathlib
import unittest

import paths  # noqa: F401, I001: it says where some of the others are
import verifiers
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
        domain = cls.route.relay.json("domain", "update", DOMAIN, "--dkim", "true")
        (record,) = (record for record in domain["records"] if record["record"] == "DKIM")
        cls.dns.zone(DOMAIN, txt(record))
        cls.route.relay.command("domain", "verify", DOMAIN)

    def test_every_fixture(self):
        for name, user in self.users.items():
            self.route.front.sendmail(fixtures.load(name)[0], [f"{user}@example.net"], sender=SENDER)
        until(lambda: f"all mail to arrive: {self.route.waiting()}",
              lambda: all(self.route.behind.delivered(user) for user in self.users.values()), 120)
        arrived = {name: self.route.behind.wait_for(user).message for name, user in self.users.items()}
        self.assertEqual(verifiers.failures(arrived, DOMAIN, self.dns.address, self.on_53), {})
        self.assertGreater(sum(b"/c/" in message for message in arrived.values()), 40)
