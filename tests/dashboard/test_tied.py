"""A customer's key sees what is the customer's, and of everything else not even that it is there."""

import paths  # noqa: F401, I001
import checks
import rest
from base import Case, UNKNOWN
from crawl import crawl
from letters import send
from support import until
from together import load_tests  # noqa: F401
from visitor import words

MINE, OTHERS = "example.com", "zebra.example.org"
# Which stands in everything that is not theirs.
SECRET = "zebra"
SHARED = {"/dashboard", "/dashboard/domains", "/dashboard/emails", "/dashboard/metrics", "/dashboard/webhooks"}
CLOSED = ("/dashboard/api-keys", "/dashboard/api-keys/new", "/dashboard/queue", "/dashboard/kill-list",
          "/dashboard/kill-list/new")


class Tied(Case):
    def setUp(self):
        super().setUp()
        self.relay()
        self.mine, self.others = self.track(MINE), self.track(OTHERS)
        self.tied = self.key("--domain", MINE)
        self.http = self.receiver()
        self.sent = [send(self.server, self.smarthost, (f"{word}@example.net",), sender=f"news@{domain}",
                          subject=f"{word} offer", tags=[("list", word)], pages=[f"https://{word}.example.net/page"])
                     for domain, word in ((MINE, "open"), (OTHERS, SECRET))]
        hook = {"events": ["email.sent", "email.delivered"], "endpoint": self.http.url(f"/{SECRET}")}
        self.hook = rest.done(self.server, 201, "POST", "/webhooks", hook)["id"]
        self.server.command("key", "create", "--name", f"{SECRET} key")
        self.server.command("kill", "add", "domain", f"{SECRET}.example.net")

    def test_pages(self):
        visitor = self.visitor(self.tied)
        found = crawl(visitor, each=10)
        self.assertLessEqual(SHARED, found.keys())
        self.assertEqual([path for path in found if path.startswith(CLOSED)], [])
        faults = []
        for answer in [answer for kept in found.values() for answer in kept]:
            faults += checks.served(answer)
            if SECRET in answer.text.lower() or self.others in answer.text or self.hook in answer.text:
                faults.append(f"{answer.path}: {answer.words}")
        checks.sound(faults)
        text = " ".join(answer.text for kept in found.values() for answer in kept)
        for own in (MINE, "open@example.net", self.sent[0].id):
            self.assertIn(own, text)

    def test_ids_of_others(self):
        """Not there, as one that never was."""
        visitor, operator = self.visitor(self.tied), self.visitor(self.server.token)
        event = rest.done(self.server, 200, "GET", f"/webhooks/{self.hook}/events")["data"]
        event = event[0]["id"] if event else "msg_2Ab4cD6eF8gH0iJ2kL4mN6oP8qR"
        key = rest.done(self.server, 200, "GET", "/api-keys")["data"][0]["id"]
        kill = rest.done(self.server, 200, "GET", "/kill-list")["data"][0]["id"]
        paths_of = [f"/dashboard/domains/{{}}{part}" for part in ("", "/configuration", "/configure", "/delete")]
        cases = [(one, self.others) for one in paths_of]
        cases += [(f"/dashboard/emails/{{}}{part}", self.sent[1].id)
                  for part in ("", "/report", "/preview", "/preview/content")]
        cases += [(f"/dashboard/webhooks/{{}}{part}", self.hook)
                  for part in ("", "/edit", "/delete", f"/events/{event}")]
        cases += [(f"/dashboard/api-keys/{{}}{part}", key) for part in ("/rename", "/delete")]
        cases += [("/dashboard/queue/{}", self.sent[1].id), ("/dashboard/kill-list/{}/delete", kill)]
        for path, id in cases:
            with self.subTest(path):
                answer, never = visitor.get(path.format(id)), visitor.get(path.format(UNKNOWN))
                self.assertEqual((answer.status, never.status), (404, 404))
                self.assertEqual(answer.words, never.words)
        for path in CLOSED:
            with self.subTest(path):
                self.assertEqual((visitor.get(path).status, operator.get(path).status), (404, 200))

    def test_forms_of_others(self):
        """Also when sent by hand, with the right token."""
        visitor, operator = self.visitor(self.tied), self.visitor(self.server.token)
        token = dict(visitor.get("/dashboard").form("Sign out").fields)["csrf"]
        pages = [f"/dashboard/domains/{self.others}", f"/dashboard/domains/{self.others}/configure",
                 f"/dashboard/domains/{self.others}/delete", f"/dashboard/webhooks/{self.hook}",
                 f"/dashboard/webhooks/{self.hook}/edit", f"/dashboard/webhooks/{self.hook}/delete",
                 *CLOSED, "/dashboard/domains/new"]
        forms = [form for page in pages for form in operator.get(page).forms
                 if form.method == "post" and form.action != "/dashboard/sign-out"]
        self.assertGreater(len(forms), 7)
        before = [rest.done(self.server, 200, "GET", path)["data"] for path in ("/domains", "/webhooks", "/kill-list")]
        for form in forms:
            with self.subTest(form.action):
                form.fields = [(name, token if name == "csrf" else value) for name, value in form.fields]
                answer = visitor.submit(form, button=next(iter(form.buttons)), follow=False)
                self.assertIn(answer.status, (403, 404, 422))
        after = [rest.done(self.server, 200, "GET", path)["data"] for path in ("/domains", "/webhooks", "/kill-list")]
        self.assertEqual(after, before)

    def test_search_and_metrics(self):
        visitor = self.visitor(self.tied)
        mail = self.sent[1]
        for label, value in (("Recipient, Message-ID or queue id", f"{SECRET}@example.net"),
                             ("Recipient, Message-ID or queue id", mail.message_id),
                             ("Recipient, Message-ID or queue id", mail.id), ("Subject", f"{SECRET} offer"),
                             ("Tag", f"list={SECRET}")):
            with self.subTest(value):
                form = visitor.get("/dashboard/emails").asking(label)
                answer = visitor.submit(form, {label: value}, "Search")
                self.assertNotIn(f"/dashboard/emails/{mail.id}", answer.text)
        operator = self.visitor(self.server.token)
        self.assertIn(OTHERS, operator.get("/dashboard/metrics").text)
        for path in ("/dashboard/metrics", f"/dashboard/metrics?domain={OTHERS}", "/dashboard/metrics.csv",
                     f"/dashboard/metrics.csv?domain={OTHERS}", f"/dashboard/metrics?domain={self.others}"):
            with self.subTest(path):
                answer = visitor.get(path)
                listed = answer.body.decode().lower().replace(f"domain={OTHERS}", "")
                self.assertNotIn(f"{SECRET}.example.net/page", listed)
                if "domain=" not in path:
                    self.assertNotIn(SECRET, listed)

    def test_endpoints_of_their_own(self):
        """Made with such a key, one is told of its domain alone, and seen by the operator and by it."""
        visitor = self.visitor(self.tied)
        form = visitor.get("/dashboard/webhooks/new").form("Add webhook")
        values = {"Endpoint": self.http.url("/mine"), "email.sent": True}
        self.assertEqual(visitor.submit(form, values, "Add webhook").status, 200)
        for domain in (OTHERS, MINE):
            send(self.server, self.smarthost, sender=f"news@{domain}")
        told = until("an event", lambda: self.http.got("/mine"))
        self.assertEqual({one.data["from"] for one in told}, {f"News <news@{MINE}>"})
        self.assertIn("/mine", visitor.get("/dashboard/webhooks").words)
        self.assertIn("/mine", self.visitor(self.server.token).get("/dashboard/webhooks").words)

    def test_navigation(self):
        page = self.visitor(self.tied).get("/dashboard")
        links = [words(one) for nav in page.tree.iter("nav") for one in nav.iter("a")]
        self.assertEqual(links, ["Overview", "Domains", "Emails", "Metrics", "Webhooks"])
