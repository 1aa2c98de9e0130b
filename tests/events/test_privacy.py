"""What is kept of people: nothing of those who opted out, everything that is theirs when they ask, nothing once they
are erased, and no more of addresses and agents than the operator wants."""

import json
import subprocess
import threading
import time

import paths  # noqa: F401, I001
import rest
from base import Case, events, hook, lines, ok, side_by_side, told, wait_for_events
from case import DAY
from letters import FIREFOX, PAGES, hit, submit
from relay import program
from support import until

load_tests = side_by_side
ADA, GRACE = "ada@example.net", "grace@example.net"
AGENT = FIREFOX.replace("Firefox", "Seldom")
ADDRESS = "198.51.100.77"


class Person(Case):
    def follow(self, mail, recipient, **asked):
        """Opens, and clicks the first link."""
        asked = {"agent": AGENT, "address": ADDRESS} | asked
        self.assertEqual(hit(self.server, mail.pixels[recipient], **asked)[0], 200)
        self.assertEqual(hit(self.server, mail.links[recipient][0], **asked), (302, PAGES[0]))

    def is_tracked(self, mail, recipient):
        self.assertEqual(bool(mail.pixels[recipient]), bool(mail.links[recipient]))
        return bool(mail.pixels[recipient])


class OptOut(Person):
    def test_new_mail_and_old(self):
        http = self.receiver()
        server = self.relay()
        hook(server, http.url("/hook"))
        self.track(server, "example.org")
        both = (ADA, GRACE)
        old, other = self.send(both), self.send(both, sender="news@example.org")
        self.assertTrue(self.is_tracked(old, ADA) and self.is_tracked(other, ADA))
        made = ok(server, "POST", "/opt-outs", {"email": "Ada@Example.net"}, 201)
        self.assertNotIn("ada", json.dumps(made).lower())
        server.command("recipient", "opt-out", GRACE, "--domain", "example.com")
        new, elsewhere = self.send(both), self.send(both, sender="news@example.org")
        self.assertEqual([self.is_tracked(mail, one) for mail in (new, elsewhere) for one in both],
                         [False, False, False, True])
        # Old links lead on, and nobody notes who follows them.
        for mail in (old, other):
            for one in both:
                self.follow(mail, one)
        wait_for_events(server, other, 2, "email.opened", "email.clicked")
        seen = {one["recipient"] for one in events(server, other, "email.opened", "email.clicked")}
        self.assertEqual(seen, {GRACE})
        self.assertEqual(events(server, old, "email.opened", "email.clicked"), [])
        http.wait("/hook", 2, "email.opened", "email.clicked")
        self.assertEqual({(one.data["email_id"], one.data["to"][0])
                          for one in http.got("/hook", "email.opened", "email.clicked")}, {(other.id, GRACE)})
        # Taken back, it is as before.
        self.assertTrue(ok(server, "DELETE", "/opt-outs?email=ada@example.net")["deleted"])
        self.assertEqual([self.is_tracked(self.send(both), one) for one in both], [True, False])
        self.follow(old, ADA)
        wait_for_events(server, old, 2, "email.opened", "email.clicked")

    def test_it_outlives_erasure(self):
        server = self.relay()
        self.send()
        server.command("recipient", "opt-out", ADA)
        server.command("recipient", "erase", ADA)
        self.assertFalse(self.is_tracked(self.send(), ADA))
        server.restart()
        self.assertFalse(self.is_tracked(self.send(), ADA))


class Erasure(Person):
    def setUp(self):
        super().setUp()
        self.http = self.receiver()
        self.relay()
        self.hook, _ = hook(self.server, self.http.url("/hook"))
        self.both, self.hers, self.other = self.send((ADA, GRACE)), self.send((ADA,)), self.send((GRACE,))
        for mail, one in ((self.both, ADA), (self.both, GRACE), (self.hers, ADA), (self.other, GRACE)):
            self.follow(mail, one, address={ADA: ADDRESS, GRACE: "192.0.2.9"}[one], agent=f"{AGENT} {one[:3].upper()}")
        for mail, count in ((self.both, 4), (self.hers, 2), (self.other, 2)):
            wait_for_events(self.server, mail, count, "email.opened", "email.clicked")
        # sent and delivered for each of four copies, and an open and a click.
        self.http.wait("/hook", 16)
        until("all to be noted", lambda: all(one["status"] == "success" for one in told(self.server, self.hook)))

    def export(self, address):
        return lines(self.server.command("recipient", "export", address))

    def payloads(self):
        return [ok(self.server, "GET", f"/webhooks/{self.hook}/events/{one['id']}")
                for one in told(self.server, self.hook)]

    def everywhere(self):
        """All that is shown of anybody, by where."""
        server = self.server
        shown = {"export": server.command("events", "export"), "tail": server.command("events", "tail", "--json"),
                 "list": json.dumps(ok(server, "GET", "/emails")), "payloads": json.dumps(self.payloads()),
                 "search": server.command("search", ADA, "--json"),
                 "stats": server.command("domain", "stats", "example.com", "--json")}
        for mail in (self.both, self.hers, self.other):
            shown[f"email {mail.id}"] = json.dumps(ok(server, "GET", f"/emails/{mail.id}"))
            shown[f"events {mail.id}"] = json.dumps(ok(server, "GET", f"/emails/{mail.id}/events"))
            shown[f"queue {mail.id}"] = server.command("queue", "show", mail.id, "--json")
        return shown

    def test_export_is_of_one_person(self):
        for upper in (ADA, "ADA@Example.Net"):
            exported = self.export(upper)
            self.assertEqual({one["message"]["id"] for one in exported}, {self.both.id, self.hers.id})
            for one in exported:
                kinds = sorted(event["type"] for event in one["events"])
                self.assertEqual(kinds, ["email.clicked", "email.delivered", "email.opened", "email.sent"])
                for event in one["events"]:
                    if event["type"] in ("email.opened", "email.clicked"):
                        self.assertEqual((event["address"], event["agent"]), (ADDRESS, f"{AGENT} ADA"))
        text = json.dumps(self.export(ADA))
        for other in (GRACE, "192.0.2.9", f"{AGENT} GRA"):
            self.assertNotIn(other, text)
        text = json.dumps(self.export(GRACE))
        self.assertEqual(text.count("192.0.2.9"), 4)
        self.assertNotIn(ADA, text)
        self.assertEqual(self.export("nobody@example.net"), [])

    def test_over_the_api(self):
        server, mine = self.server, f"/recipients?email={ADA}"
        page = ok(server, "GET", f"{mine}&limit=1")
        self.assertEqual(([one["id"] for one in page["data"]], page["has_more"]), ([self.hers.id], True))
        rest_of_it = ok(server, "GET", f"{mine}&limit=1&after={self.hers.id}")
        self.assertEqual(([one["id"] for one in rest_of_it["data"]], rest_of_it["has_more"]), ([self.both.id], False))
        kinds = sorted(event["type"] for event in rest_of_it["data"][0]["events"])
        self.assertEqual(kinds, ["email.clicked", "email.delivered", "email.opened", "email.sent"])
        self.assertEqual(rest.call(server, "GET", "/recipients").status, 422)
        self.assertEqual(rest.call(server, "DELETE", "/recipients?email=nobody").status, 422)
        self.assertEqual(ok(server, "DELETE", mine), {"object": "recipient", "deleted": True, "messages": 2})
        self.gone()
        self.assertEqual(ok(server, "GET", mine)["data"], [])
        self.assertEqual(ok(server, "DELETE", mine), {"object": "recipient", "deleted": False, "messages": 0})

    def test_erased_is_gone_everywhere(self):
        before = self.everywhere()
        named = {where for where, text in before.items() if ADA in text.lower()}
        self.assertLessEqual({"export", "list", "payloads", "search", f"email {self.hers.id}"}, named)
        totals = ok(self.server, "GET", "/emails/metrics")["totals"]
        self.assertEqual(self.server.json("recipient", "erase", "Ada@example.net"), {"messages": 2})
        self.gone()
        self.assertEqual(self.server.json("recipient", "erase", ADA), {"messages": 0})
        # Counts name nobody, and stay.
        self.assertEqual(ok(self.server, "GET", "/emails/metrics")["totals"], totals)
        # Of others nothing is lost.
        self.assertEqual(len(self.export(GRACE)), 2)
        self.assertEqual(len(events(self.server, self.both, "email.opened", "email.clicked")), 2)
        self.server.stop()
        self.server.start()
        until("the history to be open", lambda: rest.call(self.server, "GET", "/emails").status == 200)
        self.gone()

    def test_who_was_erased_stays_so(self):
        """An old link leads on, and who follows it is not noted anew: nobody could find that again to erase it."""
        self.server.command("recipient", "erase", ADA)
        self.follow(self.hers, ADA)
        self.follow(self.both, ADA)
        later = self.send((GRACE,))
        self.follow(later, GRACE, address="192.0.2.9", agent=f"{AGENT} GRA")
        wait_for_events(self.server, later, 2, "email.opened", "email.clicked")
        self.assertEqual(events(self.server, self.hers, "email.opened", "email.clicked"), [])
        tail = [one["id"] for one in lines(self.server.command("events", "tail", "--json"))]
        self.assertEqual(len(tail), len(set(tail)), "each event is shown once")
        self.gone()

    def gone(self):
        self.assertEqual(self.export(ADA), [])
        for where, text in self.everywhere().items():
            with self.subTest(where):
                for trace in (ADA, ADDRESS, f"{AGENT} ADA"):
                    self.assertNotIn(trace.lower(), text.lower())


class Raw(Person):
    def shown(self, events_settings):
        """What webhooks, the API, the export and a follower of the tail have of one open and one click."""
        http = self.receiver()
        server = self.relay({"events": events_settings})
        id, _ = hook(server, http.url("/hook"), ["email.opened", "email.clicked"])
        mail = self.send()
        self.follow(mail, ADA)
        self.follow(mail, ADA, address="2001:db8:1:2:3:4:5:6")
        wait_for_events(server, mail, 4, "email.opened", "email.clicked")
        http.wait("/hook", 4)
        listed = [ok(server, "GET", f"/webhooks/{id}/events/{one['id']}") for one in told(server, id)]
        return {
            "api": json.dumps(events(server, mail)), "webhooks": json.dumps([one.event for one in http.got("/hook")]),
            "listed": json.dumps(listed), "export": server.command("events", "export"),
            "person": server.command("recipient", "export", ADA), "tail": server.command("events", "tail", "--json"),
            "text": server.command("events", "tail"),
        }

    def test_addresses_are_cut(self):
        for where, text in self.shown({"anonymize_ip": True}).items():
            with self.subTest(where):
                self.assertNotIn(ADDRESS, text)
                self.assertNotIn("2001:db8:1:2", text)
                if where != "text":
                    self.assertIn('"198.51.100.0"', text)
                    self.assertIn('"2001:db8:1::"', text)

    def test_nothing_raw_is_kept(self):
        for where, text in self.shown({"raw_retention": "0"}).items():
            with self.subTest(where):
                for trace in (ADDRESS, "198.51.100", "2001:db8", "Seldom", "Mozilla"):
                    self.assertNotIn(trace, text)

    def test_nothing_raw_is_followed(self):
        """Nor by who watches."""
        server = self.relay({"events": {"raw_retention": "0"}})
        mail = self.send()
        command = [str(program()), "--config", str(server.config), "events", "tail", "--follow", "--json"]
        with (self.folder / "tail").open("wb") as out:
            tail = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out)
        self.addCleanup(tail.wait)
        self.addCleanup(tail.kill)
        wait_for_events(server, mail, 1, "email.delivered")
        until("the tail to begin", lambda: "email.delivered" in (self.folder / "tail").read_text())
        self.follow(mail, ADA)
        until("the click", lambda: "email.clicked" in (self.folder / "tail").read_text())
        text = (self.folder / "tail").read_text()
        for trace in (ADDRESS, "Seldom"):
            self.assertNotIn(trace, text)


class Time(Person):
    def test_raw_for_a_day_and_all_for_three(self):
        """By the clock: first addresses and agents go, then what happened; also out of what webhooks were told."""
        http = self.receiver()
        server = self.relay({"events": {"raw_retention": "1d", "retention": "3d"}}, clock=True)
        id, _ = hook(server, http.url("/hook"))
        mail = self.send()
        self.follow(mail, ADA)
        http.wait("/hook", 4)
        wait_for_events(server, mail, 4)

        def shown():
            return json.dumps([events(server, mail), lines(server.command("events", "export")),
                               lines(server.command("recipient", "export", ADA))])

        def payloads():
            return json.dumps([ok(server, "GET", f"/webhooks/{id}/events/{one['id']}") for one in told(server, id)])

        def later(seconds):
            self.clock.set(seconds)
            server.restart()
            until("the history to be open", lambda: rest.call(server, "GET", "/emails").status == 200)

        self.assertEqual((shown().count(ADDRESS), payloads().count(ADDRESS)), (6, 2))
        later(DAY - 600)
        self.assertEqual((shown().count(ADDRESS), payloads().count(ADDRESS)), (6, 2))
        later(DAY + 7200)
        until(lambda: f"no address in {shown()}", lambda: ADDRESS not in shown() and "Seldom" not in shown())
        self.assertEqual(len(wait_for_events(server, mail, 4)), 4)
        # What was told is kept for two days in any case.
        later(2 * DAY + 7200)
        until(lambda: f"no address in {payloads()}", lambda: ADDRESS not in payloads())
        later(3 * DAY + 7200)
        until(lambda: f"nothing in {server.command('events', 'export')}",
              lambda: not server.command("events", "export"))
        self.assertEqual(rest.call(server, "GET", f"/emails/{mail.id}").status, 404)
        self.assertEqual(lines(server.command("recipient", "export", ADA)), [])


class Busy(Person):
    def test_mail_that_goes_on_cuts_no_erasure_short(self):
        """What is to be forgotten takes its time, and new mail has the recorder look up every quarter of a second."""
        http = self.receiver()
        server = self.relay()
        hooks = [hook(server, http.url("/hook"))[0] for _ in range(20)]
        mails = [submit(server, (ADA,)) for _ in range(45)]
        until("all in the history", lambda: len(lines(server.command("recipient", "export", ADA))) == len(mails))
        until("all told", lambda: all(len(told(server, one)) >= 2 * len(mails) for one in hooks))
        ended = threading.Event()

        def go_on():
            while not ended.wait(0.2):
                submit(server, (GRACE,))

        going = threading.Thread(target=go_on)
        going.start()
        try:
            time.sleep(1)
            self.assertEqual(server.json("recipient", "erase", ADA), {"messages": len(mails)})
        finally:
            ended.set()
            going.join()
        for one in hooks:
            for event in told(server, one):
                shown = ok(server, "GET", f"/webhooks/{one}/events/{event['id']}")
                self.assertNotIn(ADA, json.dumps(shown))


class Waiting(Person):
    def test_what_waits_is_forgotten_too(self):
        """An endpoint that could not be told of somebody is not told any more, once they are erased."""
        http = self.receiver()
        server = self.relay({"webhooks": {"retry": ["2s"] * 5}})
        hook(server, http.url("/late"))
        http.steps["/late"] = 500
        mail = self.send((ADA, GRACE))
        for one in (ADA, GRACE):
            self.follow(mail, one)
        wait_for_events(server, mail, 4, "email.opened", "email.clicked")
        http.wait("/late", 1)
        server.command("recipient", "erase", ADA)
        before = len(http.got("/late"))
        http.steps.clear()
        until(lambda: f"those of others {[one.kind for one in http.got('/late')]}",
              lambda: sum(one.data["to"] == [GRACE] for one in http.got("/late")[before:]) >= 4)
        later = self.send((GRACE,))
        until("what comes later", lambda: any(one.data["email_id"] == later.id for one in http.got("/late")))
        for one in http.got("/late")[before:]:
            self.assertNotIn(ADA, one.body.decode())
