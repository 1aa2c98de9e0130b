"""The SDKs for Ruby, PHP, Go, Java and .NET, by the bytes that they send: fixtures/sdk/ has their requests, one after
the other as a program would make them, and each answer is held against the contract and the types of that SDK.

In a request, {key} and {sending} are tokens, {host} and {length} what HTTP needs, {name} is a domain that nobody has,
{email} an e-mail's id; where a request says `keep`, the id that it gets is known by that name from then on. Connections
are kept wherever the SDK keeps them.
"""

import json
import re
import unittest

import contract
from ground import TESTS, Ground, unique
from mail import letter
from strict import SDKS, Mismatch
from web import Wire

FOLDER = TESTS.parent / "fixtures" / "sdk"
SHAPES = {
    "update": contract.domain, "domains": lambda value: contract.listing(value, contract.item),
    "new key": contract.new_key, "keys": lambda value: contract.listing(value, contract.key),
    "email": contract.email, "emails": lambda value: contract.listing(value, contract.message),
}


class Replays(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.ground = cls.enterClassContext(Ground())
        cls.sending = cls.ground.server.key(permission="sending_access")

    def replay(self, language):
        server = self.ground.server
        script = json.loads((FOLDER / f"{language}.json").read_text())
        name, recipient = unique(language), f"{language}@example.net"
        sender = f"news@{name}"
        words = {"key": server.key(), "sending": self.sending, "host": f"127.0.0.1:{server.port}", "name": name,
                 "email": self.ground.send(sender, recipient, letter(sender, recipient, language.title()))}
        with Wire(server.port) as wire:
            for request in script["requests"]:
                with self.subTest(request["call"]):
                    self.one(wire, language, request, words)

    def one(self, wire, language, request, words):
        body = fill(request["body"], words).encode() if "body" in request else None
        words["length"] = str(len(body or b""))
        path, headers = fill(request["path"], words), [fill(header, words) for header in request["headers"]]
        answer = wire.send(request["method"], path, headers, body, request.get("chunked", False))
        value = contract.read(answer, request["status"], request.get("error"))
        self.shape(value, request, path)
        SDKS[language].read(answer, value, request["reads"])
        # The Rust SDK is run elsewhere; what it would make of these answers is seen here.
        SDKS["rust"].read(answer, value, request["reads"])
        if "keep" in request:
            words[request["keep"]] = value["id"]

    def shape(self, value, request, path):
        reads, kind = request["reads"], "api_key" if "api-keys" in path else "domain"
        if reads == "domain":
            contract.domain(value, created=request["method"] == "POST")
        elif reads in ("verify", "rename"):
            contract.reference(value, path.split("/")[-2 if reads == "verify" else -1], kind)
        elif reads == "remove":
            contract.removed(value, path.split("/")[-1], kind)
        elif reads != "error":
            SHAPES[reads](value)


def add(language):
    setattr(Replays, f"test_{language}", lambda self: self.replay(language))


for language in ("ruby", "php", "go", "java", "dotnet"):
    add(language)


def fill(text, words):
    """A body is JSON, whose own braces stand around no bare word."""
    return re.sub(r"\{([a-z_]+)\}", lambda match: words[match[1]], text)


RECORD = {"record": "Tracking", "name": "links.example.com", "type": "CNAME", "value": "track.relay.example.net",
          "ttl": "Auto", "status": "temporary_failure"}
DOMAIN = {
    "object": "domain", "id": "d91cd9bd-1176-453e-8fc1-35364d380206", "name": "example.com", "status": "pending",
    "created_at": "2026-03-28T17:12:02.059593+00:00", "createdAt": "2026-03-28T17:12:02.059593+00:00",
    "open_tracking": True, "click_tracking": True, "tracking_subdomain": "links", "region": "us-east-1",
    "capabilities": {"sending": "enabled", "receiving": "disabled"}, "records": [RECORD],
}
# What must not come, and whom it would break.
BREAKS = (
    ({"status": "temporary_failure"}, {"rust", "dotnet"}),
    ({"region": "eu-central-1"}, {"rust", "dotnet"}),
    ({"id": "not-a-uuid"}, {"dotnet"}),
    ({"created_at": "yesterday"}, {"dotnet"}),
    ({"created_at": None}, {"rust", "dotnet", "java"}),
    ({"open_tracking": None}, {"java"}),
    ({"open_tracking": "true"}, {"rust", "dotnet", "go", "java"}),
    ({"capabilities": None}, {"rust"}),
    ({"data": []}, {"php"}),
    ({"error": "none"}, {"php"}),
    ({"statusCode": 400}, {"ruby"}),
    ({"records": [RECORD | {"ttl": 300}]}, {"rust", "dotnet", "go", "java"}),
    ({"records": [RECORD | {"record": "DMARC"}]}, {"rust"}),
    ({"records": [RECORD | {"type": "TXT"}]}, {"rust"}),
    ({"records": [RECORD | {"status": "unknown"}]}, {"rust", "dotnet"}),
    ({"records": [RECORD | {"priority": "ten"}]}, {"rust", "dotnet", "go", "java"}),
)


class Readers(unittest.TestCase):
    """That the readers see what they are there for."""

    def test_what_breaks_whom(self):
        class Ok:
            status, headers = 200, {"content-type": "application/json"}

        def broken(change):
            for name, sdk in SDKS.items():
                try:
                    sdk.read(Ok, DOMAIN | change, "domain")
                except Mismatch:
                    yield name
        self.assertEqual(set(broken({})), set())
        for change, whom in BREAKS:
            self.assertEqual(set(broken(change)), whom, change)

    def test_headers_and_errors(self):
        class Late:
            status, headers = 429, {"content-type": "application/json", "retry-after": "Tue, 24 Nov 2026 06:00:00 GMT"}

        error = {"statusCode": 429, "name": "rate_limit_exceeded", "message": "Too many requests"}
        with self.assertRaises(Mismatch):
            SDKS["dotnet"].read(Late, error, "error")
        SDKS["ruby"].read(Late, error, "error")
        for name in ("php", "dotnet"):
            with self.assertRaises(Mismatch):
                type(SDKS[name]).error(error | {"name": "resource_locked"})
