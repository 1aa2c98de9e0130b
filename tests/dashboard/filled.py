"""A relay that has been in use for some days: domains in every state, mail of every fate with its opens and clicks,
endpoints that answer and one that does not, keys, a kill list, and a queue that is held."""

import dataclasses
import itertools

import letters
import rest
from base import HOST
from case import DAY, LINKS
from smarthost import Script
from support import until

GMAIL, FIREFOX = letters.GMAIL, letters.FIREFOX
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148"
DAYS, MAILS = 3, 19
SUBJECTS = ("Ten ideas for the cold season", "Your invoice for November", "What is new this week",
            "Last call: 20 % off")
TAGS = (("campaign", "winter"), ("campaign", "weekly"), ("kind", "receipt"))
PAGES = ("https://www.example.org/winter?from=mail&id=1", "https://www.example.org/coats",
         "https://shop.example.net/sale", "https://www.example.org/")
READERS = tuple(f"{name}@example.net" for name in ("ada", "grace", "alan", "edsger", "barbara", "donald", "hedy"))
GONE, LATER = "nobody@example.net", "later@example.net"
NO_SUCH, TRY_AGAIN = "550 5.1.1 No such user here", "451 4.7.1 Greylisted, please try again in 10 minutes"
EVENTS = ["email.delivered", "email.bounced", "email.opened", "email.clicked"]


@dataclasses.dataclass
class Filled:
    """What is there, by ids. `domains` are by their names; `mails` in the order they came."""

    domains: dict = dataclasses.field(default_factory=dict)
    mails: list = dataclasses.field(default_factory=list)
    bounced: object = None
    deferred: object = None
    hooks: list = dataclasses.field(default_factory=list)
    keys: list = dataclasses.field(default_factory=list)


def rcpt(session):
    return {GONE: NO_SUCH, LATER: TRY_AGAIN}.get(session.recipient)


def start(test):
    """The relay of a test, some days ago."""
    test.clock.set(-DAYS * DAY)
    test.smarthost.script = Script(do={"rcpt": rcpt})
    return test.relay(clock=True)


def fill(test):
    """All of it, in the relay that `start` gave, by now."""
    filled, server = Filled(), test.server
    domains(test, filled)
    endpoints(test, filled)
    for day in range(DAYS):
        for number in range(MAILS):
            send(test, filled, day * MAILS + number)
        test.clock.go_on(3600)
        for mail in filled.mails[-MAILS:]:
            read(server, mail, day)
        test.clock.go_on(DAY - 3600)
    later(test, filled)
    keys(server, filled)
    kills(server, filled)
    filled.bounced = letters.submit(server, (READERS[0], GONE), subject="An address that is no more")
    filled.deferred = letters.submit(server, (READERS[1], LATER), subject="Not now", tags=TAGS[:1])
    until("what is put off", lambda: TRY_AGAIN[4:20] in server.command("queue", "show", filled.deferred.id))
    server.command("queue", "hold")
    filled.mails += [letters.submit(server, READERS[:2], subject="Kept back") for _ in range(2)]
    until("the events", lambda: rest.done(server, 200, "GET", f"/emails/{filled.bounced.id}")["last_event"] != "queued")
    return filled


def domains(test, filled):
    """Verified, with an earlier subdomain, not verified, without tracking, and with a record that leads elsewhere."""
    server = test.server
    test.dns.zone("example.com", LINKS, f"go {LINKS.partition(' ')[2]}")
    test.dns.zone("example.org", "links CNAME elsewhere.example.net.")
    for name in ("example.com", "shop.example.net"):
        filled.domains[name] = test.track(name)
    filled.domains["example.org"] = rest.create(server, "example.org")["id"]
    rest.done(server, 200, "POST", f"/domains/{filled.domains['example.org']}/verify")
    filled.domains["mail.example.org"] = rest.create(server, "mail.example.org", "t")["id"]
    plain = rest.done(server, 201, "POST", "/domains", {"name": "plain.example.net"})
    filled.domains["plain.example.net"] = plain["id"]


def later(test, filled):
    """A day after its first subdomain, a domain gets another one."""
    domain = rest.fetch(test.server, {"id": filled.domains["example.com"]})
    rest.verify(test.server, rest.update(test.server, domain, tracking_subdomain="go"))


def endpoints(test, filled):
    http = test.receiver()
    http.steps["/fails"] = 500
    for path, events in (("/hooks/trackpost", EVENTS), ("/fails", EVENTS[:2])):
        asked = {"endpoint": http.url(path), "events": events}
        filled.hooks.append(rest.done(test.server, 201, "POST", "/webhooks", asked)["id"])


def send(test, filled, number):
    """One of many: from one of three domains, to one to three readers, now and then without anything to track."""
    sender = f"news@{('example.com', 'shop.example.net', 'plain.example.net')[(0, 0, 1, 0, 2)[number % 5]]}"
    start = number % len(READERS)
    readers = [*itertools.islice(itertools.cycle(READERS), start, start + 1 + number % 3)]
    filled.mails.append(letters.send(
        test.server, test.smarthost, readers, sender=sender, subject=SUBJECTS[number % 4], pages=PAGES[:1 + number % 4],
        tags=TAGS[number % 3:number % 3 + 1], text="Your code is 1234.\r\n" if number % 7 == 6 else None))


def read(server, mail, day):
    """Some open it, some of those click; a mailbox provider opens what nobody has read yet."""
    for number, (reader, pixel) in enumerate(mail.pixels.items()):
        if pixel is None:
            continue
        address = f"198.51.100.{10 + READERS.index(reader)}"
        if (number + day) % 3 != 2:
            letters.hit(server, pixel, agent=GMAIL, address="192.0.2.80")
            letters.hit(server, pixel, agent=PHONE if number % 2 else FIREFOX, address=address)
        for link in mail.links[reader][:(number + day) % 3]:
            letters.hit(server, link, agent=FIREFOX, address=address)


def keys(server, filled):
    for name, options in (("Deployment", ()), ("Newsletter", ("--permission", "sending_access")),
                          ("Customer", ("--domain", "shop.example.net"))):
        server.command("key", "create", "--name", name, *options)
    filled.keys = [one["id"] for one in rest.done(server, 200, "GET", "/api-keys")["data"]]


def kills(server, filled):
    for kind, value in (("message", filled.mails[0].id), ("link", PAGES[2]), ("domain", "wrong.example.net")):
        server.command("kill", "add", kind, value)


__all__ = ["HOST", "Filled", "fill", "start"]
