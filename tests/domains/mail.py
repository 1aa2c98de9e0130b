"""One message through the relay, and what became of its link and its pixel."""

import dataclasses
import http.client
import itertools
import re
import smtplib

import paths  # noqa: F401
from support import until

PAGE = "https://www.example.org/offer?from=mail"
MESSAGE = """From: News <news@{domain}>\r
To: ada@example.net\r
Subject: Offer\r
Date: Tue, 24 Nov 2026 06:00:00 +0000\r
Message-ID: <{number}@{domain}>\r
MIME-Version: 1.0\r
Content-Type: text/html; charset=utf-8\r
\r
<html><body><p><a href="{page}">Look</a></p></body></html>\r
"""
LINK = re.compile(r'<a href="((https?)://([^/":]+)(?::(\d+))?(/c/[^"]+))"')
PIXEL = re.compile(r'<img src="((https?)://([^/":]+)(?::(\d+))?(/o/[^"]+))"')
numbers = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class Sent:
    """`host` is the tracking host of its link, None where that was left alone."""

    id: str
    text: str
    host: str | None
    link: str | None
    pixel: str | None


def send(server, smarthost, domain, page=PAGE):
    """Sends from news@DOMAIN, with a link to a page, and waits for it at the smarthost."""
    message_id = f"<{next(numbers)}@{domain}>"
    text = MESSAGE.format(domain=domain, number=message_id[1:].partition("@")[0], page=page)
    with smtplib.SMTP("127.0.0.1", server.ports[0], "client.example.com", timeout=30) as client:
        client.ehlo()
        client.mail(f"news@{domain}")
        client.rcpt("ada@example.net")
        code, reply = client.data(text.encode())
    if code != 250:
        raise AssertionError(f"{code} {reply}")
    copy = until(f"{message_id} at the smarthost", lambda: arrived(smarthost, message_id))
    arrived_as = copy.message.decode()
    link, pixel = LINK.search(arrived_as), PIXEL.search(arrived_as)
    if not link and f'<a href="{page}">' not in arrived_as:
        raise AssertionError(f"the link is neither tracked nor whole: {arrived_as}")
    return Sent(re.search(rb"queued as (\S+)", reply)[1].decode(), arrived_as, link and link[3], link and link[1],
                pixel and pixel[1])


def arrived(smarthost, message_id):
    with smarthost.lock:
        return next((copy for copy in smarthost.copies if copy.taken and copy.message_id == message_id), None)


def tracked(server, smarthost, domain):
    """The tracking host of mail sent now, or None."""
    sent = send(server, smarthost, domain)
    if (sent.host is None) != (sent.pixel is None):
        raise AssertionError(f"a pixel without a link, or the other way round: {sent.text}")
    return sent.host


def follow(server, link):
    """(status, Location) of a link at the tracking host."""
    host, path = re.fullmatch(r"https?://([^/]+)(/.*)", link).groups()
    connection = http.client.HTTPConnection("127.0.0.1", server.web, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": host, "User-Agent": "Mozilla/5.0 (test)"})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers["Location"]
    finally:
        connection.close()
