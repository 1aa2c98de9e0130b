#!/usr/bin/env python3
"""A cold start with a full queue: how long until it is ready, and how much it reads.

    tests/campaign cold-start [COUNT]

COUNT messages (100,000) of 20 KB wait, since the smarthost is down. The relay is killed, what the system keeps of its
files in memory is dropped, and it is started: once with the footers of its segments, once without. Both starts must find
every message; the first must be ready within two seconds and 2,000 reads.

Prints a line for each start and a verdict; exits 1 where it does not hold.
"""
import glob, os, re, sys, time
from common import Relay, Senders, Sink, Verdict, within

BINARY = sys.argv[1]
COUNT = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
READY, READS = 2.0, 2_000
FOOTER_MARK = b"tpf\n"


def forget(folder):
    """Drops what the system keeps in memory of the files."""
    os.sync()
    for path in glob.glob(os.path.join(folder, "**"), recursive=True):
        if os.path.isfile(path):
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def cut_footers(data):
    """Cuts the footers off; how many there were."""
    cut = 0
    for path in glob.glob(os.path.join(data, "log", "*.log")):
        with open(path, "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 16))
            trailer = file.read(16)
            if trailer[12:] == FOOTER_MARK:
                file.truncate(int.from_bytes(trailer[:8], "little"))
                cut += 1
    return cut


def reads(relay):
    with open(f"/proc/{relay.process.pid}/io") as file:
        return int(re.search(r"^syscr: (\d+)$", file.read(), re.M)[1])


def start(relay, what):
    forget(relay.data)
    offset = relay.log_size()
    began = time.monotonic()
    took = relay.start()
    count = reads(relay)
    line = within(lambda: relay.logged("log recovered", offset), 60)
    queued = int(re.search(r"queued=(\d+)", line[0])[1])
    folded = int(re.search(r"took_ms=(\d+)", line[0])[1])
    print(f"{what}: ready in {took:.2f} s ({time.monotonic() - began:.2f} s), of it {folded} ms for the log, "
          f"{count} reads, {queued} queued, resident {relay.resident()[0]} KB", flush=True)
    return took, count, queued


sink = Sink(down=True)
relay = Relay(BINARY, sink.port, {"[queue]": ['retry = ["1h"]', 'min_free = "1MiB"']})
verdict = Verdict()
relay.start()
relay.add_domain()
senders = Senders(relay.smtp, sizes=[20_000], limit=COUNT, prefix="c")
senders.join(1800)
taken = len(senders.acknowledged)
print(f"{taken} queued, refused {dict(senders.refused)}, resident {relay.resident()[0]} KB", flush=True)
verdict.expect(taken == COUNT, f"only {taken} of {COUNT} were taken")
relay.kill()
took, count, queued = start(relay, "with footers")
verdict.expect(queued >= taken, f"{taken - queued} are lost")
verdict.expect(took < READY, f"ready after {took:.2f} s")
verdict.expect(count < READS, f"{count} reads")
time.sleep(1)
relay.kill()
footers = cut_footers(relay.data)
_, _, queued = start(relay, f"without the {footers} footers")
verdict.expect(queued >= taken, f"{taken - queued} are lost without footers")
relay.kill()
verdict.expect(cut_footers(relay.data) >= footers, "the footers were not written again")
relay.cleanup()
verdict.end(f"{taken} queued: ready in {took:.2f} s with {count} reads")
