"""The tracking subdomain changes: once a day, never to nothing, and nothing that was sent breaks."""

import datetime
import re

import mail
import rest
from case import DAY, HOUR, LINKS, Case, side_by_side as load_tests  # noqa: F401
from server import TARGET

LAST_MINUTE = DAY - 60


def hosts(domain):
    return {one["name"].removesuffix(".example.com"): one["status"] for one in domain["records"]
            if one["record"] == "Tracking"}


class Changes(Case):
    def begin(self, *records):
        """A domain with a verified subdomain, links."""
        self.dns.zone("example.com", LINKS, *records)
        server = self.relay(clock=True)
        return server, self.verified(server)

    def refused(self, server, domain, subdomain):
        """The change is refused, says when, and has changed nothing; the message."""
        before = settled(rest.fetch(server, domain))
        answer = rest.call(server, "PATCH", f"/domains/{domain['id']}", {"tracking_subdomain": subdomain})
        self.assertEqual((answer.status, answer.body["statusCode"], answer.body["name"]),
                         (422, 422, "validation_error"))
        self.assertEqual(settled(rest.fetch(server, domain)), before)
        return answer.body["message"]

    def test_the_first_at_once_the_second_a_day_later(self):
        server, domain = self.begin()
        began = self.now()
        domain = rest.update(server, domain, tracking_subdomain="go")
        self.assertEqual((domain["tracking_subdomain"], domain["active_tracking_subdomain"]), ("go", "links"))
        message = self.refused(server, domain, "third")
        self.assertRegex(message, r"\d{4}-\d\d-\d\d.\d\d:\d\d", "it says when")
        self.clock.set(LAST_MINUTE)
        self.refused(server, domain, "third")
        self.clock.set(DAY + 10)
        domain = rest.update(server, domain, tracking_subdomain="third")
        self.assertEqual(domain["tracking_subdomain"], "third")
        stated = re.search(r"\d{4}-\d\d-\d\d.\d\d:\d\d", message)[0]
        self.assertIn(stated.replace(" ", "T"), (stamp(began + DAY), stamp(began + DAY + 60)), "and it was right")

    def test_the_day_survives_a_restart(self):
        server, domain = self.begin()
        rest.update(server, domain, tracking_subdomain="go")
        self.clock.set(LAST_MINUTE)
        server.restart()
        self.refused(server, domain, "third")
        self.clock.set(DAY + 10)
        server.restart()
        rest.update(server, domain, tracking_subdomain="third")

    def test_the_command_line_has_the_same_rule(self):
        server, domain = self.begin()
        server.command("domain", "update", "example.com", "--subdomain", "go")
        self.refused(server, domain, "third")
        ended = server.attempt("domain", "update", "example.com", "--subdomain", "third")
        self.assertEqual((ended.returncode, ended.stdout), (1, ""))
        self.clock.set(DAY + 10)
        rest.update(server, domain, tracking_subdomain="third")
        ended = server.attempt("domain", "update", "example.com", "--subdomain", "fourth")
        self.assertEqual(ended.returncode, 1)

    def test_the_first_subdomain_is_no_change(self):
        self.dns.zone("example.com", LINKS)
        server = self.relay()
        domain = rest.create(server, "example.com", None)
        for again in ("links", "links", "LINKS"):
            domain = rest.update(server, domain, tracking_subdomain=again)
        domain = rest.update(server, domain, tracking_subdomain="go")
        self.refused(server, domain, "third")
        # What is no change is never refused.
        rest.update(server, domain, tracking_subdomain="GO", open_tracking=False)

    def test_it_is_never_taken_away(self):
        server, domain = self.begin()
        for nothing in (None, ""):
            self.refused(server, domain, nothing)
        # A change is free still.
        rest.update(server, domain, tracking_subdomain="go")

    def test_the_previous_one_is_used_until_the_new_one_verifies(self):
        server, domain = self.begin()
        sent = mail.send(server, self.smarthost, "example.com")
        domain = rest.update(server, domain, tracking_subdomain="go")
        self.assertEqual(hosts(domain), {"links": "verified", "go": "not_started"})
        self.assertEqual(self.tracked(server), "links.example.com")
        domain = rest.verify(server, domain)
        self.assertEqual(hosts(domain), {"links": "verified", "go": "pending"})
        self.assertEqual((domain["status"], domain["active_tracking_subdomain"]), ("pending", "links"))
        self.assertEqual(self.tracked(server), "links.example.com")
        self.dns.zone("example.com", LINKS, f"go CNAME {TARGET}.")
        domain = self.wait_for(server, domain, "verified", "go.example.com")
        self.assertEqual((domain["status"], domain["active_tracking_subdomain"]), ("verified", "go"))
        self.assertEqual(hosts(domain), {"links": "verified", "go": "verified"})
        self.assertEqual(self.tracked(server), "go.example.com")
        self.assertEqual(mail.follow(server, sent.link), (302, mail.PAGE))

    def test_an_earlier_one_that_vanishes_weighs_nothing(self):
        server, domain = self.begin(f"go CNAME {TARGET}.")
        sent = mail.send(server, self.smarthost, "example.com")
        domain = rest.verify(server, rest.update(server, domain, tracking_subdomain="go"))
        self.assertEqual(domain["status"], "verified")
        self.dns.zone("example.com", f"go CNAME {TARGET}.")
        for _ in range(2):
            domain = rest.verify(server, domain)
            self.assertEqual((domain["status"], hosts(domain)["go"]), ("verified", "verified"), domain)
            self.assertIn("links", hosts(domain))
            self.assertEqual(self.tracked(server), "go.example.com")
            # Who still comes, over some other way, is still led on.
            self.assertEqual(mail.follow(server, sent.link), (302, mail.PAGE))
            self.clock.go_on(80 * HOUR)
            server.restart()

    def test_a_new_one_that_fails_leaves_the_previous_in_use(self):
        server, domain = self.begin()
        domain = rest.verify(server, rest.update(server, domain, tracking_subdomain="go"))
        self.clock.go_on(75 * HOUR)
        server.restart()
        domain = self.wait_for(server, domain, "failed", "go.example.com")
        self.assertEqual((domain["status"], domain["active_tracking_subdomain"]), ("failed", "links"))
        self.assertEqual(self.tracked(server), "links.example.com")

    def test_back_to_an_earlier_one(self):
        server, domain = self.begin(f"go CNAME {TARGET}.")
        domain = rest.verify(server, rest.update(server, domain, tracking_subdomain="go"))
        self.assertEqual(domain["active_tracking_subdomain"], "go")
        self.refused(server, domain, "links")
        self.clock.go_on(DAY + 10)
        self.dns.zone("example.com", f"go CNAME {TARGET}.")
        domain = rest.update(server, domain, tracking_subdomain="links")
        self.assertEqual((domain["tracking_subdomain"], domain["active_tracking_subdomain"]), ("links", "go"))
        self.assertEqual(self.tracked(server), "go.example.com")
        domain = rest.verify(server, domain)
        self.assertEqual(domain["active_tracking_subdomain"], "go", "its record is not there")
        self.assertEqual(self.tracked(server), "go.example.com")
        self.dns.zone("example.com", LINKS, f"go CNAME {TARGET}.")
        domain = rest.verify(server, domain)
        self.assertEqual((domain["status"], domain["active_tracking_subdomain"]), ("verified", "links"))
        self.assertEqual(sorted(hosts(domain)), ["go", "links"])
        self.assertEqual(self.tracked(server), "links.example.com")

    def test_one_that_never_was_verified_is_dropped(self):
        server, domain = self.begin()
        domain = rest.verify(server, rest.update(server, domain, tracking_subdomain="go"))
        self.assertEqual(sorted(hosts(domain)), ["go", "links"])
        self.clock.go_on(DAY + 10)
        domain = rest.update(server, domain, tracking_subdomain="third")
        self.assertEqual(sorted(hosts(domain)), ["links", "third"])
        self.assertEqual(self.tracked(server), "links.example.com")

    def test_all_earlier_ones_are_kept(self):
        names = ["links", "go", "third", "fourth"]
        server, domain = self.begin(*(f"{name} CNAME {TARGET}." for name in names[1:]))
        links = [mail.send(server, self.smarthost, "example.com").link]
        for name in names[1:]:
            domain = rest.verify(server, rest.update(server, domain, tracking_subdomain=name))
            self.assertEqual(domain["active_tracking_subdomain"], name)
            links.append(mail.send(server, self.smarthost, "example.com").link)
            self.clock.go_on(DAY + 10)
        self.assertEqual(hosts(domain), dict.fromkeys(names, "verified"))
        for name, link in zip(names, links, strict=True):
            self.assertIn(f"//{name}.example.com", link)
            self.assertEqual(mail.follow(server, link), (302, mail.PAGE))


def settled(domain):
    """Without what the next look at DNS changes."""
    records = [{key: value for key, value in one.items() if key != "next_check_at"} for one in domain["records"]]
    return domain | {"records": records}


def stamp(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M")
