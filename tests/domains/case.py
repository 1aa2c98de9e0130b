"""What every test here stands on: a DNS server, a resolver before it, a smarthost, a relay, each of its own.

Tests of a module run side by side, as they wait more than they compute. Zones are those of names that are reserved.
"""

import datetime
import pathlib
import time
import unittest

import paths  # noqa: F401, I001: it says where some of the others are
import mail
import parallel
import rest
from knot import Knot
from resolver import Resolver
from server import TARGET, Clock, Server
from smarthost import Smarthost
from support import folder, until

LINKS = f"links CNAME {TARGET}."
HOUR = 3600
DAY = 24 * HOUR


def side_by_side(_loader, tests, _pattern):
    return parallel.Suite(tests)


class Case(unittest.TestCase):
    def setUp(self):
        kept = folder()
        self.addCleanup(kept.cleanup)
        self.folder = pathlib.Path(kept.name)
        self.dns = Knot(self.folder / "dns")
        self.addCleanup(self.dns.stop)
        self.dns.zone("relay.example.net", "track A 127.0.0.1")
        self.resolver = Resolver(self.dns.address)
        self.addCleanup(self.resolver.stop)
        self.smarthost = Smarthost()
        self.addCleanup(self.smarthost.stop)
        self.clock = Clock(self.folder)

    def relay(self, settings=None, clock=False, direct=False, environment=None):
        """Started. With `clock` it goes by self.clock; `direct` leaves out the resolver."""
        environment = (self.clock.environment if clock else {}) | (environment or {})
        address = self.dns.address if direct else self.resolver.address
        server = Server(self.folder / "relay", self.smarthost.port, address, settings, environment)
        self.addCleanup(server.close)
        return server

    def now(self):
        """The time that the relay's clock shows, in seconds."""
        return time.time() + self.clock.ahead

    def next_check(self, domain, host=None):
        """Seconds until the relay looks again, as it says itself; None where it says nothing."""
        at = rest.record(domain, host).get("next_check_at")
        return at and datetime.datetime.fromisoformat(at).timestamp() - self.now()

    def verified(self, server, name="example.com", subdomain="links", **fields):
        """A domain that has gone through verification. Its zone has to be there."""
        domain = rest.verify(server, rest.create(server, name, subdomain, **fields))
        self.assertEqual(rest.status(domain), "verified", domain)
        return domain

    def wait_for(self, server, domain, wanted, host=None, seconds=30):
        """Until the record has a status, by itself; the domain then."""
        def seen():
            fetched = rest.fetch(server, domain)
            return fetched if rest.status(fetched, host) == wanted else None

        return until(lambda: f"{wanted}, instead of {rest.record(rest.fetch(server, domain), host)}", seen, seconds)

    def tracked(self, server, name="example.com"):
        return mail.tracked(server, self.smarthost, name)
