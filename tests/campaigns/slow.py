#!/usr/bin/env python3
"""Slow clients: gone in time, and others do not feel them.

    tests/campaign slow

SMTP    500 sessions from several addresses send one byte every 10 s: a third of them in a command that never ends, a
        third in a message, a third in commands that do end but move no mail. With nothing set, all must be gone about
        a minute after they began. Meanwhile the 99th percentile of a usual session, connect to 250, stays within
        twice of what it is without them.
HTTP    slowhttptest against the tracking host: slow headers, slow bodies, slow reading, 500 connections each. The host
        answers others within a second all the time, and the slow ones are gone before the test ends.

Prints a line for each kind and a verdict; exits 1 if anything is wrong.
"""
import http.client, os, shutil, socket, subprocess, sys, tempfile, threading, time
from common import DOMAIN, Client, Relay, Sink, Verdict, letter

BINARY = sys.argv[1]
SESSIONS, EVERY = 500, 10
# The limit, and the byte at which it may be noticed.
GONE = 60 + EVERY + 2
# The time without a request (75 s) is the longest there is, then that for the writing to end.
HTTP_GONE = 75 + 30 + 5
KINDS = {
    "command": (b"", b"MAIL FROM:<" + b"a" * 2000),
    "data": (b"EHLO a.example.com\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n", b"a" * 2000),
    # NOOP, a byte at a time, so that the next command always comes in the end.
    "idle": (b"EHLO a.example.com\r\n", b"NOOP\r\n" * 400),
}
verdict = Verdict()


def usual(port, seconds):
    """Sessions of a usual client; their times in milliseconds, sorted."""
    took, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        with Client(port) as client:
            reply = client.send("usual", letter("usual", 10_000))
        took.append((time.monotonic() - began) * 1000)
        verdict.expect(reply.startswith("250"), f"a usual client gets {reply}")
        # Spread over the time, so that it is not the client that is measured.
        time.sleep(0.01)
    return sorted(took)


def p99(took):
    return took[int(len(took) * 0.99)]


class Slow:
    """Sessions that send a byte every ten seconds, on one thread."""

    def __init__(self, port):
        self.began, self.open, self.closed = time.monotonic(), [], {}
        for number in range(SESSIONS):
            kind = list(KINDS)[number % len(KINDS)]
            first, rest = KINDS[kind]
            connection = socket.create_connection(("127.0.0.1", port), 10, (f"127.0.2.{number % 10 + 1}", 0))
            connection.recv(200)
            for line in first.splitlines(keepends=True):
                connection.sendall(line)
                connection.recv(1000)
            connection.setblocking(False)
            self.open.append([connection, kind, rest, 0, self.began + EVERY * number / SESSIONS])
        threading.Thread(target=self.work, daemon=True).start()

    def work(self):
        while self.open:
            now, left = time.monotonic(), []
            for session in self.open:
                connection, kind, rest, at, due = session
                if self.ended(connection):
                    self.closed.setdefault(kind, []).append(now - self.began)
                    connection.close()
                    continue
                if now >= due:
                    try:
                        connection.send(rest[at:at + 1])
                    except OSError:
                        pass
                    session[3:] = at + 1, due + EVERY
                left.append(session)
            self.open = left
            time.sleep(0.1)

    @staticmethod
    def ended(connection):
        try:
            while data := connection.recv(1000):
                pass
            return data == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


def smtp(relay):
    usual(relay.smtp, 1)
    alone = usual(relay.smtp, 10)
    slow = Slow(relay.smtp)
    beside = usual(relay.smtp, 20)
    verdict.expect(p99(beside) <= max(2 * p99(alone), 5), f"p99 {p99(alone):.1f} ms becomes {p99(beside):.1f} ms")
    while slow.open and time.monotonic() < slow.began + GONE:
        time.sleep(0.2)
    left = {kind: sum(session[1] == kind for session in slow.open) for kind in KINDS}
    for kind in KINDS:
        ended = slow.closed.get(kind, [])
        print(f"SMTP, {kind}: {len(ended)} ended, from {min(ended, default=0):.0f} to {max(ended, default=0):.0f} s "
              f"after they began, {left[kind]} not within {GONE} s", flush=True)
        verdict.expect(not left[kind], f"{left[kind]} sessions that are slow in a {kind} are still there")
    print(f"SMTP: p99 of a usual session {p99(alone):.1f} ms alone ({len(alone)}), {p99(beside):.1f} ms beside "
          f"{SESSIONS} slow ones ({len(beside)})", flush=True)


def http_time(port):
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/robots.txt", headers={"Host": f"links.{DOMAIN}"})
        status = connection.getresponse().status
    except OSError as error:
        status = repr(error)
    connection.close()
    return (time.monotonic() - began) * 1000, status


def web(relay):
    relay.add_domain()
    folder = tempfile.mkdtemp(prefix="trackpost-slow-")
    kinds = {
        "headers": ["-H", "-i", "10", "-x", "24"],
        "bodies": ["-B", "-i", "10", "-s", "8192", "-x", "10"],
        "reading": ["-X", "-w", "10", "-y", "20", "-n", "5", "-z", "8", "-k", "5"],
    }
    for kind, words in kinds.items():
        before, began = relay.sockets(), time.monotonic()
        test = subprocess.Popen(["slowhttptest", *words, "-c", str(SESSIONS), "-r", "250", "-l", "150", "-p", "3", "-u",
                                 f"http://127.0.0.1:{relay.web}/robots.txt"], cwd=folder, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)
        times, bad, most = [], set(), 0
        # What the client has not read yet may lie in the kernel for as long as it likes; the relay has let go of it.
        while time.monotonic() < began + HTTP_GONE:
            took, status = http_time(relay.web)
            times.append(took)
            if status != 200:
                bad.add(status)
            held = relay.sockets() - before
            most = max(most, held)
            if held <= 1 and time.monotonic() > began + 5:
                break
            time.sleep(0.05)
        test.terminate()
        test.wait()
        took = time.monotonic() - began
        verdict.expect(not bad, f"HTTP, slow {kind}: others get {bad}")
        verdict.expect(max(times) < 1000, f"HTTP, slow {kind}: another waited {max(times):.0f} ms")
        # A body is not waited for: there is no page that takes one.
        verdict.expect(most > SESSIONS // 4 or kind == "bodies", f"HTTP, slow {kind}: only {most} at a time")
        verdict.expect(held <= 1, f"HTTP, slow {kind}: {held} connections are still there")
        print(f"HTTP, slow {kind}: {most} at a time, none left after {took:.0f} s; others ({len(times)}) were answered "
              f"in {max(times):.1f} ms at most", flush=True)
    shutil.rmtree(folder)


def main():
    # In memory where there is some: a busy disk would be measured instead.
    folder = tempfile.mkdtemp(prefix="trackpost-slow-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    relay = Relay(BINARY, Sink().port, data=os.path.join(folder, "data"))
    relay.start()
    try:
        smtp(relay)
        web(relay)
        verdict.expect(relay.lives() and not relay.panics(), f"it ended, or panicked: {relay.panics()[:1]}")
    finally:
        relay.cleanup()
        shutil.rmtree(folder)
    verdict.end("slow")


main()
