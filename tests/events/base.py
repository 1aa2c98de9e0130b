"""What every test here stands on: a DNS server, a smarthost and a relay as tests/domains has them, and endpoints."""

import dataclasses
import json
import unittest.util

import paths  # noqa: F401, I001: it says where the others are
import case
import letters
import rest
from case import side_by_side  # noqa: F401
from receiver import Receiver
from support import until

unittest.util._MAX_LENGTH = 2000
OPERATOR = "operator@example.org"
EMAIL_EVENTS = ("email.sent", "email.delivered", "email.delivery_delayed", "email.bounced", "email.failed",
                "email.opened", "email.clicked")
DOMAIN_EVENTS = ("domain.created", "domain.updated", "domain.deleted")
EVENTS = EMAIL_EVENTS + DOMAIN_EVENTS
UNKNOWN = "00000000-0000-4000-8000-000000000000"


@dataclasses.dataclass(frozen=True)
class Caller:
    """The API with another key."""

    server: object
    token: str

    @property
    def api(self):
        return self.server.api


class Case(case.Case):
    def relay(self, settings=None, **options):
        """Started, with example.com set up for tracking. Endpoints may be anywhere, and are tried again soon."""
        sections = {"webhooks": {"allow_private": True, "retry": ["300ms", "300ms", "300ms"]},
                    "tracking": {"trusted_proxies": ["127.0.0.1/32"]}}
        for name, keys in (settings or {}).items():
            sections[name] = sections.get(name, {}) | keys
        self.server = server = super().relay(sections, **options)
        self.track(server, "example.com")
        until("the history to be open", lambda: rest.call(server, "GET", "/emails").status == 200)
        return server

    def track(self, server, name):
        server.command("domain", "add", name, "--subdomain", "links", "--open", "--click", "--force-verified")
        return server.json("domain", "show", name)["id"]

    def receiver(self, tls=None):
        made = Receiver(tls)
        self.addCleanup(made.stop)
        return made

    def key(self, server, *options):
        """A new API key, as a caller."""
        return Caller(server, server.command("key", "create", "--name", "tests", *options).strip())

    def send(self, recipients=("ada@example.net",), **content):
        """Through the relay that was started last, to the smarthost."""
        return letters.send(self.server, self.smarthost, recipients, **content)


def ok(caller, method, path, body=None, status=200):
    return rest.done(caller, status, method, path, body)


def hook(caller, url, events=EMAIL_EVENTS):
    """A new endpoint: its id and secret."""
    made = ok(caller, "POST", "/webhooks", {"endpoint": url, "events": list(events)}, 201)
    return made["id"], made["signing_secret"]


def told(caller, id, query="limit=100"):
    """What an endpoint is told, the newest first."""
    return ok(caller, "GET", f"/webhooks/{id}/events?{query}")["data"]


def attempts(caller, id, event):
    return ok(caller, "GET", f"/webhooks/{id}/events/{event}/attempts")["data"]


def events(caller, mail, *kinds):
    """What happened to a message, the oldest first."""
    found = ok(caller, "GET", f"/emails/{mail.id}/events")["data"][::-1]
    return [one for one in found if not kinds or one["type"] in kinds]


def wait_for_events(caller, mail, count, *kinds):
    return until(lambda: f"{count} of {kinds} in {events(caller, mail)}",
                 lambda: len(found := events(caller, mail, *kinds)) >= count and found)


def lines(text):
    """Every line as JSON."""
    return [json.loads(line) for line in text.splitlines()]
