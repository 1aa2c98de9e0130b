"""When a failed order is made again: after pauses that grow, when the CA says, by a clock that may be wrong."""

import email.utils
import time

import paths  # noqa: F401
import rest
from base import DAY, HOST, HOUR, LINKS, TARGET, Acme, certificate, load_tests  # noqa: F401
from failing import SECOND_PAUSE, Failing
from front import error, of, problem
from support import until

LONGEST = 12 * HOUR


class Pauses(Failing):
    def test_they_grow(self):
        found = self.fails("order", problem(403, "unauthorized", "this account is locked"), "this account is locked")
        for number in range(13):
            wanted = min(60 * 2 ** number, LONGEST)
            self.assertTrue(wanted * 0.5 <= self.retry_in(found) <= wanted * 1.5, (number, wanted, found))
            asked, due = len(self.front.orders(HOST)), found["next_try_at"]
            self.pass_to_next_try(self.server, self.domain)
            domain = self.reaches(self.server, self.domain, ("failed", "waiting"),
                                  also=lambda one, due=due: one.get("next_try_at", due) != due)
            found = certificate(domain)
            self.assertEqual(len(self.front.orders(HOST)), asked + 1)
        self.recovers()

    def retry_after(self, value, wanted, status=429, kind="rateLimited"):
        told = problem(status, kind, "too many certificates", Retry_After=value)
        found = self.fails("order", of(HOST, told), "too many certificates")
        self.assertTrue(wanted - 60 <= self.retry_in(found) <= wanted * 1.25 + 60, found)
        asked = len(self.front.orders(HOST))
        self.assertEqual(asked, 1)
        # Not before, whatever happens.
        self.clock.go_on(wanted - 600)
        self.server.restart()
        again = self.failing(self.server, self.domain)
        self.assertEqual(len(self.front.orders(HOST)), asked)
        self.assertGreater(self.retry_in(again), 0)
        self.recovers()

    def test_seconds(self):
        self.retry_after(7200, 7200)

    def test_a_date(self):
        self.retry_after(email.utils.formatdate(time.time() + 3 * HOUR, usegmt=True), 3 * HOUR)

    def test_longer_than_ours(self):
        self.retry_after(2 * DAY, 2 * DAY)

    def test_of_a_balancer(self):
        self.retry_after(7200, 7200, 503, "serverInternal")

    def test_one_that_is_no_time(self):
        told = problem(429, "rateLimited", "too many", Retry_After="soon")
        found = self.fails("order", of(HOST, told), "too many")
        self.assertTrue(20 < self.retry_in(found) <= SECOND_PAUSE, found)

    def test_one_that_is_too_long_to_be_meant(self):
        told = problem(429, "rateLimited", "too many", Retry_After=10 ** 15)
        found = self.fails("order", of(HOST, told), "too many")
        self.assertLess(self.retry_in(found), 400 * DAY)

    def test_others_go_on(self):
        """A limit is mostly that of one registered domain: no customer's holds for the others."""
        told = problem(429, "rateLimited", "too many certificates for example.com", Retry_After=2 * DAY)
        self.fails("order", of(HOST, told), "too many")
        self.dns.zone("example.org", LINKS)
        self.obtained(self.server, "example.org")

    def test_one_that_waits_for_others_says_so(self):
        """Where a limit does hold for all, a host that was not even asked for has a reason and a time."""
        told = problem(429, "rateLimited", "too many new orders", Retry_After=7200)
        self.server = self.begin(clock=True, faults={"order": told})
        until("an order", lambda: self.front.orders())
        self.domain = self.ask(self.server)
        self.failing(self.server, self.domain)
        self.recovers()

    def test_down_for_many(self):
        """A CA that is down is asked once for each host, and no more before its time."""
        names = [f"d{number}.example.com" for number in range(10)]
        self.server = self.begin(clock=True, names=(), faults={"directory": error(503, Retry_After=3600)})
        self.dns.zone("example.com", *(f"links.d{number} CNAME {TARGET}." for number in range(10)))
        for name in names:
            self.failing(self.server, self.ask(self.server, name))
        self.assertLessEqual(len(self.front.requests("directory")), len(names) + 1)


class Clocks(Acme):
    def test_one_that_is_behind(self):
        """By its clock the CA's own certificate is not valid yet."""
        self.clock.set(-3 * 365 * DAY)
        server = self.begin(clock=True)
        domain = self.ask(server)
        found = self.failing(server, domain)
        self.assertRegex(found["message"].lower(), "certificate|valid|clock")
        self.assertIsNone(self.tracked(server))
        self.clock.set(0)
        self.ready(server, domain, seconds=30)

    def test_one_that_is_ahead_of_the_certificates_end(self):
        server = self.begin(clock=True, validity=DAY)
        self.clock.set(10 * DAY)
        domain = self.ask(server)
        until("an order", lambda: self.front.orders(HOST))
        found = self.failing(server, domain)
        self.assertIsNone(self.tracked(server), "by its own clock the certificate has expired")
        self.assertRegex(found["message"].lower(), "expire|clock|valid")
        end = time.monotonic() + 5
        while time.monotonic() < end:
            self.assertLessEqual(len(self.front.orders(HOST)), 2)
            time.sleep(0.2)
        self.clock.set(0)
        rest.verify(server, domain)
        self.ready(server, domain, seconds=30)
