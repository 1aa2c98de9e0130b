"""A domain's life with each SDK: from nothing, over a look-up in vain, to verified against a real DNS server; and mail
through the relay, which is tracked from then on, and no longer once the domain is gone."""

import json
import unittest

import resend

import contract
from ground import CNAME_TARGET, Ground, unique, until
from mail import check, is_untouched, newsletter
from scripts import Node
from web import curl

LINKS = 21


class Life:
    """`call` does one operation as its SDK names it, and gives what came."""

    settings = {"open_tracking": True, "click_tracking": True, "tracking_subdomain": "links"}

    @classmethod
    def setUpClass(cls):
        cls.ground = cls.enterClassContext(Ground())

    def mail(self, domain, when):
        """A newsletter from this domain, as it was sent and as the smarthost got it."""
        recipient = f"{when}@example.net"
        self.ground.send(f"news@{domain}", recipient, newsletter(domain))
        return newsletter(domain), self.ground.arrived(recipient)

    def status(self, id):
        domain = contract.domain(self.get(id))
        return domain["status"], contract.tracking(domain, "links")["status"], domain.get("active_tracking_subdomain")

    def test_from_nothing_to_tracked_mail(self):
        name = unique("life")
        host = f"links.{name}"
        self.ground.dns.zone(name, "www A 127.0.0.1")
        created = self.create(name)
        id = created["id"]
        record = contract.tracking(created, "links")
        self.assertEqual((record["name"], record["type"], record["value"]), (host, "CNAME", CNAME_TARGET))
        self.assertEqual(self.status(id), ("not_started", "not_started", None))
        self.assertTrue(is_untouched(*self.mail(name, "created")))

        self.verify(id)
        self.assertEqual(self.status(id), ("pending", "pending", None))
        self.assertTrue(is_untouched(*self.mail(name, "pending")))

        # As the answer said it, word for word.
        self.ground.dns.zone(name, f"{record['name']}. {record['type']} {record['value']}.")
        self.verify(id)
        until("verified", lambda: self.status(id) == ("verified", "verified", "links"))
        original, arrived = self.mail(name, "verified")
        report = check(original, arrived, host, self.ground.server.web)
        self.assertEqual((report["violations"], len(report["links"])), ([], LINKS))
        self.assertTrue(report["pixel"]["url"].startswith(f"http://{host}/o/"), report["pixel"])

        # Links alone, then neither.
        self.update(id, open_tracking=False)
        _, arrived = self.mail(name, "links")
        self.assertTrue(b"/c/" in arrived and b"/o/" not in arrived)
        self.update(id, open_tracking=False, click_tracking=False)
        self.assertTrue(is_untouched(*self.mail(name, "off")))
        self.update(id, open_tracking=True, click_tracking=True)
        self.assertIn(b"/o/", self.mail(name, "on")[1])

        self.remove(id)
        self.assertTrue(is_untouched(*self.mail(name, "removed")))

    def test_record_that_is_wrong_is_told(self):
        name = unique("wrong")
        created = self.create(name)
        wrong = {
            "links CNAME old.example.net.": "old.example.net", "links A 192.0.2.7": "192.0.2.7",
            f"links.{name} CNAME {CNAME_TARGET}.": f"links.{name}.{name}",
        }
        for line, expected in wrong.items():
            self.ground.dns.zone(name, line)
            self.verify(created["id"])

            def found():
                record = contract.tracking(self.get(created["id"]), "links")
                self.assertEqual(record["status"], "pending")
                return expected in record.get("found", "")
            until(f"{expected} to be told", found)


class WithNode(Life, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.node = Node(cls.ground.folder / "node")

    def call(self, method, *values):
        values = [json.dumps(value) for value in values]
        base, key = self.ground.server.api, self.ground.key
        result = json.loads(self.node.run("step.mjs", f"domains.{method}", *values, base=base, key=key))
        self.assertIsNone(result["error"])
        return result["data"]

    def create(self, name):
        return self.call("create", {"name": name} | camel(self.settings))

    def get(self, id):
        return self.call("get", id)

    def update(self, id, **settings):
        return self.call("update", {"id": id} | camel(settings))

    def verify(self, id):
        contract.reference(self.call("verify", id), id)

    def remove(self, id):
        contract.removed(self.call("remove", id), id)


class WithPython(Life, unittest.TestCase):
    def setUp(self):
        for name, value in (("api_url", self.ground.server.api), ("api_key", self.ground.key)):
            self.addCleanup(setattr, resend, name, getattr(resend, name))
            setattr(resend, name, value)

    def create(self, name):
        return resend.Domains.create({"name": name} | self.settings)

    def get(self, id):
        return {name: value for name, value in resend.Domains.get(id).items() if name != "http_headers"}

    def update(self, id, **settings):
        return resend.Domains.update({"id": id} | settings)

    def verify(self, id):
        self.assertEqual(resend.Domains.verify(id)["id"], id)

    def remove(self, id):
        self.assertIs(resend.Domains.remove(id)["deleted"], True)


class WithCurl(Life, unittest.TestCase):
    def call(self, status, method, path, value=None):
        options = ("--header", "Content-Type: application/json") if method != "GET" else ()
        options += ("--data", json.dumps(value)) if value is not None else ()
        answer = curl(self.ground.server.api, self.ground.key, method, f"/domains{path}", *options)
        return contract.read(answer, status)

    def create(self, name):
        return self.call(201, "POST", "", {"name": name} | self.settings)

    def get(self, id):
        return self.call(200, "GET", f"/{id}")

    def update(self, id, **settings):
        return self.call(200, "PATCH", f"/{id}", settings)

    def verify(self, id):
        contract.reference(self.call(200, "POST", f"/{id}/verify"), id)

    def remove(self, id):
        contract.removed(self.call(200, "DELETE", f"/{id}"), id)


def camel(settings):
    """`open_tracking` as Node names it."""
    def name(text):
        first, *rest = text.split("_")
        return first + "".join(word.capitalize() for word in rest)
    return {name(text): value for text, value in settings.items()}
