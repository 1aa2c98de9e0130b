#!/usr/bin/env python3
"""The clock jumps while mail is deferred: the queue neither stalls nor floods, and nothing expires untried.

    tests/campaign clock

libfaketime moves the relay's clock, and leaves alone the one that only goes on. For each of +1 h, -1 h, +40 days and
-1 day, on relays of their own and all at once:

pauses  The smarthost defers, with pauses of 2 s. After the jump, again after kill -9 and a start, and after the jump
        back, each message is tried again within its pause, and not more often than its pauses allow. Then the smarthost
        takes mail: everything arrives, once.
age     With a max_age of 16 s, the clock jumps after 5 s. Age grows by at most twice the pause for each attempt, so
        each message is tried at least twice after the jump before it is given up; and all are given up in time.

Prints a line for each and a verdict; exits 1 if anything is wrong.
"""
import glob, os, re, sys, time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from common import Relay, Senders, Sink, Verdict, missing, more_than_one, within

BINARY = sys.argv[1]
JUMPS = {"+1 h": 3600, "-1 h": -3600, "+40 days": 40 * 86400, "-1 day": -86400}
PAUSE, SPREAD, SLACK = 2.0, 1.125, 1.0
MAX_AGE = 16
COUNT = 20
LATER = b"451 4.3.0 later\r\n"
verdict = Verdict()


class Clock:
    """The relay's clock, by libfaketime."""

    def __init__(self, folder):
        found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
        if not found:
            sys.exit("libfaketime is missing (Debian: libfaketime)")
        self.file = os.path.join(folder, "clock")
        self.environment = {"LD_PRELOAD": found[0], "FAKETIME_TIMESTAMP_FILE": self.file, "FAKETIME_NO_CACHE": "1",
                            "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        self.jump(0)

    def jump(self, seconds):
        with open(self.file + ".new", "w") as file:
            file.write(f"{seconds:+d}\n")
        os.replace(self.file + ".new", self.file)


def begin(settings):
    sink = Sink()
    sink.defer, sink.note_attempts = LATER, True
    relay = Relay(BINARY, sink.port, {"[queue]": ['retry = ["2s"]', *settings]})
    clock = Clock(relay.folder)
    relay.start(environment=clock.environment)
    senders = Senders(relay.smtp, count=4, limit=COUNT)
    senders.join()
    verdict.expect(len(senders.acknowledged) == COUNT, f"only {len(senders.acknowledged)} were taken")
    return sink, relay, clock, senders


def times(sink, who, since=0.0):
    with sink.lock:
        return [at for at, name in sink.attempts if name == who and at >= since]


def pauses(name, seconds):
    sink, relay, clock, senders = begin([])
    within(lambda: all(len(times(sink, who)) >= 2 for who in senders.acknowledged), 10)
    longest, most = 0.0, 0
    for step in ("jump", "start", "jump back"):
        if step == "start":
            relay.kill()
            relay.start(environment=clock.environment)
        else:
            clock.jump(seconds if step == "jump" else 0)
        since = time.monotonic()
        time.sleep(3 * PAUSE * SPREAD + SLACK)
        watched = time.monotonic() - since
        allowed = watched / PAUSE + 2
        for who in senders.acknowledged:
            tried = times(sink, who, since)
            gap = max(b - a for a, b in zip([since, *tried], [*tried, time.monotonic()]))
            longest, most = max(longest, gap), max(most, len(tried))
            if not verdict.expect(gap <= PAUSE * SPREAD + SLACK, f"{name}, {step}: {who} not tried for {gap:.1f} s"):
                break
            if not verdict.expect(len(tried) <= allowed, f"{name}, {step}: {who} tried {len(tried)} times"):
                break
    sink.defer = None
    lost = missing(senders.acknowledged, sink, patience=3 * PAUSE)
    verdict.expect(not lost, f"{name}: not delivered: {sorted(lost)[:5]}")
    twice = more_than_one(sink)
    verdict.expect(not twice, f"{name}: {twice} more copies")
    verdict.expect(not relay.panics(), f"{name}: {relay.panics()[:1]}")
    ended = relay.stop()
    verdict.expect(ended == 0, f"{name}: exit {ended}")
    relay.cleanup()
    print(f"pauses {name}: longest without an attempt {longest:.1f} s, at most {most} attempts a message in "
          f"{watched:.0f} s, {len(lost)} not delivered", flush=True)


def age(name, seconds):
    sink, relay, clock, senders = begin([f'max_age = "{MAX_AGE}s"'])
    began = time.monotonic()
    within(lambda: time.monotonic() - began > 5, 6)
    clock.jump(seconds)
    since = time.monotonic()
    # Given up is what is not tried any more.
    within(lambda: len(given_up(relay)) >= COUNT, MAX_AGE + 6 * PAUSE)
    ended = time.monotonic() - began
    tried = Counter({who: len(times(sink, who, since)) for who in senders.acknowledged})
    fewest = min(tried.values())
    count = len(given_up(relay))
    verdict.expect(count == COUNT, f"{name}: {count} of {COUNT} given up in {ended:.0f} s")
    verdict.expect(fewest >= 2, f"{name}: given up after {fewest} attempts since the jump")
    verdict.expect(not relay.panics(), f"{name}: {relay.panics()[:1]}")
    relay.kill()
    relay.cleanup()
    print(f"age {name}: {fewest} to {max(tried.values())} attempts after the jump, {count} given up after "
          f"{ended:.0f} s with a max_age of {MAX_AGE} s", flush=True)


def given_up(relay):
    return {match[1] for line in relay.logged(r"\bbounced\b") if (match := re.search(r'to="?(\w+)@', line))}


def main():
    with ThreadPoolExecutor(2 * len(JUMPS)) as pool:
        runs = [pool.submit(kind, name, seconds) for name, seconds in JUMPS.items() for kind in (pauses, age)]
        for run in runs:
            run.result()
    verdict.end("clock")


main()
