"""The checks find what they are for: each fault on a page of its own, and none where there is none."""

import unittest

import checks
from base import folder_of
from browser import DESKTOP, LIGHT, PHONE, Browser
from together import load_tests  # noqa: F401
from visitor import Answer
from world import World

HOST = "pages.example.com"
PAGE = """<!DOCTYPE html>
<html lang="en">
<head><title>Page</title><meta name="viewport" content="width=device-width, initial-scale=1"></head>
<body><main><h1>Page</h1>{}</main></body>
</html>
"""
POLICY = "default-src 'none'; style-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'"
HEADERS = {"content-type": "text/html; charset=utf-8", "x-content-type-options": "nosniff", "cache-control": "no-store",
           "referrer-policy": "no-referrer", "content-security-policy": POLICY}
CONTENT = ("sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; form-action 'none'; "
           "base-uri 'none'")


def answer(body="<p>Words</p>", status=200, path="/dashboard", **headers):
    given = HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(path, status, given, [], PAGE.format(body).encode())


class Served(unittest.TestCase):
    def test_what_is_right(self):
        self.assertEqual(checks.served(answer()), [])
        preview = answer(path="/dashboard/emails/1/preview/content", content_security_policy=CONTENT)
        self.assertEqual(checks.served(preview), [])

    def test_what_is_wrong(self):
        content = "/dashboard/emails/1/preview/content"
        wrong = {
            "status": answer(status=500), "type": answer(content_type="text/html"), "size": answer("x" * 200_000),
            "nosniff": answer(x_content_type_options=""), "cache": answer(cache_control="private"),
            "referrer": answer(referrer_policy="unsafe-url"),
            "no policy": answer(content_security_policy=""),
            "unsafe": answer(content_security_policy=f"{POLICY}; script-src 'self' 'unsafe-inline'"),
            "all scripts": answer(content_security_policy=f"{POLICY}; script-src *"),
            "frames": answer(content_security_policy=POLICY.replace("frame-ancestors 'none'", "")),
            "style": answer('<p style="color: red">Words</p>'), "sheet": answer("<style>p {}</style>"),
            "script": answer("<script>1</script>"), "handler": answer('<p onclick="x()">Words</p>'),
            "address": answer('<a href=" JavaScript:x()">Words</a>'),
            "content with scripts": answer(path=content, content_security_policy=f"{CONTENT}; script-src 'self' *"),
            "content that runs": answer(path=content, content_security_policy=CONTENT.replace(
                "sandbox", "sandbox allow-scripts")),
            "content without a sandbox": answer(path=content, content_security_policy=CONTENT.partition("; ")[2]),
        }
        for name, page in wrong.items():
            with self.subTest(name):
                self.assertEqual(len(checks.served(page)[:1]), 1)

    def test_html(self):
        right = [answer(path="/dashboard/right")]
        wrong = {"implicit": "<p>A<div>B</div></p>", "label": '<form><input type="text" name="a"></form>',
                 "alternative": '<img src="/a.png">', "twice": '<p id="a">A</p><p id="a">B</p>',
                 "headings": "<h4>Too deep</h4>", "button": "<button>B</button>",
                 "table": "<table><tr><th>A</th></tr></table>"}
        pages = [answer(body, path=f"/dashboard/{name}") for name, body in wrong.items()]
        faults = checks.valid(folder_of(self), right + pages)
        for name in wrong:
            with self.subTest(name):
                self.assertTrue([one for one in faults if one.startswith(f"/dashboard/{name}:")], faults)
        self.assertEqual([one for one in faults if one.startswith("/dashboard/right")], [])


class Shown(unittest.TestCase):
    def setUp(self):
        self.world = World()
        self.addCleanup(self.world.stop)
        self.browser = Browser(folder_of(self) / "browser", self.world)
        self.addCleanup(self.browser.stop)

    def put(self, body):
        self.browser.open(self.world.put(HOST, "/", PAGE.format(body)))

    def test_axe(self):
        self.put("<p>Words</p>")
        self.assertEqual(checks.axe(self.browser), [])
        for rule, body in {"color-contrast": '<p style="color: #aaa; background: #fff">Pale</p>',
                           "label": '<input type="text">', "image-alt": '<img src="data:,">',
                           "button-name": '<button type="button"></button>', "link-name": '<a href="/x"></a>'}.items():
            with self.subTest(rule):
                self.put(body)
                (found,) = checks.axe(self.browser)
                self.assertTrue(found.startswith(rule), found)
        # A colour of the dark.
        self.put('<style>@media (prefers-color-scheme: dark) { p { color: #eee } }</style><p>Words</p>')
        self.assertEqual(checks.axe(self.browser), [])
        self.browser.look(DESKTOP, "dark")
        self.assertIn("color-contrast", checks.axe(self.browser)[0])

    def test_width(self):
        for body, wrong in (("<p>Words</p>", False), (f"<p>{'x' * 100}</p>", True),
                            (f'<div style="overflow-x: auto">{"x" * 100}</div>', False)):
            with self.subTest(body):
                self.put(body)
                self.browser.look(DESKTOP, LIGHT)
                self.assertEqual(checks.layout(self.browser), [])
                self.browser.look(PHONE, LIGHT)
                self.assertEqual(len(checks.layout(self.browser)), wrong)
        # A page that is not for phones.
        text = PAGE.replace('<meta name="viewport" content="width=device-width, initial-scale=1">', "")
        self.browser.open(self.world.put(HOST, "/", text.format("<p>Words</p>")))
        self.assertEqual(len(checks.layout(self.browser)), 1)

    def test_what_runs_is_noticed(self):
        self.put("<p>Words</p>")
        self.assertEqual(checks.quiet(self.browser), [])
        self.put("<script>console.error('loud')</script>")
        self.assertIn("loud", checks.quiet(self.browser)[0])
        self.put('<img src="//evil.example.org/x" alt="">')
        self.assertEqual(self.world.asked_of("evil.example.org"), ["http://evil.example.org/x"])
        self.put("<script>setTimeout(() => alert('here'), 0)</script>")
        self.assertEqual(checks.quiet(self.browser), ["a dialog: here"])

    def test_pictures(self):
        self.put("<p>Words</p>")
        folder = folder_of(self)
        self.browser.shoot("page", folder)
        self.assertEqual((folder / "page.png").read_bytes()[:4], b"\x89PNG")


class WithoutScript(unittest.TestCase):
    def test_none_runs_but_ours(self):
        world = World()
        self.addCleanup(world.stop)
        browser = Browser(folder_of(self) / "browser", world, scripts=False)
        self.addCleanup(browser.stop)
        body = "<noscript><p>None</p></noscript><script>document.title = 'ran'</script>"
        browser.open(world.put(HOST, "/", PAGE.format(body)))
        self.assertEqual(browser.value("document.title"), "Page")
        self.assertTrue(browser.value("document.querySelector('noscript p') !== null"))
