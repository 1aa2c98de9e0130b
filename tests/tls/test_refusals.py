"""What a CA will never issue is not asked for again and again, and what CAA forbids is not asked for at all."""

import handshake
import resolver
import rest
from base import DAY, HOST, LINKS, TARGET, Acme, certificate, load_tests  # noqa: F401
from front import problem
from support import until

OURS = 'CAA 0 issue "ca.example.net"'
DENIED = '@ CAA 0 issue "other.example.org"'


class Rejected(Acme):
    def test_the_ca_does_not_serve_it(self):
        server = self.begin(clock=True, blocked=("example.com",))
        domain = self.ask(server)
        domain = self.reaches(server, domain, ("failed",))
        found = certificate(domain)
        self.assertIn("forbidden by policy", found["message"])
        self.assertNotIn("next_try_at", found)
        self.assertEqual(domain["status"], "verified")
        self.assertIsNone(self.tracked(server))
        asked = len(self.front.orders(HOST))
        self.assertEqual(asked, 1)
        for restart in (False, True):
            self.clock.go_on(2 * DAY)
            if restart:
                server.restart()
            # Another host's order shows that there was time for one.
            self.dns.zone(f"example{'12'[restart]}.org", LINKS)
            self.obtained(server, f"example{'12'[restart]}.org")
            self.assertEqual(len(self.front.orders(HOST)), asked)
            self.assertEqual(certificate(rest.fetch(server, domain))["state"], "failed")
        rest.verify(server, domain)
        self.reaches(server, domain, ("failed",), also=lambda _one: len(self.front.orders(HOST)) == asked + 1)
        self.assertIn("forbidden by policy", certificate(rest.fetch(server, domain))["message"])

    def test_others_are_served_meanwhile(self):
        server = self.begin(blocked=("example.com",))
        self.dns.zone("example.org", LINKS)
        domain = self.ask(server)
        self.obtained(server, "example.org")
        self.assertEqual(certificate(self.reaches(server, domain, ("failed",)))["host"], HOST)

    def test_it_changes_its_mind(self):
        server = self.begin()
        self.front.fail("order", problem(400, "rejectedIdentifier", "we do not serve this"))
        domain = self.reaches(server, self.ask(server), ("failed",))
        self.assertIn("we do not serve this", certificate(domain)["message"])
        self.front.heal()
        rest.verify(server, domain)
        self.ready(server, domain)

    def test_other_refusals_of_a_name(self):
        server = self.begin()
        self.front.fail("order", problem(400, "unsupportedIdentifier", "no such kind"))
        found = certificate(self.reaches(server, self.ask(server), ("failed", "waiting"),
                                         also=lambda one: one.get("message")))
        self.assertIn("no such kind", found["message"])


class Caa(Acme):
    def test_one_that_forbids(self):
        server = self.begin(names=())
        self.dns.zone("example.com", LINKS, DENIED)
        self.dns.zone("example.org", LINKS, f"@ {OURS}")
        domain = rest.verify(server, rest.create(server, "example.com"))
        # An answer waits for DNS, but not for long.
        domain = self.looked_at(server, domain, "pending")
        record = rest.record(domain, kind="TrackingCAA")
        self.assertEqual((record["name"], record["value"], record["status"]),
                         ("example.com", '0 issue "ca.example.net"', "pending"))
        self.assertEqual(certificate(domain)["state"], "waiting")
        # One that allows is ordered meanwhile.
        self.obtained(server, "example.org")
        self.assertEqual(self.front.orders(HOST), [])
        self.assertIsNone(self.tracked(server))
        self.assertEqual(handshake.alert(self.secure, HOST), handshake.REFUSED)

        self.dns.zone("example.com", LINKS, DENIED, f"@ {OURS}")
        domain = self.looked_at(server, rest.verify(server, domain), "verified")
        self.ready(server, domain)
        self.assertEqual(len(self.front.orders(HOST)), 1)

    def looked_at(self, server, domain, status):
        """Waits until the CAA record has this status, and the domain is looked at."""
        def seen():
            found = rest.fetch(server, domain)
            return found if rest.status(found, kind="TrackingCAA") == status else None

        return until(f"the CAA record to be {status}", seen, 20)

    def test_one_that_forbids_a_host_that_an_operator_vouches_for(self):
        """No word of ours makes a CA issue: what keeps the mail untracked is said."""
        server = self.begin(names=())
        self.dns.zone("example.com", LINKS, DENIED)
        domain = rest.create(server, "example.com")
        server.command("domain", "verify", "example.com", "--force")
        self.assertIsNone(self.tracked(server))
        said = rest.fetch(server, domain)["tracking"]
        self.assertEqual(said, f"off: {HOST} has no certificate yet: the CAA records at example.com do not name "
                               "ca.example.net")
        self.assertEqual(self.front.orders(HOST), [])

    def test_one_that_comes_later_stops_the_renewal(self):
        server = self.begin(clock=True, validity=45 * DAY)
        domain = self.obtained(server)
        self.dns.zone("example.com", LINKS, DENIED)
        domain = rest.verify(server, domain)
        self.assertIsNotNone(rest.record(domain, kind="TrackingCAA"))
        # What was issued is good until its end.
        self.assertEqual(self.tracked(server), HOST)
        self.clock.set(34 * DAY)
        server.restart()
        self.dns.zone("example.org", LINKS)
        self.obtained_old(server, "example.org")
        self.assertEqual(len(self.front.orders(HOST)), 1)
        found = certificate(rest.fetch(server, domain))
        self.assertIn("CAA", found.get("message", rest.fetch(server, domain)["tracking"]))

    def obtained_old(self, server, name):
        """A certificate that is nearly over when it comes, as the relay's clock is ahead of the CA's."""
        domain = self.ask(server, name)
        self.ready(server, domain, seconds=30)

    def test_not_known_is_not_forbidden(self):
        """A CA that cannot look it up does not issue (RFC 8659, section 3); that is for it to say."""
        server = self.begin()
        self.resolver.fail(resolver.servfail, HOST, "CAA")
        domain = self.ask(server)
        self.assertIsNone(rest.record(domain, kind="TrackingCAA"))
        self.resolver.heal(HOST, "CAA")
        rest.verify(server, domain)
        self.ready(server, domain)

    def test_a_set_at_the_target_is_the_operators(self):
        """The CA would refuse every host; the customer can do nothing about it."""
        server = self.begin(clock=True)
        self.dns.zone("relay.example.net", "track A 127.0.0.1", 'track CAA 0 issue "other.example.org"')
        domain = self.ask(server)
        self.assertIsNone(rest.record(domain, kind="TrackingCAA"))
        self.assertIn(certificate(domain)["state"], ("waiting", "ordering", "failed", "valid"))
        self.assertIn(TARGET, server.log())
        self.assertLess(len(self.front.orders(HOST)), 2)
