"""Every page that there is, of a relay that has been used for some days and of one that is new, held against all
checks: for the operator and for a customer, on a phone and at a desk, light and dark, with pictures of all."""

import functools

import paths  # noqa: F401, I001
import checks
import filled
import rest
from base import UNKNOWN, Case
from browser import DESKTOP, LIGHT
from crawl import crawl, judged, watched
from together import load_tests  # noqa: F401

# What must be among what links lead to, whatever else is.
EVERYBODYS = {"/dashboard", "/dashboard/domains", "/dashboard/domains/new", "/dashboard/emails", "/dashboard/metrics",
              "/dashboard/webhooks", "/dashboard/webhooks/new"}
OF_A_DOMAIN = {f"/dashboard/domains/ID{part}" for part in ("", "/configuration", "/configure", "/delete")}
OF_A_MAIL = {f"/dashboard/emails/ID{part}" for part in ("", "/report", "/preview")}
OF_AN_ENDPOINT = {f"/dashboard/webhooks/ID{part}" for part in ("", "/edit", "/delete", "/events/ID")}
OPERATORS = {"/dashboard/api-keys", "/dashboard/api-keys/new", "/dashboard/queue", "/dashboard/kill-list",
             "/dashboard/kill-list/new"}
OF_OPERATORS = {"/dashboard/api-keys/ID/rename", "/dashboard/api-keys/ID/delete", "/dashboard/queue/ID",
                "/dashboard/kill-list/ID/delete"}
FULL = EVERYBODYS | OF_A_DOMAIN | OF_A_MAIL | OF_AN_ENDPOINT | OPERATORS | OF_OPERATORS
SEARCHES = (("Recipient, Message-ID or queue id", {"Recipient, Message-ID or queue id": "ada@example.net"}),
            ("Subject", {"Subject": "invoice"}), ("Tag", {"Tag": "campaign=winter"}),
            ("Recipient, Message-ID or queue id", {"Recipient, Message-ID or queue id": "unknown@example.net"}))


class Pages(Case):
    slow = True

    def checked(self, name, token, wanted, browsers, also=(), each=3, look=checks.shown):
        """The pages of these kinds and of all others that links lead to, after all checks, by their kinds."""
        visitor = self.visitor(token)
        found = crawl(visitor, each, also=[*also, *self.searches(visitor)])
        faults = [f"no link leads to {one}" for one in sorted(wanted - found.keys())]
        faults += judged(self.folder / f"{name}-sources", visitor, found)
        pages = [(kind, answers[0].path) for kind, answers in found.items() if answers[0].status == 200]
        faults += watched(browsers, name, pages, look)
        self.assertEqual(self.world.asked, [], "nothing is fetched from elsewhere")
        checks.sound(faults)
        return found

    def searches(self, visitor):
        """Where the forms on the page of mail lead."""
        page = visitor.get("/dashboard/emails")
        return [visitor.submit(page.asking(label), values, "Search").path for label, values in SEARCHES]

    def test_in_use(self):
        """As the operator sees it, as a customer does, and a domain in every state."""
        filled.start(self)
        made, browsers = filled.fill(self), [self.browser(token=self.server.token) for _ in range(2)]
        mails = [f"/dashboard/emails/{mail.id}" for mail in (made.bounced, made.deferred, made.mails[-1])]
        with self.subTest("operator"):
            self.checked("filled", self.server.token, FULL, browsers, mails, each=4)
        with self.subTest("domains"):
            self.states(made, browsers)
        with self.subTest("customer"):
            token = self.key("--domain", "shop.example.net")
            for browser in browsers:
                browser.forget()
                browser.sign_in(token)
            found = self.checked("customer", token, EVERYBODYS - {"/dashboard/domains/new"} | OF_A_DOMAIN | OF_A_MAIL,
                                 browsers, look=functools.partial(checks.shown, looks=checks.AXED[:1]))
            self.assertEqual(found.keys() & (OPERATORS | OF_OPERATORS), set())

    def states(self, made, browsers):
        """Every state has its page, and all of them fit."""
        visitor = self.visitor(self.server.token)
        pages_of = {name: f"/dashboard/domains/{id}" for name, id in made.domains.items()}
        answers = [visitor.get(path + part) for path in pages_of.values()
                   for part in ("", "/configuration", "/configure")]
        faults = [fault for answer in answers for fault in checks.served(answer)]
        faults += checks.valid(self.folder / "state-sources", answers)
        pages = [(f"/dashboard/domain-{name}", path) for name, path in pages_of.items()]
        checks.sound(faults + watched(browsers, "state", pages))

    def test_new(self):
        self.relay()
        browsers = [self.browser(token=self.server.token)]
        found = self.checked("empty", self.server.token, EVERYBODYS | OPERATORS, browsers)
        self.assertEqual({one for one in found if "/ID" in one.replace("api-keys/ID", "")}, set(), "of nothing")
        for page in ("domains", "emails", "metrics", "webhooks", "queue", "kill-list"):
            with self.subTest(page):
                (answer, *_) = found[f"/dashboard/{page}"]
                self.assertTrue([one for one in answer.tree.find("body").iter("main") if len(list(one.iter("p")))],
                                "it says what to do next")


class Outside(Case):
    """Before one is in, and where nothing is."""

    def test_sign_in(self):
        self.relay()
        visitor, browser = self.visitor(), self.browser()
        for path in ("/", "/dashboard", "/dashboard/domains?after=x", "/dashboard/sign-in"):
            with self.subTest(path):
                self.assertEqual(visitor.get(path).path.partition("?")[0], "/dashboard/sign-in")
        plain = visitor.get("/dashboard/sign-in")
        wrong = visitor.sign_in("re_wrong")
        faults = checks.served(plain) + checks.served(wrong, wrong.status)
        faults += checks.valid(self.folder / "sources", [plain, wrong])
        self.assertIn(wrong.status, (401, 403, 422))
        browser.open("/dashboard")
        browser.at("/dashboard/sign-in")
        faults += checks.shown(browser, "sign-in")
        browser.look(DESKTOP, LIGHT)
        browser.write("API key", "re_wrong")
        browser.press("Sign in")
        browser.says("key")
        faults += [one for one in checks.shown(browser, "sign-in-wrong") if f"status of {wrong.status}" not in one]
        checks.sound(faults)

    def test_where_nothing_is(self):
        self.relay()
        token = self.server.token
        visitor, browser = self.visitor(token), self.browser(token=token)
        nowhere = [f"/dashboard/{path}" for path in (
            "nothing", f"domains/{UNKNOWN}", "domains/x", f"domains/{UNKNOWN}/configure", f"emails/{UNKNOWN}",
            f"emails/{UNKNOWN}/preview", "emails/%00", f"webhooks/{UNKNOWN}", f"webhooks/{UNKNOWN}/events/msg_x",
            f"api-keys/{UNKNOWN}/delete", f"queue/{UNKNOWN}", f"kill-list/{UNKNOWN}/delete", "assets/nothing.css")]
        answers = [visitor.get(path) for path in nowhere]
        faults = [fault for answer in answers[:-1] for fault in checks.served(answer, 404)]
        self.assertEqual(answers[-1].status, 404)
        faults += checks.valid(self.folder / "sources", answers[:-1])
        browser.open(nowhere[1])
        faults += [one for one in checks.shown(browser, "not-there") if "status of 404" not in one]
        checks.sound(faults)

    def test_methods_that_do_not_belong(self):
        """Pages are got, forms posted, and nothing else done."""
        self.relay()
        visitor = self.visitor(self.server.token)
        for method, path in (("POST", "/dashboard/metrics"), ("DELETE", "/dashboard/domains"), ("PUT", "/dashboard"),
                             ("GET", "/dashboard/sign-out")):
            with self.subTest(path):
                self.assertIn(visitor.ask(method, path).status, (403, 404, 405))

    def test_kinds_of_answers_to_others(self):
        """The API beside it is as it was: without a key it speaks JSON, whatever a browser's cookie says."""
        self.relay()
        visitor = self.visitor(self.server.token)
        answer = visitor.get("/domains")
        self.assertEqual((answer.status, answer.headers["content-type"].partition(";")[0]), (401, "application/json"))
        self.assertEqual(rest.call(self.server, "GET", "/domains").status, 200)
