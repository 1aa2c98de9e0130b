#!/usr/bin/env python3
"""Another build beside this one, in one run: CPU for a message, and messages a second from client to smarthost.

    tests/campaign beside OTHER [MESSAGES] [ROUNDS]

OTHER is the binary of another build, say of the last release. In each of ROUNDS (7) rounds both relays take MESSAGES
(3,000) letters of 20 KB with twenty links, which they rewrite, and relay them all; who begins changes with each round.
Prints each round, and the median of this build over that of the other. Exits 1 where CPU differs by more than 5 % to the
bad. The rate is that of clients and a smarthost in Python: it shows a relay that waits, not how fast one is.
"""
import statistics, sys, time
from common import Relay, Senders, Sink, Verdict, wait

OURS, OTHER = sys.argv[1], sys.argv[2]
MESSAGES = int(sys.argv[3]) if len(sys.argv) > 3 else 3_000
ROUNDS = int(sys.argv[4]) if len(sys.argv) > 4 else 7


def measure(relay, sink, prefix):
    """Milliseconds of CPU for a message, and messages a second."""
    cpu, began = relay.cpu_seconds(), time.monotonic()
    senders = Senders(relay.smtp, count=8, sizes=(20_000,), prefix=prefix, limit=MESSAGES)
    for thread in senders.threads:
        thread.join()
    wait(lambda: not sink.lacks(senders.acknowledged), "not all of it arrived")
    took = time.monotonic() - began
    # What is written a moment later belongs to it.
    time.sleep(1)
    return (relay.cpu_seconds() - cpu) * 1000 / MESSAGES, MESSAGES / took


def main():
    verdict, sides = Verdict(), {}
    for name, binary in (("this", OURS), ("other", OTHER)):
        sink = Sink()
        relay = Relay(binary, sink.port)
        relay.start()
        relay.add_domain()
        sides[name] = (relay, sink)
        measure(relay, sink, "warm")
    found = {name: [] for name in sides}
    for number in range(ROUNDS):
        for name in sorted(sides, reverse=number % 2 == 0):
            found[name].append(measure(*sides[name], f"r{number}x"))
            cpu, rate = found[name][-1]
            print(f"round {number + 1}: {name:5} {cpu:.3f} ms of CPU, {rate:5.0f} a second", flush=True)
    middle = {name: [statistics.median(column) for column in zip(*rounds)] for name, rounds in found.items()}
    cpu, rate = (ours / theirs for ours, theirs in zip(middle["this"], middle["other"]))
    print(f"this build over the other: CPU {cpu:.3f}, rate {rate:.3f}")
    verdict.expect(cpu < 1.05, f"{cpu - 1:+.1%} CPU")
    for relay, _ in sides.values():
        relay.cleanup()
    verdict.end("the two builds")


main()
