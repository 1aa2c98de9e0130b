"""What an API key may do, each rule from both sides: full access, sending alone, and keys that are tied to domains."""

import smtplib
import socket
import time
import unittest

import contract
from ground import Ground, unique, until
from mail import letter
from relay import TRUSTED
from web import call

UNKNOWN = "00000000-0000-4000-8000-000000000000"
# AUTH is offered, as loopback needs no TLS for it, and needed, so that the key decides.
LISTENER = TRUSTED | {"auth": "required", "trusted_networks": []}


class Keys(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.ground = cls.enterClassContext(Ground(listeners=(LISTENER,)))
        cls.server = cls.ground.server

    def ok(self, key, method, path, value=None, status=200):
        return contract.read(call(self.server, key, method, path, value), status)

    def refused(self, key, status, error, method, path, value=None):
        return contract.read(call(self.server, key, method, path, value), status, error)

    def domain(self, word="own"):
        return self.ok(self.ground.key, "POST", "/domains", {"name": unique(word), "open_tracking": True}, 201)

    def new_key(self, **value):
        return contract.new_key(self.ok(self.ground.key, "POST", "/api-keys", {"name": "new"} | value, 201))["token"]

    def state(self):
        """All that a request could have changed."""
        domains = self.ok(self.ground.key, "GET", "/domains")["data"]
        whole = [self.ok(self.ground.key, "GET", f"/domains/{one['id']}") for one in domains]
        keys = self.ok(self.ground.key, "GET", "/api-keys")["data"]
        return whole, [(one["id"], one["name"]) for one in keys]

    def tied(self, domain):
        """Keys for this domain alone, made over the API and on the command line."""
        yield self.new_key(permission="full_access", domain_id=domain["id"])
        yield self.server.key("--domain", domain["name"])

    def ids(self, key, path="/domains"):
        return [one["id"] for one in self.ok(key, "GET", path)["data"]]


class Permissions(Keys):
    def test_full_access_is_the_default_and_does_everything(self):
        for key in (self.new_key(), self.new_key(permission="full_access"), self.server.key()):
            id = self.ok(key, "POST", "/domains", {"name": unique("full")}, 201)["id"]
            self.ok(key, "GET", f"/domains/{id}")
            self.ok(key, "PATCH", f"/domains/{id}", {"open_tracking": True})
            self.ok(key, "POST", f"/domains/{id}/verify")
            self.ok(key, "DELETE", f"/domains/{id}")
            made = self.ok(key, "POST", "/api-keys", {"name": "more"}, 201)
            self.ok(key, "DELETE", f"/api-keys/{made['id']}")
            self.ok(key, "GET", "/emails")

    def test_sending_access_does_nothing_but_send(self):
        domain = self.domain()
        keys = [self.new_key(permission="sending_access"), self.server.key(permission="sending_access"),
                self.new_key(permission="sending_access", domain_id=domain["id"])]
        path, before = f"/domains/{domain['id']}", self.state()
        for key in keys:
            for method, where, value in (
                ("GET", "/domains", None), ("POST", "/domains", {"name": unique("no")}), ("GET", path, None),
                ("PATCH", path, {"open_tracking": False}), ("POST", f"{path}/verify", None), ("DELETE", path, None),
                ("GET", "/api-keys", None), ("POST", "/api-keys", {"name": "more"}),
                ("DELETE", f"/api-keys/{UNKNOWN}", None), ("GET", "/emails", None), ("GET", f"/emails/{UNKNOWN}", None),
                ("GET", "/kill-list", None), ("POST", "/kill-list", {"type": "domain", "value": "example.net"}),
                ("DELETE", f"/kill-list/{UNKNOWN}", None), ("POST", "/opt-outs", {"email": "ada@example.net"}),
                ("GET", "/opt-outs?email=ada@example.net", None), ("DELETE", "/opt-outs?email=ada@example.net", None),
            ):
                self.refused(key, 401, "restricted_api_key", method, where, value)
        self.assertEqual(self.state(), before)
        sender = f"news@{domain['name']}"
        for number, key in enumerate(keys):
            recipient = f"permitted{number}@example.net"
            self.ground.send(sender, recipient, letter(sender, recipient, "Permitted"), login=key)

    def test_what_is_no_key(self):
        path = f"/domains/{self.domain()['id']}"
        before = self.state()
        for wrong, status, error in (("re_wrong", 403, "invalid_api_key"), ("", 401, "missing_api_key"),
                                     (None, 401, "missing_api_key")):
            for method, where, value in (("GET", "/domains", None), ("POST", "/domains", {"name": unique("no")}),
                                         ("PATCH", path, {"open_tracking": False}), ("DELETE", path, None),
                                         ("POST", "/api-keys", {"name": "more"})):
                self.refused(wrong, status, error, method, where, value)
        self.assertEqual(self.state(), before)

    def test_revoked_key_is_no_key_at_once(self):
        made = self.ok(self.ground.key, "POST", "/api-keys", {"name": "short"}, 201)
        sender, recipient = "news@revoked.example.com", "revoked@example.net"
        self.ok(made["token"], "GET", "/domains")
        self.ground.send(sender, recipient, letter(sender, recipient, "Revoked"), login=made["token"])
        self.ok(self.ground.key, "DELETE", f"/api-keys/{made['id']}")
        self.refused(made["token"], 403, "invalid_api_key", "GET", "/domains")
        with self.assertRaises(smtplib.SMTPAuthenticationError):
            self.ground.send(sender, recipient, letter(sender, recipient, "Revoked"), login=made["token"])

    def test_use_is_noted_and_the_token_never_shown_again(self):
        made = self.ok(self.ground.key, "POST", "/api-keys", {"name": "shown once"}, 201)

        def listed():
            data = self.ok(self.ground.key, "GET", "/api-keys")["data"]
            self.assertNotIn(made["token"], str(data))
            return next(one for one in data if one["id"] == made["id"])
        self.assertIsNone(contract.key(listed())["last_used_at"])
        self.ok(made["token"], "GET", "/domains")
        used = until("the use to be noted", lambda: contract.key(listed())["last_used_at"])
        self.assertGreaterEqual(used, listed()["created_at"])

    def test_new_keys_that_are_refused(self):
        before = self.state()
        for value, error in (
            ({}, "missing_required_field"), ({"name": ""}, "missing_required_field"), ({"name": 7}, "validation_error"),
            ({"name": "x" * 51}, "validation_error"), ({"name": ["x"]}, "validation_error"),
            ({"name": "x", "permission": "root"}, "invalid_access"),
            ({"name": "x", "permission": ""}, "invalid_access"),
            ({"name": "x", "domain_id": "nonsense"}, "invalid_parameter"),
        ):
            with self.subTest(value):
                self.refused(self.ground.key, 422, error, "POST", "/api-keys", value)
        with self.subTest("unknown domain"):
            value = {"name": "x", "domain_id": UNKNOWN}
            self.refused(self.ground.key, 404, "not_found", "POST", "/api-keys", value)
        self.assertEqual(self.state(), before)
        self.assertEqual(contract.new_key(self.ok(
            self.ground.key, "POST", "/api-keys", {"name": "é" * 50}, 201)).keys(), {"id", "token"})


class AddedAgain(Keys):
    """A domain that is removed and added again is another one, though its name is the same."""

    def test_nothing_of_before_is_seen_and_the_keys_of_before_do_nothing(self):
        before = self.domain("again")
        name, sender = before["name"], f"news@{before['name']}"
        old = self.new_key(domain_id=before["id"])
        old_sender = self.new_key(permission="sending_access", domain_id=before["id"])
        self.ground.send(sender, "old@example.net", letter(sender, "old@example.net", "Before"), login=old_sender)
        until("the mail to be listed", lambda: self.ids(old, "/emails"))
        (mail,) = self.ids(old, "/emails")
        self.ok(self.ground.key, "DELETE", f"/domains/{before['id']}")
        # Whoever sends goes on while nobody else has the name.
        self.ground.send(sender, "gap@example.net", letter(sender, "gap@example.net", "Between"), login=old_sender)
        after = self.ok(self.ground.key, "POST", "/domains", {"name": name}, 201)
        new = self.new_key(domain_id=after["id"])
        self.assertEqual((self.ids(old), self.ids(old, "/emails")), ([], []))
        self.assertEqual((self.ids(new), self.ids(new, "/emails")), ([after["id"]], []))
        self.refused(new, 404, "not_found", "GET", f"/emails/{mail}")
        with self.assertRaises(smtplib.SMTPResponseException) as refused:
            self.ground.send(sender, "x@example.net", letter(sender, "x@example.net", "After"), login=old_sender)
        self.assertEqual(refused.exception.smtp_code, 550)
        self.ground.send(sender, "new@example.net", letter(sender, "new@example.net", "After"), login=new)
        until("the mail to be listed", lambda: len(self.ids(new, "/emails")) == 1)

    def test_a_host_under_another_sender_domain_is_that_ones(self):
        above = self.domain("above")
        below = self.ok(self.ground.key, "POST", "/domains", {"name": f"mail.{above['name']}"}, 201)
        key = self.new_key(domain_id=above["id"])
        for labels in ("mail", "links.mail"):
            path = f"/domains/{above['id']}"
            refusal = self.refused(key, 422, "validation_error", "PATCH", path, {"tracking_subdomain": labels})
            self.assertNotIn("mail.", refusal["message"].replace(f"{labels}.{above['name']}", ""))
        self.ok(self.ground.key, "PATCH", f"/domains/{below['id']}", {"tracking_subdomain": "links"})
        self.ok(key, "PATCH", f"/domains/{above['id']}", {"tracking_subdomain": "links"})

    def test_removing_is_no_way_around_the_day_between_changes(self):
        name = unique("day")
        id = self.ok(self.ground.key, "POST", "/domains", {"name": name, "tracking_subdomain": "a"}, 201)["id"]
        self.ok(self.ground.key, "PATCH", f"/domains/{id}", {"tracking_subdomain": "b"})
        self.ok(self.ground.key, "DELETE", f"/domains/{id}")
        again = {"name": name.upper(), "tracking_subdomain": "c"}
        id = self.ok(self.ground.key, "POST", "/domains", again, 201)["id"]
        change = {"tracking_subdomain": "d"}
        self.refused(self.ground.key, 422, "validation_error", "PATCH", f"/domains/{id}", change)


class HangingUp(Keys):
    def test_what_is_changed_is_the_same_in_memory_and_on_disk(self):
        """Clients that go away in the middle of a change, and what a restart makes of it."""
        ids = [self.domain("hang")["id"] for _ in range(40)]
        host, port = self.server.api.removeprefix("http://").split(":")
        head = f"HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer {self.ground.key}\r\n"
        for number, id in enumerate(ids):
            with socket.create_connection((host, int(port))) as client:
                if number % 2:
                    client.sendall(f"DELETE /domains/{id} {head}\r\n".encode())
                else:
                    body = '{"open_tracking": false}'
                    client.sendall(f"PATCH /domains/{id} {head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
                time.sleep(number % 10 / 10000)
        # One more change has to wait for all before it.
        self.domain("last")
        before = self.state()
        self.server.stop()
        self.server.start()
        self.assertEqual(self.state(), before)


class Tied(Keys):
    def test_sees_and_changes_its_own_domain(self):
        own, other = self.domain(), self.domain("other")
        for key in self.tied(own):
            self.assertEqual(self.ids(key), [own["id"]])
            self.assertIn(other["id"], self.ids(self.ground.key))
            path = f"/domains/{own['id']}"
            self.assertEqual(self.ok(key, "GET", path)["name"], own["name"])
            for opens in (False, True):
                self.assertIs(self.ok(key, "PATCH", path, {"open_tracking": opens})["open_tracking"], opens)
            contract.reference(self.ok(key, "POST", f"{path}/verify"), own["id"])

    def test_removes_its_own_domain_and_then_sees_nothing(self):
        own = self.domain()
        key, second = self.tied(own)
        contract.removed(self.ok(key, "DELETE", f"/domains/{own['id']}"), own["id"])
        for one in (key, second):
            self.assertEqual(self.ids(one), [])
            self.refused(one, 404, "not_found", "GET", f"/domains/{own['id']}")
            self.refused(one, 401, "restricted_api_key", "POST", "/domains", {"name": own["name"]})

    def test_other_domains_are_as_if_they_were_not(self):
        own, other = self.domain(), self.domain("other")
        before = self.state()[0]
        for key in self.tied(own):
            kept = self.state()
            for id in (other["id"], UNKNOWN):
                path = f"/domains/{id}"
                errors = [
                    self.refused(key, 404, "not_found", "GET", path),
                    self.refused(key, 404, "not_found", "PATCH", path, {"open_tracking": False}),
                    self.refused(key, 404, "not_found", "PATCH", path, {"tracking_subdomain": "links"}),
                    self.refused(key, 404, "not_found", "POST", f"{path}/verify"),
                    self.refused(key, 404, "not_found", "DELETE", path),
                ]
                # Word for word what is said of one that there is not.
                self.assertEqual(len({error["message"].replace(id, "") for error in errors}), 1)
            # Not even as a place in the list.
            self.refused(key, 422, "invalid_parameter", "GET", "/domains?after=nonsense")
            self.assertEqual(self.ids(key, f"/domains?limit=1&before={own['id']}"), [])
            self.assertEqual(self.state(), kept)
        self.assertEqual(self.state()[0], before)

    def test_makes_no_domains_and_no_keys(self):
        own = self.domain()
        for key in self.tied(own):
            before = self.state()
            (id, _) = before[1][0]
            for method, path, value in (
                ("POST", "/domains", {"name": unique("more")}), ("GET", "/api-keys", None),
                ("POST", "/api-keys", {"name": "more"}),
                ("POST", "/api-keys", {"name": "more", "permission": "sending_access", "domain_id": own["id"]}),
                ("PATCH", f"/api-keys/{id}", {"name": "mine"}), ("DELETE", f"/api-keys/{id}", None),
                ("DELETE", f"/api-keys/{UNKNOWN}", None),
            ):
                self.refused(key, 401, "restricted_api_key", method, path, value)
            self.assertEqual(self.state(), before)

    def test_sees_the_mail_of_its_own_domain_alone(self):
        own, other = self.domain(), self.domain("other")
        sent = {}
        for domain in (own, other):
            sender, recipient = f"news@{domain['name']}", "tied@example.net"
            message = letter(sender, recipient, "Tied")
            sent[domain["id"]] = self.ground.send(sender, recipient, message, login=self.ground.key)
        for key in self.tied(own):
            self.assertEqual(self.ids(key, "/emails"), [sent[own["id"]]])
            self.assertEqual(self.ok(key, "GET", f"/emails/{sent[own['id']]}")["id"], sent[own["id"]])
            self.refused(key, 404, "not_found", "GET", f"/emails/{sent[other['id']]}")
        self.assertLessEqual(set(sent.values()), set(self.ids(self.ground.key, "/emails?limit=100")))

    def test_sends_from_its_own_domain_alone(self):
        own, other = self.domain(), self.domain("other")
        keys = [*self.tied(own), self.new_key(permission="sending_access", domain_id=own["id"])]
        for number, key in enumerate(keys):
            recipient, sender = f"from{number}@example.net", f"news@{own['name']}"
            self.ground.send(sender, recipient, letter(sender, recipient, "Own"), login=key)
            stranger = f"news@{other['name']}"
            with self.assertRaises(smtplib.SMTPResponseException) as caught:
                self.ground.send(sender, recipient, letter(stranger, recipient, "Other"), login=key)
            self.assertEqual((caught.exception.smtp_code, caught.exception.smtp_error[:5]), (550, b"5.7.1"))

    def test_tied_to_several_on_the_command_line(self):
        first, second, other = self.domain(), self.domain(), self.domain("other")
        key = self.server.key("--domain", first["name"], "--domain", second["name"])
        self.assertEqual(self.ids(key), [second["id"], first["id"]])
        page = self.ok(key, "GET", "/domains?limit=1")
        self.assertEqual(([one["id"] for one in page["data"]], page["has_more"]), ([second["id"]], True))
        last = self.ok(key, "GET", f"/domains?limit=1&after={second['id']}")
        # The third is behind or before them, and does not count.
        self.assertEqual(([one["id"] for one in last["data"]], last["has_more"]), ([first["id"]], False))
        self.refused(key, 404, "not_found", "GET", f"/domains/{other['id']}")
