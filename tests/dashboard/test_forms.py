"""What somebody has typed is not lost: not when the session ends meanwhile, not when somebody else was faster, not when
it is wrong."""

import paths  # noqa: F401, I001
import checks
import rest
from base import Case
from support import until
from together import load_tests  # noqa: F401
from visitor import words

ENDED, SEND = "session has ended", "Send what I typed"
KINDS_OF_KILLS = "A destination"
ODD = 'ʻquotes" & <tags> \u202eback 😀'


class Kept(Case):
    def setUp(self):
        super().setUp()
        self.relay()
        self.id = rest.done(self.server, 201, "POST", "/domains", {"name": "example.com"})["id"]
        # Page, button, what is typed, and what is seen in the API once it was sent.
        self.forms = {
            "domain": ("/dashboard/domains/new", "Add domain", {"Domain name": "typed.example.org"},
                       "/domains", "typed.example.org"),
            "configure": (f"/dashboard/domains/{self.id}/configure", "+ Add domain",
                          {"Tracking subdomain": "typed", "Open tracking": True, "Click tracking": True},
                          f"/domains/{self.id}", "'tracking_subdomain': 'typed'"),
            "webhook": ("/dashboard/webhooks/new", "Add webhook",
                        {"Endpoint": "http://127.0.0.1:9/typed", "email.opened": True, "email.clicked": True},
                        "/webhooks", "http://127.0.0.1:9/typed"),
            "key": ("/dashboard/api-keys/new", "Create API key", {"Name": f"typed {ODD}", "Full access": True},
                    "/api-keys", repr(f"typed {ODD}")),
            "kill": ("/dashboard/kill-list/new", "Add to kill list",
                     {KINDS_OF_KILLS: True, "Value": "https://www.example.org/typed?a=1&b=%22"},
                     "/kill-list", "https://www.example.org/typed?a=1&b=%22")}

    def seen(self, path, what):
        return what in str(rest.done(self.server, 200, "GET", path))

    def test_a_session_that_ended(self):
        for name, (page, button, values, path, what) in self.forms.items():
            with self.subTest(name):
                visitor = self.visitor(self.server.token)
                form = visitor.get(page).form(button)
                visitor.jar.clear()
                ended = visitor.submit(form, values, button)
                self.assertEqual(ended.status, 403)
                self.assertIn(ENDED, ended.words)
                self.assertFalse(self.seen(path, what))
                back = visitor.submit(ended.form("Sign in"), {"API key": self.server.token}, "Sign in")
                self.assertFalse(self.seen(path, what), "nothing is done before somebody has seen it")
                for value in values.values():
                    # What turns the rest of a line around is sent on, and not shown.
                    plain = value is True or " ".join(value.replace("\u202e", "").split())
                    self.assertTrue(plain is True or plain in back.words, back.words)
                done = visitor.submit(back.form(SEND), button=SEND)
                self.assertEqual(done.status, 200)
                self.assertTrue(self.seen(path, what), done.words)
                faults = checks.served(ended, 403) + checks.served(back)
                # Of a box that is ticked twice, both are sent on.
                faults += [one for one in checks.valid(self.folder / name, [ended, back]) if "form-dup-name" not in one]
                checks.sound(faults)

    def test_a_wrong_key_on_the_way(self):
        page, button, values, path, what = self.forms["domain"]
        visitor = self.visitor(self.server.token)
        form = visitor.get(page).form(button)
        visitor.jar.clear()
        ended = visitor.submit(form, values, button)
        for _ in range(2):
            ended = visitor.submit(ended.form("Sign in"), {"API key": "re_wrong"}, "Sign in")
            self.assertIn("no such key", ended.words)
        back = visitor.submit(ended.form("Sign in"), {"API key": self.server.token}, "Sign in")
        visitor.submit(back.form(SEND), button=SEND)
        self.assertTrue(self.seen(path, what))

    def test_signed_out_in_another_tab(self):
        """In the browser, with script and without."""
        for scripts in (True, False):
            with self.subTest(scripts):
                browser = self.browser(scripts, token=self.server.token)
                name = f"typed{int(scripts)}.example.org"
                browser.open("/dashboard/domains/new")
                browser.write("Domain name", name)
                first = browser.driver.current_window_handle
                browser.driver.switch_to.new_window("tab")
                browser.open("/dashboard")
                browser.press("Sign out")
                browser.at("/dashboard/sign-in")
                browser.driver.switch_to.window(first)
                browser.press("Add domain")
                browser.says(ENDED)
                browser.write("API key", self.server.token)
                browser.press("Sign in")
                browser.says(name)
                self.assertFalse(self.seen("/domains", name))
                browser.press(SEND)
                until("the domain", lambda: self.seen("/domains", name))
                browser.says(name)

    def test_what_is_wrong_is_said_beside(self):
        """And what was typed is still there."""
        wrong = {"domain": {"Domain name": ("a..b", "localhost", "", "x" * 300, "exam ple.com", "<b>.com",
                                             "192.0.2.1")},
                 "configure": {"Tracking subdomain": ("a..b", "-", "x" * 64, "a b", "ä\u202e")},
                 "webhook": {"Endpoint": ("nonsense", "ftp://example.org/", "javascript:alert(1)", "http://")},
                 "key": {"Name": ("", "x" * 10_000)},
                 "kill": {"Value": ("", "nonsense", "ftp://example.org/", "javascript:alert(1)")}}
        visitor = self.visitor(self.server.token)
        for name, fields in wrong.items():
            page, button, values, *_ = self.forms[name]
            for label, bad in fields.items():
                for value in bad:
                    with self.subTest(name, value=value[:20]):
                        before = rest.done(self.server, 200, "GET", self.forms[name][3])
                        answer = visitor.submit(visitor.get(page).form(button), values | {label: value}, button)
                        self.assertEqual(answer.status, 422)
                        again = answer.form(button)
                        self.assertEqual(again.value(label), value)
                        for other, kept in values.items():
                            if other != label:
                                there = again.ticked(other) if kept is True else again.value(other)
                                self.assertEqual(there, kept)
                        self.assertTrue(alerts(answer), "a sentence")
                        checks.sound(checks.served(answer, 422))
                        self.assertEqual(rest.done(self.server, 200, "GET", self.forms[name][3]), before)

    def test_forms_that_are_no_forms(self):
        """Too large, cut off, of another kind, of bytes that are no text: a page with a sentence, or an end."""
        visitor = self.visitor(self.server.token)
        page, button, values, *_ = self.forms["domain"]
        form = visitor.get(page).form(button)
        csrf = dict(form.fields)["csrf"].encode()
        for body in (b"", b"x" * 1_000_000, b"csrf=" + csrf + b"&name=%FF%FE%00", b"csrf=" + csrf + b"&name=a&" * 1000,
                     b"csrf=" + csrf + b"&name=" + b"x" * 200_000, b"\xff\xfe", b"&&&==="):
            with self.subTest(body[:20]):
                answer = visitor.ask("POST", form.action, body, follow=False)
                self.assertIn(answer.status, (403, 413, 422))
                self.assertIn("main", answer.text)


class Editors(Case):
    """Two people have the same form open."""

    def setUp(self):
        super().setUp()
        self.relay()
        self.id = self.track("example.com")
        self.page = f"/dashboard/domains/{self.id}/configure"

    def domain(self):
        return rest.done(self.server, 200, "GET", f"/domains/{self.id}")

    def test_the_second_is_told(self):
        one, two = (self.visitor(self.key()) for _ in range(2))
        first, second = (visitor.get(self.page).form("Save") for visitor in (one, two))
        one.submit(first, {"Click tracking": False}, "Save")
        self.assertFalse(self.domain()["click_tracking"])
        told = two.submit(second, {"Open tracking": False}, "Save")
        self.assertIn(told.status, (409, 422))
        self.assertIn("changed", told.words)
        self.assertIn("click", " ".join(alerts(told)).lower())
        self.assertTrue(self.domain()["open_tracking"], "nothing is done before the second one knows")
        self.assertFalse(told.form("Save").ticked("Open tracking"), "what was typed is there")
        checks.sound(checks.served(told, told.status) + checks.valid(self.folder / "sources", [told]))
        done = two.submit(told.form("Save"), button="Save")
        self.assertEqual(done.status, 200)
        self.assertFalse(self.domain()["open_tracking"])

    def test_in_the_browser(self):
        browser, other = self.browser(token=self.server.token), self.visitor(self.key())
        browser.open(self.page)
        browser.tick("Open tracking", False)
        other.submit(other.get(self.page).form("Save"), {"Click tracking": False}, "Save")
        browser.press("Save")
        browser.says("changed")
        self.assertFalse(browser.field("Open tracking").is_selected())
        browser.shoot("two-editors")
        browser.press("Save")
        until("the change", lambda: not self.domain()["open_tracking"])
        browser.says("Saved")

    def test_removed_meanwhile(self):
        visitor = self.visitor(self.server.token)
        form = visitor.get(self.page).form("Save")
        rest.done(self.server, 200, "DELETE", f"/domains/{self.id}")
        answer = visitor.submit(form, {"Open tracking": False}, "Save")
        self.assertEqual(answer.status, 404)
        checks.sound(checks.served(answer, 404))


def alerts(answer):
    """What is said of a form that was not taken."""
    return [words(one) for one in answer.tree.iter() if one.get("role") == "alert" and words(one)]
