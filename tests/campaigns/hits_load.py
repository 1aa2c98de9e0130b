#!/usr/bin/env python3
"""Hits by the thousand a second, each of them counted once; and how many redirects that leaves beside nginx's.

    tests/campaign hits-load [RATE] [SECONDS] [ROUNDS]

First, RATE (2,000) hits a second for SECONDS (60), each with a token of its own. All must be in the events and the
counts, once. Then wrk follows links as fast as it can over 64 connections, in ROUNDS (3) of five seconds, taking turns
with nginx's bare `return 302` for the same paths: 8,000 links over and over, so that many hits repeat one, and all of
them, of which most are records of their own. Of the medians trackpost must reach 0.6 each time, with every redirect in the
counts afterwards. What one answer costs of the processor is printed beside, since wrk shares the machine. Exits 1 if
anything is wrong.
"""
import os, pathlib, re, statistics, subprocess, sys, tempfile, time
from collections import Counter
from multiprocessing import Process, Queue

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "hits"))
from common import Verdict, free_port, within  # noqa: E402
from ground import HOST, Hits, until, whose  # noqa: E402
from web import Steady  # noqa: E402

LINKS, RECIPIENTS, PROCESSES, CONNECTIONS = 20, 100, 2, 64
LEAST, ROUND_SECONDS = 0.6, 5
FEW = 8_000


def main(program, rate=2_000, seconds=60, rounds=3):
    verdict, server = Verdict(), Hits(program)
    meant = tokens(server, rate * seconds)
    print(f"{len(meant)} links and pixels sent", flush=True)
    steady(server, meant, rate, verdict)
    links = [path for path in meant if path.startswith("/c/")]
    for paths in (links[:FEW], links):
        with tempfile.TemporaryDirectory(prefix="trackpost-load-") as folder:
            beside_nginx(server, paths, pathlib.Path(folder), rounds, verdict)
    now, most = server.relay.resident()
    verdict.expect(server.lost() == 0, f"{server.lost()} hits are lost")
    verdict.expect(not server.relay.panics(), f"{server.relay.panics()[:1]}")
    server.close()
    verdict.end(f"memory {now >> 10} MB, at most {most >> 10} MB")


def tokens(server, count):
    """Paths, with what events will say of them."""
    meant, number = {}, 0
    while len(meant) < count:
        names = [name for place in range(10) for name in server.post(f"l{number + place}", LINKS, RECIPIENTS)]
        number += 10
        for copy in server.copies(names, 120).values():
            meant[copy.pixel] = (copy.who, None)
            meant.update({path: (copy.who, place) for place, path in enumerate(copy.links)})
    return dict(list(meant.items())[:count])


# ---- A steady rate


def asker(port, paths, rate, results):
    steady = Steady(port, paths, rate)
    steady.join(3600)
    results.put((len(steady.answered), steady.others[:3], steady.slowest, time.monotonic() - steady.began))


def steady(server, meant, rate, verdict):
    paths, results = list(meant), Queue()
    before = server.relay.cpu_seconds()
    shares = [(server.relay.web, paths[n::PROCESSES], rate / PROCESSES, results) for n in range(PROCESSES)]
    askers = [Process(target=asker, args=share, daemon=True) for share in shares]
    for process in askers:
        process.start()
    found = [results.get(timeout=3600) for _ in askers]
    took, answered = max(one[3] for one in found), sum(one[0] for one in found)
    others = [other for one in found for other in one[1]]
    settled = time.monotonic()
    whole = within(lambda: server.counted() >= answered, 120, 0.2)
    settled = time.monotonic() - settled
    events = server.export()
    seen = Counter()
    for event in events:
        seen[whose(event)] += event["count"]
    print(f"steady: {answered} answered in {took:.1f} s, {answered / took:,.0f} a second, the slowest in "
          f"{max(one[2] for one in found) * 1000:.0f} ms; {len(events)} events, {server.counted()} counted "
          f"{settled:.1f} s later; {(server.relay.cpu_seconds() - before) * 1e6 / answered:.0f} µs each", flush=True)
    verdict.expect(answered == len(meant) and not others, f"{answered} of {len(meant)} answered, {others[:3]}")
    verdict.expect(answered / took >= 0.97 * rate, f"{answered / took:,.0f} hits a second")
    verdict.expect(whole and server.counted() == answered, f"{server.counted()} counted")
    verdict.expect(seen.keys() == set(meant.values()), f"{len(seen.keys() ^ set(meant.values()))} events differ")
    verdict.expect(max(seen.values()) == 1, f"twice: {[who for who, count in seen.items() if count > 1][:3]}")


# ---- As fast as wrk asks

# Each link by a client of its own, who comes by way of a proxy; made beforehand, as wrk has the processor to share.
SCRIPT = """
local requests, i = {}, 0
function init(args)
    local n = 0
    for line in io.lines("PATHS") do
        n = n + 1
        requests[n] = wrk.format("GET", line, {
            ["Host"] = "HOST", ["X-Forwarded-For"] = "10." .. math.floor(n / 62500) .. "." .. math.floor(n / 250) % 250
                .. "." .. n % 250 + 1,
            ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0" })
    end
    math.randomseed(os.time())
    i = math.random(n)
end
function request() i = i % #requests + 1; return requests[i] end
"""
NGINX = """
daemon off; pid FOLDER/pid; error_log FOLDER/error.log; worker_processes auto;
events { worker_connections 1024; }
http { access_log off; keepalive_requests 1000000000;
    server { listen 127.0.0.1:PORT; location / { return 302 https://shop.example.com/p/1?a=1; } } }
"""


def beside_nginx(server, paths, folder, rounds, verdict):
    (folder / "paths").write_text("\n".join(paths) + "\n")
    (folder / "paths.lua").write_text(SCRIPT.replace("PATHS", str(folder / "paths")).replace("HOST", HOST))
    port = free_port()
    (folder / "nginx.conf").write_text(NGINX.replace("FOLDER", str(folder)).replace("PORT", str(port)))
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    nginx = subprocess.Popen(["nginx", "-p", folder, "-c", folder / "nginx.conf"], env=environment,
                             stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        asked = {"trackpost": (server.relay.web, server.relay.process), "nginx": (port, nginx)}
        rates, costs = {who: [] for who in asked}, {who: [] for who in asked}
        counted, followed = server.counted(), 0
        for _ in range(rounds):
            for who, (where, process) in asked.items():
                before = processor(process.pid)
                requests, rate = wrk(folder, where, who, verdict)
                rates[who].append(rate)
                costs[who].append((processor(process.pid) - before) * 1e6 / max(1, requests))
                followed += requests if who == "trackpost" else 0
    finally:
        nginx.terminate()
        nginx.wait(20)
    ours, theirs = (statistics.median(rates[who]) for who in asked)
    cost, least = (statistics.median(costs[who]) for who in asked)
    began = time.monotonic()
    until("the log to be read to its end", lambda: server.metric("trackpost_log_unread_bytes") == 0, 600, 0.5)
    within(lambda: server.counted() - counted >= followed, 30)
    more = server.counted() - counted - followed
    print(f"redirects, {len(paths)} links: trackpost {ours:,.0f}/s ({cost:.0f} µs each), nginx {theirs:,.0f}/s "
          f"({least:.0f} µs each), {ours / theirs:.2f} of it; {followed} followed, {followed + more} counted "
          f"{time.monotonic() - began:.1f} s "
          f"later, {server.lost()} lost", flush=True)
    # What wrk no longer waited for at the end of a round was answered as well.
    verdict.expect(0 <= more <= rounds * CONNECTIONS, f"{followed} followed, {followed + more} counted")
    verdict.expect(ours >= LEAST * theirs, f"{len(paths)} links: {ours / theirs:.2f} of nginx")


def wrk(folder, port, who, verdict):
    """Requests answered, and how many in a second."""
    command = ["wrk", "-t2", f"-c{CONNECTIONS}", f"-d{ROUND_SECONDS}s", "-s", folder / "paths.lua",
               f"http://127.0.0.1:{port}/"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    verdict.expect("Non-2xx" not in said and "Socket errors" not in said, f"{who}: {said}")
    return int(re.search(r"(\d+) requests in", said)[1]), float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])


def processor(pid):
    """Seconds of the processor that a process and its children have used."""
    root = pathlib.Path(f"/proc/{pid}")
    fields = (root / "stat").read_text().rpartition(")")[2].split()
    children = (root / f"task/{pid}/children").read_text().split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + sum(map(processor, children))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
