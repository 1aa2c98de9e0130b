"""kill -9 while hits come in: what was answered over a second before is recorded, once."""
import random, time
from collections import Counter

from ground import until, whose
from web import Steady

# What the specification allows to be missing.
LAST = 1.0


def tokens(server, messages, recipients=50, links=20):
    """Paths that are asked for once each, in a mixed order, with what events will say of them."""
    names = [name for n in range(messages) for name in server.post(f"k{n}", links, recipients)]
    meant = {}
    for copy in server.copies(names, 300).values():
        meant[copy.pixel] = (copy.who, None)
        meant.update({path: (copy.who, number) for number, path in enumerate(copy.links)})
    return meant


class Rounds:
    """`rounds` kills of a relay that is asked `rate` times a second. `faults` says what was wrong."""

    def __init__(self, server, rounds, rate, meant, seed=1, say=lambda line: None):
        self.server, self.meant, self.chance, self.faults = server, meant, random.Random(seed), []
        paths = list(meant)
        self.chance.shuffle(paths)
        self.certain, self.doubtful, self.slowest_start = set(), set(), 0.0
        self.steady = Steady(server.relay.web, paths, rate)
        for number in range(1, rounds + 1):
            self.round(number, say)
        time.sleep(0.5)
        self.steady.end()
        # These were answered by the one that goes on.
        self.certain |= self.steady.answered.keys() - self.doubtful
        self.account()

    def round(self, number, say):
        time.sleep(self.chance.uniform(0.5, 2.5))
        killed = time.monotonic()
        self.server.relay.kill()
        answered = dict(self.steady.answered)
        self.certain |= {path for path, at in answered.items() if at <= killed - LAST and path not in self.doubtful}
        self.doubtful |= answered.keys() - self.certain
        took = self.server.relay.start()
        self.slowest_start = max(self.slowest_start, took)
        say(f"round {number:3}: {len(answered)} answered, {len(self.doubtful)} of them in the last second before a "
            f"kill, ready in {took:.2f} s")

    def account(self):
        until("the log to be read to its end", lambda: self.server.metric("trackpost_log_unread_bytes") == 0)
        until("all that is certain in the counts", lambda: self.server.counted() >= len(self.certain))
        time.sleep(1)
        events = self.server.export()
        found = Counter()
        for event in events:
            found[whose(event)] += event["count"]
        certain = {self.meant[path] for path in self.certain}
        asked = {self.meant[path] for path in self.steady.tried}
        doubtful = {self.meant[path] for path in self.doubtful}
        self.recorded, self.kept = len(found), len(doubtful & found.keys())
        lost, twice = certain - found.keys(), [who for who, count in found.items() if count > 1]
        if lost:
            self.faults.append(f"{len(lost)} lost of {len(certain)}: {sorted(map(str, lost))[:3]}")
        if twice:
            self.faults.append(f"{len(twice)} recorded twice: {twice[:3]}")
        if unknown := found.keys() - asked:
            self.faults.append(f"{len(unknown)} were never asked for: {list(unknown)[:3]}")
        if (counted := self.server.counted()) != sum(found.values()):
            self.faults.append(f"{counted} counted, and {sum(found.values())} in the events")
        if len(self.steady.tried) == len(self.meant):
            self.faults.append("nothing was left to ask for before the end")
        if self.steady.others:
            self.faults.append(f"answers {self.steady.others[:3]}")
        if panics := self.server.relay.panics():
            self.faults.append(panics[0])

    def summary(self):
        return (f"{len(self.steady.answered)} answered, {len(self.certain)} certain, {self.recorded} recorded, "
                f"{self.kept} of {len(self.doubtful)} of the last second, slowest start {self.slowest_start:.2f} s")
