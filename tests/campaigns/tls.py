"""Redirects over TLS, beside nginx's bare `return 302` on the same machine with the same certificate.

    tls.py PROGRAM [ROUNDS]

The link is one of a message that was sent, and each hit is recorded. h2load asks, in rounds (3), the two servers taking
turns: over 64 connections that stay, by HTTP/1.1 and by HTTP/2, and with a handshake for each request. The medians
count; trackpost must answer at least half as many as nginx. Where others use the machine, what one answer costs of the
processor says more, and is printed beside.
"""

import os
import pathlib
import re
import statistics
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tls"))
from common import Verdict  # noqa: E402
from base import TlsServer  # noqa: E402
from nginx import Authority, Nginx, free_port  # noqa: E402
from smarthost import Smarthost  # noqa: E402
from support import run, until  # noqa: E402
import handshake  # noqa: E402
import mail  # noqa: E402

DOMAIN, HOST = "shop.example.com", "links.shop.example.com"
LEAST = 0.5
# What is asked: its name, how, and how many requests.
KINDS = (
    ("HTTP/1.1, connections kept", ("--h1", "-c", "64"), 60_000),
    ("HTTP/2, connections kept", ("-c", "64", "-m", "10"), 60_000),
    ("a handshake for each", ("--h1", "-c", "500"), 500),
)


def main(program, rounds=3):
    os.environ["TRACKPOST_BIN"] = os.path.abspath(program)
    verdict = Verdict()
    with tempfile.TemporaryDirectory(prefix="trackpost-tls-") as name:
        folder, ending = pathlib.Path(name), []
        try:
            compare(begin(folder, ending), rounds, verdict)
        finally:
            for end in reversed(ending):
                end()
    verdict.end(f"{rounds} rounds")


def begin(folder, ending):
    """By name: the link to ask for, its port, and the process that answers."""
    authority, smarthost = Authority(folder / "authority"), Smarthost()
    ending.append(smarthost.stop)
    plain, secure, other = free_port(), free_port(), free_port()
    (folder / "certificates").mkdir(mode=0o700)
    pair = authority.issue("pair", HOST)
    for end in ("pem", "key"):
        (folder / "certificates" / f"{HOST}.{end}").write_bytes(pair.with_name(f"pair.{end}").read_bytes())
        (folder / "certificates" / f"{HOST}.{end}").chmod(0o600)
    tracking = {"tls": "files", "certificates_dir": str(folder / "certificates"), "http": [f"127.0.0.1:{plain}"],
                "https": [f"127.0.0.1:{secure}"], "link_scheme": "https", "link_port": secure}
    # The domain is there by an operator's word, so nothing answers for DNS.
    server = TlsServer(folder / "relay", smarthost.port, ("127.0.0.1", free_port()), {"tracking": tracking}, {},
                       (plain, secure))
    ending.append(server.close)
    server.track(DOMAIN)
    sent = until("a tracked link", lambda: tracked(server, smarthost), 20)
    seen = handshake.click(sent.link, authority.root)
    if (seen.status, seen.location) != (302, mail.PAGE):
        raise AssertionError(f"{seen.status} {seen.location}")
    nginx = Nginx(folder / "nginx", other, pair, f"return 302 {mail.PAGE};", f"127.0.0.1:{other} http2",
                  "keepalive_requests 1000000000;", "worker_processes auto;")
    ending.append(nginx.stop)
    return {"trackpost": (sent.link, secure, server.process),
            "nginx": (f"https://{HOST}:{other}/", other, nginx.process)}


def tracked(server, smarthost):
    sent = mail.send(server, smarthost, DOMAIN)
    return sent if sent.link else None


def compare(asked, rounds, verdict):
    for kind, options, requests in KINDS:
        rates, costs = {who: [] for who in asked}, {who: [] for who in asked}
        for _ in range(rounds):
            for who, (link, port, process) in asked.items():
                before = processor(process.pid)
                rates[who].append(load(link, port, options, requests, f"{who}, {kind}", verdict))
                costs[who].append((processor(process.pid) - before) * 1e6 / requests)
        ours, theirs = (statistics.median(rates[who]) for who in asked)
        cost, least = (statistics.median(costs[who]) for who in asked)
        print(f"{kind}: trackpost {ours:,.0f}/s ({cost:.0f} µs each), nginx {theirs:,.0f}/s ({least:.0f} µs each), "
              f"{ours / theirs:.2f} of it", flush=True)
        verdict.expect(ours >= LEAST * theirs, f"{kind}: {ours / theirs:.2f} of nginx")
    for who, (_, _, process) in asked.items():
        verdict.expect(process.poll() is None, f"{who} has ended")


def load(link, port, options, requests, who, verdict):
    """Answers in a second."""
    ended = run("h2load", "-n", requests, "-t", 1, *options, f"--connect-to=127.0.0.1:{port}", link, timeout=600)
    told = ended.stdout + ended.stderr
    rate = re.search(r"finished in [^,]*, ([\d.]+) req/s", told)
    moved = re.search(r"(\d+) 3xx", told)
    good = ended.returncode == 0 and rate and moved and int(moved[1]) == requests
    verdict.expect(good, f"{who}: {told[-800:]}")
    return float(rate[1]) if rate else 0.0


def processor(pid):
    """Seconds of the processor that a process and its children have used."""
    root = pathlib.Path(f"/proc/{pid}")
    fields = (root / "stat").read_text().rpartition(")")[2].split()
    children = (root / f"task/{pid}/children").read_text().split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + sum(map(processor, children))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
