"""What a signature costs: the relay's time on the processor for a copy, without DKIM and with it.

    signatures.py PROGRAM SIGNATURES [MESSAGES] [ROUNDS]

MESSAGES (2,000) letters of 20 KB with twenty links, of a domain that is tracked, go through the relay in each of ROUNDS
(3), and as many again with `dkim` on. All that was acknowledged must arrive, each copy signed, or none. The medians
count: what a copy costs more must be at most 1.2 times what SIGNATURES, a program that makes nothing but them, says
that one RSA signature of 2,048 bits costs.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "dkim"))
from common import DOMAIN, Senders, Sink, Verdict, missing  # noqa: E402
from signing import keys, txt  # noqa: E402
from knot import Knot  # noqa: E402
from server import TARGET, Server  # noqa: E402
from support import until  # noqa: E402
import rest  # noqa: E402

SIZE = 20_000
MOST = 1.2


def main(program, signatures, messages=2_000, rounds=3):
    os.environ["TRACKPOST_BIN"] = os.path.abspath(program)
    verdict, sink = Verdict(), Sink(keep=True)
    with tempfile.TemporaryDirectory(prefix="trackpost-dkim-") as name:
        folder = pathlib.Path(name)
        dns = Knot(folder / "dns")
        try:
            server = Server(folder / "relay", sink.port, dns.address)
            try:
                measure(server, dns, sink, signatures, messages, rounds, verdict)
            finally:
                server.close()
        finally:
            dns.stop()
    verdict.end(f"{rounds} rounds of {messages} messages")


def measure(server, dns, sink, signatures, messages, rounds, verdict):
    links = f"links CNAME {TARGET}."
    domain = rest.create(server, DOMAIN, dkim=True)
    dns.zone("relay.example.net", "track A 127.0.0.1")
    dns.zone(DOMAIN, links, *map(txt, keys(domain)))
    costs, one = {False: [], True: []}, []
    batch(server, sink, "warm", 200, None, verdict)
    for number in range(rounds):
        for signs in (False, True):
            switch(server, domain, signs)
            costs[signs].append(batch(server, sink, f"r{number}{'s' if signs else 'p'}", messages, signs, verdict))
        one.append(float(subprocess.run([signatures], check=True, capture_output=True, text=True).stdout))
    plain, signed = (statistics.median(costs[signs]) for signs in (False, True))
    signature = statistics.median(one)
    print(f"a copy costs {plain:.0f} µs of the processor, signed {signed:.0f} µs: {signed - plain:.0f} µs more, "
          f"{(signed - plain) / signature:.2f} signatures of {signature:.0f} µs", flush=True)
    verdict.expect(signed - plain <= MOST * signature, f"more than {MOST} signatures")


def switch(server, domain, signs):
    rest.update(server, domain, dkim=signs)
    rest.verify(server, domain)
    wanted = "  signing    with selector" if signs else "  tracking   opens and clicks, by"
    until(f"dkim to be {signs}", lambda: wanted in server.command("domain", "show", DOMAIN), 60)


def batch(server, sink, prefix, messages, signs, verdict):
    """Microseconds of the processor for each."""
    before = processor(server)
    senders = Senders(server.ports[0], sizes=(SIZE,), prefix=prefix, limit=messages)
    senders.join(300)
    lost = missing(senders.acknowledged, sink)
    used = processor(server) - before
    verdict.expect(not lost, f"{len(lost)} did not arrive")
    verdict.expect(len(senders.acknowledged) == messages, f"only {len(senders.acknowledged)} acknowledged")
    with sink.lock:
        copies, sink.taken = [one for arrived in sink.taken.values() for one in arrived], {}
    tracked = sum(f"//links.{DOMAIN}".encode() in copy for copy in copies)
    found = sum(b"\nDKIM-Signature:" in b"\n" + copy for copy in copies)
    if signs is not None:
        verdict.expect(tracked == len(copies), f"{prefix}: {tracked} of {len(copies)} were tracked")
        verdict.expect(found == (len(copies) if signs else 0), f"{prefix}: {found} of {len(copies)} were signed")
    return used * 1e6 / max(1, len(copies))


def processor(server):
    """Seconds of the processor that it has used."""
    with open(f"/proc/{server.process.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
