#!/usr/bin/env python3
"""Ten million events: how long the pages of the API take, and what the history takes of disk and memory.

    tests/campaign events-many [EVENTS] [COPIES]

EVENTS (10,000,000) opens and clicks, each an event of its own, as a recipient's copy is hit a hundred times (more is
kept of none) by as many clients: through SMTP, a smarthost and wrk, as all hits come in, with 1,000 copies at a time.
libfaketime lets the relay's clock run so fast meanwhile that they lie in some 400 days, with events in most hours; its
other clock is left alone. The last message goes to COPIES (1,000) recipients, each hit a hundred times as well. A
webhook is told of the last messages' deliveries. Then every page is asked for seven times, one after the other: none
may take 300 ms. Prints sizes as well; exits 1 if anything is wrong.
"""
import glob, json, pathlib, signal, statistics, subprocess, sys, tempfile, threading, time, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "hits"))
from common import Client, Verdict  # noqa: E402
from ground import HOST, Hits, newsletter, until  # noqa: E402

KEPT, RECIPIENTS, MESSAGES, LINKS = 100, 10, 100, 20
BLOCK = KEPT * RECIPIENTS * MESSAGES
DAYS, EXPECTED_RATE = 395, 12_000
BAR, TIMES = 0.3, 7
SETTINGS = {"[events]": ['retention = "4000d"', 'raw_retention = "4000d"', 'max_size = "200GiB"'],
            "[webhooks]": ["allow_private = true"]}
# Every path once a pass, each pass from other addresses; then something that is no hit, until it is ended.
SCRIPT = """
local threads = 0
function setup(thread) thread:set("number", threads); threads = threads + 1 end
local paths, at, pass, tried = {}, 0, 0, false
function init(args)
    local n = 0
    for line in io.lines("PATHS") do
        n = n + 1
        if n % 2 == number then paths[#paths + 1] = line end
    end
    wrk.headers["Host"] = "HOST"
    wrk.headers["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
end
function request()
    -- The first thread's first is made before anything is asked, and thrown away.
    if number == 0 and not tried then
        tried = true
        return wrk.format("GET", paths[1])
    end
    at = at + 1
    if at > #paths then at, pass = 1, pass + 1 end
    if pass >= PASSES then return wrk.format("GET", "/robots.txt") end
    wrk.headers["X-Forwarded-For"] = "10." .. pass .. "." .. math.floor(at / 250) % 250 .. "." .. at % 250 + 1
    return wrk.format("GET", paths[at])
end
"""


class Endpoint(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def main(program, events=10_000_000, largest=1_000):
    verdict, blocks = Verdict(), max(1, events // BLOCK)
    found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1") or sys.exit("libfaketime is missing")
    speed = DAYS * 86_400 // max(30, blocks * BLOCK // EXPECTED_RATE)
    clock = {"LD_PRELOAD": found[0], "FAKETIME": f"-{DAYS}d x{speed}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    server = Hits(program, SETTINGS, environment=clock)
    endpoint = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=endpoint.serve_forever, daemon=True).start()
    began, hook = time.monotonic(), None
    for block in range(blocks):
        if block == blocks - 1:
            hook = webhook(server, endpoint)
        fill(server, [(f"b{block}m{n}", RECIPIENTS) for n in range(MESSAGES)])
        if block % 10 == 9 or block == blocks - 1:
            now, most = server.relay.resident()
            took = time.monotonic() - began
            print(f"{(block + 1) * BLOCK} events after {took:.0f} s, memory {now >> 10} MB", flush=True)
    fill(server, [("largest", largest)])
    sent, hours = blocks * BLOCK + largest * KEPT, window(server)
    counted = until("all in the counts", lambda: counted_in(server, hours) >= sent and counted_in(server, hours), 60)
    verdict.expect(counted == sent, f"{counted} counted, {sent} sent")
    verdict.expect(server.lost() == 0, f"{server.lost()} lost")
    lost = server.metric("trackpost_history_lost_total") + server.metric("trackpost_history_cut_total")
    verdict.expect(lost == 0, "history was given up")
    pages(server, hook, verdict)
    now, most = server.relay.resident()
    store, log = (size(server.relay, part) for part in ("store", "log"))
    verdict.expect(not server.relay.panics(), f"{server.relay.panics()[:1]}")
    server.close()
    verdict.end(f"{sent} events: store {store >> 20} MB ({store / sent:.0f} bytes each), log {log >> 20} MB, memory "
                f"{now >> 10} MB, at most {most >> 10} MB")


def fill(server, messages):
    """Sends them and has every copy hit until no more is kept of it, then waits until all is recorded."""
    names = []
    with Client(server.relay.smtp, timeout=60) as client:
        for ident, recipients in messages:
            some = [f"{ident}r{n}" for n in range(recipients)]
            Hits.put(client, some, newsletter(ident, LINKS))
            names += some
    copies = server.copies(names, 300)
    with tempfile.TemporaryDirectory(prefix="trackpost-many-") as name:
        folder = pathlib.Path(name)
        lines = [path for place, copy in enumerate(copies.values()) for path in (copy.pixel, copy.links[place % LINKS])]
        (folder / "paths").write_text("\n".join(lines) + "\n")
        script = SCRIPT.replace("PATHS", str(folder / "paths")).replace("HOST", HOST)
        (folder / "lua").write_text(script.replace("PASSES", str(KEPT // 2)))
        command = ["wrk", "-t2", "-c32", "-d600s", "-s", folder / "lua", f"http://127.0.0.1:{server.relay.web}/"]
        goal = server.metric("trackpost_hits_total") + len(names) * KEPT
        asking = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            until("all hits", lambda: server.metric("trackpost_hits_total") >= goal, 600, 0.1)
        finally:
            asking.send_signal(signal.SIGINT)
            said, _ = asking.communicate(timeout=60)
    if "Non-2xx" in said:
        sys.exit(said)


def webhook(server, endpoint):
    body = {"endpoint": f"http://127.0.0.1:{endpoint.server_port}/", "events": ["email.delivered"]}
    asked = urllib.request.Request(f"http://127.0.0.1:{server.relay.api}/webhooks", json.dumps(body).encode(), {
        "Authorization": f"Bearer {server.key}", "Content-Type": "application/json", "User-Agent": "tests/1"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return json.load(answer)["id"]


def window(server):
    """All of it, in the relay's time, as its newest message tells."""
    newest = json.loads(server.api("/emails?limit=1"))["data"][0]["created_at"]
    end = time.strptime(newest[:10], "%Y-%m-%d")
    day = lambda more: time.strftime("%Y-%m-%d", time.gmtime(time.mktime(end) + more * 86_400))  # noqa: E731
    return f"&start_date={day(-410)}&end_date={day(5)}"


def counted_in(server, hours):
    totals = server.totals(hours)
    return totals["opened"] + totals["clicked"]


def pages(server, hook, verdict):
    newest = json.loads(server.api("/emails?limit=100"))["data"]
    ids = [row["id"] for row in newest]
    domain = json.loads(server.api("/domains"))["data"][0]["id"]
    hours = window(server)
    largest, usual = ids[0], ids[-1]
    metrics = f"/emails/metrics?metrics={','.join(server.FIGURES)}"
    asked = {
        "/emails": "/emails",
        "/emails, 100": "/emails?limit=100",
        "/emails, older": f"/emails?limit=100&after={usual}",
        "/emails/ID": f"/emails/{usual}",
        "/emails/ID, the largest": f"/emails/{largest}",
        "/emails/ID/events": f"/emails/{usual}/events?limit=100",
        "/emails/ID/events, the largest": f"/emails/{largest}/events?limit=100",
        "/emails/metrics": "/emails/metrics",
        "/emails/metrics, all time": metrics + hours,
        "/emails/metrics by hour": f"{metrics}&dimensions=period&granularity=hourly{hours}",
        "/emails/metrics by day": f"{metrics}&dimensions=period&granularity=daily{hours}",
        "/emails/metrics by month": f"{metrics}&dimensions=period&granularity=monthly{hours}",
        "/emails/metrics by domain": f"{metrics}&dimensions=domain{hours}",
        "/emails/metrics by day, domain": f"{metrics}&dimensions=period,domain{hours}",
        "/emails/metrics of a domain": f"{metrics}&dimensions=period&granularity=hourly&domain_id={domain}{hours}",
        "/emails/metrics of 100 messages": f"{metrics}&dimensions=email&email_id={','.join(ids)}{hours}",
        "/webhooks/ID/events": f"/webhooks/{hook}/events?limit=100",
    }
    for name, path in asked.items():
        took = []
        for _ in range(TIMES):
            answer = server.api(path)
            took.append(server.took)
        print(f"{name:<32} {statistics.median(took) * 1000:7.1f} ms, at most {max(took) * 1000:7.1f} ms, "
              f"{len(answer):>9} bytes", flush=True)
        verdict.expect(max(took) < BAR, f"{name} takes {max(took) * 1000:.0f} ms")


def size(relay, part):
    blocks = [path.stat().st_blocks * 512 for path in pathlib.Path(relay.data, part).rglob("*") if path.is_file()]
    return sum(blocks)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
