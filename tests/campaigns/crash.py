#!/usr/bin/env python3
"""kill -9 under load, again and again: what was acknowledged arrives, and what had arrived does not arrive again.

    tests/campaign crash [ROUNDS] [--queued COUNT]

Sixteen senders speak SMTP to the relay and note every message that was answered 250. A sink counts what arrives. At a
random moment the relay is killed and started again on the same folder; half-way through, its store is deleted as well.
Allowed: one more copy of each message whose transaction was under way when the relay was killed, which is at most one
for each of the relay's connections to the sink. Every start is to take less than 5 s.

With --queued, the smarthost is down until COUNT messages wait. The relay is killed with all of them, started with its
store, killed, and started without; then the smarthost comes up, and everything must arrive. That is instead of the
rounds unless these are given as well. Prints one line a round and a verdict; exits 1 on any loss.
"""
import argparse, os, random, shutil, sys, time
from common import Relay, Senders, Sink, Verdict, missing, more_than_one, settle

READY = 5
SEED = int(os.environ.get("SEED", "1"))
# One in seven is a large one.
SIZES = [10_000] * 6 + [200_000]
random.seed(SEED)
verdict = Verdict()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("rounds", nargs="?", type=int)
    parser.add_argument("--queued", type=int)
    given = parser.parse_args()
    said = []
    if given.rounds or not given.queued:
        said.append(rounds(given.binary, given.rounds or 50))
    if given.queued:
        said.append(queued(given.binary, given.queued))
    verdict.end("; ".join(said))


def rounds(binary, count):
    sink = Sink()
    relay = Relay(binary, sink.port, {"[queue]": ['retry = ["1s"]']})
    relay.start()
    relay.add_domain()
    senders = Senders(relay.smtp, sizes=SIZES, seed=SEED)
    allowed, slowest = 0, 0.0
    for number in range(1, count + 1):
        time.sleep(random.uniform(0.1, 1.5))
        with sink.lock:
            under_way = sink.open
        relay.kill()
        allowed += under_way
        gone = number == (count + 1) // 2
        if gone:
            shutil.rmtree(os.path.join(relay.data, "store"), ignore_errors=True)
        took = relay.start()
        slowest = max(slowest, took)
        with senders.lock:
            acknowledged = len(senders.acknowledged)
        print(f"round {number:3}: {acknowledged} acknowledged, {len(sink.arrived)} arrived, "
              f"{under_way} under way, ready in {took:.2f} s{', store deleted' if gone else ''}", flush=True)
    senders.end()
    lost = missing(senders.acknowledged, sink)
    # What is queued without having been acknowledged arrives as well.
    settle(sink)
    ended, twice = relay.stop(), more_than_one(sink)
    verdict.expect(not lost, f"lost: {sorted(lost)[:10]}")
    verdict.expect(twice <= allowed, f"{twice} more copies, and {allowed} are allowed")
    verdict.expect(slowest < READY, f"a start took {slowest:.2f} s")
    verdict.expect(ended == 0, f"exit {ended}")
    verdict.expect(not relay.panics(), f"{relay.panics()[:1]}")
    keep_or_clean(relay)
    return (f"{count} rounds, seed {SEED}: {len(senders.acknowledged)} acknowledged, {len(sink.arrived)} arrived, "
            f"{len(lost)} lost, {twice} more copies (allowed {allowed}), slowest start {slowest:.2f} s")


def queued(binary, count):
    sink = Sink(down=True)
    # The pause is long, so that it is the start that is measured, and ends with the smarthost's coming up.
    relay = Relay(binary, sink.port, {"[queue]": ['retry = ["20s"]']})
    relay.start()
    relay.add_domain()
    began = time.monotonic()
    senders = Senders(relay.smtp, sizes=[4_000], limit=count, prefix="q")
    senders.join(900)
    print(f"{len(senders.acknowledged)} queued in {time.monotonic() - began:.0f} s, refused {dict(senders.refused)}, "
          f"resident {relay.resident()[0]} KB", flush=True)
    verdict.expect(len(senders.acknowledged) == count, f"only {len(senders.acknowledged)} of {count} were taken")
    slowest = 0.0
    for what in ("with its store", "without its store"):
        relay.kill()
        if what.startswith("without"):
            shutil.rmtree(os.path.join(relay.data, "store"))
        took = relay.start()
        slowest = max(slowest, took)
        print(f"start {what}: ready in {took:.2f} s, resident {relay.resident()[0]} KB", flush=True)
        time.sleep(2)
    sink.up()
    began = time.monotonic()
    lost = missing(senders.acknowledged, sink, patience=60, seconds=900)
    took = time.monotonic() - began
    settle(sink)
    twice = more_than_one(sink)
    verdict.expect(slowest < READY, f"a start with {count} queued took {slowest:.2f} s")
    verdict.expect(not lost, f"{len(lost)} of those queued are lost: {sorted(lost)[:10]}")
    verdict.expect(not twice, f"{twice} of those queued arrive more than once")
    verdict.expect(not relay.panics(), f"{relay.panics()[:1]}")
    ended = relay.stop()
    verdict.expect(ended == 0, f"exit {ended}")
    keep_or_clean(relay)
    return f"{count} queued: slowest start {slowest:.2f} s, {len(lost)} lost, all delivered {took:.0f} s later"


def keep_or_clean(relay):
    if verdict.faults:
        print(f"kept: {relay.folder}")
    else:
        relay.cleanup()


if __name__ == "__main__":
    main()
