"""What the tests of hits stand on: a relay behind a proxy that it trusts, newsletters whose every copy is kept, and the
ways on which the relay tells what it has recorded.

The relay is a process that is driven through its configuration, SMTP, HTTP and its command line, as in
tests/campaigns/common.py, from which the rest comes.
"""
import http.client, json, os, pathlib, re, subprocess, sys, time
from collections import namedtuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "campaigns"))
from common import DOMAIN, Client, Relay, Sink, within  # noqa: E402

HOST = f"links.{DOMAIN}"
# The client's own address is in X-Forwarded-For, as behind a proxy or CDN.
PROXIED = {"[tracking]": ['trusted_proxies = ["127.0.0.1/32"]']}
# One recipient's copy: the links' paths in their order, the pixel's, and when the smarthost had it at the latest.
Copy = namedtuple("Copy", "who links pixel at")


def binary():
    return os.environ.get("TRACKPOST_BIN") or sys.exit("TRACKPOST_BIN names no program")


def until(what, done, seconds=60, pause=0.05):
    """What `done` gives once it is something true."""
    if (found := within(done, seconds, pause)) is None:
        raise AssertionError(f"{seconds} seconds without {what}")
    return found


class Hits:
    """A relay with a tracked domain and an API key, and the smarthost behind it."""

    def __init__(self, program, settings=None, data=None, environment=None):
        merged = {head: list(lines) for head, lines in PROXIED.items()}
        for head, lines in (settings or {}).items():
            merged.setdefault(head, []).extend(lines)
        self.sink = Sink(keep=True)
        self.relay = Relay(program, self.sink.port, merged, data)
        self.relay.start(environment=environment)
        self.relay.add_domain()
        self.key = self.run("key", "create", "--name", "tests").split()[-1]

    def close(self):
        self.relay.cleanup()
        self.sink.listener.close()

    def run(self, *words):
        command = [self.relay.binary, "--config", self.relay.config, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(words)}: {done.stderr}")
        return done.stdout

    # ---- Mail

    def post(self, ident, links, recipients=1):
        """Sends a message with so many links; names of its copies."""
        names = [f"{ident}r{n}" for n in range(recipients)]
        with Client(self.relay.smtp) as client:
            self.put(client, names, newsletter(ident, links))
        return names

    @staticmethod
    def put(client, names, letter):
        lines = [f"MAIL FROM:<news@{DOMAIN}>", *(f"RCPT TO:<{name}@example.net>" for name in names), "DATA"]
        client.connection.sendall("".join(f"{line}\r\n" for line in lines).encode())
        replies = [client.reply() for _ in lines]
        if any(reply[0] not in "23" for reply in replies):
            raise AssertionError(f"{replies}")
        reply = client.say(letter + b".\r\n")
        if not reply.startswith("250"):
            raise AssertionError(reply)

    def copies(self, names, seconds=120):
        """The copies, once all have arrived; each by the name of its recipient."""
        lacking = lambda: not self.sink.lacks(set(names))  # noqa: E731
        until(f"{len(names)} copies", lacking, seconds, 0.01)
        at = time.time()
        with self.sink.lock:
            bodies = [(name, self.sink.taken.pop(name)[0]) for name in names]
        return {name: Copy(name, *paths(body), at) for name, body in bodies}

    # ---- What is recorded

    def export(self):
        """Opens and clicks of `events export`."""
        events = map(json.loads, self.run("events", "export").splitlines())
        return [event for event in events if event["type"] in ("email.opened", "email.clicked")]

    def api(self, path):
        """The answer of the API; waits where too much was asked at once. `took` says how long this one took."""
        for _ in range(600):
            connection = http.client.HTTPConnection("127.0.0.1", self.relay.api, timeout=60)
            try:
                began = time.monotonic()
                headers = {"Authorization": f"Bearer {self.key}", "User-Agent": "tests/1"}
                connection.request("GET", path, headers=headers)
                answer = connection.getresponse()
                body = answer.read()
                self.took = time.monotonic() - began
            finally:
                connection.close()
            if answer.status != 429:
                break
            time.sleep(0.1)
        if answer.status != 200:
            raise AssertionError(f"{path}: {answer.status} {body[:300]}")
        return body.decode()

    def all_of(self, path, limit=100):
        """Every row of a list, page by page."""
        rows, after = [], ""
        while True:
            page = json.loads(self.api(f"{path}?limit={limit}{after}"))
            rows += page["data"]
            if not page["has_more"]:
                return rows
            after = f"&after={page['data'][-1]['id']}"

    FIGURES = ("opened", "opened_human", "opened_machine", "clicked", "clicked_human", "clicked_machine",
               "unique_opened", "unique_opened_human", "unique_clicked", "unique_clicked_human")

    def totals(self, more=""):
        return json.loads(self.api(f"/emails/metrics?metrics={','.join(self.FIGURES)}{more}"))["totals"]

    def counted(self):
        """Hits in the counts, repeats included."""
        totals = self.totals()
        return totals["opened"] + totals["clicked"]

    def metric(self, name):
        """The sum of a metric over its labels."""
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", self.api("/metrics"), re.M)
        if not found:
            raise AssertionError(f"no metric {name}")
        return sum(map(float, found))

    def lost(self):
        return int(self.metric("trackpost_hits_lost_total"))


def newsletter(ident, links):
    offers = "".join(f'<p>Offer {n}: <a href="https://{DOMAIN}/p/{n}?of={ident}">see</a></p>\r\n' for n in range(links))
    return (f"From: News <news@{DOMAIN}>\r\nTo: readers@example.net\r\nSubject: {ident}\r\n"
            f"Message-ID: <{ident}@{DOMAIN}>\r\nMIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
            f"<html><body>\r\n{offers}</body></html>\r\n").encode()


def paths(body):
    """Paths of the links, in their order, and of the pixel."""
    text = body.decode()
    links = re.findall(rf'href="http://{HOST}(/c/[\w-]+)"', text)
    pixel = re.search(rf'src="http://{HOST}(/o/[\w-]+\.gif)"', text)
    if not pixel:
        raise AssertionError(text)
    return links, pixel[1]


def whose(event):
    """The recipient's name and the number of the link; None for the pixel."""
    link = event.get("link")
    number = int(link.partition("/p/")[2].partition("?")[0]) if link else None
    return event["to"].partition("@")[0], number
