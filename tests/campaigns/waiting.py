#!/usr/bin/env python3
"""Clients that begin a message and stop: everybody else is served as if they were not there.

    tests/campaign waiting

Each crowd meets a relay of its own, and stays. The clients of a crowd come from many addresses of loopback, once as
trusted ones and, where it says so, as strangers with a key each. While they wait, new clients send messages: each has
its 250 within a second, and the relay's memory has grown by no more than its pools and a little for each connection.

silent      2,000 sessions after 354, half of which have declared 256 KiB
behind      500 more behind 60 KB of a message
burst       96 that declare 256 KiB and send half of it, 768 that declare nothing and send 40 KB
large       two that declare 36 MiB and send nearly all of it; the next sends 20 MB, and has 5 seconds
one client  one address, and one key, that stops with as much as there is room for, and begins again at once
lists       1,900 sessions: 300 with 400 long recipients each, the others in the middle of an AUTH line of 12 KB

Exits 1 if anything is wrong.
"""
import contextlib, resource, select, socket, subprocess, sys, threading, time
from base64 import b64encode
from common import DOMAIN, Client, Relay, Sink, Verdict, letter

BINARY = sys.argv[1]
MIB = 1024 * 1024
# What the small pool or both hold, what an allocator keeps beside it, and a connection's own.
SMALL_MB, MOST_MB, EACH_KB = 24 + 24, 96 + 32, 16
verdict = Verdict()
LINE = b"x" * 998 + b"\r\n"


class Crowd:
    """Sessions that have said something and say nothing more."""

    def __init__(self, relay):
        self.relay, self.connections = relay, []

    def join(self, number, lines, data=b""):
        """A session that has had an answer to each line but the last, and sends `data` if that one is answered soon. It
        may be sent away meanwhile."""
        with contextlib.suppress(ConnectionError):
            self.begin(number, lines, data)

    def begin(self, number, lines, data):
        source = f"127.{1 + number // 60000}.{number // 250 % 240}.{number % 250 + 1}"
        connection = socket.create_connection(("127.0.0.1", self.relay.smtp), 20, (source, 0))
        self.connections.append(connection)
        replies = connection.makefile("rb", buffering=0)
        answer(replies)
        for line in (b"EHLO crowd.example.com\r\n", *lines[:-1]):
            connection.sendall(line)
            for _ in range(line.count(b"\n")):
                answer(replies)
        connection.sendall(lines[-1])
        if not data or not ready(connection, select.POLLIN, 200):
            return
        answer(replies)
        connection.setblocking(False)
        # As much as the relay reads: it may have no room for the rest.
        rest = memoryview(data)
        while rest and ready(connection, select.POLLOUT, 300):
            with contextlib.suppress(BlockingIOError):
                rest = rest[connection.send(rest):]

    def leave(self):
        for connection in self.connections:
            connection.close()


def ready(connection, what, milliseconds):
    poll = select.poll()
    poll.register(connection, what)
    return poll.poll(milliseconds)


def answer(replies):
    while line := replies.readline():
        if line[3:4] != b"-":
            return line
    return b""


def begun(size=None):
    parameter = f" SIZE={size}" if size else ""
    return [f"MAIL FROM:<a@{DOMAIN}>{parameter}\r\n".encode(), b"RCPT TO:<b@example.net>\r\n", b"DATA\r\n"]


def text(size):
    return LINE * (size // len(LINE))


def new_clients(relay, name, count=5, size=10_000, within=1.0, source="127.250.0.1", parameters=""):
    took = []
    for number in range(count):
        began = time.monotonic()
        try:
            with Client(relay.smtp, source, timeout=within + 2) as client:
                reply = client.send(f"new{number}", letter("new", size), parameters)
        except (OSError, EOFError) as error:
            reply = repr(error)
        took.append(time.monotonic() - began)
        if not verdict.expect(reply.startswith("250"), f"{name}: a new client gets {reply}"):
            break
    verdict.expect(max(took) < within, f"{name}: a new client waits {max(took):.2f} s")
    return max(took)


def silent(crowd):
    for number in range(2000):
        crowd.join(number, begun(262144 if number % 2 else None))


def behind(crowd):
    silent(crowd)
    new_clients(crowd.relay, "silent")
    for number in range(2000, 2500):
        crowd.join(number, begun(), text(60_000))


def burst(crowd):
    for number in range(96):
        crowd.join(number, begun(262144), text(131_072))
    for number in range(96, 864):
        crowd.join(number, begun(), text(40_000))


def large(crowd):
    for number in range(2):
        crowd.join(number, begun(36 * MIB), text(36 * MIB - 100_000))


def lists(crowd):
    name = b64encode(b"u" * 8000)
    recipient = b"RCPT TO:<" + b"r" * 60 + b"@example.net> ORCPT=rfc822;" + b"o" * 480 + b"@example.net\r\n"
    for number in range(300):
        crowd.join(number, [b"MAIL FROM:<a@example.com>\r\n", *[recipient * 100] * 4, b"NOOP\r\n"])
    for number in range(300, 1900):
        crowd.join(number, [b"AUTH LOGIN " + name + b"\r\n"], b"p" * 12_000)


def alone(name, gather, most_mb=SMALL_MB, **new):
    relay = Relay(BINARY, Sink().port, {"[smtp]": ["max_connections = 4000"]})
    relay.start()
    crowd = Crowd(relay)
    try:
        relay.add_domain()
        new_clients(relay, f"{name}, before")
        before, _ = relay.resident()
        began = time.monotonic()
        gather(crowd)
        gathered = time.monotonic() - began
        waited = new_clients(relay, name, **new)
        after, most = relay.resident()
        count = len(crowd.connections)
        print(f"{name}: {count} in {gathered:.1f} s; a new client waited {waited * 1000:.0f} ms at most; memory "
              f"{before // 1024} MB before, {after // 1024} MB now, {most // 1024} MB at most", flush=True)
        verdict.expect(most - before < most_mb * 1024 + EACH_KB * count, f"{name}: memory went up to {most // 1024} MB")
        verdict.expect(relay.lives() and not relay.panics(), f"{name}: it ended, or panicked: {relay.panics()[:1]}")
    finally:
        crowd.leave()
        relay.cleanup()


def hog(name, by_key):
    """Sessions that begin again as soon as they have stopped: by one address, or by one key from many addresses."""
    settings = {"[[smtp.listener]]": ["trusted_networks = []", 'auth = "optional"'],
                "[smtp]": ["max_connections_per_client = 1000"]}
    relay = Relay(BINARY, Sink().port, settings)
    relay.start()
    ended = threading.Event()
    login = []
    for key in ("hog", "honest"):
        made = subprocess.run([BINARY, "--config", relay.config, "key", "create", "--name", key], check=True,
                              capture_output=True, text=True).stdout.split()[0]
        login.append(b"AUTH PLAIN " + b64encode(b"\0resend\0" + made.encode()) + b"\r\n")

    def work(number):
        while not ended.is_set():
            with contextlib.suppress(OSError, EOFError):
                source = f"127.9.{number % 200}.{number // 200 + 1}" if by_key else "127.9.9.9"
                with Client(relay.smtp, source, timeout=5) as client:
                    client.say(login[0])
                    for line in begun():
                        client.say(line)
                    client.connection.settimeout(0.3)
                    while not ended.is_set():
                        # Never slow, and never at an end before it is large.
                        client.connection.sendall(text(16_000))
                        ended.wait(0.1)

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(150)]
    try:
        for thread in threads:
            thread.start()
        time.sleep(4)
        took = []
        for number in range(5):
            began = time.monotonic()
            try:
                with Client(relay.smtp, "127.8.0.1", timeout=5) as client:
                    client.say(login[1])
                    reply = client.send(f"n{number}", letter("n", 10_000))
            except (OSError, EOFError) as error:
                reply = repr(error)
            took.append(time.monotonic() - began)
            verdict.expect(reply.startswith("250"), f"{name}: another gets {reply}")
        verdict.expect(max(took) < 2, f"{name}: another waits {max(took):.2f} s")
        print(f"{name}: another waited {max(took) * 1000:.0f} ms at most; it takes {relay.resident()[0] // 1024} MB")
    finally:
        ended.set()
        for thread in threads:
            thread.join(3)
        relay.cleanup()


def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384), hard))
    alone("behind", behind)
    alone("burst", burst)
    alone("large", large, MOST_MB, count=2, size=20_000_000, within=5, parameters=" SIZE=20500000")
    alone("lists", lists)
    hog("one address", by_key=False)
    hog("one key", by_key=True)
    verdict.end("waiting")


main()
