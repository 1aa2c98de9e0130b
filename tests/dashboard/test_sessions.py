"""Who is signed in, with what, and for how long; and that forms come from our own pages."""

import itertools

import paths  # noqa: F401, I001
import case
import checks
import filled
import relay
import rest
from base import Case
from crawl import crawl
from together import load_tests  # noqa: F401
from visitor import Visitor

SIGN_IN = "/dashboard/sign-in"
# What is sent with a form that a page of another site has made.
FOREIGN = ({"Origin": "https://evil.example.org"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1.example.org"},
           {"Sec-Fetch-Site": "cross-site"}, {"Origin": None, "Sec-Fetch-Site": "same-site"})


class SignIn(Case):
    def test_keys_that_are_none(self):
        self.relay()
        sending = self.key("--permission", "sending_access")
        for token, words in (("re_wrong", "no such key"), ("", ""), ("x" * 10_000, "no such key"),
                             (sending, "only send"), (self.server.token[:-1], "no such key"),
                             ("\0\u202e<script>", "no such key")):
            with self.subTest(token[:20]):
                visitor = self.visitor()
                answer = visitor.sign_in(token)
                self.assertIn(answer.status, (400, 403, 422))
                self.assertEqual(visitor.jar, {})
                self.assertIn(words, answer.words)
                self.assertTrue(is_out(visitor))

    def test_many_are_slowed(self):
        self.relay()
        answers = (self.visitor().sign_in(f"re_wrong{number}") for number in range(100))
        slowed = next(one for one in answers if one.status == 429)
        self.assertIn("Wait", slowed.words)
        checks.sound(checks.served(slowed, 429) + checks.valid(self.folder / "sources", [slowed]))
        # Who has the right one is not kept out by that.
        self.assertEqual(self.visitor().sign_in(self.server.token).status, 200)

    def test_cookie(self):
        self.relay()
        visitor = self.visitor()
        form = visitor.get(SIGN_IN).form("Sign in")
        answer = visitor.submit(form, {"API key": self.server.token}, "Sign in", follow=False)
        (cookie,) = answer.cookies
        name, flags = cookie.partition("=")[0], {part.strip().lower() for part in cookie.split(";")[1:]}
        self.assertFalse(name.startswith("__"), "which only TLS may have")
        self.assertLessEqual({"httponly", "path=/"}, flags | {flag.replace("/dashboard", "/") for flag in flags})
        self.assertTrue({"samesite=lax", "samesite=strict"} & flags, cookie)
        self.assertNotIn(self.server.token, str(answer.headers) + answer.text)
        self.assertEqual(answer.status, 303)

    def test_cookie_over_tls(self):
        folder = self.folder / "tls"
        folder.mkdir()
        root = relay.certificate(folder)
        (folder / "relay.key").chmod(0o600)
        files = {"certificate_file": str(folder / "relay.pem"), "key_file": str(folder / "relay.key")}
        # The API speaks TLS then, so nothing else here may be asked of it.
        server = case.Case.relay(self, {"api": {"tls": "files"} | files})
        visitor = Visitor(server.api, root=root)
        form = visitor.get(SIGN_IN).form("Sign in")
        answer = visitor.submit(form, {"API key": server.token}, "Sign in", follow=False)
        (cookie,) = answer.cookies
        flags = {part.strip().lower() for part in cookie.split(";")[1:]}
        self.assertTrue(cookie.startswith("__Host-"), cookie)
        self.assertLessEqual({"secure", "httponly", "path=/"}, flags)
        self.assertFalse([flag for flag in flags if flag.startswith("domain")])
        self.assertIn("strict-transport-security", answer.headers)
        self.assertFalse(is_out(visitor))

    def test_back_to_where_one_wanted(self):
        self.relay()
        for path, wanted in (("/dashboard/domains?after=x", "/dashboard/domains?after=x"),
                             ("/dashboard/queue", "/dashboard/queue")):
            visitor = self.visitor()
            page = visitor.get(path)
            self.assertEqual(page.path.partition("?")[0], SIGN_IN)
            self.assertEqual(visitor.submit(page.form("Sign in"), {"API key": self.server.token}).path, wanted)
        for elsewhere in ("https://evil.example.org/", "//evil.example.org/", "/\\evil.example.org",
                          "javascript:alert(1)", "/dashboard/../domains", "/dashboard//evil.example.org",
                          "/dashboard/sign-out"):
            with self.subTest(elsewhere):
                visitor = self.visitor()
                form = visitor.get(f"{SIGN_IN}?to={elsewhere}").form("Sign in")
                answer = visitor.submit(form, {"API key": self.server.token}, follow=False)
                self.assertTrue(answer.headers["location"].startswith("/dashboard"), answer.headers)
                self.assertNotIn("//", answer.headers["location"])

    def test_out(self):
        """What the cookie was good for ends on the server."""
        self.relay()
        visitor = self.visitor(self.server.token)
        kept = dict(visitor.jar)
        answer = visitor.submit(visitor.get("/dashboard").form("Sign out"))
        self.assertEqual((answer.path, visitor.jar), (SIGN_IN, {}))
        visitor.jar = kept
        self.assertTrue(is_out(visitor))

    def test_a_key_that_is_revoked(self):
        self.relay()
        token = self.key()
        visitor = self.visitor(token)
        # The newest comes first.
        newest = rest.done(self.server, 200, "GET", "/api-keys")["data"][0]
        rest.done(self.server, 200, "DELETE", f"/api-keys/{newest['id']}")
        self.assertTrue(is_out(visitor))
        self.assertEqual(self.visitor(self.server.token).get("/dashboard").status, 200)

    def test_hours_later(self):
        """Twelve hours without a click end it, eleven do not."""
        self.relay(clock=True)
        visitor = self.visitor(self.server.token)
        for hours, path in ((11, "/dashboard/domains"), (11, "/dashboard/domains"), (13, SIGN_IN)):
            self.clock.go_on(hours * 3600)
            self.assertEqual(visitor.get("/dashboard/domains").path.partition("?")[0], path)


class Forgery(Case):
    slow = True

    def state(self):
        """All that forms could change."""
        lists = ("/domains", "/webhooks", "/api-keys", "/kill-list")
        found = [rest.done(self.server, 200, "GET", path)["data"] for path in lists]
        for one in itertools.chain(*found):
            one.pop("last_used_at", None)
            one.pop("records", None)
        return found, self.server.command("queue", "list")

    def test_every_form(self):
        """Without the token, with another session's, from elsewhere: refused, and nothing is changed."""
        filled.start(self)
        made, token = filled.fill(self), self.server.token
        visitor, other = self.visitor(token), self.visitor(token)
        foreign = dict(other.get("/dashboard/kill-list/new").form("Add to kill list").fields)["csrf"]
        also = [f"/dashboard/emails/{mail.id}" for mail in (made.deferred, made.mails[-1])]
        found = crawl(visitor, each=2, also=also)
        forms = {}
        for answer in itertools.chain(*found.values()):
            for form in answer.forms:
                if form.method == "post":
                    forms.setdefault((form.action, *form.buttons), form)
        self.assertGreater(len(forms), 15)
        before = self.state()
        for (action, *buttons), form in forms.items():
            attempts = [("no token", ("csrf",), None)]
            attempts += [(str(headers), (), headers) for headers in FOREIGN]
            for name, drop, headers in attempts:
                with self.subTest(name, action=action, buttons=buttons):
                    answer = visitor.submit(form, None, buttons[0], follow=False, drop=drop, headers=headers)
                    self.assertEqual(answer.status, 403)
            with self.subTest("another's token", action=action, buttons=buttons):
                form.fields = [(name, foreign if name == "csrf" else value) for name, value in form.fields]
                self.assertEqual(visitor.submit(form, None, buttons[0], follow=False).status, 403)
        self.assertEqual(self.state(), before)
        self.assertFalse(is_out(visitor))

    def test_others_may_not_sign_one_in(self):
        self.relay()
        visitor = self.visitor()
        form = visitor.get(SIGN_IN).form("Sign in")
        for headers in FOREIGN:
            with self.subTest(headers):
                answer = visitor.submit(form, {"API key": self.server.token}, follow=False, headers=headers)
                self.assertEqual((answer.status, answer.cookies), (403, []))


def is_out(visitor):
    """Whether nobody is signed in any more."""
    return visitor.get("/dashboard").path.partition("?")[0] == SIGN_IN
