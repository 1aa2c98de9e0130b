#!/usr/bin/env python3
"""kill -9 at random moments while hits come in: what was answered over a second before is recorded, and once.

    tests/campaign hits-crash [ROUNDS]

Eight clients ask for 500 links and pixels a second, each of them once, and note what was answered. ROUNDS (50) times
the relay is killed and started again. Then each event of `events export` is one of them, none is there twice, none is
missing that was answered a second before a kill, and `/emails/metrics` counts as many. Prints a line a round; exits 1
if anything is wrong.
"""
import pathlib, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "hits"))
from common import Verdict  # noqa: E402
from ground import Hits  # noqa: E402
from killing import Rounds, tokens  # noqa: E402

RATE = 500


def main(program, rounds=50):
    verdict, server = Verdict(), Hits(program)
    # A round takes two seconds, and the start.
    meant = tokens(server, messages=rounds * 2 * RATE // (50 * 21) + 4)
    done = Rounds(server, rounds, RATE, meant, say=lambda line: print(line, flush=True))
    for fault in done.faults:
        verdict.expect(False, fault)
    verdict.expect(done.slowest_start < 5, f"a start took {done.slowest_start:.2f} s")
    server.close()
    verdict.end(f"{rounds} rounds: {done.summary()}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
