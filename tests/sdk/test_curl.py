"""curl: the whole API as bytes. With a content type and without, bodies where none belong and none where one does."""

import json
import unittest

import contract
from ground import CNAME_TARGET, Ground, unique, until
from mail import letter
from web import curl, scratch

JSON = ("--header", "Content-Type: application/json")
UNKNOWN = "00000000-0000-4000-8000-000000000000"
MIB = 1 << 20


class Curl(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.ground = cls.enterClassContext(Ground())
        cls.sending = cls.ground.server.key(permission="sending_access")

    def curl(self, method, path, *options, value=None, key=None):
        options = (*options, *JSON, "--data-raw", json.dumps(value)) if value is not None else options
        return curl(self.ground.server.api, self.ground.key if key is None else key, method, path, *options)

    def ok(self, method, path, *options, status=200, **more):
        return contract.read(self.curl(method, path, *options, **more), status)

    def refused(self, status, error, method, path, *options, **more):
        return contract.read(self.curl(method, path, *options, **more), status, error)

    def create(self, word="curl", **more):
        return self.ok("POST", "/domains", value={"name": unique(word)} | more, status=201)

    def test_domain_from_creation_to_removal(self):
        for slashes in ("", "/", "//"):
            root = f"{slashes}/domains"
            name = unique("curl")
            value = {"name": name, "open_tracking": True, "click_tracking": True, "tracking_subdomain": "links"}
            created = contract.domain(self.ok("POST", root, value=value, status=201), created=True)
            id = created["id"]
            record = {"record": "Tracking", "name": f"links.{name}", "type": "CNAME", "value": CNAME_TARGET,
                      "ttl": "Auto", "status": "not_started"}
            self.assertEqual((created["status"], created["records"]), ("not_started", [record]))
            got = contract.domain(self.ok("GET", f"{root}/{id}"))
            del created["createdAt"]
            self.assertEqual(got, created)
            items = contract.listing(self.ok("GET", root), contract.item)
            self.assertEqual(items[0]["id"], id)
            changed = contract.domain(self.ok("PATCH", f"{root}/{id}", value={"click_tracking": False}))
            self.assertEqual((changed["open_tracking"], changed["click_tracking"]), (True, False))
            contract.reference(self.ok("POST", f"{root}/{id}/verify"), id)
            told = contract.removed(self.ok("DELETE", f"{root}/{id}"), id)
            self.assertRegex(told["message"], r"links .* 90 days")
            self.refused(404, "not_found", "GET", f"{root}/{id}")

    def test_body_without_a_content_type_or_with_another(self):
        for kind in ("Content-Type:", "Content-Type: text/plain", "Content-Type: application/x-www-form-urlencoded",
                     "Content-Type: application/json; charset=utf-8", "Content-Type: APPLICATION/JSON"):
            body = json.dumps({"name": unique("kind")})
            self.ok("POST", "/domains", "--header", kind, "--data-raw", body, status=201)

    def test_body_where_none_belongs(self):
        id = self.create()["id"]
        for body in ('{"name": "other.example.com"}', "{}", "no JSON", "[" * 1000):
            self.ok("GET", "/domains", *JSON, "--data-raw", body)
            self.ok("GET", f"/domains/{id}", *JSON, "--data-raw", body)
            self.ok("GET", "/emails", "--data-raw", body)
            self.ok("POST", f"/domains/{id}/verify", *JSON, "--data-raw", body)
        self.ok("DELETE", f"/domains/{id}", *JSON, "--data-raw", "no JSON")

    def test_no_body_where_one_belongs(self):
        id = self.create(open_tracking=True)["id"]
        for options in ((), JSON, (*JSON, "--data-raw", ""), ("--header", "Content-Length: 0")):
            for path in ("/domains", "/api-keys"):
                self.refused(422, "missing_required_field", "POST", path, *options)
            # Nothing is asked for.
            self.assertTrue(self.ok("PATCH", f"/domains/{id}", *options)["open_tracking"])

    def test_body_in_chunks(self):
        file = scratch(self.ground.folder, "chunks", json.dumps({"name": unique("chunks")}).encode())
        self.ok("POST", "/domains", *JSON, "--header", "Transfer-Encoding: chunked", "--data-binary", f"@{file}",
                status=201)

    def test_unknown_fields_and_nulls_are_as_if_absent(self):
        created = self.create(region=None, tls=None, open_tracking=None, custom_return_path=None, capabilities=None,
                              colour="red", id=UNKNOWN)
        self.assertEqual((created["region"], created["open_tracking"]), ("us-east-1", False))
        self.assertNotEqual(created["id"], UNKNOWN)
        value = {"id": UNKNOWN, "click_tracking": None, "open_tracking": True, "tls": None, "webhook_id": 1}
        changed = self.ok("PATCH", f"/domains/{created['id']}", value=value)
        self.assertEqual((changed["id"], changed["open_tracking"]), (created["id"], True))
        self.assertEqual(changed["click_tracking"], False)
        empty = self.ok("PATCH", f"/domains/{created['id']}", value={})
        self.assertEqual(empty, changed)

    def test_tls_in_any_case(self):
        for tls in ("enforced", "ENFORCED", "Opportunistic"):
            self.ok("PATCH", f"/domains/{self.create(tls=tls)['id']}", value={"tls": tls})
        self.refused(422, "validation_error", "POST", "/domains", value={"name": unique("tls"), "tls": "never"})
        self.refused(422, "validation_error", "POST", "/domains", value={"name": unique("tls"), "tls": True})

    def test_regions(self):
        for region in sorted(contract.REGIONS):
            self.assertEqual(self.create(region=region)["region"], region)
        for region in ("", "US-EAST-1", "us-east-2"):
            self.refused(422, "invalid_region", "POST", "/domains", value={"name": unique("region"), "region": region})

    def test_international_name_is_shown_as_it_is_written(self):
        value = {"name": "bücher-laden.example.com", "tracking_subdomain": "links", "open_tracking": True}
        created = self.ok("POST", "/domains", value=value, status=201)
        self.assertEqual(created["name"], "bücher-laden.example.com")
        self.assertEqual(created["records"][0]["name"], "links.xn--bcher-laden-thb.example.com")
        for same in ("xn--bcher-laden-thb.example.com", "BÜCHER-laden.example.com"):
            self.refused(422, "validation_error", "POST", "/domains", value={"name": same})

    def test_paths_and_methods(self):
        id = self.create()["id"]
        for path in ("/nothing", f"/domains/{id}/nothing", f"/domains/{id}/verify/more", "/api-keys/a/b"):
            self.refused(404, "not_found", "GET", path)
        for method, path, allowed in (
            ("PUT", "/domains", {"GET", "POST"}), ("DELETE", "/domains", {"GET", "POST"}),
            ("POST", f"/domains/{id}", {"GET", "PATCH", "DELETE"}), ("GET", f"/domains/{id}/verify", {"POST"}),
            ("PATCH", "/api-keys", {"GET", "POST"}), ("DELETE", "/emails", {"GET"}),
        ):
            answer = self.curl(method, path)
            contract.read(answer, 405, "method_not_allowed")
            self.assertLessEqual(allowed, {one.strip() for one in answer.headers["allow"].split(",")}, path)
        for path in ("/emails", "/emails/batch"):
            error = self.refused(405, "method_not_allowed", "POST", path, value={"from": "a@example.com"})
            self.assertIn("SMTP", error["message"])

    def test_authorization(self):
        self.refused(401, "missing_api_key", "GET", "/domains", key="")
        answer = curl(self.ground.server.api, None, "GET", "/domains")
        contract.read(answer, 401, "missing_api_key")
        for wrong in ("re_wrong", self.ground.key[:-1], self.ground.key + "x", self.ground.key.upper()):
            self.refused(403, "invalid_api_key", "GET", "/domains", key=wrong)
        for method, path in (("GET", "/domains"), ("POST", "/domains"), ("GET", f"/domains/{UNKNOWN}"),
                             ("PATCH", f"/domains/{UNKNOWN}"), ("DELETE", f"/domains/{UNKNOWN}"),
                             ("POST", f"/domains/{UNKNOWN}/verify"), ("GET", "/api-keys"), ("POST", "/api-keys"),
                             ("DELETE", f"/api-keys/{UNKNOWN}"), ("GET", "/emails"), ("GET", f"/emails/{UNKNOWN}")):
            self.refused(401, "restricted_api_key", method, path, key=self.sending)
            self.refused(401, "missing_api_key", method, path, key="")

    def test_keys(self):
        made = contract.new_key(self.ok("POST", "/api-keys", value={"name": "by curl"}, status=201))
        listed = contract.listing(self.ok("GET", "/api-keys"), contract.key)
        self.assertEqual((listed[0]["id"], listed[0]["name"]), (made["id"], "by curl"))
        path = f"/api-keys/{made['id']}"
        contract.reference(self.ok("PATCH", path, value={"name": "again"}), made["id"], "api_key")
        self.refused(422, "missing_required_field", "PATCH", path, value={})
        contract.removed(self.ok("DELETE", path), made["id"], "api_key")
        self.refused(404, "not_found", "DELETE", path)

    def test_email_is_there_from_its_acceptance_on(self):
        sender = "news@curl.example.com"
        for number in range(10):
            recipient = f"life{number}@example.net"
            id = self.ground.send(sender, recipient, letter(sender, recipient, f"Life {number}"))
            # While it waits, is on its way, has just left, and is history: never 404.
            until("delivery", lambda: self.ok("GET", f"/emails/{id}")["last_event"] == "delivered")
            listed = [one["id"] for one in self.ok("GET", "/emails")["data"]]
            self.assertEqual(listed.count(id), 1)

    def test_emails(self):
        sender, recipient = "news@curl.example.com", "curl@example.net"
        id = self.ground.send(sender, recipient, letter(sender, recipient, "Curl"))
        got = contract.email(self.ok("GET", f"/emails/{id}"))
        self.assertEqual((got["id"], got["to"]), (id, [recipient]))
        self.assertEqual(contract.listing(self.ok("GET", "/emails"), contract.message)[0]["id"], id)

    def test_large_body(self):
        """Refused by its length, or where it passes the limit; the server does not keep it."""
        kinds = {"Expect:": MIB + 1, "Expect: 100-continue": 10 * MIB, "Transfer-Encoding: chunked": 2 * MIB}
        for kind, size in kinds.items():
            value = b'{"name": "%s"}' % (b"x" * (size - len('{"name": ""}')))
            file = scratch(self.ground.folder, "large", value)
            answer = self.curl("POST", "/domains", *JSON, "--header", kind, "--data-binary", f"@{file}")
            contract.read(answer, 400, "validation_error")

    def test_openapi(self):
        described = json.loads(self.curl("GET", "/openapi.json").body)
        self.assertTrue(described["openapi"].startswith("3."))
        self.assertLessEqual({"/domains", "/api-keys", "/emails"}, described["paths"].keys())
