"""What every test here stands on: a DNS server, a smarthost and a relay as tests/domains has them, browsers and
sessions over HTTP, and the rest of the world on a port of its own."""

import pathlib
import unittest.util

import paths  # noqa: F401, I001
import case
import rest
from browser import Browser
from receiver import Receiver
from support import folder, until
from visitor import Visitor
from world import World

unittest.util._MAX_LENGTH = 4000
HOST = "links.example.com"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
# Endpoints may be anywhere, who asks is told by a proxy where one says so, and what is put off stays so.
SETTINGS = {"webhooks": {"allow_private": True, "retry": ["300ms", "300ms", "300ms"]},
            "tracking": {"trusted_proxies": ["127.0.0.1/32"]}, "queue": {"retry": ["10m"], "min_free": "1MiB"}}


def folder_of(test):
    """A temporary folder that goes with the test."""
    made = folder()
    test.addCleanup(made.cleanup)
    return pathlib.Path(made.name)


class Case(case.Case):
    def setUp(self):
        super().setUp()
        self.world = World()
        self.addCleanup(self.world.stop)
        self.browsers = 0

    def relay(self, settings=None, **options):
        """Started, with a history that is open."""
        self.server = super().relay(merged(SETTINGS, settings or {}), **options)
        until("the history to be open", lambda: rest.call(self.server, "GET", "/emails").status == 200)
        return self.server

    def key(self, *options):
        """The token of a new API key with full access, or what is asked for."""
        return self.server.command("key", "create", "--name", "tests", *options).strip()

    def track(self, name, *options):
        """A domain whose subdomain counts as verified; its id."""
        self.server.command("domain", "add", name, "--subdomain", "links", "--open", "--click", "--force-verified",
                            *options)
        return self.server.json("domain", "show", name)["id"]

    def browser(self, scripts=True, hosts=(HOST,), token=None):
        """One that finds tracking hosts at the relay; with a token, signed in."""
        self.browsers += 1
        made = Browser(self.folder / f"browser{self.browsers}", self.world, dict.fromkeys(hosts, self.server.web),
                       scripts, f"http://127.0.0.1:{self.server.api}")
        self.addCleanup(made.stop)
        if token:
            made.sign_in(token)
        return made

    def visitor(self, token=None):
        return Visitor(self.server.api, token)

    def receiver(self):
        made = Receiver()
        self.addCleanup(made.stop)
        return made


def merged(settings, more):
    return {name: settings.get(name, {}) | more.get(name, {}) for name in settings | more}


def as_browser(browser, visitor):
    """A session over HTTP that is the browser's own."""
    visitor.jar = browser.cookies()
    return visitor
