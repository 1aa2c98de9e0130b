#!/usr/bin/env python3
"""People and machines by the hundred thousand: are they told apart, and is each hit counted once?

    tests/campaign population [HITS] [SECONDS]

HITS (100,000) opens and clicks of a mixed population (tests/hits/crowd.py) in SECONDS (600) of real time, since a
minute of many opens must be a minute. Labels and counts of `events export`, `/emails/ID/events` and `/emails/metrics`,
of all mail and of each message, are compared with what was done: at least 99 % of the labels are to be right, and every
count exact. Prints a table of the labels; exits 1 if anything is wrong.
"""
import pathlib, sys, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "hits"))
from common import Verdict  # noqa: E402
from crowd import Crowd  # noqa: E402
from ground import Hits  # noqa: E402
from play import Play, share_right, show  # noqa: E402

LEAST = 0.99
LOOKED_INTO = 20


def main(program, hits=100_000, seconds=600):
    verdict, began = Verdict(), time.monotonic()
    server = Hits(program)
    crowd = Crowd(hits, seconds, recipients=100)
    play = Play(server, crowd)
    play.run()
    print(f"{play.hits} hits, {len(crowd.messages)} messages with {len(play.copies)} copies, "
          f"{time.monotonic() - began:.0f} s, at most {play.late:.2f} s late", flush=True)
    play.settled()
    table, reasons = play.compare()
    print(show(table, reasons), flush=True)
    ids = play.check_counts()
    events = sum(play.check_events(message.ident, ids[message.ident]) for message in crowd.messages[:LOOKED_INTO])
    right = share_right(table)
    verdict.expect(play.hits >= hits, f"{play.hits} hits")
    verdict.expect(right >= LEAST, f"{right:.2%} of the labels are right")
    verdict.expect(not play.faults, f"{len(play.faults)} faults, such as {play.faults[:5]}")
    verdict.expect(len(play.unsure) < hits // 1000, f"{len(play.unsure)} of which the truth is not known")
    verdict.expect(server.lost() == 0, f"{server.lost()} lost")
    verdict.expect(not server.relay.panics(), f"{server.relay.panics()[:1]}")
    now, most = server.relay.resident()
    server.close()
    verdict.end(f"{play.hits} hits, {right:.2%} right, {len(play.unsure)} unsure, {events} events read over the API, "
                f"memory at most {most >> 10} MB")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
