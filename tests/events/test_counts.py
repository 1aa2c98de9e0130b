"""Counts and rates after a known history, as the SDKs, curl, the terminal and Prometheus have them: all the same."""

import datetime
import json
import re
import subprocess
import urllib.parse
import urllib.request

import paths  # noqa: F401, I001
import contract
import letters
import rest
import verifiers
from base import Case, events, lines, ok, side_by_side, wait_for_events
from letters import GMAIL, PAGES, hit
from relay import program
from smarthost import Script
from support import until

load_tests = side_by_side
ADA, GRACE, ALAN, NOBODY = "ada@example.net", "grace@example.net", "alan@example.net", "nobody@example.net"
# As History lets it happen. Notices to the sender are mail as well, but of no domain.
WHOLE = {
    "messages": 3, "tracked": 2, "untracked": 1, "sent": 6, "delivered": 5, "bounced": 1, "bounced_permanent": 1,
    "opened": 5, "opened_human": 3, "opened_machine": 2, "unique_opened": 3, "unique_opened_human": 2,
    "clicked": 4, "clicked_human": 3, "clicked_machine": 1, "unique_clicked": 2, "unique_clicked_human": 1,
    # Of four copies with a pixel and links, the plain one aside.
    "open_rate": 3 / 4, "open_rate_human": 2 / 4, "click_rate": 2 / 4, "click_rate_human": 1 / 4,
    "delivery_rate": 5 / 6, "bounce_rate": 1 / 6, "complained": 0, "failed": 0, "delivery_delayed": 0,
}
FIRST = {"sent": 4, "delivered": 3, "bounced": 1, "opened": 4, "opened_human": 2, "unique_opened": 2,
         "unique_opened_human": 1, "clicked": 4, "clicked_human": 3, "unique_clicked": 2, "unique_clicked_human": 1,
         "open_rate": 2 / 3, "click_rate": 2 / 3, "click_rate_human": 1 / 3}
OTHER = {"sent": 1, "delivered": 1, "bounced": 0, "opened": 1, "clicked": 0, "open_rate": 1, "click_rate": 0}
NONE = {name: 0 for name in WHOLE}


class History(Case):
    """Three messages of example.com and one of example.org, with what their readers did."""

    def setUp(self):
        super().setUp()
        server = self.relay()
        self.other_id = self.track(server, "example.org")
        self.own_id = server.json("domain", "show", "example.com")["id"]
        self.before = self.scrape()
        self.smarthost.script = Script({"rcpt": lambda session: "550 5.1.1 No such user"
                                        if session.recipient == NOBODY else None})
        self.first = self.read_and_bounced()
        self.second = self.send((ALAN,))
        self.plain = self.send((ADA,), text="No links.")
        self.other = self.send((ADA,), sender="news@example.org")
        self.first.read()
        # A person who opens twice, clicks one link twice and another once. What comes again at once is one record.
        self.many(2, self.first.pixels[ADA])
        self.many(2, self.first.links[ADA][0])
        hit(server, self.first.links[ADA][1])
        # An image proxy for somebody, again from elsewhere, and a scanner that asks for the head.
        hit(server, self.first.pixels[GRACE], agent=GMAIL, address="192.0.2.1")
        hit(server, self.first.pixels[GRACE], agent=GMAIL, address="192.0.2.2")
        hit(server, self.first.links[GRACE][2], method="HEAD", address="192.0.2.3")
        hit(server, self.second.pixels[ALAN], address="192.0.2.4")
        hit(server, self.other.pixels[ADA], address="192.0.2.5")
        until(lambda: f"all hits: {self.totals()}",
              lambda: {"opened": 6, "clicked": 4}.items() <= self.totals().items())

    def read_and_bounced(self):
        mail = self.send_all((ADA, GRACE, ALAN, NOBODY), tags=[("campaign", "autumn")])
        wait_for_events(self.server, mail, 1, "email.bounced")
        return mail

    def send_all(self, recipients, **content):
        """One of them bounces, so not every copy arrives."""
        mail = letters.submit(self.server, recipients, **content)
        for one in recipients[:-1]:
            text = letters.arrived(self.smarthost, mail, one)
            mail.links[one] = re.findall(r'<a href="(https?://[^"/]+/c/[^"]+)"', text)
            mail.pixels[one] = re.search(r'<img src="(https?://[^"/]+/o/[^"]+)"', text)[1]
        return mail

    def many(self, times, link):
        for _ in range(times):
            hit(self.server, link)

    def metrics(self, caller=None, **query):
        query = {name: ",".join(value) if type(value) is list else value for name, value in query.items()}
        return ok(caller or self.server, "GET", "/emails/metrics?" + urllib.parse.urlencode(query))

    def totals(self, **query):
        return self.metrics(metrics=list(WHOLE), **query)["totals"]

    def scrape(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.server.api}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        return {name: float(value) for name, value in re.findall(r"^(trackpost_\S+(?:\{[^}]*\})?) (\S+)$", text, re.M)}

    def same(self, figures, wanted, *what):
        for name, value in wanted.items():
            self.assertAlmostEqual(figures[name], value, 6, (name, *what, figures))


class Counts(History):
    def test_counts(self):
        """One history for all, as nothing here changes it."""
        for look in (self.by_domain, self.by_message, self.by_time, self.by_the_sdks, self.in_lists,
                     self.in_the_terminal, self.in_the_export, self.in_prometheus, self.what_is_refused):
            with self.subTest(look.__name__):
                look()

    def by_domain(self):
        self.same(self.totals(domain_id=self.own_id), WHOLE)
        self.same(self.totals(domain_id=self.other_id), OTHER)
        both = self.totals(domain_id=[self.own_id, self.other_id])
        names = ("sent", "delivered", "bounced", "opened", "clicked")
        self.same(both, {name: WHOLE[name] + OTHER[name] for name in names})
        self.same(both, {"open_rate": 4 / 5, "click_rate": 2 / 5})
        rows = {row["domain_name"]: row for row in self.metrics(metrics=list(WHOLE), dimensions="domain")["data"]}
        self.same(rows["example.com"], WHOLE)
        self.same(rows["example.org"], OTHER)
        self.assertEqual({row["domain_id"] for row in rows.values()}, {self.own_id, self.other_id})
        tied = self.key(self.server, "--domain", "example.org")
        self.same(self.metrics(tied)["totals"], OTHER)
        self.assertEqual(rest.call(tied, "GET", f"/emails/metrics?domain_id={self.own_id}").status, 404)

    def by_message(self):
        self.same(self.totals(email_id=self.first.id), FIRST)
        ids = [self.first.id, self.second.id, self.plain.id]
        self.same(self.totals(email_id=ids), WHOLE)
        rows = self.metrics(metrics=list(WHOLE), email_id=ids, dimensions=["email"])["data"]
        rows = {row["email_id"]: row for row in rows}
        self.same(rows[self.first.id], FIRST)
        self.same(rows[self.second.id], {"sent": 1, "opened": 1, "open_rate": 1, "clicked": 0, "click_rate": 0})
        self.same(rows[self.plain.id], {"sent": 1, "delivered": 1, "tracked": 0, "untracked": 1, "open_rate": 0})

    def by_time(self):
        """By hour and by day: a row for each, and only the last has something, but where an hour has just begun."""
        now = datetime.datetime.now(datetime.timezone.utc)
        hour, day = datetime.timedelta(hours=1), datetime.timedelta(days=1)
        for granularity, length, count in (("hourly", hour, 3), ("daily", day, 4)):
            start = (now - length * (count - 1)).isoformat()
            rows = self.metrics(metrics=list(WHOLE), domain_id=self.own_id, dimensions="period",
                                granularity=granularity, start_date=start)["data"]
            self.assertIn(len(rows), (count, count + 1))
            self.assertEqual([row["period"] for row in rows], sorted({row["period"] for row in rows}))
            for name in ("sent", "delivered", "opened", "clicked", "opened_machine"):
                self.assertEqual(sum(row[name] for row in rows), WHOLE[name], (granularity, name))
            self.assertEqual([row["sent"] for row in rows[:-2]], [0] * (len(rows) - 2))
        long_ago = {"start_date": "2020-01-01", "end_date": "2020-01-31"}
        self.same(self.totals(**long_ago), NONE)
        whole = self.metrics(dimensions=["period", "domain"], metrics=["sent"])["data"]
        self.assertEqual({(row["domain_name"], row["sent"]) for row in whole if row["sent"]},
                         {("example.com", 6), ("example.org", 1)})

    def by_the_sdks(self):
        node = verifiers.Node(self.folder / "node")
        asked = {"metrics": ["sent", "opened", "unique_opened", "open_rate", "click_rate"], "dimensions": ["domain"]}
        by_curl = self.metrics(**asked)
        by_node = json.loads(node.script(self.server, "counts.mjs", "metrics", json.dumps(asked)))
        with verifiers.python_sdk(self.server) as sdk:
            by_python = sdk.Emails.metrics(dict(asked))
            python_email, python_list = sdk.Emails.get(self.first.id), sdk.Emails.list()
        by_python = {name: value for name, value in by_python.items() if name != "http_headers"}
        for one in (by_curl, by_node, by_python):
            del one["start_date"], one["end_date"]
            self.assertEqual(one, by_curl)
            self.assertEqual(one.keys(), {"object", "metrics", "dimensions", "granularity", "totals", "data"})
        email = ok(self.server, "GET", f"/emails/{self.first.id}")
        listed = ok(self.server, "GET", "/emails")
        self.assertEqual(json.loads(node.script(self.server, "counts.mjs", "get", json.dumps(self.first.id))), email)
        self.assertEqual(json.loads(node.script(self.server, "counts.mjs", "list", "{}")), listed)
        self.assertEqual({name: value for name, value in python_email.items() if name != "http_headers"}, email)
        self.assertEqual(python_list["data"], listed["data"])

    def in_lists(self):
        """`/emails`, one of them, and its events."""
        mails = {one["id"]: one for one in contract.listing(ok(self.server, "GET", "/emails"), contract.message)}
        wanted = {self.first.id: "clicked", self.second.id: "opened", self.plain.id: "delivered",
                  self.other.id: "opened"}
        self.assertEqual({id: mails[id]["last_event"] for id in wanted}, wanted)
        one = contract.email(ok(self.server, "GET", f"/emails/{self.first.id}"))
        self.assertEqual(one["tags"], [{"name": "campaign", "value": "autumn"}])
        self.assertEqual({each["address"]: each["status"] for each in one["recipients"]},
                         {ADA: "relayed", GRACE: "relayed", ALAN: "relayed", NOBODY: "bounced"})
        told = events(self.server, self.first)
        kinds = [each["type"] for each in told]
        self.assertEqual({kind: kinds.count(kind) for kind in set(kinds)}, {
            "email.sent": 1, "email.delivered": 3, "email.bounced": 1, "email.opened": 3, "email.clicked": 3})
        self.assertEqual([each["created_at"] for each in told], sorted(each["created_at"] for each in told))
        self.assertEqual(len({each["id"] for each in told}), len(told))
        clicks = {(each["recipient"], each["link"], each["class"], each["count"])
                  for each in told if each["type"] == "email.clicked"}
        self.assertEqual(clicks, {(ADA, PAGES[0], "human", 2), (ADA, PAGES[1], "human", 1),
                                  (GRACE, PAGES[2], "machine", 1)})
        opens = {(each["recipient"], each["class"], each["ip_address"], each["count"])
                 for each in told if each["type"] == "email.opened"}
        self.assertEqual(opens, {(ADA, "human", "198.51.100.7", 2), (GRACE, "machine", "192.0.2.1", 1),
                                 (GRACE, "machine", "192.0.2.2", 1)})
        # Page by page is everything, each once.
        ids, page = [], {"has_more": True}
        while page["has_more"]:
            after = f"&after={ids[-1]}" if ids else ""
            page = ok(self.server, "GET", f"/emails/{self.first.id}/events?limit=4{after}")
            ids += [each["id"] for each in page["data"]]
        self.assertEqual(ids, [each["id"] for each in told[::-1]])

    def in_the_terminal(self):
        stats = self.server.json("domain", "stats", "example.com", "--days", "2")
        names = ("messages", "sent", "delivered", "bounced", "opened_human", "opened_machine", "clicked_human",
                 "clicked_machine", "unique_opened_human", "unique_clicked_human", "open_rate", "click_rate",
                 "open_rate_human", "click_rate_human")
        self.same(stats["total"], {name: WHOLE[name] for name in names})
        self.assertEqual(sum(day["clicked_human"] for day in stats["days"]), 3)
        # A link is shown without its query.
        links = {one["url"]: (one["clicked_human"], one["clicked_machine"]) for one in stats["links"]}
        self.assertEqual(links, {PAGES[0].partition("?")[0]: (2, 0), PAGES[1]: (1, 0), PAGES[2]: (0, 1)})
        self.assertEqual(stats["tags"], [{"tag": "campaign=autumn", "sent": 4, "opened_human": 1, "clicked_human": 1}])
        self.assertEqual(stats["untracked"], [{"reason": "no-html", "messages": 1}])
        shown = self.server.command("domain", "stats", "example.com")
        self.assertIn("campaign=autumn", shown)

    def in_the_export(self):
        """Every event once, as the API has them."""
        exported = lines(self.server.command("events", "export"))
        self.assertEqual(len({one["id"] for one in exported}), len(exported))
        listed = [one["id"] for one in ok(self.server, "GET", "/emails?limit=100")["data"]]
        self.assertEqual({one["email_id"] for one in exported}, set(listed))
        for mail in (self.first, self.second, self.plain, self.other):
            own = [one for one in exported if one["email_id"] == mail.id]
            api = events(self.server, mail)

            def facts(found, recipient):
                return sorted((one["type"], one.get(recipient, ""), one.get("link", ""), one.get("count", 0))
                              for one in found)

            self.assertEqual(facts(own, "to"), facts(api, "recipient"))
        self.assertEqual([one["email_id"] for one in exported], sorted((one["email_id"] for one in exported)))

    def in_prometheus(self):
        after = self.scrape()
        for name, more in {
            'trackpost_hits_total{class="human"}': 7, 'trackpost_hits_total{class="machine"}': 3,
            "trackpost_messages_tracked_total": 3, 'trackpost_messages_untracked_total{reason="no-html"}': 1,
        }.items():
            self.assertEqual(after[name] - self.before.get(name, 0), more, name)
        for name, least in {"trackpost_messages_accepted_total": 4, 'trackpost_deliveries_total{outcome="sent"}': 6,
                            'trackpost_deliveries_total{outcome="bounced"}': 1, "trackpost_log_sync_seconds_count": 4,
                            "trackpost_rewrite_seconds_count": 4}.items():
            self.assertGreaterEqual(after[name] - self.before.get(name, 0), least, name)
        self.assertEqual(after["trackpost_hits_lost_total"], 0)

    def what_is_refused(self):
        for query in ("metrics=nonsense", "granularity=yearly", "dimensions=all", "timezone=Mars/Olympus",
                      "start_date=now", "dimensions=email,broadcast", "start_date=2026-02-01&end_date=2026-01-01"):
            answer = rest.call(self.server, "GET", f"/emails/metrics?{query}")
            self.assertEqual((answer.status, answer.body["name"]), (422, "validation_error"), query)


class Live(Case):
    def test_a_click_is_seen_as_it_happens(self):
        server = self.relay()
        mail = self.send()
        wait_for_events(server, mail, 1, "email.delivered")
        command = [program(), "--config", server.config, "events", "tail", "--follow", "--json"]
        with (self.folder / "tail").open("wb") as out:
            tail = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out)
        self.addCleanup(tail.wait)
        self.addCleanup(tail.kill)

        def seen(kind):
            return [one for one in lines((self.folder / "tail").read_text().rpartition("\n")[0]) if one["type"] == kind]

        until("what was there", lambda: seen("email.delivered"))
        hit(server, mail.links[ADA][1])
        (click,) = until("the click", lambda: seen("email.clicked"), 5)
        self.assertEqual((click["email_id"], click["link"], click["to"]), (mail.id, PAGES[1], ADA))
        later = self.send()
        until("the next message", lambda: [one for one in seen("email.delivered") if one["email_id"] == later.id], 5)
