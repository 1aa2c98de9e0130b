"""A message as it arrived is read in a real browser: its pixel is an image, its link leads where it did before, and
nothing of that works by looking away from the certificate."""

import email
import http.server
import threading

import paths  # noqa: F401, I001: it says where some of the others are
import mail
from base import HOST, Acme, load_tests  # noqa: F401
from browser import Browser
from nginx import Authority
from support import until
from test_proxies import events

WEBMAIL, SHOP = "mail.example.net", "www.example.org"
# Width and height of the first image, once it is known whether it is one.
IMAGE = "(image => image.complete && [image.naturalWidth, image.naturalHeight])(document.images[0])"
STRANGER = "net::ERR_CERT_AUTHORITY_INVALID"
# An alert, or an end without a word.
NOT_HTTP = ("net::ERR_INVALID_HTTP_RESPONSE", "net::ERR_EMPTY_RESPONSE", "net::ERR_CONNECTION_RESET")


class Reader(Acme):
    def setUp(self):
        super().setUp()
        self.server = self.begin()
        self.obtained(self.server)
        self.pages = Pages()
        self.addCleanup(self.pages.stop)
        self.offer = self.pages.put(SHOP, "/offer?from=mail", "<title>Offer</title>")
        self.sent = mail.send(self.server, self.smarthost, "example.com", self.offer)
        self.assertEqual(self.sent.host, HOST)
        body = email.message_from_string(self.sent.text).get_payload(decode=True).decode()
        self.message = self.pages.put(WEBMAIL, "/message", body)

    def browser(self, root):
        browser = Browser(self.folder / "browser", (HOST, WEBMAIL, SHOP), root)
        self.addCleanup(browser.stop)
        return browser

    def read(self, browser):
        """Opens the message; what its pixel is to the browser."""
        self.assertIsNone(browser.open(self.message))
        browser.loaded(self.message)
        return browser.value(IMAGE)

    def count(self, kind):
        return [event["email_id"] for event in events(self.server, kind)].count(self.sent.id)

    def test_a_message_is_read(self):
        browser = self.browser(self.root)
        self.assertEqual(self.read(browser), [1, 1])
        until("an open", lambda: self.count("email.opened") == 1)
        browser.value("document.links[0].click()")
        browser.loaded(self.offer)
        self.assertEqual(browser.value("document.title"), "Offer")
        self.assertEqual(browser.value("document.referrer"), "", "the address of the mailbox goes to nobody")
        until("a click", lambda: self.count("email.clicked") == 1)

    def test_a_root_that_is_not_believed(self):
        """All is as above, but the root in the database is another one."""
        browser = self.browser(Authority(self.folder / "other").root)
        self.assertEqual(self.read(browser), [0, 0])
        self.assertEqual(browser.open(self.sent.link), STRANGER)
        self.assertNotIn(self.offer, self.pages.asked)
        self.assertEqual((self.count("email.opened"), self.count("email.clicked")), (0, 0))

    def test_https_is_remembered(self):
        """The header, to a browser: once it was there, it asks that host nothing in the clear. Its port stays the same,
        and there nobody answers plain HTTP."""
        browser = self.browser(self.root)
        plain = self.sent.link.replace("https:", "http:")
        self.assertIn(browser.open(plain), NOT_HTTP)
        self.assertNotIn(self.offer, self.pages.asked)
        for link in (self.sent.link, plain):
            self.assertIsNone(browser.open(link))
            browser.loaded(self.offer)
            self.assertIsNone(browser.open("about:blank"))
        self.assertEqual(self.pages.asked.count(self.offer), 2)


class Pages:
    """Pages by their addresses, on a port of loopback; `asked` has the addresses that were asked for."""

    def __init__(self):
        self.asked, self.texts, pages = [], {}, self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                address = f"http://{self.headers['Host']}{self.path}"
                pages.asked.append(address)
                text = pages.texts.get(address)
                self.send_response(404 if text is None else 200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write((text or "").encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def put(self, host, path, text):
        """The address of a page."""
        address = f"http://{host}:{self.server.server_port}{path}"
        self.texts[address] = text
        return address

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
