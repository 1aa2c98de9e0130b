#!/usr/bin/env python3
"""The power fails at the moment of an acknowledgement, again and again: what was acknowledged arrives afterwards.

    tests/campaign power [ROUNDS]

The data folder lies on an ext4 of its own, in a file behind a loop device, mounted so that the kernel writes nothing
back by itself for ten minutes. Eight senders send 4, 64 and 200 KB. At a random acknowledgement the relay is stopped
where it stands and the file is copied: the copy holds what a disk would hold whose power failed then, and nothing that
is in memory alone. Ext4 replays its journal when the copy is mounted, the relay starts on it, and everything that was
acknowledged must arrive, unless it had arrived before; the store must open. The next round goes on from there.

In every second round the smarthost defers everything until the power fails; in every third the relay's syncs are held
up for 60 ms, so that an acknowledgement that does not wait for its sync is caught. Last, the same with syncs that do
nothing: if that loses no mail, the campaign could not have seen a loss, and fails.

Needs root, for mounting. Prints one line a round and a verdict; exits 1 on any loss.
"""
import os, random, shutil, signal, subprocess, sys, tempfile, threading
from common import Relay, Senders, Sink, Verdict, missing, more_than_one, within

BINARY = sys.argv[1]
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 50
BLIND = 3
SEED = int(os.environ.get("SEED", "1"))
SIZES = (4_000, 64_000, 200_000)
SETTINGS = {"[queue]": ['retry = ["1s"]', 'min_free = "1MiB"'], "[spool]": ['segment_size = "4MiB"']}
HERE = os.path.dirname(os.path.abspath(__file__))


class Disk:
    """An ext4 in a file. Memory is the place for it where there is some: a copy must not take long."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="trackpost-power-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        self.image, self.cut_image = os.path.join(self.folder, "disk"), os.path.join(self.folder, "cut")
        self.mounted = os.path.join(self.folder, "mounted")
        os.mkdir(self.mounted)

    def make(self):
        self.unmount()
        with open(self.image, "wb") as file:
            file.truncate(1 << 30)
        subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=1", self.image], check=True)
        self.mount()

    def mount(self):
        subprocess.run(["mount", "-o", "loop,commit=600", self.image, self.mounted], check=True)

    def unmount(self):
        if os.path.ismount(self.mounted):
            subprocess.run(["umount", self.mounted], check=True)

    def cut(self):
        """The file as it is now, beside the one that is mounted."""
        subprocess.run(["cp", "--sparse=always", self.image, self.cut_image], check=True)

    def come_back(self):
        """What was cut takes the place of what went on."""
        self.unmount()
        os.replace(self.cut_image, self.image)
        self.mount()

    def cleanup(self):
        self.unmount()
        shutil.rmtree(self.folder)


class Cut:
    """Stops the relay at the acknowledgement of the given number, from the thread that read it."""

    def __init__(self, relay, at):
        self.relay, self.at, self.done = relay, at, threading.Event()

    def __call__(self, senders):
        if not self.done.is_set() and len(senders.acknowledged) >= self.at:
            self.relay.process.send_signal(signal.SIGSTOP)
            self.done.set()


def round_of(disk, relay, sink, number, chance, sync, defer):
    """Acknowledged messages, those among them that are lost, and the seconds that the start after the cut took."""
    relay.start(environment={"LD_PRELOAD": os.path.join(disk.folder, "sync.so"), "TRACKPOST_SYNC": sync})
    sink.defer = b"451 4.3.0 later\r\n" if defer else None
    cut = Cut(relay, chance.randint(1, 40))
    senders = Senders(relay.smtp, count=8, sizes=SIZES, seed=SEED * 1000 + number, prefix=f"r{number}s", each=cut)
    if not cut.done.wait(60):
        sys.exit(f"nothing is acknowledged, see {relay.log}")
    # Calls that had begun end first: a copy made while they write could be what no disk has ever held.
    if not within(lambda: set(relay.thread_states()) == {"T"}, 10, pause=0.001):
        sys.exit("the relay cannot be stopped")
    disk.cut()
    with senders.lock:
        # Also what came in while the copy was made: it was sent before the relay stopped.
        acknowledged = set(senders.acknowledged)
    relay.kill()
    senders.end()
    acknowledged |= senders.acknowledged
    disk.come_back()
    sink.defer = None
    before, store = relay.log_size(), os.path.join(relay.data, "store")
    as_it_was = os.path.join(relay.folder, f"store-{number}")
    if os.path.exists(store):
        shutil.copytree(store, as_it_was)
    try:
        took = relay.start()
    except RuntimeError as error:
        return acknowledged, acknowledged, 0, str(error)
    lost = missing(acknowledged, sink, patience=8)
    # A store that does not open, a damaged segment: whatever the relay itself calls an error.
    bad = relay.panics() + relay.logged(r"\bERROR\b", before)
    relay.kill()
    if any("the store does not open" in line for line in bad):
        # As its message says; the next round is to have one.
        shutil.rmtree(store)
    if not bad:
        shutil.rmtree(as_it_was, ignore_errors=True)
    return acknowledged, lost, took, bad[0] if bad else ""


def main():
    chance, verdict = random.Random(SEED), Verdict()
    disk, sink = Disk(), Sink()
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", os.path.join(disk.folder, "sync.so"),
                    os.path.join(HERE, "sync.c"), "-ldl"], check=True)
    relay = Relay(BINARY, sink.port, SETTINGS, data=os.path.join(disk.mounted, "data"))
    try:
        disk.make()
        relay.start()
        relay.add_domain()
        relay.stop()
        total = 0
        for number in range(1, ROUNDS + 1):
            sync, defer = "late" if number % 3 == 0 else "real", number % 2 == 1
            acknowledged, lost, took, bad = round_of(disk, relay, sink, number, chance, sync, defer)
            total += len(acknowledged)
            print(f"round {number:3}: {len(acknowledged)} acknowledged, {len(lost)} lost, syncs {sync}, smarthost "
                  f"{'defers' if defer else 'takes'}, ready in {took:.2f} s", flush=True)
            verdict.expect(not lost, f"lost: {sorted(lost)[:5]}")
            verdict.expect(not bad, bad)
            verdict.expect(took < 5, "the start took too long")
        twice = more_than_one(sink)
        blind = 0
        for number in range(1, BLIND + 1):
            disk.make()
            acknowledged, lost, _, bad = round_of(disk, relay, sink, ROUNDS + number, chance, "never", True)
            blind += len(lost)
            print(f"without syncs {number}: {len(acknowledged)} acknowledged, {len(lost)} lost {bad}", flush=True)
        verdict.expect(blind, "without syncs nothing is lost: this campaign sees nothing")
    finally:
        if relay.lives():
            relay.kill()
        disk.cleanup()
    if not verdict.faults:
        relay.cleanup()
    verdict.end(f"{ROUNDS} power cuts, seed {SEED}: {total} acknowledged, {twice} more copies; {blind} lost without "
                "syncs", [relay.folder])


if __name__ == "__main__":
    main()
