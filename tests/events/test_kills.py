"""The kill list: a link, all links of a message, all that has to do with a domain, answer 410 within a second."""

import time

import paths  # noqa: F401, I001
import rest
from base import Case, events, ok, side_by_side, wait_for_events
from letters import PAGES, hit
from support import until

load_tests = side_by_side
ADA, GRACE = "ada@example.net", "grace@example.net"
ALIVE, GONE = 302, 410


class Kills(Case):
    def setUp(self):
        super().setUp()
        self.relay()
        self.track(self.server, "example.org")
        self.mails = [self.send((ADA, GRACE)), self.send((ADA,)), self.send((ADA,), sender="news@example.org")]

    def statuses(self):
        """Of every link, mail by mail and copy by copy."""
        return [[hit(self.server, link)[0] for link in links] for mail in self.mails for links in mail.links.values()]

    def within_a_second(self, wanted, since):
        until(lambda: f"{wanted}, not {self.statuses()}", lambda: self.statuses() == wanted)
        self.assertLess(time.monotonic() - since, 1)

    def test_by_api_and_command(self):
        whole = [[ALIVE] * 3] * 4
        self.assertEqual(self.statuses(), whole)
        table = [
            ("message", self.mails[0].id, [[GONE] * 3] * 2 + [[ALIVE] * 3] * 2),
            ("link", PAGES[0], [[GONE, ALIVE, ALIVE]] * 4),
            # A destination is one, whatever it is part of.
            ("link", PAGES[0].partition("?")[0], whole),
            ("domain", "example.org", [[GONE, GONE, ALIVE]] * 3 + [[GONE] * 3]),
            ("domain", "shop.example.net", [[ALIVE, ALIVE, GONE]] * 4),
            # Of a host its own domain is meant, not what lies above it.
            ("domain", "org.example", whole),
        ]
        for kind, value, wanted in table:
            for by_api in (True, False):
                with self.subTest(kind=kind, value=value, by_api=by_api):
                    since = time.monotonic()
                    if by_api:
                        made = ok(self.server, "POST", "/kill-list", {"type": kind, "value": value}, 201)
                        self.assertEqual((made["object"], made["type"], made["value"]), ("kill", kind, value))
                    else:
                        self.server.command("kill", "add", kind, value)
                    self.within_a_second(wanted, since)
                    listed = ok(self.server, "GET", "/kill-list")["data"]
                    self.assertEqual([(one["type"], one["value"]) for one in listed], [(kind, value)])
                    since = time.monotonic()
                    if by_api:
                        gone = ok(self.server, "DELETE", f"/kill-list/{made['id']}")
                        self.assertEqual((gone["deleted"], gone["id"]), (True, made["id"]))
                    else:
                        self.server.command("kill", "remove", kind, value)
                    self.within_a_second(whole, since)
        self.assertEqual(ok(self.server, "GET", "/kill-list")["data"], [])

    def test_it_lasts_and_is_not_a_click(self):
        mail = self.mails[1]
        ok(self.server, "POST", "/kill-list", {"type": "message", "value": mail.id}, 201)
        self.server.command("kill", "add", "link", PAGES[1])
        wanted = [[ALIVE, GONE, ALIVE]] * 2 + [[GONE] * 3] + [[ALIVE, GONE, ALIVE]]
        self.assertEqual(self.statuses(), wanted)
        self.server.stop()
        self.server.start()
        self.assertEqual(self.statuses(), wanted)
        self.server.restart()
        self.assertEqual(self.statuses(), wanted)
        # Who opens it is still seen, who gets 410 is not.
        hit(self.server, mail.pixels[ADA])
        wait_for_events(self.server, mail, 1, "email.opened")
        self.assertEqual(events(self.server, mail, "email.clicked"), [])
        clicked = wait_for_events(self.server, self.mails[2], 2, "email.clicked")
        self.assertNotIn(PAGES[1], [one["link"] for one in clicked])

    def test_what_cannot_stand_there(self):
        for value in ({"type": "message", "value": "nonsense"}, {"type": "link", "value": "ftp://example.net/"},
                      {"type": "domain", "value": "a..b"}, {"type": "other", "value": "x"}, {"type": "link"}):
            answer = rest.call(self.server, "POST", "/kill-list", value)
            self.assertEqual(answer.status, 422, answer.body)
        tied = self.key(self.server, "--domain", "example.com")
        refused = rest.call(tied, "POST", "/kill-list", {"type": "message", "value": self.mails[0].id})
        self.assertEqual(refused.body["name"], "restricted_api_key")
        self.assertEqual(self.statuses(), [[ALIVE] * 3] * 4)
