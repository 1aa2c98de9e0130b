"""A domain whose mail is signed: its records in DNS, and mail sent for it."""

import contextlib
import pathlib
import re
import smtplib

import paths  # noqa: F401
import rest
from server import TARGET, Server
from smarthost import Smarthost
from support import until

import verifiers
from knot import Knot

DOMAIN = "shop.example.com"
SENDER = f"news@{DOMAIN}"


def txt(record):
    """A DKIM record as a zone file has it: strings of 255 characters at most (RFC 1035, section 3.3.14)."""
    name, value = record["name"].removesuffix(f".{DOMAIN}"), record["value"]
    strings = " ".join(f'"{value[at:at + 255]}"' for at in range(0, len(value), 255))
    return f"{name} TXT {strings}"


def keys(domain):
    """The records of its DKIM keys, the one that is to sign first."""
    return [record for record in domain["records"] if record["record"] == "DKIM"]


class Ground:
    """All of it, in a folder, until `close`. `dns.address` and `on_53` are one server."""

    def __init__(self, folder, settings=None, script=None, environment=None):
        with contextlib.ExitStack() as self.closing:
            self.folder = pathlib.Path(folder)
            self.on_53 = verifiers.address()
            self.dns = self.kept(Knot(self.folder / "dns", (self.on_53,)), "stop")
            self.dns.zone("relay.example.net", "track A 127.0.0.1")
            self.dns.zone(DOMAIN)
            self.smarthost = self.kept(Smarthost(*([script] if script else [])), "stop")
            server = Server(self.folder / "relay", self.smarthost.port, self.dns.address, settings, environment)
            self.server = self.kept(server, "close")
            # All of it has begun: it ends with `close`, and not here.
            self.closing = self.closing.pop_all()

    def kept(self, made, end):
        self.closing.callback(getattr(made, end))
        return made

    def close(self):
        """Ends all of it, also where the end of one part is a fault."""
        self.closing.close()

    def publish(self, domain, *more):
        """Its records, as it shows them, are in DNS from now on."""
        self.dns.zone(DOMAIN, f"links CNAME {TARGET}.", *(txt(record) for record in keys(domain)), *more)

    def signed(self, **fields):
        """The domain, tracked and signed."""
        domain = rest.create(self.server, DOMAIN, dkim=True, **fields)
        self.publish(domain)
        domain = rest.verify(self.server, domain)
        states = [record["status"] for record in domain["records"]]
        if domain["status"] != "verified" or set(states) != {"verified"}:
            raise AssertionError(domain)
        return domain

    def send(self, messages, recipients=("ada@example.net",), sender=SENDER):
        """Sends them one after the other; what arrives, by queue id, and the ids in order."""
        ids = []
        with smtplib.SMTP("127.0.0.1", self.server.ports[0], "client.example.com", timeout=60) as client:
            client.ehlo()
            for message in messages:
                client.mail(sender)
                for recipient in recipients:
                    client.rcpt(recipient)
                code, reply = client.data(message)
                if code != 250:
                    raise AssertionError(f"{code} {reply} for {message[:200]}")
                ids.append(re.search(rb"queued as (\S+)", reply)[1].decode())
        arrived = until(lambda: f"{len(ids)} messages, of {len(self.copies())}", lambda: self.all(ids), 120)
        return [arrived[id] for id in ids]

    def copies(self):
        """The messages taken, by the queue id in their Received field."""
        with self.smarthost.lock:
            taken = [copy.message for copy in self.smarthost.copies if copy.taken]
        found = {}
        for message in taken:
            id = re.search(rb"with E?SMTPS?A? id ([0-9a-f-]{36})", message)
            if id:
                found.setdefault(id[1].decode(), message)
        return found

    def of_recipients(self, recipients, since=0):
        """The copy of each, among those that came after the first `since`."""
        def seen():
            with self.smarthost.lock:
                taken = [copy for copy in self.smarthost.copies[since:] if copy.taken]
            found = {recipient: copy.message for copy in taken for recipient in copy.recipients}
            return found if set(recipients) <= set(found) else None

        return until(f"copies for {recipients}", seen)

    def all(self, ids):
        found = self.copies()
        return found if set(ids) <= set(found) else None

    def one(self, message, **options):
        return self.send([message], **options)[0]

    def failures(self, messages):
        return verifiers.failures(messages, DOMAIN, self.dns.address, self.on_53)


def without_trace(message):
    """A message without the Received field that a server has put before it."""
    return re.sub(rb"\AReceived:(?:.*\r\n)(?:[ \t].*\r\n)*", b"", message)


def split(message):
    """The signature that stands first, and what comes behind it."""
    found = re.match(rb"DKIM-Signature: (?:.*\r\n)(?:[ \t].*\r\n)*", message)
    if not found:
        raise AssertionError(f"not signed: {message[:300]}")
    return found[0], message[found.end():]
