"""The official SDK for Node, as a script of its user: each subject with a base URL without a slash at its end and with
one, which doubles the slash of every path."""

import unittest

from ground import Ground
from mail import letter
from scripts import Node

LIMIT = 5


class Scripts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.ground = cls.enterClassContext(Ground())
        cls.node = Node(cls.ground.folder / "node")

    def script(self, name, **variables):
        """A key of its own keeps scripts from counting for each other's rate limit."""
        server = self.ground.server
        for base in (server.api, f"{server.api}/"):
            with self.subTest(base=base):
                self.node.run(f"{name}.mjs", base=base, key=server.key(), **variables)

    def test_domains(self):
        self.script("domains")

    def test_paging(self):
        self.script("paging")

    def test_keys(self):
        self.script("keys")

    def test_errors(self):
        self.script("errors", SENDING=self.ground.server.key(permission="sending_access"))

    def test_emails(self):
        sender, recipient = "news@mail.example.com", "node@example.net"
        sent = [self.ground.send(sender, recipient, letter(sender, recipient, subject))
                for subject in ("Oldest", "Middle", "Newest")]
        self.script("emails", EMAILS=",".join(reversed(sent)), SENDER=sender, RECIPIENT=recipient)


class Limit(unittest.TestCase):
    def test_too_many_requests(self):
        with Ground({"api": {"rate_limit": LIMIT}}) as ground:
            server = ground.server
            node = Node(ground.folder / "node")
            node.run("limit.mjs", base=server.api, key=ground.key, LIMIT=str(LIMIT), OTHER=server.key())
