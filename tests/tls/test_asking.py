"""Asking for a verification cuts a pause short, but not the CA's, and not again and again: whose key it is does not
matter."""

import time

import paths  # noqa: F401
import handshake
import rest
from base import HOST, SOON, TARGET, Acme, certificate, load_tests  # noqa: F401
from failing import Failing
from front import error, of, problem
from support import until

MANY = 40
LIMITED = problem(429, "rateLimited", "too many certificates", Retry_After=7200)
LOCKED = problem(403, "unauthorized", "this account is locked")


class Again(Failing):
    def ask_often(self, command=False, name="example.org"):
        for number in range(MANY):
            rest.verify(self.server, self.domain)
            if command and number % 10 == 0:
                self.server.command("domain", "verify", "example.com")
        # One that is ordered shows that there was time for orders.
        self.dns.zone(name, f"links CNAME {TARGET}.")
        self.obtained(self.server, name)

    def test_the_cas_own_time_stands(self):
        found = self.fails("order", of(HOST, LIMITED), "too many certificates")
        self.ask_often(command=True)
        self.assertEqual(len(self.front.orders(HOST)), 1)
        again = certificate(rest.fetch(self.server, self.domain))
        self.assertEqual(again["next_try_at"], found["next_try_at"])
        self.recovers()

    def test_for_a_key_that_is_tied(self):
        self.fails("order", of(HOST, LIMITED), "too many certificates")
        whole, self.server.token = self.server.token, self.server.command(
            "key", "create", "--name", "tied", "--permission", "full_access", "--domain", "example.com").strip()
        for _ in range(MANY):
            rest.verify(self.server, self.domain)
        self.server.token = whole
        self.ask_often()
        self.assertEqual(len(self.front.orders(HOST)), 1)

    def test_removing_and_adding_is_no_way_around_it(self):
        found = self.fails("order", of(HOST, LIMITED), "too many certificates",
                           settings={"tracking": {"removed_domain_grace": "0"}})
        for _ in range(3):
            rest.remove(self.server, self.domain)
            self.domain = self.ask(self.server)
        self.ask_often()
        self.assertEqual(len(self.front.orders(HOST)), 1)
        self.assertEqual(certificate(rest.fetch(self.server, self.domain))["next_try_at"], found["next_try_at"])

    def test_a_pause_of_ours_is_cut_short_once(self):
        self.fails("order", of(HOST, LOCKED), "this account is locked")
        self.ask_often(command=True)
        self.assertEqual(len(self.front.orders(HOST)), 2)
        # Some minutes later it may be cut short again; by then our own pause is over as well.
        self.clock.go_on(601)
        self.server.restart()
        self.comes_to(3)
        for _ in range(MANY):
            rest.verify(self.server, self.domain)
        self.comes_to(4)
        self.ask_often(name="example.net")
        self.assertEqual(len(self.front.orders(HOST)), 4)

    def comes_to(self, number):
        """So many orders were made and have failed."""
        until("another order", lambda: len(self.front.orders(HOST)) == number, SOON)
        until("its end", lambda: self.retry_in(certificate(rest.fetch(self.server, self.domain))) > 30, SOON)

    def test_a_name_that_is_refused_is_asked_for_once_more(self):
        self.server = self.begin(faults={"order": of(HOST, problem(400, "rejectedIdentifier", "not this one"))})
        self.domain = self.ask(self.server)
        self.reaches(self.server, self.domain, ("failed",))
        self.ask_often()
        self.assertEqual(len(self.front.orders(HOST)), 2)
        self.assertEqual(certificate(rest.fetch(self.server, self.domain))["state"], "failed")


class Target(Acme):
    """Nobody's key asks for the certificate of the name that all CNAMEs lead to; the operator does."""

    def refused(self):
        server = self.begin(faults={"order": of(TARGET, problem(400, "rejectedIdentifier", "not the operator's"))})
        domain = self.obtained(server)
        until("the refusal", lambda: "not the operator's" in server.command("domain", "list"), SOON)
        return server, domain

    def test_its_state_is_shown(self):
        server, _ = self.refused()
        (line,) = [one for one in server.command("domain", "list").splitlines() if TARGET in one]
        for part in ("no certificate", "failed", "not the operator's"):
            self.assertIn(part, line)
        (listed,) = server.json("domain", "list")
        found = listed["target_certificate"]
        self.assertEqual((found["host"], found["state"]), (TARGET, "failed"))
        self.front.heal()
        server.command("domain", "verify", "example.com")
        until("its certificate", lambda: handshake.shaken(self.secure, TARGET, self.root), SOON)
        self.assertIn(f"{TARGET}: certificate valid until", server.command("domain", "list"))

    def test_keys_do_not_ask_for_it(self):
        server, domain = self.refused()
        for _ in range(5):
            rest.verify(server, domain)
        self.dns.zone("example.org", f"links CNAME {TARGET}.")
        self.obtained(server, "example.org")
        self.assertEqual(len(self.front.orders(TARGET)), 1)
        self.assertNotIn("target_certificate", rest.fetch(server, domain))

    def test_a_start_asks_for_it(self):
        server, _ = self.refused()
        self.front.heal()
        server.restart()
        until("its certificate", lambda: handshake.shaken(self.secure, TARGET, self.root), SOON)


class Slots(Acme):
    def test_slow_orders_of_one_domain_leave_room(self):
        """Two orders of example.com hang; its third host waits, and another domain's is served."""
        subdomains = ("a", "b", "c")
        server = self.begin(clock=True)
        self.dns.zone("example.com", *(f"{name} CNAME {TARGET}." for name in subdomains))
        until("its certificate", lambda: handshake.shaken(self.secure, TARGET, self.root), SOON)
        # Each host is verified while the CA is ill, so that all wait at the end.
        self.front.fail("directory", error(503))
        self.front.fail("order", error(503))
        domain = rest.create(server, "example.com", "a")
        for name in subdomains:
            if name != "a":
                self.clock.go_on(25 * 3600)
                domain = rest.update(server, domain, tracking_subdomain=name)
            rest.verify(server, domain)
            self.failing(server, domain)
        held = []

        def hang(asked):
            if any(name.endswith("example.com") for name in asked.names):
                held.append(asked.names)
                time.sleep(20)
            return asked.forward()

        self.front.heal()
        self.front.fail("order", hang)
        self.clock.go_on(25 * 3600)
        server.restart()
        until("two orders", lambda: len(held) == 2, SOON)
        self.dns.zone("example.org", f"links CNAME {TARGET}.")
        self.obtained(server, "example.org")
        self.assertEqual(len(held), 2)
