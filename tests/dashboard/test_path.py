"""The path that users know, in a real browser, from the first sign-in to a click that is seen: sign in, add a domain,
put its records into a real name server, have them verified, send a newsletter, read it, follow a link, and find all
that in its timeline. Once with script and once without."""

import email
import re
import smtplib
import time

import paths  # noqa: F401, I001
import case
import rest
from base import HOST, Case
from browser import PHONE, LIGHT
from server import TARGET
from support import until
from test_caa import ACME, DENIED, OURS
from together import load_tests  # noqa: F401

WEBMAIL, SHOP = "mail.example.net", "www.example.org"
READER = "ada@example.net"
LETTER = """From: The Shop <news@example.com>\r
To: {reader}\r
Subject: Ten ideas for the cold season\r
Date: Tue, 24 Nov 2026 06:00:00 +0000\r
Message-ID: <winter.1@example.com>\r
X-Trackpost-Tag: campaign=winter\r
MIME-Version: 1.0\r
Content-Type: text/html; charset=utf-8\r
\r
<!DOCTYPE html>\r
<html lang="en"><head><title>Winter</title><style>a {{ color: navy }}</style></head>\r
<body><h1>Ten ideas for the cold season</h1>\r
<p><a href="{offer}">See the coats</a> or <a href="http://www.example.org/gloves">gloves</a></p>\r
<p><a href="mailto:shop@example.com">Write to us</a></p>\r
</body></html>\r
"""
# Width and height of the first image, once it is known whether it is one.
IMAGE = "(image => image.complete && [image.naturalWidth, image.naturalHeight])(document.images[0])"
# Of each row of a table of records: its text, and what one would copy. All at once, since live parts come anew.
ROWS = """[...document.querySelectorAll("[aria-label='DNS records'] tbody tr")].map(
    row => [row.innerText, [...row.querySelectorAll("code")].map(one => one.innerText)])"""
RECORD = re.compile(r"\b(CNAME|CAA|TXT)\b")
# What is clicked sooner after delivery is no person's.
SOONEST = 2.1


class Path(Case):
    """The steps of it."""

    def add_domain(self, browser, name="example.com"):
        """Domains, Add domain, and the new one's configuration up to its form; its address."""
        browser.follow("Domains")
        browser.at("/dashboard/domains")
        browser.follow("Add domain")
        browser.write("Domain name", name)
        browser.press("Add domain")
        browser.says(name)
        browser.follow("Configuration")
        browser.heading("Enable tracking metrics")
        page = browser.path.removesuffix("/configuration")
        browser.follow("Configure")
        return page

    def configure(self, browser, page, subdomain="links"):
        browser.write("Tracking subdomain", subdomain)
        browser.tick("Open tracking")
        browser.tick("Click tracking")
        browser.says("password reset")
        browser.press("+ Add domain")
        browser.at(page)

    def records(self, browser):
        """(name, type, value) of each record as the page shows it, by what one would copy."""
        found = []
        for text, (name, value, *_) in browser.value(ROWS):
            kind = RECORD.search(text)
            found.append((name, kind[1], value))
        return found

    def put(self, records, *more):
        """The records into the zone, as they were on the page."""
        lines = [f"{name}. {kind} {value}{'.' if kind == 'CNAME' else ''}" for name, kind, value in records]
        self.dns.zone("example.com", *lines, *more)

    def verify(self, browser):
        """Says that the records are there; until the page says so as well."""
        browser.press("I've added the records")
        browser.driver.execute_script("window.marked = true")
        # Without script one reloads, if the page does not ask the browser for that itself.
        until(lambda: f"verified records: {browser.text()}",
              lambda: self.is_verified(browser) or (not browser.scripts and browser.reload()), 40)
        if browser.scripts:
            self.assertTrue(browser.value("window.marked"), "it was not loaded anew")

    def is_verified(self, browser):
        """That each of the records is said to be."""
        rows = [text.lower() for text, _ in browser.value(ROWS)]
        return rows and all("verified" in row and "not verified" not in row for row in rows)

    def newsletter(self, offer):
        """Sent by a plain client; the copy that the smarthost took, and the message's id."""
        text = LETTER.format(reader=READER, offer=offer)
        with smtplib.SMTP("127.0.0.1", self.server.ports[0], "client.example.com", timeout=30) as client:
            client.ehlo()
            client.mail("news@example.com")
            client.rcpt(READER)
            code, reply = client.data(text.encode())
        self.assertEqual(code, 250, reply)
        taken = until("the copy", lambda: next((one for one in self.smarthost.copies if one.taken), None))
        body = email.message_from_bytes(taken.message).get_payload(decode=True).decode()
        return body, re.search(rb"queued as (\S+)", reply)[1].decode()

    def read(self, browser, body, offer):
        """The message is opened in a mailbox on the web, and its first link followed."""
        browser.open(self.world.put(WEBMAIL, "/message", body))
        self.assertEqual(until("the pixel", lambda: browser.value(IMAGE)), [1, 1])
        time.sleep(SOONEST)
        browser.follow("See the coats")
        self.world.wait(offer)
        until("the offer", lambda: browser.value("document.title") == "Offer")
        (referrer,) = [referrer for address, referrer in self.world.asked if address == offer]
        self.assertIsNone(referrer, "the mailbox's address goes to nobody")

    def seen(self, browser, id):
        """The mail is found by its recipient; its timeline, report and preview say what there is to say."""
        browser.open("/dashboard")
        browser.follow("Emails")
        browser.write("Recipient, Message-ID or queue id", READER)
        browser.press("Search")
        browser.says("Ten ideas for the cold season")
        if browser.path.partition("?")[0] == "/dashboard/emails":
            browser.follow("Ten ideas for the cold season")
        browser.at(f"/dashboard/emails/{id}")
        until("all in the timeline", lambda: browser.reload() or all(
            word in browser.text().lower() for word in ("delivered", "opened", "clicked", "www.example.org")))
        browser.says(READER, "campaign", "winter")
        browser.shoot(f"path-timeline-{'script' if browser.scripts else 'plain'}")
        browser.follow("Rewrite report")
        browser.at(f"/dashboard/emails/{id}/report")
        browser.says("http://www.example.org/gloves", "mailto")
        browser.follow("Preview")
        browser.at(f"/dashboard/emails/{id}/preview")
        self.previewed(browser)

    def previewed(self, browser):
        """The message in its frame, with its links marked; nothing is fetched, opened or clicked by that."""
        before = len(self.world.asked)
        (frame,) = browser.all("iframe")
        sandbox = frame.get_attribute("sandbox")
        self.assertIsNotNone(sandbox)
        self.assertFalse({"allow-scripts", "allow-same-origin", "allow-top-navigation"} & set(sandbox.split()))
        browser.driver.switch_to.frame(frame)
        browser.says("See the coats")
        marks = browser.value("[...document.querySelectorAll('a')].map(one => [one.innerText, "
                              "getComputedStyle(one).outlineStyle + getComputedStyle(one).backgroundColor])")
        self.assertEqual({text for text, _ in marks}, {"See the coats", "gloves", "Write to us"})
        self.assertEqual(len({style for _, style in marks}), 2, f"the tracked are marked, the other is not: {marks}")
        browser.driver.switch_to.default_content()
        browser.shoot(f"path-preview-{'script' if browser.scripts else 'plain'}")
        self.assertEqual(len(self.world.asked), before)

    def walk(self, scripts):
        self.relay()
        self.dns.zone("example.com")
        offer = self.world.put(SHOP, "/coats?from=mail&id=1", "<title>Offer</title>")
        browser = self.browser(scripts)
        browser.sign_in(self.server.command("key", "create", "--name", "first").strip())
        page = self.add_domain(browser)
        self.configure(browser, page)
        records = self.records(browser)
        self.assertEqual(records, [(HOST, "CNAME", TARGET)])
        self.put(records)
        self.verify(browser)
        body, id = self.newsletter(offer)
        self.assertIn(f"http://{HOST}/c/", body)
        self.read(browser, body, offer)
        (opened, clicked) = (until(kind, lambda: [one for one in self.events(id) if one["type"] == kind])
                             for kind in ("email.opened", "email.clicked"))
        self.assertEqual((len(opened), len(clicked)), (1, 1))
        self.seen(browser, id)
        self.assertEqual([len([one for one in self.events(id) if one["type"] == kind])
                          for kind in ("email.opened", "email.clicked")], [1, 1], "looking at it is no open")
        return browser

    def events(self, id):
        return rest.done(self.server, 200, "GET", f"/emails/{id}/events")["data"]


class Walk(Path):
    slow = True

    def test_with_script(self):
        self.walk(True)

    def test_without_script(self):
        self.walk(False)

    def test_on_a_phone(self):
        """The same form edits later; nothing of the way needs a wide screen."""
        self.relay()
        self.dns.zone("example.com")
        browser = self.browser()
        browser.look(PHONE, LIGHT)
        browser.open("/dashboard/sign-in")
        browser.write("API key", self.server.token)
        browser.press("Sign in")
        browser.at("/dashboard")
        self.menu(browser)
        page = self.add_domain(browser)
        self.configure(browser, page)
        browser.follow("Configuration")
        browser.follow("Configure")
        self.assertTrue(browser.field("Click tracking").is_selected())
        browser.tick("Click tracking", False)
        browser.press("Save")
        until("the change", lambda: not rest.done(self.server, 200, "GET", "/domains")["data"][0]["click_tracking"])

    def menu(self, browser):
        """Where the navigation is folded on a phone, it is unfolded."""
        if not browser.named("a", "Domains"):
            browser.all("header summary, header button")[0].click()


class Records(Path):
    """What the page of records says beyond their names."""

    def begun(self, settings=None, zone=(), **options):
        self.dns.zone("example.com", *zone)
        self.relay(settings, **options)
        browser = self.browser(token=self.server.token)
        page = self.add_domain(browser)
        self.configure(browser, page)
        return browser

    def test_what_dns_answers_now(self):
        browser = self.begun(zone=["links CNAME elsewhere.example.net."])
        browser.press("I've added the records")
        browser.says("elsewhere.example.net", TARGET)
        self.put(self.records(browser))
        until("the record to be found", lambda: self.is_verified(browser), 60)

    def test_copy(self):
        browser = self.begun()
        browser.command("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        ((name, _, value),) = self.records(browser)
        copied = []
        for button in [one for one in browser.all("main tr button") if one.text == "Copy"]:
            button.click()
            copied.append(until("the clipboard", lambda: browser.driver.execute_async_script(
                "const done = arguments[0]; navigator.clipboard.readText().then(done, fault => done(String(fault)))")))
        self.assertEqual(copied, [name, value])

    def test_caa(self):
        """Where the zone lets others issue alone, one more record is asked for, and said why."""
        browser = self.begun(ACME, [DENIED])
        browser.says("CAA", "certificate")
        records = self.records(browser)
        self.assertEqual(sorted(kind for _, kind, _ in records), ["CAA", "CNAME"])
        self.assertIn(("example.com", "CAA", f'0 issue "{OURS}"'), records)
        self.put(records, DENIED)
        self.verify(browser)
        (domain,) = rest.done(self.server, 200, "GET", "/domains")["data"]
        self.assertEqual(domain["status"], "verified")

    def test_one_change_a_day(self):
        """It is said before one runs into it, and again by whoever tries; what was typed stays."""
        self.dns.zone("example.com", case.LINKS)
        self.relay()
        domain = self.verified(self.server)
        first = rest.update(self.server, domain, tracking_subdomain="go")
        browser = self.browser(token=self.server.token)
        browser.open(f"/dashboard/domains/{first['id']}")
        browser.says("links.example.com", "go.example.com")
        browser.open(f"/dashboard/domains/{first['id']}/configure")
        browser.says("24 hours")
        field = browser.field("Tracking subdomain")
        if field.is_enabled() and not field.get_attribute("readonly"):
            browser.write("Tracking subdomain", "third")
            browser.press("Save")
            browser.says("24 hours")
            self.assertEqual(browser.field("Tracking subdomain").get_attribute("value"), "third")
        self.assertEqual(rest.fetch(self.server, domain)["tracking_subdomain"], "go")

    def test_deletion(self):
        """Its consequences are spelled out before, and it is gone after."""
        self.dns.zone("example.com", case.LINKS)
        self.relay()
        domain = self.verified(self.server)
        browser = self.browser(token=self.server.token)
        browser.open(f"/dashboard/domains/{domain['id']}/delete")
        browser.says("links", "proxy")
        self.assertEqual(rest.fetch(self.server, domain)["id"], domain["id"])
        buttons = [one for one in browser.all("main button") if "elete" in one.text or "emove" in one.text]
        buttons[-1].click()
        browser.at("/dashboard/domains")
        self.assertEqual(rest.done(self.server, 200, "GET", "/domains")["data"], [])
