"""Endpoints that were made with a key of one domain are told of that domain alone, and seen by its keys alone."""

import time

import paths  # noqa: F401, I001
import rest
from base import EVENTS, UNKNOWN, Case, hook, ok, side_by_side
from letters import hit, submit
from support import until

load_tests = side_by_side


class Tied(Case):
    def wait_for_domain(self, http, name):
        """Until its creation was told, so that nobody who comes now hears of it."""
        until(f"{name} to be told", lambda: any(one.data["name"] == name for one in http.got("/all", "domain.created")))

    def test_one_domain(self):
        http = self.receiver()
        server = self.relay()
        everything, _ = hook(server, http.url("/all"), EVENTS)
        other = self.track(server, "example.org")
        self.wait_for_domain(http, "example.org")
        tied = {name: self.key(server, "--domain", name) for name in ("example.com", "example.org")}
        hooks = {name: hook(key, http.url(f"/{name}"), EVENTS)[0] for name, key in tied.items()}
        mails = {name: self.send(sender=f"news@{name}") for name in tied}
        stranger = submit(server, sender="news@sub.example.com")
        for mail in mails.values():
            hit(server, mail.pixels["ada@example.net"])
            hit(server, mail.links["ada@example.net"][0])
        for name, id in (("example.com", server.json("domain", "show", "example.com")["id"]), ("example.org", other)):
            ok(tied[name], "PATCH", f"/domains/{id}", {"open_tracking": False})
        # A domain that comes later is none of theirs.
        rest.create(server, "example.net")
        http.wait("/all", 2, "domain.updated")
        for name, mail in mails.items():
            http.wait(f"/{name}", 5)
        time.sleep(0.5)
        for name, mail in mails.items():
            came = http.got(f"/{name}")
            self.assertEqual(sorted(one.kind for one in came), [
                "domain.updated", "email.clicked", "email.delivered", "email.opened", "email.sent"])
            for one in came:
                self.assertEqual(one.data.get("email_id", mail.id), mail.id)
                self.assertEqual(one.data.get("name", name), name)
        self.assertIn(stranger.id, [one.data.get("email_id") for one in http.got("/all")])
        self.seen(server, tied, hooks, everything)

    def seen(self, server, tied, hooks, everything):
        event = ok(server, "GET", f"/webhooks/{everything}/events")["data"][0]["id"]
        for name, key in tied.items():
            (only,) = ok(key, "GET", "/webhooks")["data"]
            self.assertEqual(only["id"], hooks[name])
            for id in (everything, *(one for other, one in hooks.items() if other != name), UNKNOWN):
                for method, path, body in (
                        ("GET", "", None), ("PATCH", "", {"status": "disabled"}), ("DELETE", "", None),
                        ("POST", "/signing-secret/rotate", None), ("GET", "/events", None),
                        ("GET", f"/events/{event}", None), ("POST", f"/events/{event}/replay", None),
                        ("GET", f"/events/{event}/attempts", None)):
                    answer = rest.call(key, method, f"/webhooks/{id}{path}", body)
                    self.assertEqual((answer.status, answer.body["name"]), (404, "not_found"), (name, method, path))
        self.assertEqual(len(ok(server, "GET", "/webhooks")["data"]), 3)
        sending = self.key(server, "--permission", "sending_access")
        self.assertEqual(rest.call(sending, "GET", "/webhooks").body["name"], "restricted_api_key")

    def test_a_domain_that_is_made_anew(self):
        """The name alone opens nothing: a tie ends with the domain."""
        http = self.receiver()
        server = self.relay()
        hook(server, http.url("/all"), EVENTS)
        self.track(server, "example.org")
        self.wait_for_domain(http, "example.org")
        key = self.key(server, "--domain", "example.org")
        hook(key, http.url("/tied"), EVENTS)
        server.command("domain", "remove", "example.org")
        http.wait("/tied", 1, "domain.deleted")
        self.track(server, "example.org")
        mail = self.send(sender="news@example.org")
        http.wait("/all", 2, "email.sent", "email.delivered")
        time.sleep(0.5)
        self.assertNotIn(mail.id, [one.data.get("email_id") for one in http.got("/tied")])
