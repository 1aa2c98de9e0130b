"""Many hosts that want a certificate at once, and many strangers that ask for hosts which are not ours.

    certificates.py PROGRAM [HOSTS] [STRANGERS]

500 sender domains are verified together. Each gets its certificate with one order, a few at a time; mail and clicks of
a domain that has its own go on meanwhile. Then the relay is killed, and has them all again without an order. Then
10,000 handshakes with names that nobody set up: each is refused, none is ordered, and they cost little.
"""

import concurrent.futures
import os
import pathlib
import re
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tls"))
from common import Verdict  # noqa: E402
from base import HOST, LINKS, TARGET, TlsServer, pem  # noqa: E402
from front import Front  # noqa: E402
from knot import Knot  # noqa: E402
from nginx import free_port  # noqa: E402
from pebble import Pebble, authority  # noqa: E402
from smarthost import Smarthost  # noqa: E402
from support import until  # noqa: E402
from test_handshakes import first_record, hello  # noqa: E402
import handshake  # noqa: E402
import mail  # noqa: E402
import rest  # noqa: E402

MINUTES = 20


class Parts:
    """All that runs; `close` ends it, the last first."""

    def __init__(self, folder):
        self.plain, self.secure = free_port(), free_port()
        self.dns = Knot(folder / "dns")
        self.dns.zone("relay.example.net", "track A 127.0.0.1")
        self.smarthost = Smarthost()
        self.ca = Pebble(folder / "ca", self.plain)
        self.front = Front(self.ca)
        settings = {"tracking": {"tls": "acme", "http": [f"127.0.0.1:{self.plain}"],
                                 "https": [f"127.0.0.1:{self.secure}"], "link_scheme": "https",
                                 "link_port": self.secure},
                    "acme": {"directory": self.front.directory, "ca_file": str(authority().root)}}
        self.server = TlsServer(folder / "relay", self.smarthost.port, self.dns.address, settings, {},
                                (self.plain, self.secure))

    def close(self):
        for part in (self.server.close, self.front.stop, self.ca.stop, self.smarthost.stop, self.dns.stop):
            part()


def main(program, hosts=500, strangers=10_000):
    os.environ["TRACKPOST_BIN"] = os.path.abspath(program)
    verdict = Verdict()
    with tempfile.TemporaryDirectory(prefix="trackpost-certificates-") as folder:
        parts = Parts(pathlib.Path(folder))
        try:
            pending(parts, verdict, hosts)
            restarted(parts, verdict, hosts)
            refused(parts, verdict, strangers)
        finally:
            parts.close()
    verdict.end(f"{hosts} hosts, {strangers} strangers")


def pending(parts, verdict, hosts):
    server, front = parts.server, parts.front
    names = [f"d{number}.example.com" for number in range(hosts)]
    parts.dns.zone("example.com", LINKS, *(f"links.d{number} CNAME {TARGET}." for number in range(hosts)))
    rest.verify(server, rest.create(server, "example.com"))
    until("the first certificate", lambda: handshake.shaken(parts.secure, HOST, parts.ca.root), 30)
    domains = [rest.create(server, name) for name in names]
    life = Life(parts)
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda domain: rest.verify(server, domain), domains))
    print(f"{hosts} domains verified in {time.monotonic() - began:.1f} s", flush=True)
    left = set(names)
    while left and time.monotonic() < began + MINUTES * 60:
        listed = rest.done(server, 200, "GET", "/domains")["data"]
        left -= {one["name"] for one in listed if one["certificate"]["state"] == "valid"}
        time.sleep(1)
    took = time.monotonic() - began
    verdict.expect(not left, f"{len(left)} without a certificate after {MINUTES} minutes, such as {sorted(left)[:3]}")
    at_once = front.at_once()
    print(f"{hosts} certificates in {took:.0f} s, {hosts / took:.1f} a second, {at_once} orders at once, "
          f"{memory(server)} MiB", flush=True)
    verdict.expect(at_once <= 16, f"{at_once} orders at once")
    often = {name for name in names if len(front.orders(f"links.{name}")) != 1}
    verdict.expect(not often, f"ordered more than once: {sorted(often)[:3]}")
    for name in names:
        handshake.shake(parts.secure, f"links.{name}", parts.ca.root)
    life.end(verdict)


class Life:
    """Mail of a domain that has its certificate, each link followed at once."""

    def __init__(self, parts):
        self.parts, self.over, self.times, self.fault = parts, threading.Event(), [], None
        self.thread = threading.Thread(target=self.go_on, daemon=True)
        self.thread.start()

    def go_on(self):
        try:
            while not self.over.wait(0.2):
                sent = mail.send(self.parts.server, self.parts.smarthost, "example.com")
                began = time.monotonic()
                seen = handshake.click(sent.link, self.parts.ca.root)
                self.times.append(time.monotonic() - began)
                if (seen.status, seen.location) != (302, mail.PAGE):
                    raise AssertionError(f"{seen.status} {seen.location}")
        except Exception as fault:
            self.fault = fault

    def end(self, verdict):
        self.over.set()
        self.thread.join(60)
        verdict.expect(self.fault is None, f"mail and clicks meanwhile: {self.fault!r}")
        verdict.expect(bool(self.times), "no mail meanwhile")
        if self.times:
            print(f"{len(self.times)} clicks meanwhile, the slowest in {max(self.times) * 1000:.0f} ms", flush=True)
            verdict.expect(max(self.times) < 1, f"a click took {max(self.times):.2f} s")


def restarted(parts, verdict, hosts):
    orders, began = len(parts.front.orders()), time.monotonic()
    parts.server.restart()
    print(f"started with {len(pem(parts.server.keys))} certificates in {time.monotonic() - began:.1f} s", flush=True)
    for number in range(hosts):
        handshake.shake(parts.secure, f"links.d{number}.example.com", parts.ca.root)
    verdict.expect(len(parts.front.orders()) == orders, "ordered again after a restart")


def refused(parts, verdict, strangers):
    server, orders = parts.server, len(parts.front.orders())
    greet(parts, 200, HOST.encode())  # What it keeps for good is there before it is counted.
    known = cost(parts, max(1, strangers // 10), lambda _: HOST.encode(), "handshake", verdict)
    before = memory(server)
    unknown = cost(parts, strangers, lambda number: b"h%d.example.net" % number, "alert", verdict)
    grown = memory(server) - before
    print(f"a handshake costs {known * 1e6:.0f} µs of the processor, one with an unknown name {unknown * 1e6:.0f} µs; "
          f"{grown} MiB more", flush=True)
    verdict.expect(grown < 32, f"{grown} MiB more after {strangers} strangers")
    verdict.expect(unknown < known, "a stranger costs more than a client")
    verdict.expect(len(parts.front.orders()) == orders, "an order for a stranger")
    handshake.shake(parts.secure, HOST, parts.ca.root)


def cost(parts, count, name, wanted, verdict):
    """Seconds of the processor for one such handshake."""
    began, used = time.monotonic(), processor(parts.server)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        ended = list(pool.map(lambda number: first_record(parts.secure, hello(name(number)))[0], range(count)))
    used = processor(parts.server) - used
    odd = {one for one in ended if one != wanted}
    verdict.expect(not odd, f"{odd} instead of {wanted}")
    print(f"{count} handshakes that end in an {wanted} in {time.monotonic() - began:.1f} s", flush=True)
    return used / count


def greet(parts, count, name):
    for _ in range(count):
        first_record(parts.secure, hello(name))


def memory(server):
    """MiB that it has now."""
    with open(f"/proc/{server.process.pid}/status") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read())[1]) // 1024


def processor(server):
    """Seconds of the processor that it has used."""
    with open(f"/proc/{server.process.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
