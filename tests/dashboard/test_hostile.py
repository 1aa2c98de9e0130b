"""What messages, links, readers and people bring is text on every page, whatever it is: nothing of it runs, leads
elsewhere or breaks a page."""

import email.header
import re
import smtplib

import paths  # noqa: F401, I001
import checks
import letters
import rest
from base import Case
from browser import PHONE, LIGHT, DESKTOP
from crawl import crawl, judged, kind, watched
from smarthost import Script
from support import until
from together import load_tests  # noqa: F401

EVIL = "evil.example.org"
SCRIPT = f'<script>window.ran = 1; document.title = "ran"; fetch("http://{EVIL}/script")</script>'
IMAGE = f'"><img src="http://{EVIL}/image" onerror="window.ran = 1">'
STYLE = f"</title></style><style>body {{ display: none }} * {{ background: url(http://{EVIL}/style) }}</style>"
ATTRIBUTE = "' onmouseover='window.ran = 1' autofocus onfocus='window.ran = 1' x='"
JAVASCRIPT = f"javascript:window.ran=1;fetch('http://{EVIL}/url')"
BACKWARDS = "\u202egnp.eciovni\u202c \u2066مرحبا\u2069 \u05e9\u05dc\u05d5\u05dd \u200f"
CONTROLS = "a\0b\x07c\x1b[31md\x7fe\u0085f\ufeffg\ufffeh"
EMOJI = "😀👩\u200d👩\u200d👧🏽\u20e3" + "e" + "\u0301" * 200
LONG = "x" * 10_000
WIDE = "Ｗ" * 3_000
TEMPLATE = "{{ 7 * 7 }} {% raw %} ${7*7} &lt;b&gt; &amp;amp; %3Cscript%3E \\u003cscript\\u003e"
ODD = (SCRIPT, IMAGE, STYLE, ATTRIBUTE, JAVASCRIPT, BACKWARDS, CONTROLS, EMOJI, LONG, WIDE, TEMPLATE, "", " ")
RAN = "window.ran || document.title === 'ran' || getComputedStyle(document.body).display === 'none'"
REPLY = f"451 4.7.1 {SCRIPT} {IMAGE}"


class Hostile(Case):
    slow = True

    def setUp(self):
        super().setUp()
        self.smarthost.script = Script(do={
            "rcpt": lambda session: REPLY if "later" in session.recipient else None})
        self.relay()
        self.id = self.track("example.com")

    def message(self, number, text):
        """A message of this text wherever text may be."""
        encoded = field(text) if text.strip() else text
        link = "https://www.example.org/" + attribute(text)
        tag = re.sub(r"[^ -~]", "", text)[:200]
        return "\r\n".join([
            f"From: {field(text[:300])} <news@example.com>",
            "To: readers@example.net", f"Subject: {encoded}", "Date: Tue, 24 Nov 2026 06:00:00 +0000",
            f"Message-ID: <{number}{IMAGE if number % 2 else ''}@example.com>".replace(" ", ""),
            f"X-Trackpost-Tag: odd={tag}", "MIME-Version: 1.0", "Content-Type: text/html; charset=utf-8", "",
            "<html><head><title>" + text[:500].replace("\0", "") + "</title></head><body>",
            f'<p><a href="{link}">Look</a></p><p><a href="{attribute(JAVASCRIPT)}">{SCRIPT}</a></p>',
            f'<form action="http://{EVIL}/form"><input name="a"><button>Send</button></form>',
            f'<img src="http://{EVIL}/picture"><iframe src="http://{EVIL}/frame"></iframe>{STYLE}',
            f'<meta http-equiv="refresh" content="0; url=http://{EVIL}/refresh"><base href="http://{EVIL}/">',
            f'<link rel="stylesheet" href="http://{EVIL}/sheet"><object data="http://{EVIL}/object"></object>',
            '<a href="https://www.example.org/top" target="_top" ping="http://evil.example.org/ping">Out</a>',
            "</body></html>", ""])

    def send(self, number, text, recipient="ada@example.net"):
        lines = [line[at:at + 900] for line in self.message(number, text).split("\r\n")
                 for at in range(0, max(len(line), 1), 900)]
        data = "\r\n".join(lines).encode("utf-8", "replace").replace(b"\0", b"")
        with smtplib.SMTP("127.0.0.1", self.server.ports[0], "client.example.com", timeout=30) as client:
            client.ehlo()
            client.command_encoding = "utf-8"
            client.mail("news@example.com", ["SMTPUTF8"])
            # As it stands here: smtplib would mend it.
            code, reply = client.docmd("RCPT", f"TO:<{recipient}>")
            self.assertEqual(code, 250, reply)
            code, reply = client.data(data)
            self.assertEqual(code, 250, reply)
        return re.search(rb"queued as (\S+)", reply)[1].decode()

    def fill(self):
        """Everything that anybody can bring; ids of mail."""
        sent = [self.send(number, text) for number, text in enumerate(ODD)]
        for address in ('"<script>window.ran=1</script>"@example.net', '"a b\\"><img src=x onerror=ran()>"@example.net',
                        f"{'a' * 64}@{'b' * 60}.example.net", "ünï\u202e@example.net", '"later<b>"@example.net'):
            sent.append(self.send(len(sent) + 100, "Plain", address))
        until("the copies", lambda: len([one for one in self.smarthost.copies if one.taken]) >= len(ODD) + 4)
        self.hits()
        for text in ODD:
            key = rest.call(self.server, "POST", "/api-keys", {"name": text[:50]})
            self.assertIn(key.status, (201, 422))
            for path in (attribute(text)[:1500], "?a=" + attribute(text)[:1500]):
                hook = {"endpoint": f"http://127.0.0.1:9/{path}", "events": ["email.opened"]}
                self.assertIn(rest.call(self.server, "POST", "/webhooks", hook).status, (201, 422))
                kill = {"type": "link", "value": f"https://www.example.org/{path}"}
                self.assertIn(rest.call(self.server, "POST", "/kill-list", kill).status, (201, 422))
        for name in ("bücher.example.com", "xn--bcher-kva.example.org", "مثال.example.com", "xn--0.example.com",
                     f"{'a' * 63}.{'b' * 63}.{'c' * 63}.example.com", "EXAMPLE.net"):
            rest.call(self.server, "POST", "/domains", {"name": name})
        return sent

    def hits(self):
        """By readers whose programs are called oddly."""
        for copy, text in zip(list(self.smarthost.copies), ODD):
            agent = re.sub(r"[^ -~]", "?", text)[:2000].strip() or "none"
            for link in re.findall(rb'(?:href|src)="(http://links[^"]+)"', copy.message):
                letters.hit(self.server, link.decode(), agent=agent)

    def unhurt(self, browser, name):
        """The open page, on a phone and at a desk; a picture of one that is."""
        faults = []
        if browser.value(RAN):
            faults.append(f"{browser.path}: something ran")
        for size in (PHONE, DESKTOP):
            browser.look(size, LIGHT)
            found = checks.layout(browser)
            if found:
                browser.shoot(f"{name}-{size[0]}")
            faults += [f"{browser.path}, {size[0]}: {one}" for one in found]
        # What the preview's frame must not load, the browser tells.
        allowed = ["preview"] if "/preview" in browser.path else []
        return faults + [f"{browser.path}: {one}" for one in checks.quiet(browser, allowed)]

    def test_every_page(self):
        sent, visitor = self.fill(), self.visitor(self.server.token)
        also = [f"/dashboard/emails/{id}{part}" for id in sent for part in ("", "/report", "/preview")]
        found = crawl(visitor, each=2, also=also)
        faults = judged(self.folder / "sources", visitor, found)
        answers = [answer for kept in found.values() for answer in kept if answer.status == 200]
        pages = [(kind(one.path) + str(number), one.path) for number, one in enumerate(answers)]
        faults += watched([self.browser(token=self.server.token) for _ in range(2)], "hostile", pages, self.unhurt)
        self.assertEqual(self.world.asked, [])
        checks.sound(faults)

    def test_the_message_in_its_preview(self):
        """Its document by itself, opened as a page: still nothing runs, loads or is sent."""
        browser = self.browser(token=self.server.token)
        for text in (SCRIPT, IMAGE, STYLE):
            id = self.send(len(text), text)
            until("it to be read", lambda: rest.call(self.server, "GET", f"/emails/{id}").status == 200)
            for path in ("preview", "preview/content"):
                browser.open(f"/dashboard/emails/{id}/{path}")
                self.assertIsNone(browser.dialog())
                self.assertFalse(browser.value("window.ran || document.title === 'ran'"))
                self.assertTrue(browser.address.endswith(path))
        self.assertEqual(self.world.asked, [])

    def test_searches(self):
        """What is searched for comes back in the form as it was typed."""
        visitor, browser = self.visitor(self.server.token), self.browser(token=self.server.token)
        for text in ODD:
            for label in ("Recipient, Message-ID or queue id", "Subject", "Tag"):
                with self.subTest(label, text=text[:30]):
                    form = visitor.get("/dashboard/emails").asking(label)
                    answer = visitor.submit(form, {label: text[:1000]}, "Search")
                    self.assertIn(answer.status, (200, 422))
                    checks.sound(checks.served(answer, answer.status))
        browser.open("/dashboard/emails")
        browser.write("Subject", SCRIPT)
        browser.press("Search", self.around(browser, "Subject"))
        self.assertEqual(browser.field("Subject").get_attribute("value"), SCRIPT)
        self.assertFalse(browser.value(RAN))
        checks.sound(checks.quiet(browser))

    def around(self, browser, label):
        """The form of a field."""
        return browser.value("arguments[0].form", browser.field(label))

    def test_addresses(self):
        """Whatever stands in an address of ours, there is a page, of ours."""
        visitor = self.visitor(self.server.token)
        queries = ("after", "q", "page", "subject", "tag", "from", "to", "domain", "period", "by", "cursor", "event")
        values = (SCRIPT, LONG[:300], "\0", "\u202e", "-1", "99999999999999999999", "2026-13-45", "0001-01-01", "%ff",
                  "' or 1=1")
        for page in ("domains", "emails", "metrics", "webhooks", "api-keys", "queue", "kill-list", "metrics.csv"):
            for value in values:
                query = "&".join(f"{name}={attribute(value)}" for name in queries)
                with self.subTest(page, value=value[:20]):
                    answer = visitor.get(f"/dashboard/{page}?{query}")
                    self.assertIn(answer.status, (200, 404, 422) if page.startswith("metrics") else (200, 422))
                    if page != "metrics.csv":
                        checks.sound(checks.served(answer, answer.status))


def field(text):
    """Text as a field of a message has it."""
    return email.header.Header(text, "utf-8", 200).encode(linesep="\r\n")


def attribute(text):
    """Text as it may stand in a URL, with what does harm in HTML left as it is where HTTP allows it."""
    return "".join(one if "!" <= one <= "~" and one not in '"<>#&' else "".join(f"%{byte:02X}" for byte in
                   one.encode("utf-8", "replace")) for one in text)
