"""A certificate is renewed when a third of its lifetime is left, however long that is, and nothing is interrupted."""

import time

import handshake
import mail
import rest
from base import DAY, HOST, HOUR, LINKS, SOON, TARGET, Acme, certificate, load_tests  # noqa: F401
from front import error
from support import until

SHORT = 36


class Renewal(Acme):
    slow = True

    def renewed(self, host, shown, seconds, watch=lambda: None):
        """Waits for another certificate, with a handshake that verifies again and again in between."""
        began = time.monotonic()
        while (now := handshake.shake(self.secure, host, self.root)).serial == shown.serial:
            self.assertLess(time.monotonic() - began, seconds, "no other certificate")
            watch()
            time.sleep(0.2)
        return now

    def test_a_short_one(self):
        server = self.begin(validity=SHORT)
        domain = self.obtained(server)
        pid = server.process.pid
        sent = mail.send(server, self.smarthost, "example.com")
        shown = handshake.shake(self.secure, HOST, self.root)

        def still():
            self.click(sent.link, self.root)
            self.assertIn(certificate(rest.fetch(server, domain))["state"], ("valid", "ordering"))

        now = self.renewed(HOST, shown, SHORT, still)
        # Never before a third is left, but for the jitter.
        self.assertGreater(now.not_after - shown.not_after, SHORT * 0.45)
        self.assertGreater(now.not_after, shown.not_after)
        self.assertEqual(server.process.pid, pid)
        self.assertIsNone(server.process.poll())
        self.assertEqual(self.tracked(server), HOST)
        self.click(sent.link, self.root)
        self.assertLess(len(self.front.orders(HOST)), 4)

    def test_of_the_target(self):
        self.begin(validity=SHORT)
        shown = until("its certificate", lambda: handshake.shaken(self.secure, TARGET, self.root), SOON)
        self.renewed(TARGET, shown, SHORT)

    def test_of_a_removed_domain(self):
        server = self.begin(validity=SHORT)
        domain = self.obtained(server)
        sent = mail.send(server, self.smarthost, "example.com")
        rest.remove(server, domain)
        shown = handshake.shake(self.secure, HOST, self.root)
        self.renewed(HOST, shown, SHORT)
        self.click(sent.link, self.root)

    def no_more_of(self, said, *records):
        """A removed domain's zone has changed: nothing is ordered, and the log says why. Another's renewal shows that
        there was time."""
        server = self.begin(clock=True, validity=45 * DAY)
        domain = self.obtained(server)
        orders = len(self.front.orders(HOST))
        rest.remove(server, domain)
        self.dns.zone("example.com", *records)
        shown = until("its certificate", lambda: handshake.shaken(self.secure, TARGET, self.root), SOON)
        self.clock.set(34 * DAY)
        server.restart()
        self.renewed(TARGET, shown, 30)
        until("the reason", lambda: f"no certificate: {said}" in server.log() and HOST in server.log(), SOON)
        self.assertEqual(len(self.front.orders(HOST)), orders)
        # What was issued is used to its end.
        self.assertIsNone(handshake.alert(self.secure, HOST))

    def test_a_removed_domain_that_leads_elsewhere_is_let_go(self):
        self.no_more_of("found CNAME elsewhere.example.org", "links CNAME elsewhere.example.org.")

    def test_a_removed_domain_that_leads_nowhere_is_let_go(self):
        self.no_more_of("found nothing at links.example.com")

    def test_a_removed_domain_whose_caa_forbids_is_let_go(self):
        self.no_more_of("the CAA records at example.com do not name ca.example.net", LINKS,
                        '@ CAA 0 issue "other.example.org"')

    def test_a_removed_domain_with_our_address_in_its_place(self):
        """Flattened: a CNAME that the provider has replaced by what is behind it."""
        server = self.begin(clock=True, validity=45 * DAY)
        domain = self.obtained(server)
        rest.remove(server, domain)
        self.dns.zone("example.com", "links A 127.0.0.1")
        shown = handshake.shake(self.secure, HOST, self.root)
        self.clock.set(34 * DAY)
        server.restart()
        self.renewed(HOST, shown, 30)

    def test_of_an_earlier_subdomain(self):
        server = self.begin(clock=True)
        domain = self.obtained(server)
        self.dns.zone("example.com", f"links CNAME {TARGET}.", f"go CNAME {TARGET}.")
        self.clock.go_on(25 * HOUR)
        domain = self.ready(server, rest.verify(server, rest.update(server, domain, tracking_subdomain="go")))
        shown = handshake.shake(self.secure, HOST, self.root)
        # Pebble's own lifetime, unless it is told, is five years.
        self.clock.set(4 * 365 * DAY)
        server.restart()
        self.renewed(HOST, shown, 30)

    def test_an_earlier_one_that_leads_elsewhere_is_let_go(self):
        server = self.begin(clock=True)
        domain = self.obtained(server)
        self.dns.zone("example.com", "links CNAME other.example.net.", f"go CNAME {TARGET}.")
        self.clock.go_on(25 * HOUR)
        domain = self.ready(server, rest.verify(server, rest.update(server, domain, tracking_subdomain="go")))
        since = time.monotonic()
        shown = handshake.shake(self.secure, "go.example.com", self.root)
        self.clock.set(4 * 365 * DAY)
        server.restart()
        self.renewed("go.example.com", shown, 30)
        self.assertEqual(self.front.orders(HOST, since), [])

    def test_forty_five_days(self):
        """Nothing assumes ninety."""
        server = self.begin(clock=True, validity=45 * DAY)
        domain = self.obtained(server)
        self.dns.zone("example.org", f"links CNAME {TARGET}.")
        shown = handshake.shake(self.secure, HOST, self.root)
        self.clock.set(25 * DAY)
        server.restart()
        # One that is ordered has the others looked at as well.
        self.obtained(server, "example.org")
        self.assertEqual(len(self.front.orders(HOST)), 1)
        self.assertEqual(self.tracked(server), HOST)
        since = time.monotonic()
        self.clock.set(34 * DAY)
        server.restart()
        self.renewed(HOST, shown, 30)
        # What it got is old already by its clock. That is no reason to ask again and again.
        end = time.monotonic() + 10
        while time.monotonic() < end:
            self.assertLessEqual(len(self.front.orders(HOST, since)), 2)
            time.sleep(0.2)
        self.assertEqual(certificate(rest.fetch(server, domain))["state"], "valid")

    def test_in_vain_it_is_used_to_its_end(self):
        server = self.begin(validity=SHORT)
        domain = self.obtained(server)
        shown = handshake.shake(self.secure, HOST, self.root)
        self.front.fail("order", error(500))
        found = certificate(self.reaches(server, domain, ("valid",), seconds=SHORT,
                                         also=lambda one: one.get("message")))
        self.assertIn("500", found["message"])
        self.assertIn("next_try_at", found)
        self.assertEqual(handshake.shake(self.secure, HOST, self.root).serial, shown.serial)
        self.assertEqual(self.tracked(server), HOST)
        # A link that a browser would refuse is not sent: tracking ends with the certificate, or before.
        end, began = time.monotonic() + SHORT, time.time()
        while self.tracked(server):
            self.assertLess(began, shown.not_after, "tracked by a host whose certificate had expired")
            self.assertLess(time.monotonic(), end)
            began = time.time()
        fetched = self.reaches(server, domain, ("failed", "waiting"), seconds=SHORT)
        self.assertIn("certificate", fetched["tracking"])
