#!/usr/bin/env python3
"""Mail that was not written by us, sent through the relay and looked at from outside.

    tests/campaign corpus [FOLDER]

Collects messages into FOLDER (see tests/verify/corpus.py; kept, and not collected again), sends each over SMTP to a
recipient of its own, and compares what the smarthost is given with what was sent, by tests/verify, which shares no code
with the relay. Every link is followed at the relay's tracking host and must lead to the exact original. Exits 1 if
anything was damaged, lost, sent twice or refused.
"""
import multiprocessing, os, pathlib, sys, time
from collections import Counter
from common import Client, Relay, Sink, more_than_one, wait

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "verify"))
import verify  # noqa: E402

BINARY, CORPUS = sys.argv[1], pathlib.Path(sys.argv[2])


def whole(path):
    data = path.read_bytes()
    return data if data.endswith(b"\r\n") else data + b"\r\n"


def send(port, messages):
    """Gives the replies to those that were not taken."""
    refused = []
    with Client(port, timeout=60) as client:
        for number, path in enumerate(messages):
            reply = client.send(f"m{number}", whole(path), " BODY=8BITMIME")
            if not reply.startswith("250"):
                refused.append((path.name, reply))
        client.say(b"QUIT\r\n")
    return refused


def checked(job):
    path, sent, base = job
    try:
        report = verify.verify(whole(path), sent, verify.Policy(("links.shop.example.com",)))
        verify.resolve(report, base)
    except Exception as error:
        report = {"changed": False, "links": [], "violations": [{"kind": "checker", "detail": repr(error)[:300]}]}
    return path.name, report


def main():
    messages = sorted(CORPUS.glob("*.eml"))
    sink = Sink(keep=True)
    relay = Relay(BINARY, sink.port)
    try:
        relay.start()
        relay.add_domain()
        refused = send(relay.smtp, messages)
        names = {name for name, _ in refused}
        sent = [(f"m{n}", path) for n, path in enumerate(messages) if path.name not in names]
        wait(lambda: all(who in sink.taken for who, _ in sent), "mail is missing")
        time.sleep(1)
        twice = more_than_one(sink)
        jobs = [(path, sink.taken[who][0], f"http://127.0.0.1:{relay.web}") for who, path in sent]
        counts, kinds = Counter(), Counter()
        with multiprocessing.Pool() as pool:
            for name, report in pool.imap(checked, jobs, chunksize=8):
                counts.update(messages=1, changed=report["changed"], links_followed=len(report["links"]))
                for fault in report["violations"]:
                    kinds[fault["kind"]] += 1
                    print(name, fault["kind"], fault["detail"], sep="\t")
        relay.stop()
    finally:
        relay.cleanup()
    for name, reply in refused:
        print(name, reply, sep="\trefused: ")
    print(f"{dict(counts)}, {len(refused)} refused, {twice} sent twice, violations: {dict(kinds)}")
    return 1 if kinds or refused or twice else 0


if __name__ == "__main__":
    sys.exit(main())
