#!/usr/bin/env python3
"""kill -9 under load, again and again: what was acknowledged arrives, and what had arrived does not arrive again.

    tests/campaign crash [ROUNDS]

Senders speak SMTP to the relay and note every message that was answered 250. A sink counts what arrives. At a random
moment the relay is killed and started again on the same folder; half-way through, its store is deleted as well.
Allowed: one more copy of each message whose transaction was under way when the relay was killed, which is at most one
for each of the relay's connections to the sink. Prints one line a round and a verdict; exits 1 on any loss.
"""
import os, random, re, shutil, signal, socket, subprocess, sys, tempfile, threading, time

BINARY = sys.argv[1]
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 50
SENDERS = 16
SEED = int(os.environ.get("SEED", "1"))
random.seed(SEED)


class Sink:
    """Takes everything at once and counts by the message's own id."""

    def __init__(self):
        self.lock = threading.Lock()
        self.arrived = {}
        self.open = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.lock:
            self.open += 1
        try:
            lines = connection.makefile("rb")
            connection.sendall(b"220 sink\r\n")
            while line := lines.readline():
                verb = line[:4].upper()
                if verb == b"EHLO":
                    connection.sendall(b"250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
                elif verb == b"DATA":
                    connection.sendall(b"354 go\r\n")
                    ident = None
                    while (line := lines.readline()) not in (b".\r\n", b""):
                        if ident is None and line.startswith(b"X-Campaign: "):
                            ident = line[12:].strip().decode()
                    if line == b"":
                        return
                    with self.lock:
                        self.arrived[ident] = self.arrived.get(ident, 0) + 1
                    connection.sendall(b"250 ok\r\n")
                else:
                    connection.sendall(b"250 ok\r\n")
        except OSError:
            pass
        finally:
            with self.lock:
                self.open -= 1
            connection.close()


class Senders:
    """Sixteen clients that send 10 KB and 200 KB, and go on where a connection breaks."""

    def __init__(self, port):
        self.port, self.acknowledged, self.lock, self.stop = port, set(), threading.Lock(), False
        self.next = 0
        body = "<html><body>" + "".join(
            f'<p>Offer {n}: <a href="https://shop.example.com/p/{n}?a=1&amp;b=2">see</a></p>\r\n' for n in range(20))
        pad = "<p>Words that fill the message, line after line, as letters have them.</p>\r\n"
        self.bodies = [(body + pad * (size // len(pad)) + "</body></html>\r\n").encode() for size in (10_000, 200_000)]
        self.threads = [threading.Thread(target=self.work, args=(n,), daemon=True) for n in range(SENDERS)]
        for thread in self.threads:
            thread.start()

    def work(self, number):
        chance = random.Random(SEED * 1000 + number)
        while not self.stop:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
                    self.session(connection, chance)
            except (OSError, EOFError, ValueError):
                time.sleep(0.02)

    def session(self, connection, chance):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        replies = connection.makefile("rb")

        def expect(code):
            while True:
                line = replies.readline()
                if not line:
                    raise EOFError
                if line[3:4] != b"-":
                    break
            if not line.startswith(code):
                raise ValueError(line)

        expect(b"220")
        connection.sendall(b"EHLO campaign.example.com\r\n")
        expect(b"250")
        while not self.stop:
            with self.lock:
                self.next += 1
                ident = f"m{self.next}"
            body = self.bodies[chance.random() < 0.15]
            head = (f"From: News <news@shop.example.com>\r\nTo: a@example.net\r\nSubject: {ident}\r\n"
                    f"Message-ID: <{ident}@shop.example.com>\r\nX-Campaign: {ident}\r\nMIME-Version: 1.0\r\n"
                    "Content-Type: text/html; charset=utf-8\r\n\r\n").encode()
            connection.sendall(b"MAIL FROM:<news@shop.example.com>\r\nRCPT TO:<a@example.net>\r\nDATA\r\n")
            expect(b"250"), expect(b"250"), expect(b"354")
            connection.sendall(head + body + b".\r\n")
            expect(b"250")
            with self.lock:
                self.acknowledged.add(ident)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def start(folder, port):
    """The relay and the seconds until it greets."""
    log = open(os.path.join(folder, "log"), "ab")
    began = time.monotonic()
    process = subprocess.Popen([BINARY, "--config", os.path.join(folder, "trackpost.toml"), "serve"],
                               stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                if connection.recv(3) == b"220":
                    return process, time.monotonic() - began
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() - began > 30:
            sys.exit(f"the relay does not start, see {folder}/log")
        time.sleep(0.01)


def main():
    folder = tempfile.mkdtemp(prefix="trackpost-crash-")
    sink, port, web = Sink(), free_port(), free_port()
    with open(os.path.join(folder, "trackpost.toml"), "w") as file:
        file.write(f'hostname = "relay.example.net"\n[[smtp.listener]]\naddress = "127.0.0.1:{port}"\n'
                   f'[smarthost]\naddress = "127.0.0.1:{sink.port}"\ntls = "none"\n'
                   f'[tracking]\nhttp = ["127.0.0.1:{web}"]\n[queue]\nretry = ["1s"]\n')
    process, _ = start(folder, port)
    subprocess.run([BINARY, "--config", os.path.join(folder, "trackpost.toml"), "domain", "add", "shop.example.com",
                    "--subdomain", "links", "--open", "--click", "--force-verified"], check=True,
                   stdout=subprocess.DEVNULL)
    senders = Senders(port)
    allowed, slowest = 0, 0.0
    for round_number in range(1, ROUNDS + 1):
        time.sleep(random.uniform(0.1, 1.5))
        with sink.lock:
            under_way = sink.open
        process.send_signal(signal.SIGKILL)
        process.wait()
        allowed += under_way
        gone = round_number == (ROUNDS + 1) // 2
        if gone:
            shutil.rmtree(os.path.join(folder, "data", "store"), ignore_errors=True)
        process, took = start(folder, port)
        slowest = max(slowest, took)
        with senders.lock:
            acknowledged = len(senders.acknowledged)
        print(f"round {round_number:3}: {acknowledged} acknowledged, {len(sink.arrived)} arrived, "
              f"{under_way} under way, ready in {took:.2f} s{', store deleted' if gone else ''}", flush=True)
    senders.stop = True
    for thread in senders.threads:
        thread.join(30)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and senders.acknowledged - sink.arrived.keys():
        time.sleep(0.2)
    # What is queued without having been acknowledged arrives as well; wait until it is quiet.
    count = -1
    while count != sum(sink.arrived.values()):
        count = sum(sink.arrived.values())
        time.sleep(2)
    process.terminate()
    ended = process.wait(60)
    lost = senders.acknowledged - sink.arrived.keys()
    twice = sum(count - 1 for count in sink.arrived.values())
    print(f"{ROUNDS} rounds, seed {SEED}: {len(senders.acknowledged)} acknowledged, {len(sink.arrived)} arrived, "
          f"{len(lost)} lost, {twice} more copies (allowed {allowed}), slowest start {slowest:.2f} s, exit {ended}")
    good = not lost and twice <= allowed and slowest < 5 and ended == 0
    if good:
        shutil.rmtree(folder)
    else:
        print(f"kept: {folder}; lost: {sorted(lost)[:10]}")
    sys.exit(0 if good else 1)


main()
