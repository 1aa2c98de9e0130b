"""A domain's life: from nothing to verified, to missing, to failed, and back; by itself, and over restarts."""

import concurrent.futures
import time

import mail
import resolver
import rest
from case import DAY, HOUR, LINKS, Case, side_by_side as load_tests  # noqa: F401
from server import TARGET
from support import until

HOST = "links.example.com"
# Each check that is in vain is followed by the next of these pauses, the last again and again.
PAUSES = (5, 15, 30, 60, 120, 300, 600, 1200, 2400, 3600, 7200, 7200)
ALL = 72 * HOUR


class Beginning(Case):
    def test_goes_from_not_started_to_verified_by_itself(self):
        self.dns.zone("example.com")
        server = self.relay(direct=True)
        domain = rest.create(server, "example.com")
        self.assertEqual(domain["status"], "not_started")
        self.assertEqual(domain["records"], [{"record": "Tracking", "name": HOST, "type": "CNAME", "ttl": "Auto",
                                              "status": "not_started", "value": TARGET}])
        self.assertNotIn("active_tracking_subdomain", domain)
        self.assertIsNone(self.tracked(server))

        domain = rest.verify(server, domain)
        self.assertEqual((domain["status"], rest.status(domain)), ("pending", "pending"))
        self.assertTrue(rest.record(domain).get("found"), domain)
        self.assertTrue(3 < self.next_check(domain) < 7, domain)
        self.assertIsNone(self.tracked(server))

        self.dns.zone("example.com", LINKS)
        domain = self.wait_for(server, domain, "verified", seconds=15)
        self.assertEqual((domain["status"], domain["active_tracking_subdomain"]), ("verified", "links"))
        self.assertNotIn("found", rest.record(domain))
        self.assertEqual(self.tracked(server), HOST)

    def test_nothing_is_asked_before_verify(self):
        self.dns.zone("example.com", LINKS)
        server = self.relay()
        domain = rest.create(server, "example.com")
        other = rest.create(server, "example.org")
        self.dns.zone("example.org", LINKS)
        rest.verify(server, other)
        # The other one's check shows that the relay does look.
        self.wait_for(server, other, "verified")
        self.assertEqual(rest.status(rest.fetch(server, domain)), "not_started")
        self.assertEqual(self.resolver.asked(HOST, "CNAME"), [])

    def test_a_record_that_is_there_is_verified_at_once(self):
        self.dns.zone("example.com", LINKS)
        server = self.relay()
        domain = self.verified(server)
        self.assertEqual(domain["status"], "verified")
        self.assertEqual(self.tracked(server), HOST)

    def test_a_domain_without_a_subdomain_has_nothing_to_verify(self):
        server = self.relay()
        domain = rest.verify(server, rest.create(server, "example.com", None))
        self.assertEqual((domain["status"], domain["records"]), ("verified", []))
        self.assertIsNone(self.tracked(server))

    def test_switches_decide_once_it_is_verified(self):
        self.dns.zone("example.com", LINKS)
        server = self.relay()
        domain = self.verified(server, open_tracking=False, click_tracking=False)
        self.assertIsNone(self.tracked(server))
        rest.update(server, domain, open_tracking=True)
        sent = mail.send(server, self.smarthost, "example.com")
        self.assertEqual((sent.host, bool(sent.pixel)), (None, True))
        rest.update(server, domain, open_tracking=False, click_tracking=True)
        sent = mail.send(server, self.smarthost, "example.com")
        self.assertEqual((sent.host, bool(sent.pixel)), (HOST, False))


class Asking(Case):
    def test_a_check_asked_for_during_another_is_made(self):
        """What the first one finds is older than the question: it is no answer to it."""
        self.dns.zone("example.com", LINKS)
        server = self.relay()
        domain = self.verified(server)
        self.resolver.fail(resolver.late(1.5), HOST)
        since = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            first = pool.submit(rest.verify, server, domain)
            until("the first question", lambda: self.resolver.asked(HOST, since=since))
            # By now the record is on its way to the relay, and here it goes.
            time.sleep(0.5)
            self.dns.zone("example.com")
            rest.verify(server, domain)
            first.result()
        self.resolver.heal(HOST)
        self.wait_for(server, domain, "temporary_failure", seconds=10)

    def test_asking_again_and_again_is_answered_all_the_same(self):
        """A look that takes longer than the pause between two questions still counts."""
        self.dns.zone("example.com", LINKS)
        server = self.relay()
        domain = rest.create(server, "example.com")
        self.resolver.fail(resolver.late(1), HOST)
        with concurrent.futures.ThreadPoolExecutor(30) as pool:
            asked = []

            def status():
                asked.append(pool.submit(rest.verify, server, domain))
                time.sleep(0.4)
                return rest.status(rest.fetch(server, domain))

            until("it to be verified while it is asked", lambda: status() == "verified", 20)
            self.dns.zone("example.com")
            until("it to be missed while it is asked", lambda: status() == "temporary_failure", 20)
            for one in asked:
                one.result()

    def test_dead_name_servers_hold_nobody_up(self):
        self.dns.zone("example.com", LINKS)
        server = self.relay()
        names = [f"dead{number:02}.example.org" for number in range(40)]
        for name in names:
            self.resolver.fail(resolver.silent, f"links.{name}")
        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            list(pool.map(lambda name: rest.verify(server, rest.create(server, name)), names))
        began = time.monotonic()
        self.verified(server)
        self.assertLess(time.monotonic() - began, 10)

    def test_many_ask_at_once(self):
        self.dns.zone("example.com", LINKS)
        server = self.relay()
        domain = rest.create(server, "example.com")
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            seen = list(pool.map(lambda _: rest.verify(server, domain), range(40)))
        self.assertEqual({rest.status(one) for one in seen}, {"verified"})
        self.assertLess(len(self.resolver.asked(HOST, "CNAME")), 100)


class Restarts(Case):
    def test_pauses_grow_and_survive_restarts(self):
        self.dns.zone("example.com")
        server = self.relay(clock=True)
        domain = rest.verify(server, rest.create(server, "example.com"))
        for pause in PAUSES:
            due = rest.record(domain)["next_check_at"]
            self.assertAlmostEqual(self.next_check(domain), pause, delta=3 + pause / 4)
            self.clock.go_on(pause * 1.3 + 1)
            server.restart()

            def checked_again(due=due):
                fetched = rest.fetch(server, domain)
                return fetched if rest.record(fetched)["next_check_at"] != due else None

            domain = until("the check that is due", checked_again)
            self.assertEqual(rest.status(domain), "pending")
        self.dns.zone("example.com", LINKS)
        self.clock.go_on(2 * PAUSES[-1])
        server.restart()
        self.wait_for(server, domain, "verified", seconds=10)

    def test_a_restart_in_between_neither_forgets_nor_hurries(self):
        self.dns.zone("example.com")
        server = self.relay(clock=True)
        domain = rest.verify(server, rest.create(server, "example.com"))
        first = rest.record(domain)["next_check_at"]
        domain = until("the second check", lambda: later(server, domain, first), 15)
        server.restart()
        again = rest.fetch(server, domain)
        self.assertEqual(rest.record(again), rest.record(domain))
        self.dns.zone("example.com", LINKS)
        due = self.next_check(again)
        self.wait_for(server, domain, "verified", seconds=due + 10)
        self.assertEqual(self.tracked(server), HOST)

    def test_a_verified_domain_stays_so(self):
        self.dns.zone("example.com", LINKS)
        server = self.relay()
        domain = self.verified(server)
        server.restart()
        self.assertEqual(rest.status(rest.fetch(server, domain)), "verified")
        self.assertEqual(self.tracked(server), HOST)


class Ending(Case):
    def test_failed_after_72_hours_and_verify_begins_anew(self):
        self.dns.zone("example.com")
        server = self.relay(clock=True)
        domain = rest.verify(server, rest.create(server, "example.com"))
        self.clock.set(ALL - HOUR)
        server.restart()
        until("the check in the 71st hour", lambda: (self.next_check(rest.fetch(server, domain)) or 0) > 0)
        self.assertEqual(rest.status(rest.fetch(server, domain)), "pending")
        self.clock.set(ALL + 2 * HOUR + 60)
        server.restart()
        domain = self.wait_for(server, domain, "failed")
        self.assertEqual(domain["status"], "failed")
        self.assertNotIn("next_check_at", rest.record(domain))
        self.assertTrue(rest.record(domain)["found"])

        domain = rest.verify(server, domain)
        self.assertEqual((domain["status"], rest.status(domain)), ("pending", "pending"))
        self.assertTrue(0 < self.next_check(domain) < 7, domain)
        self.dns.zone("example.com", LINKS)
        self.wait_for(server, domain, "verified", seconds=15)

    def test_the_72_hours_pass_while_it_runs(self):
        self.dns.zone("example.com")
        server = self.relay(clock=True)
        domain = rest.verify(server, rest.create(server, "example.com"))
        self.clock.set(ALL + 60)
        self.wait_for(server, domain, "failed", seconds=20)

    def test_a_record_that_vanishes_leaves_tracking_on_and_comes_back(self):
        self.dns.zone("example.com", LINKS)
        server = self.relay()
        domain = self.verified(server)
        self.dns.zone("example.com")
        domain = rest.verify(server, domain)
        self.assertEqual(rest.status(domain), "temporary_failure")
        self.assertNotEqual(domain["status"], "temporary_failure", "two SDKs break on it")
        self.assertTrue(rest.record(domain)["found"])
        self.assertEqual(self.tracked(server), HOST)
        self.dns.zone("example.com", LINKS)
        domain = rest.verify(server, domain)
        self.assertEqual((domain["status"], rest.status(domain)), ("verified", "verified"))
        self.assertNotIn("found", rest.record(domain))

    def test_it_comes_back_by_itself_as_well(self):
        self.dns.zone("example.com", LINKS)
        server = self.relay()
        domain = self.verified(server)
        self.dns.zone("example.com", "links CNAME other.example.net.")
        domain = rest.verify(server, domain)
        self.assertEqual(rest.status(domain), "temporary_failure")
        self.dns.zone("example.com", LINKS)
        self.wait_for(server, domain, "verified", seconds=15)

    def test_after_72_hours_of_absence_no_new_mail_is_tracked(self):
        self.dns.zone("example.com", LINKS)
        server = self.relay(clock=True)
        domain = self.verified(server)
        sent = mail.send(server, self.smarthost, "example.com")
        self.dns.zone("example.com")
        rest.verify(server, domain)
        self.clock.set(ALL - 2 * HOUR)
        server.restart()
        until("the check in the 70th hour", lambda: (self.next_check(rest.fetch(server, domain)) or 0) > 0)
        self.assertEqual(rest.status(rest.fetch(server, domain)), "temporary_failure")
        self.assertEqual(self.tracked(server), HOST)
        self.clock.set(ALL + 3 * HOUR)
        server.restart()
        domain = self.wait_for(server, domain, "failed")
        self.assertEqual(domain["status"], "failed")
        self.assertIsNone(self.tracked(server))
        self.assertEqual(mail.follow(server, sent.link), (302, mail.PAGE))
        self.dns.zone("example.com", LINKS)
        self.assertEqual(rest.status(rest.verify(server, domain)), "verified")
        self.assertEqual(self.tracked(server), HOST)

    def test_days_later_a_verified_one_has_not_failed(self):
        self.dns.zone("example.com", LINKS)
        server = self.relay(clock=True)
        domain = self.verified(server)
        self.clock.set(30 * DAY)
        server.restart()
        self.assertEqual(rest.status(rest.verify(server, domain)), "verified")
        self.assertEqual(self.tracked(server), HOST)


def later(server, domain, than):
    fetched = rest.fetch(server, domain)
    return fetched if rest.record(fetched).get("next_check_at") != than else None
