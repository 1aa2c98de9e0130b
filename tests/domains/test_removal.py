"""A domain is removed, and names that are no sender domains, or are written in letters beyond ASCII."""

import json

import mail
import rest
from case import DAY, LINKS, Case, side_by_side as load_tests  # noqa: F401
from support import until


class Removal(Case):
    def begin(self, settings=None):
        self.dns.zone("example.com", LINKS)
        server = self.relay(settings, clock=True)
        domain = self.verified(server)
        return server, domain, mail.send(server, self.smarthost, "example.com")

    def test_links_go_on_for_the_grace_and_no_longer(self):
        server, domain, sent = self.begin()
        gone = rest.remove(server, domain)
        self.assertEqual({key: gone[key] for key in ("object", "id", "deleted")},
                         {"object": "domain", "id": domain["id"], "deleted": True})
        self.assertIn("90 days", gone["message"])
        self.assertEqual(rest.call(server, "GET", f"/domains/{domain['id']}").status, 404)
        self.assertIsNone(self.tracked(server))
        for days in (0, 89):
            self.clock.set(days * DAY)
            server.restart()
            self.assertEqual(mail.follow(server, sent.link), (302, mail.PAGE))
        self.clock.set(91 * DAY)
        self.assertEqual(mail.follow(server, sent.link), (410, None))
        server.restart()
        self.assertEqual(mail.follow(server, sent.link), (410, None))

    def test_clicks_in_the_grace_are_not_recorded(self):
        server, domain, sent = self.begin()
        rest.remove(server, domain)
        self.assertEqual(mail.follow(server, sent.link), (302, mail.PAGE))
        # One that is recorded shows that the one before it was not.
        self.dns.zone("example.org", LINKS)
        self.verified(server, "example.org")
        other = mail.send(server, self.smarthost, "example.org")
        self.assertEqual(mail.follow(server, other.link), (302, mail.PAGE))
        clicks = until("a click", lambda: clicked(server))
        self.assertEqual([click["email_id"] for click in clicks], [other.id])

    def test_without_a_grace_they_are_gone_at_once(self):
        server, domain, sent = self.begin({"tracking": {"removed_domain_grace": "0"}})
        self.assertTrue(rest.remove(server, domain)["message"])
        self.assertEqual(mail.follow(server, sent.link), (410, None))

    def test_it_is_set_up_again_from_the_start(self):
        server, domain, sent = self.begin()
        rest.remove(server, domain)
        again = rest.create(server, "example.com")
        self.assertNotEqual(again["id"], domain["id"])
        self.assertEqual(again["status"], "not_started")
        self.assertIsNone(self.tracked(server))
        self.assertEqual(rest.verify(server, again)["status"], "verified")
        self.assertEqual(self.tracked(server), "links.example.com")
        self.assertEqual(mail.follow(server, sent.link), (302, mail.PAGE))

    def test_checks_of_a_removed_one_end(self):
        self.dns.zone("example.com")
        server = self.relay()
        domain = rest.verify(server, rest.create(server, "example.com"))
        self.assertEqual(rest.status(domain), "pending")
        rest.remove(server, domain)
        asked = len(self.resolver.asked("links.example.com"))
        # The other one's second check comes later than that of the removed one would have come.
        other = rest.verify(server, rest.create(server, "example.org"))
        due = rest.record(other)["next_check_at"]
        until("a second check", lambda: rest.record(rest.fetch(server, other))["next_check_at"] != due, 15)
        self.assertEqual(len(self.resolver.asked("links.example.com")), asked)


def clicked(server):
    """Clicks that are recorded; none while the history is still being opened."""
    lines = server.attempt("events", "tail", "--json").stdout.splitlines()
    return [event for event in map(json.loads, lines) if event["type"] == "email.clicked"]


class Names(Case):
    def test_letters_beyond_ascii(self):
        plain = "xn--bcher-kva.example"
        self.dns.zone(plain, LINKS)
        server = self.relay()
        domain = rest.create(server, "Bücher.example")
        self.assertEqual(domain["name"], "bücher.example")
        self.assertEqual(rest.record(domain)["name"], f"links.{plain}")
        for same in ("bücher.example", "BÜCHER.EXAMPLE", plain, plain.upper()):
            again = rest.call(server, "POST", "/domains", {"name": same})
            self.assertEqual((again.status, again.body["name"]), (422, "validation_error"), same)
        domain = rest.verify(server, domain)
        self.assertEqual(domain["status"], "verified")
        self.assertEqual(self.tracked(server, plain), f"links.{plain}")
        self.assertIn("bücher.example", server.command("domain", "list"))
        server.command("domain", "show", "bücher.example")
        server.command("domain", "show", plain)

    def test_what_is_no_senders_own(self):
        server = self.relay()
        for name in ("co.uk", "com", "xn--p1ai", "рф", "192.0.2.1", "[192.0.2.1]", "2001:db8::1", "localhost",
                     "example..com", ".example.com", "-a.example.com", "a b.example.com", "example.com/x", "a" * 64
                     + ".example.com", ".".join(["a" * 60] * 5) + ".example.com", "exam\rple.com", "exam\nple.com",
                     "exam\0ple.com", "*.example.com", "user@example.com", "http://example.com"):
            with self.subTest(name):
                answer = rest.call(server, "POST", "/domains", {"name": name, "tracking_subdomain": "links"})
                self.assertEqual((answer.status, answer.body["statusCode"], answer.body["name"]),
                                 (422, 422, "validation_error"), answer.body)
        self.assertEqual(rest.done(server, 200, "GET", "/domains")["data"], [])
        for name in ("example.co.uk", "a.b.c.example.com", "xn--e1afmkfd.xn--p1ai"):
            with self.subTest(name):
                rest.create(server, name)

    def test_suffixes_that_the_ca_does_not_serve(self):
        policy = "https://ca.example.net/whom-we-serve"
        settings = {"tracking": {"tls": "acme", "https": ["127.0.0.1:0"]},
                    "acme": {"unsupported_suffixes": ["test", "land.example"], "policy_url": policy,
                             "directory": "https://127.0.0.1:9/directory"}}
        server = self.relay(settings)
        for name, suffix in (("shop.test", "test"), ("Shop.TEST", "test"), ("a.b.land.example", "land.example")):
            with self.subTest(name):
                answer = rest.call(server, "POST", "/domains", {"name": name, "tracking_subdomain": "links"})
                self.assertEqual((answer.status, answer.body["name"]), (422, "validation_error"))
                self.assertRegex(answer.body["message"], rf"\b{suffix}\b")
                self.assertIn(policy, answer.body["message"])
        for name in ("mytest.example", "highland.example", "test.example.com"):
            with self.subTest(name):
                rest.create(server, name)
        ended = server.attempt("domain", "add", "shop.test", "--subdomain", "links")
        self.assertEqual((ended.returncode, ended.stdout), (1, ""))
        self.assertIn(policy, ended.stderr)

    def test_they_are_served_where_tls_is_someone_elses(self):
        settings = {"acme": {"unsupported_suffixes": ["test"]}}
        rest.create(self.relay(settings), "shop.test")
