"""Mail that is sent through the relay here: a newsletter from a domain, and small letters that differ in their name."""

import re

import ground  # noqa: F401
from support import fixture, verify

LETTER = """From: News <{sender}>\r
To: {recipient}\r
Subject: {subject}\r
Date: Tue, 03 Nov 2026 09:30:00 +0000\r
Message-ID: <{id}@example.com>\r
\r
Hello\r
"""


def letter(sender, recipient, subject):
    return LETTER.format(sender=sender, recipient=recipient, subject=subject, id=subject.lower()).encode()


def newsletter(domain):
    """A real one, with 21 links, as this domain would send it."""
    field = b"From: News <news@%s>" % domain.encode()
    return re.sub(rb"^From: [^\r]*", field, fixture("newsletter"), count=1, flags=re.M)


def is_untouched(original, arrived):
    """But for the line that every relay adds."""
    return re.sub(rb"\AReceived:.*\r\n(?:[ \t].*\r\n)*", b"", arrived, count=1) == original


def check(original, arrived, host, web):
    """The checker's report: links and pixel at this host, nothing else changed, and each link followed."""
    report = verify.verify(original, arrived, verify.Policy((host,)))
    verify.resolve(report, f"http://127.0.0.1:{web}")
    return report
