"""Input that no one should send: each gets the contract's error, and nothing is changed by it."""

import collections
import json
import unittest
from concurrent.futures import ThreadPoolExecutor

import contract
from ground import Ground, unique
from web import call

UNKNOWN = "00000000-0000-4000-8000-000000000000"
MIB = 1 << 20
CONTROLS = ("\r", "\n", "\r\n", "\0", "\t", "\x7f")
# Bodies that are no JSON, or that only a reader without bounds would take.
NO_JSON = {
    "a word": b"name", "cut off": b'{"name": "cut.example.com"', "one too many": b'{"name": "a"}}',
    "comment": b'{"name": "a.example.com" /* no */}', "single quotes": b"{'name': 'a.example.com'}",
    "not UTF-8": b'{"name": "\xff\xfe.example.com"}', "UTF-16": '{"name": "a.example.com"}'.encode("utf-16"),
    "NUL": b'{"name": "a.example.com"}\0', "line end in a string": b'{"name": "a\n.example.com"}',
    "half of a surrogate pair": b'{"name": "\\ud800.example.com"}', "form": b"name=a.example.com",
    "brackets": b"[" * 100_000, "braces": b'{"name":' * 100_000, "nested": b"[" * 50_000 + b"]" * 50_000,
    "hidden": b'{"name": "deep.example.com", "extra": ' + b"[" * 400_000 + b"]" * 400_000 + b"}",
    "just too large": b'{"name": "large.example.com", "extra": "' + b"x" * MIB + b'"}',
    "10 MB": b'{"name": "' + b"x" * (10 * MIB) + b'"}', "a number that no type holds": b"9" * 5000,
}
NO_OBJECT = {"null": b"null", "true": b"true", "number": b"7", "string": b'"name"',
             "list": b"[]", "list of objects": b'[{"name": "a.example.com"}]'}


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.ground = cls.enterClassContext(Ground())

    def setUp(self):
        # Of its own, so that what other tests leave is not in the list.
        self.name = unique("kept")
        value = {"name": self.name, "tracking_subdomain": "links", "open_tracking": True}
        self.id = self.ok("POST", "/domains", value, 201)["id"]
        self.before = self.state()

    def ok(self, method, path, value=None, status=200):
        return contract.read(call(self.ground.server, self.ground.key, method, path, value), status)

    def state(self):
        """But for when a key was used last, since these requests are uses as well."""
        keys = [(one["id"], one["name"]) for one in self.ok("GET", "/api-keys")["data"]]
        return self.ok("GET", "/domains"), self.ok("GET", f"/domains/{self.id}"), keys

    def refused(self, shown, method, path, value=None, body=None, status=422, error="validation_error", key=None):
        with self.subTest(shown):
            answer = call(self.ground.server, key or self.ground.key, method, path, value, body)
            before, self.before = self.before, self.state()
            told = contract.read(answer, status, error)
            self.assertLess(len(told["message"]), 1000)
            self.assertFalse(set(told["message"]) & set(CONTROLS))
            self.assertEqual(self.before, before)

    def create(self, shown, value, **expected):
        self.refused(shown, "POST", "/domains", value, **expected)

    def update(self, shown, value, **expected):
        self.refused(shown, "PATCH", f"/domains/{self.id}", value, **expected)

    def test_names_that_are_no_domain(self):
        names = [
            " ", ".", "..", "example", "localhost", "example..com", ".example.com", "exa mple.com",
            "-a.example.com", "a-.example.com", "a_b.example.com", "_dmarc.example.com", "*.example.com",
            "a@example.com", "a/b.example.com", "http://example.com", "example.com:25", "example.com/path",
            "exa%6dple.com", "a,b.example.com", "example.com;", "<a.example.com>", '"a".example.com',
            "a\\b.example.com", "a'b.example.com", "xn--a.example.com", "xn--.example.com", "a.123",
            "a\u202eb.example.com",
        ]
        for name in names:
            self.create(repr(name), {"name": name})

    def test_public_suffixes(self):
        for name in ("com", "org", "co.uk", "CO.UK", "com.au", "xn--p1ai", "рф", "a.kawasaki.jp"):
            self.create(name, {"name": name})

    def test_addresses(self):
        for name in ("192.0.2.1", "127.1", "0x7f000001", "2130706433", "::1", "[::1]", "2001:db8::1", "[2001:db8::1]",
                     "192.0.2.1.", "1.2.3"):
            self.create(name, {"name": name})

    def test_length(self):
        for name in (f"{'a' * 64}.example.com", f"{'a' * 300}.example.com", f"{'a' * 300}",
                     ".".join(["a" * 60] * 5) + ".com", f"{'ü' * 60}.example.com", "a." * 126 + "example.com",
                     f"{'a.' * 200_000}com"):
            self.create(f"{len(name)} characters", {"name": name})

    def test_control_characters_and_emoji(self):
        for bad in (*CONTROLS, "🐟", "❤"):
            for name in (f"{bad}a.example.com", f"a{bad}.example.com", f"a.example.com{bad}", bad):
                self.create(repr(name), {"name": name})

    def test_name_of_another_type(self):
        for name in (7, 1.5, True, [], ["a.example.com"], {}, {"name": "a.example.com"}):
            self.create(repr(name), {"name": name})
        for value in ({}, {"name": ""}, {"name": None}, {"Name": "a.example.com"}, {"domain": "a.example.com"}):
            self.create(str(value), value, error="missing_required_field")

    def test_two_domains_of_the_same_name(self):
        for name in (self.name, self.name.upper(), self.name.title()):
            self.create(name, {"name": name, "click_tracking": True})

    def test_many_at_once(self):
        """Of those who ask for the same thing in the same moment one gets it."""
        def at_once(count, method, path, values):
            with ThreadPoolExecutor(count) as pool:
                answers = pool.map(
                    lambda value: call(self.ground.server, self.ground.key, method, path, value), values)
            statuses = collections.Counter()
            for answer in answers:
                contract.read(answer, answer.status, None if answer.status < 400 else "validation_error")
                statuses[answer.status] += 1
            return statuses
        name = unique("race")
        values = [{"name": name if number % 2 else name.upper()} for number in range(24)]
        self.assertEqual(at_once(12, "POST", "/domains", values), {201: 1, 422: 23})
        self.assertEqual([one["name"] for one in self.ok("GET", "/domains")["data"]].count(name), 1)
        changes = [{"tracking_subdomain": f"race{number}"} for number in range(24)]
        self.assertEqual(at_once(12, "PATCH", f"/domains/{self.id}", changes), {200: 1, 422: 23})

    def test_subdomains(self):
        bad = [
            "", " ", ".", "..", ".links", "links.", "links..a", "-links", "links-", "li nks", "li_nks", "_links",
            "*", "*.links", "@", "links/", "a@links", "http://links", "links:80", "a\\b", "a'b", '"links"', "a" * 64,
            "a" * 300, ".".join(["a" * 60] * 4), "a." * 130 + "a", "xn--a", "🐟", f"links.{self.name}",
            f"LINKS.{self.name.upper()}", self.name,
            *(text.replace("?", bad) for bad in CONTROLS for text in ("?links", "links?", "a?b")),
        ]
        for subdomain in bad:
            self.update(repr(subdomain), {"tracking_subdomain": subdomain, "open_tracking": False})
            name = unique("refused")
            # The whole name is only then a whole name when it is this domain's.
            given = subdomain.replace(self.name, name).replace(self.name.upper(), name.upper())
            self.create(f"create {given!r}", {"name": name, "tracking_subdomain": given})

    def test_subdomain_of_another_type(self):
        for subdomain in (None, 7, True, [], ["links"], {}):
            self.update(repr(subdomain), {"tracking_subdomain": subdomain, "open_tracking": False})
            self.create(f"create {subdomain!r}", {"name": unique("refused"), "tracking_subdomain": subdomain})

    def test_other_fields_of_another_type(self):
        for field in ("open_tracking", "click_tracking"):
            for bad in ("true", "", 0, 1, [], {}):
                self.update(f"{field}: {bad!r}", {field: bad, "tracking_subdomain": "other"})
                self.create(f"create {field}: {bad!r}", {"name": unique("refused"), field: bad})
        for field, bad in (("tls", "sometimes"), ("tls", 1), ("capabilities", "all"), ("capabilities", []),
                           ("custom_return_path", 7)):
            self.create(f"create {field}: {bad!r}", {"name": unique("refused"), field: bad})
        self.update("tls", {"tls": "sometimes", "open_tracking": False})
        for bad in ("mars-1", "", "us-east-1 ", "US-EAST-1"):
            self.create(f"region {bad!r}", {"name": unique("refused"), "region": bad}, error="invalid_region")

    def test_bodies_that_are_no_json(self):
        for shown, body in NO_JSON.items():
            self.refused(shown, "POST", "/domains", body=body, status=400)
            self.refused(f"update {shown}", "PATCH", f"/domains/{self.id}", body=body, status=400)
            self.refused(f"key {shown}", "POST", "/api-keys", body=body, status=400)

    def test_bodies_that_are_no_object(self):
        for shown, body in NO_OBJECT.items():
            self.refused(shown, "POST", "/domains", body=body)
            self.refused(f"update {shown}", "PATCH", f"/domains/{self.id}", body=body)
            self.refused(f"key {shown}", "POST", "/api-keys", body=body)

    def test_large_bodies_that_are_right(self):
        """Up to the limit there is nothing wrong with them."""
        name = unique("large")
        value = json.dumps({"name": name, "extra": ["x" * 1000] * 900, "deep": [[[[1]]]], "number": 1}).encode()
        self.assertLess(len(value), MIB)
        answer = call(self.ground.server, self.ground.key, "POST", "/domains", body=value)
        id = contract.read(answer, 201)["id"]
        self.ok("DELETE", f"/domains/{id}")

    def test_someone_elses_key(self):
        other = self.ok("POST", "/domains", {"name": unique("other")}, 201)
        stranger = self.ground.server.key("--domain", other["name"])
        self.before = self.state()
        for method, value in (("PATCH", {"open_tracking": False}), ("DELETE", None), ("GET", None)):
            self.refused(method, method, f"/domains/{self.id}", value, status=404, error="not_found", key=stranger)

    def test_ids(self):
        for id in ("nonsense", "0", "..", "%00", "%2e%2e", self.id[:-1], self.id + "0", self.id.replace("-", ""),
                   f"{{{self.id}}}", f"urn:uuid:{self.id}", "%20" + self.id, self.id + "%0d%0a", "🐟".encode().hex(),
                   "a" * 2000, "%F0%9F%90%9F", "%ff"):
            for method, value in (("GET", None), ("PATCH", {"open_tracking": False}), ("DELETE", None)):
                self.refused(f"{method} {id}", method, f"/domains/{id}", value, error="invalid_parameter")
            self.refused(f"verify {id}", "POST", f"/domains/{id}/verify", error="invalid_parameter")
        self.refused("unknown", "PATCH", f"/domains/{UNKNOWN}", {"open_tracking": False}, status=404, error="not_found")

    def test_queries(self):
        for query in ("limit=0", "limit=101", "limit=-1", "limit=", "limit=ten", "limit=1.0", "limit=1e1",
                      "limit=%31%00", "limit=99999999999999999999", f"after={self.id}&before={self.id}"):
            for path in ("/domains", "/api-keys", "/emails"):
                self.refused(f"{path}?{query}", "GET", f"{path}?{query}")
        for query in ("after=nonsense", "after=", "before=%00"):
            self.refused(query, "GET", f"/domains?{query}", error="invalid_parameter")
