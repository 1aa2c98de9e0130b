#!/usr/bin/env python3
"""The history as it is folded, and made anew from the log: nothing is left out, and memory does not grow with the queue.

    tests/campaign rebuild [QUEUED] [MESSAGES] [RECIPIENTS]

counts  MESSAGES (400) newsletters to RECIPIENTS (1,000) each go out. The history says that so many copies were
        delivered; again once the store was deleted and made anew.
memory  QUEUED (300,000) small messages wait in the queue. The store is deleted, and made anew at a start; the most
        memory that takes is not more than MORE above that of a start with the store in place.

Prints a line for each and a verdict; exits 1 if anything is wrong.
"""
import json, pathlib, shutil, sys, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "hits"))
from common import DOMAIN, Client, Senders, Verdict  # noqa: E402
from ground import Hits, newsletter, until  # noqa: E402

# MiB.
MORE = 200
SETTINGS = {"[queue]": ['min_free = "0B"']}


def figures(server):
    totals = json.loads(server.api("/emails/metrics?metrics=sent,delivered"))["totals"]
    return totals["sent"], totals["delivered"]


def is_folded(server):
    """The history has all that the log has, but for what is written a moment later."""
    return server.metric("trackpost_store_open") == 1 and server.metric("trackpost_log_unread_bytes") < 1_000


def made_anew(server):
    """Starts it without its store; seconds until all is in the new one."""
    server.relay.stop()
    shutil.rmtree(pathlib.Path(server.relay.data, "store"))
    began = time.monotonic()
    server.relay.start(seconds=120)
    until("a new store", lambda: is_folded(server), 1_800, 0.2)
    return time.monotonic() - began


def counts(program, verdict, messages, recipients):
    server, wanted = Hits(program, SETTINGS), messages * recipients
    server.sink.taken = None
    with Client(server.relay.smtp, timeout=60) as client:
        for n in range(messages):
            Hits.put(client, [f"m{n}r{place}" for place in range(recipients)], newsletter(f"m{n}", 1))
    until("all copies", lambda: server.sink.copies() >= wanted, 1_800, 0.2)
    for step in ("folded", "made anew"):
        if step == "made anew":
            made_anew(server)
        until("the fold", lambda: is_folded(server), 600, 0.2)
        # What is written a moment later, and figures that are kept for a moment.
        try:
            until("figures", lambda: figures(server) == (wanted, wanted), 20, 0.5)
        except AssertionError:
            pass
        sent, delivered = figures(server)
        verdict.expect((sent, delivered) == (wanted, wanted), f"{step}: {sent} sent, {delivered} delivered of {wanted}")
        print(f"counts, {step}: {sent} sent, {delivered} delivered of {wanted}", flush=True)
    verdict.expect(not server.relay.panics(), f"{server.relay.panics()[:1]}")
    server.close()


def memory(program, verdict, queued):
    server = Hits(program, SETTINGS)
    server.run("queue", "hold")
    senders = Senders(server.relay.smtp, count=16, sizes=(1,), limit=queued)
    senders.join(3_600)
    taken = len(senders.acknowledged)
    verdict.expect(taken == queued, f"{taken} of {queued} were taken: {senders.refused}")
    until("the fold", lambda: is_folded(server), 600, 0.2)
    server.relay.stop()
    server.relay.start(seconds=120)
    until("the fold", lambda: is_folded(server), 600, 0.2)
    time.sleep(3)
    _, usual = server.relay.resident()
    took = made_anew(server)
    time.sleep(3)
    now, most = server.relay.resident()
    sent, _ = figures(server)
    verdict.expect(sent == queued, f"{sent} of {queued} in the history")
    more = (most - usual) >> 10
    verdict.expect(more <= MORE, f"{more} MiB more than a start with the store")
    verdict.expect(not server.relay.panics(), f"{server.relay.panics()[:1]}")
    print(f"memory: {queued} queued at {DOMAIN}; a start takes {usual >> 10} MiB, one that makes the store anew "
          f"{most >> 10} MiB at most ({took:.0f} s, then {now >> 10} MiB)", flush=True)
    server.close()


def main(program, queued=300_000, messages=400, recipients=1_000):
    verdict = Verdict()
    if messages:
        counts(program, verdict, messages, recipients)
    if queued:
        memory(program, verdict, queued)
    verdict.end("rebuild")


main(sys.argv[1], *map(int, sys.argv[2:5]))
