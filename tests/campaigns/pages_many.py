#!/usr/bin/env python3
"""A million messages: how long the pages of the dashboard take, and how large they are.

    tests/campaign pages-many [MESSAGES]

MESSAGES (1,000,000) of forty domains go through Postfix's smtp-source and the relay. libfaketime lets
the relay's clock run so fast meanwhile that they lie in some 400 days. A message to 1,000 people is opened and clicked
100,000 times besides, 20,000 wait in a queue that is held, and a webhook is told of the last deliveries. Then every page
is asked for seven times, as an operator and as a customer whose key is tied to one domain: none may take 300 ms or have
200 KB. Exits 1 if anything is wrong.
"""
import glob, http.client, json, pathlib, statistics, subprocess, sys, tempfile, threading, time, urllib.parse
from http.server import ThreadingHTTPServer

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "hits"))
from common import Verdict  # noqa: E402
from events_many import DAYS, SETTINGS, Endpoint, fill, size, webhook  # noqa: E402
from ground import Hits, until  # noqa: E402

DOMAINS, ROUNDS, EXPECTED_RATE = 40, 100, 1_500
BAR, SIZE, TIMES = 0.3, 200_000, 7
TOPICS = ("Offers of the week", "Your invoice", "What is new", "Minutes of the meeting", "Reset your password")


class Browser:
    """Somebody who is signed in."""

    def __init__(self, port, key):
        self.port, self.key, self.cookie = port, key, ""

    def sign_in(self):
        status, headers, _ = self.ask("POST", "/dashboard/sign-in", {"key": self.key})
        if status != 303:
            raise AssertionError(f"signing in: {status}")
        self.cookie = headers["Set-Cookie"].partition(";")[0]

    def ask(self, method, path, form=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Cookie": self.cookie} if self.cookie else {}
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        began = time.monotonic()
        connection.request(method, path, urllib.parse.urlencode(form) if form is not None else None, headers)
        answer = connection.getresponse()
        body = answer.read()
        self.took = time.monotonic() - began
        connection.close()
        return answer.status, answer.headers, body.decode()

    def page(self, path):
        status, _, body = self.ask("GET", path)
        # A session's twelve hours are over in a moment of this clock.
        for _ in range(5):
            if status == 303:
                self.sign_in()
                status, _, body = self.ask("GET", path)
        if status != 200:
            raise AssertionError(f"{path}: {status} {body[:500]}")
        return body


def main(program, messages=1_000_000):
    verdict = Verdict()
    found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1") or sys.exit("libfaketime is missing")
    speed = DAYS * 86_400 // max(30, messages // EXPECTED_RATE)
    clock = {"LD_PRELOAD": found[0], "FAKETIME": f"-{DAYS}d x{speed}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    server = Hits(program, SETTINGS | {"[queue]": ["max_messages = 10000000"]}, environment=clock)
    names = [f"d{n}.example.org" for n in range(DOMAINS - 1)]
    for name in names:
        server.run("domain", "add", name, "--subdomain", "links", "--open", "--click", "--force-verified")
    endpoint = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=endpoint.serve_forever, daemon=True).start()
    # Of what comes now nothing is looked at.
    server.sink.taken, began = None, time.monotonic()
    for number in range(ROUNDS):
        if number == ROUNDS - 1:
            hook = webhook(server, endpoint)
        send(server, names[number % len(names)], number, messages // ROUNDS)
        if number % 10 == 9:
            now, most = server.relay.resident()
            print(f"{(number + 1) * messages // ROUNDS} messages after {time.monotonic() - began:.0f} s, memory "
                  f"{now >> 10} MB", flush=True)
    until("an empty queue", lambda: server.metric("trackpost_queue_messages") == 0, 600, 0.5)
    server.sink.taken = {}
    fill(server, [("largest", 1_000)])
    largest = json.loads(server.api("/emails?limit=1"))["data"][0]["id"]
    server.run("queue", "hold")
    send(server, names[0], ROUNDS, max(1, messages // 50))
    operator = Browser(server.relay.api, server.key)
    tied = server.run("key", "create", "--name", "customer", "--domain", names[3]).split()[-1]
    for name, browser in (("operator", operator), ("customer", Browser(server.relay.api, tied))):
        pages(name, browser, addresses(server, largest, hook, names, name == "operator"), verdict)
    now, most = server.relay.resident()
    store = size(server.relay, "store")
    verdict.expect(not server.relay.panics(), f"{server.relay.panics()[:1]}")
    server.close()
    verdict.end(f"{messages} messages: store {store >> 20} MB, memory {now >> 10} MB, at most {most >> 10} MB")


def send(server, domain, number, count):
    """So many messages of a domain, each to somebody else."""
    topic = TOPICS[number % len(TOPICS)]
    letter = (f"From: News <news@{domain}>\nTo: readers@example.net\nSubject: {topic}, {number}\n"
              f"X-Trackpost-Tag: campaign=c{number}\nMessage-ID: <c{number}@{domain}>\nMIME-Version: 1.0\n"
              f"Content-Type: text/html; charset=utf-8\n\n<html><body><p><a href=\"https://example.com/{number}\">See"
              "</a></p></body></html>\n")
    with tempfile.NamedTemporaryFile("w", suffix=".eml") as file:
        file.write(letter)
        file.flush()
        command = ["/usr/sbin/smtp-source", "-d", "-N", "-s", "16", "-m", str(count), "-f", f"news@{domain}", "-t",
                   f"reader{number}@example.net", "-F", file.name, f"127.0.0.1:{server.relay.smtp}"]
        subprocess.run(command, check=True, timeout=3_600, stdout=subprocess.DEVNULL)


def addresses(server, largest, hook, names, operator):
    """What is asked for, by what it is called."""
    rows = json.loads(server.api("/emails?limit=100"))["data"]
    settled = json.loads(server.api(f"/emails?limit=100&after={largest}"))["data"][-1]
    domains = {row["name"]: row["id"] for row in json.loads(server.api("/domains?limit=100"))["data"]}
    tied, newest = domains[names[3]], settled["created_at"][:10]
    year = str(int(newest[:4]) - 1) + newest[4:]
    days = f"from={year}&to={newest}"
    asked = {
        "overview": "/dashboard",
        "domains": "/dashboard/domains",
        "a domain": f"/dashboard/domains/{tied}",
        "its configuration": f"/dashboard/domains/{tied}/configuration",
        "emails": "/dashboard/emails",
        "subject, of a year": f"/dashboard/emails?subject=invoice&{days}",
        "subject that is nowhere": f"/dashboard/emails?subject=nowhere&{days}",
        "tag, of a year": f"/dashboard/emails?tag=campaign%3Dc3&{days}",
        "recipient": "/dashboard/emails?q=5reader3%40example.net",
        "Message-ID": f"/dashboard/emails?q=c3%40{names[3]}",
        "nobody": "/dashboard/emails?q=nobody%40example.net",
        "metrics": "/dashboard/metrics",
        "metrics of a year": f"/dashboard/metrics?{days}",
        "metrics of a year by hour": f"/dashboard/metrics?by=hour&{days}",
        "metrics of a domain": f"/dashboard/metrics?domain={tied}&{days}",
        "metrics as CSV": f"/dashboard/metrics.csv?{days}",
        "webhooks": "/dashboard/webhooks",
    }
    if operator:
        asked |= {
            "an email": f"/dashboard/emails/{settled['id']}",
            "its report": f"/dashboard/emails/{settled['id']}/report",
            "its preview": f"/dashboard/emails/{settled['id']}/preview",
            "its content": f"/dashboard/emails/{settled['id']}/preview/content",
            "the largest email": f"/dashboard/emails/{largest}",
            "its report ": f"/dashboard/emails/{largest}/report",
            "a webhook": f"/dashboard/webhooks/{hook}",
            "API keys": "/dashboard/api-keys",
            "queue": "/dashboard/queue",
            "a queued email": f"/dashboard/queue/{rows[0]['id']}",
            "kill list": "/dashboard/kill-list",
        }
    return asked


def pages(who, browser, asked, verdict):
    for name, path in asked.items():
        took = []
        for _ in range(TIMES):
            body = browser.page(path)
            took.append(browser.took)
        print(f"{who:<9} {name:<26} {statistics.median(took) * 1000:7.1f} ms, at most {max(took) * 1000:7.1f} ms, "
              f"{len(body.encode()):>7} bytes", flush=True)
        verdict.expect(max(took) < BAR, f"{name} takes {max(took) * 1000:.0f} ms")
        verdict.expect(len(body.encode()) < SIZE or path.endswith("csv"), f"{name} has {len(body.encode())} bytes")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
