#!/usr/bin/env python3
"""A million messages that wait: what each costs in memory, and whether new ones are taken as fast as at first.

    tests/campaign queued [COUNT] [--down]

COUNT (1,000,000) small messages are sent while the queue is held; or, with `--down`, while nobody listens at the
smarthost, so that each has an outcome and a time, for which it may take 300 bytes more. The resident set and the rate
are shown ten times on the way. At the end all of them may take 400 bytes each, and in a queue that is held the last tenth
is taken at 90 % of the rate of the first at least: with `--down`, noting failed probes takes its share. Then the relay is
killed and starts again with all of them, is asked for a page of the queue, and is measured again. Exits 1 if anything is
wrong.
"""
import multiprocessing, socket, subprocess, sys, time
from common import DOMAIN, Relay, Sink, Verdict

BINARY = sys.argv[1]
DOWN = "--down" in sys.argv
COUNT = next((int(word) for word in sys.argv[2:] if word != "--down"), 1_000_000)
MOST_BYTES = 700 if DOWN else 400
verdict = Verdict()


def message(number):
    return (f"From: News <news@{DOMAIN}>\r\nTo: r{number}@d{number % 500}.example.net\r\n"
            f"Subject: The offer of the week, number {number}\r\nMessage-ID: <{number}.offer@{DOMAIN}>\r\n\r\n"
            "Hello.\r\n.\r\n").encode()


def send(port, numbers):
    """One session, which sends the next message's commands with the end of this one (RFC 2920)."""
    connection = socket.create_connection(("127.0.0.1", port), 60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    replies = connection.makefile("rb")

    def expect(code):
        while (line := replies.readline())[3:4] == b"-":
            pass
        if not line.startswith(code):
            raise RuntimeError(line)

    expect(b"220")
    connection.sendall(b"EHLO campaign.example.com\r\n")
    expect(b"250")
    for number in numbers:
        connection.sendall(f"MAIL FROM:<news@{DOMAIN}>\r\nRCPT TO:<r{number}@d{number % 500}.example.net>\r\n"
                           "DATA\r\n".encode())
        for code in (b"250", b"250", b"354"):
            expect(code)
        connection.sendall(message(number))
        expect(b"250")
    connection.sendall(b"QUIT\r\n")


def batch(port, numbers, sessions=16):
    """All of them over some sessions of some processes; messages a second."""
    began = time.monotonic()
    with multiprocessing.Pool(sessions) as pool:
        pool.starmap(send, [(port, numbers[n::sessions]) for n in range(sessions)])
    return len(numbers) / (time.monotonic() - began)


def command(relay, *words):
    began = time.monotonic()
    ran = subprocess.run([relay.binary, "--config", relay.config, *words], capture_output=True, text=True)
    verdict.expect(ran.returncode == 0, f"{words}: {ran.stderr}")
    return ran.stdout, time.monotonic() - began


def main():
    sink = Sink(down=DOWN)
    relay = Relay(BINARY, sink.port, {"[queue]": ["max_messages = 2000000", 'min_free = "64MiB"']})
    relay.start()
    if not DOWN:
        command(relay, "queue", "hold")
    batch(relay.smtp, range(10_000))
    first, rates, step = relay.resident()[0], [], max(1, (COUNT - 10_000) // 10)
    for n in range(10):
        rates.append(batch(relay.smtp, range(10_000 + n * step, 10_000 + (n + 1) * step)))
        now = relay.resident()[0]
        print(f"{10_000 + (n + 1) * step:>9} queued: {now / 1024:6.0f} MB, {rates[-1]:6.0f} messages a second, "
              f"{(now - first) * 1024 / ((n + 1) * step):5.0f} bytes each", flush=True)
    resident = relay.resident()[0] * 1024
    verdict.expect(resident < MOST_BYTES * max(COUNT, 200_000), f"{resident >> 20} MB resident")
    fastest = max(rates[:2])
    verdict.expect(DOWN or max(rates[-2:]) > 0.9 * fastest, f"{max(rates[-2:]):.0f} a second at the end, {fastest:.0f} at first")
    relay.kill()
    print(f"started again after {relay.start(seconds=120):.1f} s, {relay.resident()[0] / 1024:.0f} MB", flush=True)
    shown, took = command(relay, "queue", "list", "--limit", "50")
    verdict.expect("in the queue" in shown, shown[:200])
    print(f"a page of the queue: {took:.2f} s; {relay.resident()[0] / 1024:.0f} MB")
    verdict.expect(relay.resident()[0] * 1024 < MOST_BYTES * max(COUNT, 200_000), f"{relay.resident()[0] >> 10} MB then")
    relay.cleanup()
    verdict.end(f"{COUNT} queued")


main()
