"""The official SDK for Python, in this process, with its classes of exceptions; with a base URL without a slash at its
end, and with one. It sends a body of `{}` wherever there is nothing to say."""

import time
import unittest

import resend
from resend.exceptions import (
    InvalidApiKeyError, MissingApiKeyError, MissingRequiredFieldsError, RateLimitError, ResendError, ValidationError,
)

import contract
from ground import CNAME_TARGET, Ground, unique
from mail import letter

UNKNOWN = "00000000-0000-4000-8000-000000000000"
LIMIT = 5


class Base(unittest.TestCase):
    slash = ""

    def use(self, server, key):
        """What the SDK keeps is global."""
        for name, value in (("api_url", server.api + self.slash), ("api_key", key)):
            self.addCleanup(setattr, resend, name, getattr(resend, name))
            setattr(resend, name, value)

    def refused(self, kind, code, name, call, *arguments):
        with self.assertRaises(ResendError) as caught:
            call(*arguments)
        error = caught.exception
        self.assertEqual((type(error), error.code, error.error_type), (kind, code, name), error.message)
        self.assertTrue(error.message)
        for header in ("limit", "remaining", "reset"):
            self.assertRegex(error.headers[f"ratelimit-{header}"], r"^\d+$")
        return error

    def plain(self, response):
        """What the server said, without the headers that the SDK adds."""
        self.assertRegex(response["http_headers"]["ratelimit-limit"], r"^\d+$")
        return {name: value for name, value in response.items() if name != "http_headers"}


class Python(Base):
    @classmethod
    def setUpClass(cls):
        cls.ground = cls.enterClassContext(Ground())

    def setUp(self):
        self.use(self.ground.server, self.ground.server.key())

    def ids(self, listed):
        return [one["id"] for one in listed["data"]]

    def test_domain_from_creation_to_removal(self):
        name = unique("python")
        created = self.plain(resend.Domains.create({
            "name": name, "region": "sa-east-1", "custom_return_path": "outbound", "open_tracking": True,
            "click_tracking": True, "tracking_subdomain": "links",
        }))
        contract.domain(created, created=True)
        self.assertEqual((created["name"], created["status"], created["region"]), (name, "not_started", "sa-east-1"))
        self.assertEqual(created["records"], [{
            "record": "Tracking", "name": f"links.{name}", "type": "CNAME", "value": CNAME_TARGET, "ttl": "Auto",
            "status": "not_started",
        }])
        id = created.pop("id")
        del created["createdAt"]
        got = self.plain(resend.Domains.get(id))
        self.assertEqual(got, created | {"id": id})
        (item,) = [one for one in resend.Domains.list()["data"] if one["id"] == id]
        self.assertEqual((contract.item(item)["name"], item["tracking_subdomain"]), (name, "links"))

        # The body of the SDK's PATCH has the id in it.
        changed = self.plain(resend.Domains.update({"id": id, "open_tracking": False, "tls": "enforced"}))
        contract.domain(changed)
        self.assertEqual((changed["open_tracking"], changed["click_tracking"]), (False, True))
        self.assertEqual(changed["tracking_subdomain"], "links")
        self.assertEqual(changed, self.plain(resend.Domains.get(id)))

        contract.reference(self.plain(resend.Domains.verify(id)), id)
        self.assertEqual(resend.Domains.get(id)["records"][0]["status"], "pending")
        contract.removed(self.plain(resend.Domains.remove(id)), id)
        self.refused(ResendError, 404, "not_found", resend.Domains.get, id)

    def test_the_subdomain_given_first_is_no_change(self):
        id = resend.Domains.create({"name": unique("python")})["id"]
        params = {"id": id, "open_tracking": True, "click_tracking": True, "tracking_subdomain": "links"}
        for subdomain in ("links", "links", "LINKS"):
            changed = resend.Domains.update(params | {"tracking_subdomain": subdomain})
            self.assertEqual((changed["tracking_subdomain"], changed["open_tracking"]), ("links", True))
        self.assertEqual(resend.Domains.update(params | {"tracking_subdomain": "other"})["tracking_subdomain"], "other")
        before = self.plain(resend.Domains.get(id))
        error = self.refused(
            ValidationError, 422, "validation_error", resend.Domains.update,
            params | {"tracking_subdomain": "third", "open_tracking": False},
        )
        self.assertRegex(error.message, r"24 h|20\d\d-")
        self.assertEqual(self.plain(resend.Domains.get(id)), before)

    def test_pages(self):
        made = [resend.Domains.create({"name": unique("page")})["id"] for _ in range(4)][::-1]
        whole = resend.Domains.list()
        contract.listing(self.plain(whole), contract.item)
        self.assertEqual((self.ids(whole)[:4], whole["has_more"]), (made, False))
        pages = {
            (("limit", 3),): (made[:3], True),
            (("limit", 2), ("after", made[0])): (made[1:3], True),
            (("limit", 2), ("before", made[3])): (made[1:3], True),
            (("before", made[1]),): (made[:1], False),
        }
        for params, expected in pages.items():
            page = resend.Domains.list(dict(params))
            self.assertEqual((self.ids(page), page["has_more"]), expected, params)
        for params in ({"limit": 101}, {"limit": -1}, {"after": made[0], "before": made[1]}):
            self.refused(ValidationError, 422, "validation_error", resend.Domains.list, params)
        self.refused(ResendError, 422, "invalid_parameter", resend.Domains.list, {"after": "nonsense"})

    def test_keys(self):
        full = self.plain(resend.ApiKeys.create({"name": "full"}))
        contract.new_key(full)
        sending = resend.ApiKeys.create({"name": "sending", "permission": "sending_access"})
        listed = resend.ApiKeys.list()
        contract.listing(self.plain(listed), contract.key)
        self.assertEqual(self.ids(listed)[:2], [sending["id"], full["id"]])
        page = resend.ApiKeys.list({"limit": 1, "after": sending["id"]})
        self.assertEqual((self.ids(page), page["has_more"]), ([full["id"]], True))
        updated = self.plain(resend.ApiKeys.update({"id": full["id"], "name": "renamed"}))
        contract.reference(updated, full["id"], "api_key")
        names = {one["id"]: one["name"] for one in resend.ApiKeys.list()["data"]}
        self.assertEqual(names[full["id"]], "renamed")
        contract.removed(self.plain(resend.ApiKeys.remove(full["id"])), full["id"], "api_key")
        self.assertNotIn(full["id"], self.ids(resend.ApiKeys.list()))
        self.refused(ResendError, 404, "not_found", resend.ApiKeys.remove, full["id"])
        self.refused(ResendError, 422, "invalid_access", resend.ApiKeys.create, {"name": "x", "permission": "all"})
        self.refused(MissingRequiredFieldsError, 422, "missing_required_field", resend.ApiKeys.create, {})

    def test_emails(self):
        sender, recipient = "news@python.example.com", "python@example.net"
        older, newer = (self.ground.send(sender, recipient, letter(sender, recipient, subject))
                        for subject in ("Older", "Newer"))
        got = self.plain(resend.Emails.get(newer))
        contract.email(got)
        self.assertEqual((got["id"], got["to"], got["subject"]), (newer, [recipient], "Newer"))
        listed = resend.Emails.list({"limit": 2})
        contract.listing(self.plain(listed), contract.message)
        self.assertEqual(self.ids(listed), [newer, older])
        self.assertEqual(self.ids(resend.Emails.list({"limit": 1, "after": newer})), [older])
        self.refused(ResendError, 404, "not_found", resend.Emails.get, UNKNOWN)
        letters = {"from": sender, "to": recipient, "subject": "By HTTP", "text": "Hello"}
        error = self.refused(ResendError, 405, "method_not_allowed", resend.Emails.send, letters)
        self.assertIn("SMTP", error.message)

    def test_each_class_of_errors(self):
        domains, keys = resend.Domains, resend.ApiKeys
        self.refused(MissingRequiredFieldsError, 422, "missing_required_field", domains.create, {})
        for params in ({"name": "no domain"}, {"name": 7}, {"tracking_subdomain": ""}, {"tracking_subdomain": None},
                       {"open_tracking": "yes"}):
            self.refused(ValidationError, 422, "validation_error", domains.create, {"name": unique("x")} | params)
        self.refused(ResendError, 422, "invalid_region", domains.create, {"name": unique("x"), "region": "mars-1"})
        for call in (domains.get, domains.verify, domains.remove, lambda id: domains.update({"id": id})):
            self.refused(ResendError, 404, "not_found", call, UNKNOWN)
            self.refused(ResendError, 422, "invalid_parameter", call, "nonsense")
        resend.api_key = ""
        self.refused(MissingApiKeyError, 401, "missing_api_key", domains.list)
        resend.api_key = "re_wrong"
        self.refused(InvalidApiKeyError, 403, "invalid_api_key", domains.list)
        resend.api_key = self.ground.server.key(permission="sending_access")
        for call in (domains.list, keys.list, resend.Emails.list):
            self.refused(ResendError, 401, "restricted_api_key", call)


class PythonWithSlash(Python):
    slash = "/"


class Limit(Base):
    def test_too_many_requests(self):
        with Ground({"api": {"rate_limit": LIMIT}}) as ground:
            self.use(ground.server, ground.key)
            served = 0
            with self.assertRaises(RateLimitError) as caught:
                # One after the other: more of them than a second allows, however slow.
                for served in range(50 * LIMIT):
                    resend.Domains.list()
            error = caught.exception
            self.assertGreaterEqual(served, LIMIT)
            self.assertEqual((error.code, error.error_type), (429, "rate_limit_exceeded"))
            self.assertEqual(error.headers["ratelimit-limit"], str(LIMIT))
            self.assertEqual(error.headers["ratelimit-remaining"], "0")
            time.sleep(int(error.headers["retry-after"]))
            resend.Domains.list()
