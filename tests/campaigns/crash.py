#!/usr/bin/env python3
"""kill -9 under load, again and again: what was acknowledged arrives, and what had arrived does not arrive again.

    tests/campaign crash [ROUNDS]

Sixteen senders speak SMTP to the relay and note every message that was answered 250. A sink counts what arrives. At a
random moment the relay is killed and started again on the same folder; half-way through, its store is deleted as well.
Allowed: one more copy of each message whose transaction was under way when the relay was killed, which is at most one
for each of the relay's connections to the sink. Prints one line a round and a verdict; exits 1 on any loss.
"""
import os, random, shutil, sys, time
from common import Relay, Senders, Sink, missing, more_than_one, settle

BINARY = sys.argv[1]
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 50
SEED = int(os.environ.get("SEED", "1"))
random.seed(SEED)


def main():
    sink = Sink()
    relay = Relay(BINARY, sink.port, {"[queue]": ['retry = ["1s"]']})
    relay.start()
    relay.add_domain()
    # One in seven is a large one.
    senders = Senders(relay.smtp, sizes=[10_000] * 6 + [200_000], seed=SEED)
    allowed, slowest = 0, 0.0
    for round_number in range(1, ROUNDS + 1):
        time.sleep(random.uniform(0.1, 1.5))
        with sink.lock:
            under_way = sink.open
        relay.kill()
        allowed += under_way
        gone = round_number == (ROUNDS + 1) // 2
        if gone:
            shutil.rmtree(os.path.join(relay.data, "store"), ignore_errors=True)
        took = relay.start()
        slowest = max(slowest, took)
        with senders.lock:
            acknowledged = len(senders.acknowledged)
        print(f"round {round_number:3}: {acknowledged} acknowledged, {len(sink.arrived)} arrived, "
              f"{under_way} under way, ready in {took:.2f} s{', store deleted' if gone else ''}", flush=True)
    senders.end()
    lost = missing(senders.acknowledged, sink)
    # What is queued without having been acknowledged arrives as well.
    settle(sink)
    ended = relay.stop()
    twice = more_than_one(sink)
    print(f"{ROUNDS} rounds, seed {SEED}: {len(senders.acknowledged)} acknowledged, {len(sink.arrived)} arrived, "
          f"{len(lost)} lost, {twice} more copies (allowed {allowed}), slowest start {slowest:.2f} s, exit {ended}")
    good = not lost and twice <= allowed and slowest < 5 and ended == 0
    if good:
        relay.cleanup()
    else:
        print(f"kept: {relay.folder}; lost: {sorted(lost)[:10]}")
    sys.exit(0 if good else 1)


main()
