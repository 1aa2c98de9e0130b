#!/usr/bin/env python3
"""Disks that are full, files that may not grow, and calls that fail: nothing acknowledged is lost, and mail goes on.

    tests/campaign disk [--fast] [full | limit | failing [log|store CALL NUMBER]]

full    The data folder on a small tmpfs. New mail is answered 452 4.3.1 and nothing else, what is queued is delivered,
        a restart on the full disk works, and mail is taken again, without a restart, once the disk is enlarged.
limit   RLIMIT_FSIZE below the size of a segment, and below that of anything: SIGXFSZ kills nobody.
failing strace lets each of the first 50 calls of fsync, fdatasync, syncfs, write, writev, pwrite64 and pwritev on files
        of the log, and then of the store, fail with EIO, one call a case (of each thread, as strace counts). Log: the
        replies are 250 or 451 4.3.0, no file is synced again after a failed sync, mail is taken and delivered
        afterwards. Store: mail goes on as if nothing were; in one case of each call, /readyz is red, and within 30 s
        green again with history complete, which after a start it always is. Both: no panic, the process lives, and
        after kill -9 and a start everything acknowledged arrives, and nothing that was refused.

Calls that the relay does not make are named. --fast takes a few cases of each kind. Needs root, for mounting and
strace. Prints a line for each case and a verdict; exits 1 if anything is wrong.
"""
import contextlib, os, random, re, shutil, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from common import Relay, Senders, Sink, Verdict, missing, settle, within

BINARY, FAST = sys.argv[1], "--fast" in sys.argv
CALLS = ("fsync", "fdatasync", "syncfs", "write", "writev", "pwrite64", "pwritev")
LAST = 50
SMALL = {"[queue]": ['retry = ["1s"]', 'min_free = "1MiB"'], "[spool]": ['segment_size = "256KiB"']}
LATER = b"451 4.3.0 later\r\n"
verdict = Verdict()


def main():
    words = [word for word in sys.argv[2:] if not word.startswith("-")]
    if words[:1] == ["failing"] and len(words) == 4:
        failing([(words[1], words[2], int(words[3]))])
    else:
        for section in words or ["full", "limit", "failing"]:
            {"full": full, "limit": limit, "failing": failing}[section]()
    verdict.end("disk")


def finished(relay, sink, senders, name):
    """What every case ends with: kill -9, a start without the fault, and the account."""
    # The calls of a session that breaks now may have been answered or not.
    relay.kill()
    senders.end()
    before = relay.log_size()
    relay.start()
    lost = missing(senders.acknowledged, sink, patience=8)
    verdict.expect(not lost, f"{name}: {len(lost)} of {len(senders.acknowledged)} lost: {sorted(lost)[:5]}")
    verdict.expect(not relay.panics(before), f"{name}: {relay.panics(before)[:1]}")
    return before


# ---- A full disk


def full():
    for foreign in (False, True):
        mounted = tempfile.mkdtemp(prefix="trackpost-full-")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", mounted], check=True)
        sink = Sink()
        settings = {**SMALL, "[spool]": ['segment_size = "1MiB"']}
        relay = Relay(BINARY, sink.port, settings, os.path.join(mounted, "data"))
        try:
            full_disk(relay, sink, mounted, foreign)
        finally:
            relay.cleanup()
            subprocess.run(["umount", mounted], check=True)
            os.rmdir(mounted)


def full_disk(relay, sink, mounted, foreign):
    """Filled by mail up to `min_free`, or by somebody else to the last byte."""
    name = f"full{' to the last byte' if foreign else ''}"
    if not relay.lives():
        relay.start()
    sink.defer, began, offset = LATER, time.monotonic(), relay.log_size()
    senders = Senders(relay.smtp, count=6, sizes=(10_000, 200_000), prefix="f" if foreign else "q")
    within(lambda: len(senders.acknowledged) > 100, 30)
    if foreign:
        fill(mounted)
    verdict.expect(within(lambda: senders.refused, 60), f"{name}: new mail is not refused")
    time.sleep(1)
    waiting = len(sink.lacks(senders.acknowledged))
    sink.defer = None
    delivered = within(lambda: not sink.lacks(senders.acknowledged), 60)
    verdict.expect(delivered, f"{name}: what is queued is not delivered: "
                   f"{len(sink.lacks(senders.acknowledged))} of {waiting} wait")
    verdict.expect(set(senders.refused) == {"452 4.3.1"}, f"{name}: replies {dict(senders.refused)}")
    # Where freeing segments made room, it is full again of what is not delivered; then it starts on the full disk.
    sink.defer = LATER
    if not foreign:
        within(lambda: refuses(senders), 20)
    relay.kill()
    took = relay.start()
    subprocess.run(["mount", "-o", "remount,size=512m", mounted], check=True)
    before = len(senders.acknowledged)
    again = within(lambda: len(senders.acknowledged) > before + 20, 10)
    verdict.expect(again, f"{name}: mail is not taken again, {dict(senders.refused)}")
    sink.defer = None
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(mounted, "foreign"))
    senders.end()
    verdict.expect(not relay.panics(offset), f"{name}: {relay.panics(offset)[:1]}")
    finished(relay, sink, senders, name)
    print(f"{name}: {len(senders.acknowledged)} acknowledged, refused {dict(senders.refused)}, {waiting} waited when "
          f"it was full, start on the full disk {took:.2f} s, {time.monotonic() - began:.0f} s in all", flush=True)


def refuses(senders):
    count = sum(senders.refused.values())
    taken = len(senders.acknowledged)
    time.sleep(0.5)
    return sum(senders.refused.values()) > count and len(senders.acknowledged) == taken


def fill(folder):
    with open(os.path.join(folder, "foreign"), "wb", buffering=0) as file:
        piece = 1 << 20
        while piece:
            try:
                if file.write(bytes(piece)) < piece:
                    piece //= 2
            except OSError:
                piece //= 2


# ---- Files that may not grow


def limit():
    for size, some in ((192 << 10, True), (16 << 10, False))[:1 if FAST else 2]:
        name = f"files of {size >> 10} KiB at most"
        sink = Sink()
        relay = Relay(BINARY, sink.port, SMALL)
        relay.start()
        relay.add_domain()
        sink.defer = LATER
        first = Senders(relay.smtp, count=4, limit=60, prefix="a")
        first.join()
        relay.kill()
        # The relay's own log file counts as well.
        os.truncate(relay.log, 0)
        try:
            relay.start(["prlimit", f"--fsize={size}"])
        except RuntimeError as error:
            verdict.expect(False, f"{name}: {error}, exit {relay.process.poll()}")
            relay.cleanup()
            continue
        sink.defer = None
        senders = Senders(relay.smtp, count=4, sizes=(10_000, 100_000), prefix="b")
        within(lambda: len(senders.acknowledged) > 200 or not relay.lives(), 10)
        lost = missing(first.acknowledged, sink, patience=8)
        verdict.expect(relay.lives(), f"{name}: the process ended with {relay.process.poll()}")
        verdict.expect(not lost, f"{name}: what was queued is not delivered: {len(lost)}")
        verdict.expect(senders.acknowledged or not some, f"{name}: no mail is taken")
        verdict.expect(set(senders.refused) <= {"451 4.3.0"}, f"{name}: replies {dict(senders.refused)}")
        verdict.expect(not relay.panics(), f"{name}: {relay.panics()[:1]}")
        if not relay.lives():
            relay.cleanup()
            continue
        senders.acknowledged |= first.acknowledged
        finished(relay, sink, senders, name)
        print(f"{name}: {len(senders.acknowledged)} acknowledged, refused {dict(senders.refused)}", flush=True)
        relay.cleanup()


# ---- Calls that fail


def failing(cases=()):
    template, found = tempfile.mkdtemp(prefix="trackpost-template-"), list(cases)
    try:
        relay = Relay(BINARY, Sink(down=True).port, SMALL)
        relay.start()
        relay.add_domain()
        relay.stop()
        shutil.copytree(relay.data, os.path.join(template, "data"), ignore=lambda folder, names: [
            name for name in names if name in ("reserve", "store.ballast", "admin.sock")])
        relay.cleanup()
        # Those of the store wait for its being opened again, so they begin.
        for part in ("store", "log") if not cases else ():
            made = one_case(template, part, None, 0)
            unused = [call for call in CALLS if call not in made]
            print(f"{part}: most calls of one thread {made}; never called: {', '.join(unused) or 'none'}", flush=True)
            # Far more than were made while they were counted would not be reached.
            found += [(part, call, number) for call, count in made.items() for number in numbers(part)
                      if number <= 3 * count]
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda case: one_case(template, *case), found))
    finally:
        shutil.rmtree(template)


# The number of the call after whose failure a case waits until the store is whole again.
REFILLED = 4


def numbers(part):
    if FAST:
        return (1, 3, 20) if part == "log" else (REFILLED, 1)
    # Commits of the store are a quarter of a second apart.
    return [*range(1, LAST + 1)] if part == "log" else [*range(1, 16), 20, 30, 40, 50]


def paths(data, part):
    folder = os.path.join(data, part)
    names = [f"{n:016}.{kind}" for n in range(1, 200) for kind in ("log", "new")] if part == "log" else [
        "db", "conf", "snap.tmp"]
    return [folder, *(os.path.join(folder, name) for name in names), *([data] if part == "log" else [])]


def one_case(template, part, call, number):
    """Without a call, counts them, by the thread that makes most: strace counts for each."""
    name = f"{part}: {call} {number}"
    sink = Sink()
    relay = Relay(BINARY, sink.port, SMALL)
    shutil.copytree(os.path.join(template, "data"), relay.data)
    trace = os.path.join(relay.folder, "trace")
    which = [word for path in paths(relay.data, part) for word in ("-P", path)]
    fault = ["-e", f"inject={call}:error=EIO:when={number}"] if call else []
    refill = part == "store" and number == REFILLED and (call == "pwrite64" or not FAST)
    # One that is to let go of the process must be interruptible, and leave no filter behind.
    how = "--interruptible=2" if refill else "--seccomp-bpf"
    strace = ["strace", "-D", "-f", how, "-y", "-s", "0", "-o", trace, *which, "-e",
              "trace=" + (call if call else ",".join(CALLS)), *fault]
    if call == "fdatasync":
        strace[-3] = "trace=fdatasync,fsync"
    try:
        relay.start(strace)
    except RuntimeError as error:
        return refused_to_start(relay, name, trace, error)
    senders = Senders(relay.smtp, count=4)
    patience = 6 if part == "log" else 14
    if not call:
        patience = patience / 8 if FAST else patience / 2
    injected = within(lambda: text(trace).count("INJECTED"), patience)
    after = len(senders.acknowledged)
    if injected:
        # It goes on: more is taken, and what is taken arrives.
        verdict.expect(within(lambda: len(senders.acknowledged) > after + 50, 15), f"{name}: no more mail is taken")
        recent = set(senders.acknowledged)
        verdict.expect(within(lambda: not sink.lacks(recent), 30), f"{name}: delivery does not go on")
        if refill:
            verdict.expect(within(lambda: not relay.ready(), 5), f"{name}: it says that it is ready")
            # Threads that a new store starts would have failing calls of their own.
            relay.let_go()
            senders.end()
            some = random.sample(sorted(senders.acknowledged), 10)
            whole = within(lambda: all(relay.recorded(senders.queue_ids[who]) for who in some), 30, pause=1)
            verdict.expect(whole, f"{name}: history is not complete after 30 s")
            verdict.expect(within(relay.ready, 10), f"{name}: it does not say that it is ready again")
    with sink.lock:
        under_way = sink.open
    verdict.expect(relay.lives(), f"{name}: the process ended with {relay.process.poll()}")
    panics = relay.panics()
    verdict.expect(not panics, f"{name}: {panics[:1]}")
    allowed = {"451 4.3.0"} if part == "log" else set()
    verdict.expect(set(senders.refused) <= allowed, f"{name}: replies {dict(senders.refused)}")
    if not relay.lives():
        return {}
    finished(relay, sink, senders, name)
    settle(sink, 0.3)
    if part == "store" and senders.acknowledged:
        some = random.sample(sorted(senders.acknowledged), 3)
        whole = within(lambda: all(relay.recorded(senders.queue_ids[who]) for who in some), 10, pause=0.2)
        verdict.expect(whole, f"{name}: history is not complete after a start")
    again = senders.refused_ids & sink.arrived.keys()
    verdict.expect(not again, f"{name}: refused and yet delivered: {sorted(again)[:5]}")
    found = text(trace)
    if call:
        for file in synced_again(found):
            verdict.expect(False, f"{name}: {file} was synced again after a failed sync")
        print(f"{name}: {found.count('INJECTED')} failed, {len(senders.acknowledged)} acknowledged, refused "
              f"{dict(senders.refused)}, {sum(sink.arrived.values()) - len(sink.arrived)} more copies "
              f"({under_way} under way)" + ("" if injected else ", NOT REACHED"), flush=True)
    relay.cleanup()
    return most_calls(found)


def refused_to_start(relay, name, trace, error):
    """At the start a fault may end the process, if it says why: who started it tries again, and loses nothing."""
    injected = text(trace).count("INJECTED")
    verdict.expect(injected and not relay.panics(), f"{name}: {error}")
    relay.start()
    relay.kill()
    print(f"{name}: does not start: {error}", flush=True)
    relay.cleanup()
    return {}


def text(path):
    with contextlib.suppress(FileNotFoundError), open(path, errors="replace") as file:
        return file.read()
    return ""


def most_calls(found):
    counts = {}
    for line in found.splitlines():
        if match := re.match(r"(\d+) +(\w+)\(", line):
            counts[match.groups()] = counts.get(match.groups(), 0) + 1
    most = {}
    for (_, call), count in counts.items():
        most[call] = max(most.get(call, 0), count)
    return most


def synced_again(found):
    """Files of the log that were synced after a sync of theirs had failed."""
    failed, again = set(), set()
    for line in found.splitlines():
        if match := re.match(r"\d+ +(?:fsync|fdatasync)\(\d+<(.*\.log)>\)? *(.*)", line):
            if "INJECTED" in match[2]:
                failed.add(match[1])
            elif match[1] in failed:
                again.add(match[1])
    return sorted(os.path.basename(path) for path in again)


main()
