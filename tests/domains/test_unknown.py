"""What DNS does not say is not known, which is never "not there": nothing is lost by it, and it passes by itself."""

import time

import resolver
import rest
from case import DAY, LINKS, Case, side_by_side as load_tests  # noqa: F401
from support import until

HOST, NEW = "links.example.com", "links.example.org"
# Longer than a look-up that is never answered takes with one repetition, so that its end is seen.
WATCHED = 12
FAULTS = (resolver.servfail, resolver.refused, resolver.not_implemented, resolver.silent, resolver.truncated_for_good,
          resolver.truncated_within, resolver.lame, resolver.lame_sideways, resolver.malformed, resolver.cut_off,
          resolver.garbage, resolver.wrong_id, resolver.wrong_question)


class Unknown(Case):
    def begin(self, **options):
        """A relay, and a domain in each of the states that could be lost: verified, and pending with its record just
        added."""
        self.dns.zone("example.com", LINKS)
        self.dns.zone("example.org")
        server = self.relay(**options)
        verified = self.verified(server)
        pending = rest.verify(server, rest.create(server, "example.org"))
        self.assertEqual(rest.status(pending), "pending")
        self.dns.zone("example.org", LINKS)
        return server, verified, pending

    def fails_by(self, fault):
        server, verified, pending = self.begin()
        self.resolver.fail(fault)
        self.watch(server, verified, pending)
        self.resolver.heal()
        self.wait_for(server, pending, "verified", seconds=75)
        self.assertEqual(self.tracked(server, "example.org"), NEW)
        again = rest.verify(server, verified)
        self.assertEqual((again["status"], rest.status(again)), ("verified", "verified"))

    def watch(self, server, verified, pending):
        """Both are checked while DNS does not work, and stay as they were."""
        since = time.monotonic()
        for domain in (verified, pending):
            began = time.monotonic()
            rest.verify(server, domain)
            self.assertLess(time.monotonic() - began, 4, "an answer after 2 s, whatever DNS does")
        for name in (HOST, NEW):
            until(f"a question for {name}", lambda name=name: self.resolver.asked(name, since=since))
        while time.monotonic() < since + WATCHED:
            now = rest.fetch(server, verified)
            self.assertEqual((now["status"], rest.status(now)), ("verified", "verified"), now)
            now = rest.fetch(server, pending)
            self.assertEqual((now["status"], rest.status(now)), ("pending", "pending"), now)
            time.sleep(0.25)
        self.assertEqual(self.tracked(server), HOST)
        self.assertIsNone(self.tracked(server, "example.org"))
        found = rest.record(rest.fetch(server, pending)).get("found", "")
        self.assertNotIn("found CNAME", found)
        self.assertNotIn("proxied", found)

    def test_no_server_at_all(self):
        server, verified, pending = self.begin()
        self.resolver.stop()
        for domain in (verified, pending):
            began = time.monotonic()
            rest.verify(server, domain)
            self.assertLess(time.monotonic() - began, 4)
        end = time.monotonic() + WATCHED
        while time.monotonic() < end:
            self.assertEqual(rest.status(rest.fetch(server, verified)), "verified")
            self.assertEqual(rest.status(rest.fetch(server, pending)), "pending")
            time.sleep(0.25)
        self.assertEqual(self.tracked(server), HOST)

    def test_three_days_without_dns_take_nothing_away(self):
        server, verified, _ = self.begin(clock=True)
        self.resolver.fail(resolver.servfail)
        rest.verify(server, verified)
        for days in (1, 4, 8):
            self.clock.set(days * DAY)
            since = time.monotonic()
            server.restart()
            now = rest.verify(server, verified)
            until("a question", lambda since=since: self.resolver.asked(HOST, since=since))
            self.assertEqual((now["status"], rest.status(now)), ("verified", "verified"))
        self.assertEqual(self.tracked(server), HOST)

    def test_a_record_that_is_missing_is_not_found_again_by_silence(self):
        """Known to be missing, then not known: it stays what it was."""
        server, verified, _ = self.begin()
        self.dns.zone("example.com")
        self.assertEqual(rest.status(rest.verify(server, verified)), "temporary_failure")
        self.resolver.fail(resolver.servfail, HOST)
        self.assertEqual(rest.status(rest.verify(server, verified)), "temporary_failure")
        self.assertEqual(self.tracked(server), HOST)
        self.resolver.heal(HOST)
        self.dns.zone("example.com", LINKS)
        self.assertEqual(rest.status(rest.verify(server, verified)), "verified")

    def test_a_chain_that_breaks_off_in_silence_is_not_known(self):
        self.dns.zone("example.com", "links CNAME a.cdn.example.org.")
        self.dns.zone("cdn.example.org", "a CNAME track.relay.example.net.")
        server = self.relay()
        domain = self.verified(server)
        self.resolver.fail(resolver.servfail, "a.cdn.example.org")
        self.assertEqual(rest.status(rest.verify(server, domain)), "verified")
        self.assertEqual(self.tracked(server), HOST)

    def test_the_targets_own_trouble_is_not_the_customers(self):
        server, verified, pending = self.begin()
        self.resolver.fail(resolver.servfail, "track.relay.example.net")
        self.assertEqual(rest.status(rest.verify(server, verified)), "verified")
        self.assertEqual(rest.status(rest.verify(server, pending)), "verified")


def add(fault):
    setattr(Unknown, f"test_{fault.__name__}", lambda self: self.fails_by(fault))


for fault in FAULTS:
    add(fault)


class Truncated(Case):
    def test_tcp_has_what_udp_could_not_carry(self):
        self.dns.zone("example.com", LINKS)
        self.resolver.fail(resolver.truncated)
        server = self.relay()
        self.verified(server)
        self.assertTrue([one for one in self.resolver.asked(HOST) if one.tcp])
        self.assertEqual(self.tracked(server), HOST)

    def test_a_resolver_without_tcp(self):
        self.resolver.stop()
        self.resolver = resolver.Resolver(self.dns.address, tcp=False)
        self.addCleanup(self.resolver.stop)
        self.dns.zone("example.com", LINKS)
        server = self.relay()
        domain = self.verified(server)
        self.resolver.fail(resolver.truncated, HOST)
        rest.verify(server, domain)
        until("a question", lambda: len(self.resolver.asked(HOST)) > 1)
        self.assertEqual(rest.status(rest.fetch(server, domain)), "verified")
        self.assertEqual(self.tracked(server), HOST)


class Several(Case):
    def test_the_second_server_is_asked_where_the_first_is_dead(self):
        dead = resolver.Resolver(self.dns.address)
        dead.fail(resolver.silent)
        self.addCleanup(dead.stop)
        self.dns.zone("example.com", LINKS)
        both = ["%s:%d" % one.address for one in (dead, self.resolver)]
        server = self.relay({"dns": {"servers": both}})
        domain = rest.create(server, "example.com")
        rest.verify(server, domain)
        self.wait_for(server, domain, "verified", seconds=15)
