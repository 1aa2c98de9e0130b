"""Checks a folder of messages against what the rewriter made of them.

    cargo run --release --example rewrite_folder FROM TO > TO.tsv
    folder.py FROM TO

prints each violation (file, kind, detail) and, last, the numbers. Exit code 1 if there is any. A message that the
checker itself cannot read within a minute counts as one, of the kind `checker`.
"""

import multiprocessing
import pathlib
import signal
import sys
from collections import Counter

import verify

SECONDS = 60


def check(pair):
    """(name, report) of one message."""
    original, sent = pair
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        return original.name, verify.verify(original.read_bytes(), sent.read_bytes())
    except Exception as error:
        fault = {"kind": "checker", "detail": repr(error)[:300]}
        return original.name, {"changed": False, "untouched": None, "links": [], "pixel": None, "violations": [fault]}
    finally:
        signal.alarm(0)


def _too_long(*_):
    raise TimeoutError(f"over {SECONDS} s")


def main(arguments):
    originals, copies = map(pathlib.Path, arguments)
    pairs = [(path, copies / path.name) for path in sorted(originals.glob("*.eml"))]
    counts, kinds = Counter(), Counter()
    with multiprocessing.Pool() as pool:
        for name, report in pool.imap(check, pairs, chunksize=8):
            counts["messages"] += 1
            counts["changed"] += report["changed"]
            counts["links"] += len(report["links"])
            counts["pixels"] += report["pixel"] is not None
            counts["messages with violations"] += bool(report["violations"])
            for fault in report["violations"]:
                kinds[fault["kind"]] += 1
                print(name, fault["kind"], fault["detail"], sep="\t")
    print(dict(counts), dict(kinds))
    return 1 if kinds else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
