"""Mail through the relay, and what people and machines do with its links."""

import dataclasses
import http.client
import itertools
import re
import smtplib
import time

from support import until

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"
GMAIL = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
PAGES = ("https://www.example.org/first?a=1", "https://www.example.org/second", "https://shop.example.net/third")
# What is clicked sooner after delivery is no person's.
READ = 2.1
NUMBERS = itertools.count(1)


@dataclasses.dataclass
class Mail:
    """`links` and `pixels` by recipient, of copies that arrived."""

    id: str
    message_id: str
    at: float
    links: dict = dataclasses.field(default_factory=dict)
    pixels: dict = dataclasses.field(default_factory=dict)

    def read(self):
        """Waits until a click may be a person's."""
        time.sleep(max(0, self.at + READ - time.time()))
        return self


def compose(sender, pages=PAGES, subject="Offer", tags=(), message_id=None, text=None):
    fields = [f"From: News <{sender}>", "To: readers@example.net", f"Subject: {subject}",
              "Date: Tue, 24 Nov 2026 06:00:00 +0000", f"Message-ID: {message_id}", "MIME-Version: 1.0"]
    fields += [f"X-Trackpost-Tag: {name}={value}" for name, value in tags]
    anchors = "".join(f'<p><a href="{page.replace("&", "&amp;")}">Look</a></p>' for page in pages)
    kind = "text/html" if text is None else "text/plain"
    body = f"<html><body>{anchors}</body></html>" if text is None else text
    return "\r\n".join([*fields, f"Content-Type: {kind}; charset=utf-8", "", body, ""]).encode()


def submit(server, recipients=("ada@example.net",), sender="news@example.com", **content):
    """Sends one message; what is known of it then."""
    message_id = f"<{next(NUMBERS)}.offer@{sender.partition('@')[2]}>"
    message = compose(sender, message_id=message_id, **content)
    with smtplib.SMTP("127.0.0.1", server.ports[0], "client.example.com", timeout=30) as client:
        client.ehlo()
        for code, reply in (client.mail(sender), *map(client.rcpt, recipients), client.data(message)):
            if code != 250:
                raise AssertionError(f"{code} {reply}")
    return Mail(re.search(rb"queued as (\S+)", reply)[1].decode(), message_id, time.time())


def send(server, smarthost, recipients=("ada@example.net",), **content):
    """Sends one message, and waits until the smarthost has taken every copy."""
    mail = submit(server, recipients, **content)
    for recipient in recipients:
        text = arrived(smarthost, mail, recipient)
        mail.links[recipient] = re.findall(r'<a href="(https?://[^"/]+/c/[^"]+)"', text)
        pixels = re.findall(r'<img src="(https?://[^"/]+/o/[^"]+)"', text)
        mail.pixels[recipient] = pixels[0] if pixels else None
    mail.at = time.time()
    return mail


def arrived(smarthost, mail, recipient):
    """The copy of a recipient as the smarthost took it, once it has."""
    def found():
        with smarthost.lock:
            return next((one for one in smarthost.copies
                         if one.taken and recipient in one.recipients and one.message_id == mail.message_id), None)

    return until(f"{mail.message_id} for {recipient}", found).message.decode()


def hit(server, link, method="GET", agent=FIREFOX, address="198.51.100.7"):
    """(status, Location) of a link or pixel, asked for from this address."""
    host, path = re.fullmatch(r"https?://([^/]+)(/.*)", link).groups()
    connection = http.client.HTTPConnection("127.0.0.1", server.web, timeout=10)
    headers = {"Host": host, "X-Forwarded-For": address} | ({"User-Agent": agent} if agent else {})
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers["Location"]
    finally:
        connection.close()
