#!/usr/bin/env python3
"""Messages made to hurt, through the running relay: bounded memory and time, and nothing lost or changed by mistake.

    tests/campaign bombs

Each is sent over SMTP to a domain that is tracked, one after the other, and then all of them at once beside usual mail.
It must be refused with a reply, or arrive: changed where it could be rewritten, else byte for byte as it was sent but
for the Received line. The process's memory may rise to its budgets and 100 MB above what it was at rest, and none may
take more than 5 s of CPU. tests/bombs.rs does the same with the rewriter alone, with the reasons.

Prints a line for each message and a verdict; exits 1 if anything is wrong.
"""
import sys, threading, time
from common import DOMAIN, Client, Relay, Sink, Verdict, letter, within

BINARY = sys.argv[1]
LINK = '<a href="http://a.example/">x</a>'
MIB = 1 << 20
# Messages in memory, on the way in and out: 24 and 72 MiB each; kept hot: 32; the store's cache: 16. See the module
# documentation of inbound, outbound and store.
BUDGET_KB = (2 * (24 + 72) + 32 + 16) * 1024 + 100_000
CPU = 5
verdict = Verdict()


def part(encoding, body):
    return f"Content-Type: text/html\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{body}\r\n"


def html(body):
    return part("8bit", body)


def multi(kind, body):
    return f"Content-Type: multipart/{kind}; boundary=b\r\n\r\n{body}--b--\r\n"


def nested(depth):
    return "".join(f"Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n" for n in range(depth))


def lines(text, width=998):
    """White space does not matter in these: lines that an SMTP client would send."""
    return "\r\n".join(text[at:at + width] for at in range(0, len(text), width))


# Name, message without the first header fields, and whether it may be changed.
BOMBS = [
    ("depth 10,000", lambda: nested(10_000), False),
    ("10^6 parts", lambda: multi("mixed", "--b\r\n\r\n" * 1_000_000), False),
    ("a root for each part", lambda: multi("related", "--b\r\nContent-Type: text/html\r\nContent-ID: <x>\r\n\r\n"
                                           "<title>x\r\n" * 9_000), True),
    ("45 MB of header", lambda: "A: b\r\n" * 7_500_000 + html(LINK), False),
    ("100 MB of header", lambda: "A: b\r\n" * 17_000_000 + html(LINK), False),
    ("a header line of 45 MB", lambda: "A: " + "b" * 45_000_000 + "\r\n" + html(LINK), False),
    ("a header line of 100 MB", lambda: "A: " + "b" * 100_000_000 + "\r\n" + html(LINK), False),
    ("unclosed comments in a field", lambda: f"Content-Type: text/html{'(' * 900_000}\r\n\r\n{LINK}\r\n", True),
    ("10^6 links", lambda: html((LINK + "\r\n") * 1_000_000), False),
    ("10^6 links in parts", lambda: multi("mixed", ("--b\r\n" + html((LINK + "\r\n") * 4_000)) * 250), False),
    ("as many links as fit", lambda: html((LINK + "\r\n") * 200_000), False),
    ("a line of 1 MB", lambda: html("x" * 1_000_000 + LINK), True),
    ("a line of 2 MB with links", lambda: html(LINK * 4_900 + "x" * 2_000_000), True),
    ("700 KB of stray end tags", lambda: html("</p>" * 175_000), True),
    ("end tags of the body", lambda: html("</body>" * 100_000), True),
    ("false ends of the body", lambda: html("<!--</body>-->" * 50_000), True),
    ("open tags", lambda: html("<div><b>" * 60_000), True),
    ("one tag of many attributes", lambda: html(f"<a {'href=http://a.example/ ' * 20_000}>"), True),
    ("many conditional comments", lambda: html(f"<!--[if a]>{LINK}<![endif]-->" * 10_000), False),
    ("a long href", lambda: html(f"<a href='http://a.example/{'ü&amp;' * 80_000}'>"), True),
    ("many hosts to convert", lambda: html(f"<a href='http://{'ü.' * 300}example/'>" * 100), True),
    ("one encoded line", lambda: part("quoted-printable", LINK.replace("=", "=3D") * 4_900), True),
    ("soft breaks alone", lambda: part("quoted-printable", "=\r\n" * 500_000), False),
    ("blanks alone", lambda: part("quoted-printable", " " * 1_000_000), True),
    ("quoted-printable junk", lambda: part("quoted-printable", "=zz=\r\n" * 200_000), False),
    ("base64 in words", lambda: part("base64", lines("YWJj YWJj " * 100_000)), True),
    ("base64 in letters", lambda: part("base64", lines("Y W J j " * 100_000)), False),
    ("base64 junk", lambda: part("base64", lines("=Y?" * 300_000)), False),
    ("charset junk", lambda: ("Content-Type: text/html; charset=gb18030\r\n\r\n<a href=\"http://a.example/".encode()
                              + bytes(n % 128 + 128 for n in range(500_000)) + b"\">\r\n"), True),
    ("an unknown charset", lambda: "Content-Type: text/html; charset=" + "x" * 900 + "\r\n\r\n" + LINK * 1000 + "\r\n",
     True),
    ("45 MB of links too long to keep", lambda: html((f"<a href=\"http://a.example/{'p' * 990}\">x</a>\r\n") * 44_000),
     False),
]


def message(make, ident):
    text = make()
    head = f"From: News <news@{DOMAIN}>\r\nTo: {ident}@example.net\r\nMessage-ID: <{ident}@{DOMAIN}>\r\n".encode()
    return head + (text if isinstance(text, bytes) else text.encode())


def send(port, ident, data, declared=True):
    try:
        with Client(port, timeout=120) as client:
            return client.send(ident, data, f" SIZE={len(data)}" if declared else "")
    except (OSError, EOFError) as error:
        return repr(error)


def without_received(data):
    """The relay's own first field taken off."""
    if not data.startswith(b"Received: "):
        return None
    end = data.index(b"\r\n")
    while data[end + 2:end + 3] in (b" ", b"\t"):
        end = data.index(b"\r\n", end + 2)
    return data[end + 2:]


def judge(name, reply, sink, ident, data, may_change):
    """What became of it, in a word."""
    if not reply.startswith("250"):
        verdict.expect(reply[:1] in "45", f"{name}: no reply, but {reply}")
        return f"refused: {reply[:60]}"
    if not verdict.expect(within(lambda: sink.taken.get(ident), 60), f"{name}: lost"):
        return "lost"
    with sink.lock:
        copies = sink.taken[ident]
    verdict.expect(len(copies) == 1, f"{name}: {len(copies)} copies")
    whole = data if data.endswith(b"\r\n") else data + b"\r\n"
    same = without_received(copies[0]) == whole
    verdict.expect(same or may_change, f"{name}: left alone, and yet changed")
    return "as it was" if same else f"rewritten, {len(copies[0])} bytes"


def main():
    sink = Sink(keep=True)
    relay = Relay(BINARY, sink.port)
    relay.start()
    try:
        relay.add_domain()
        for number in range(200):
            send(relay.smtp, f"warm{number}", letter(f"warm{number}", 10_000))
        within(lambda: len(sink.arrived) >= 200, 30)
        rest, _ = relay.resident()
        print(f"at rest: {rest} KB; allowed {BUDGET_KB} KB", flush=True)
        alone(relay, sink)
        together(relay, sink)
        verdict.expect(relay.lives() and not relay.panics(), f"it ended, or panicked: {relay.panics()[:1]}")
    finally:
        relay.cleanup()
    verdict.end("bombs")


def alone(relay, sink):
    for number, (name, make, may_change) in enumerate(BOMBS):
        data, ident = message(make, f"alone{number}"), f"alone{number}"
        cpu, began = relay.cpu_seconds(), time.monotonic()
        reply = send(relay.smtp, ident, data, declared=False)
        became = judge(name, reply, sink, ident, data, may_change)
        if not verdict.expect(relay.lives(), f"{name}: the process ended with {relay.process.poll()}"):
            sys.exit(1)
        took, cpu = time.monotonic() - began, relay.cpu_seconds() - cpu
        now, most = relay.resident()
        print(f"{name}: {len(data)} bytes, {became}; {cpu:.2f} s of CPU, {took:.2f} s, resident {now} KB, most so far "
              f"{most} KB", flush=True)
        verdict.expect(cpu <= CPU, f"{name}: {cpu:.1f} s of CPU")
        verdict.expect(most <= BUDGET_KB, f"{name}: {most} KB")
        sink.taken.pop(ident, None)


def together(relay, sink):
    """All at once, in four lots of threads, beside usual mail."""
    waits, stop, faults, lock = [], threading.Event(), [], threading.Lock()

    def usual():
        while not stop.is_set():
            began = time.monotonic()
            reply = send(relay.smtp, f"usual{len(waits)}", letter("usual", 10_000))
            waits.append(time.monotonic() - began)
            if not reply.startswith("250"):
                faults.append(reply)
            stop.wait(0.05)

    def lot(which):
        for number in which:
            name, make, may_change = BOMBS[number]
            data, ident = message(make, f"together{number}"), f"together{number}"
            reply = send(relay.smtp, ident, data)
            # 452 is what a client hears that found no memory for its message within a minute.
            judge(f"{name}, among others", reply, sink, ident, data, may_change)
            sink.taken.pop(ident, None)

    began, cpu = time.monotonic(), relay.cpu_seconds()
    threads = [threading.Thread(target=lot, args=(range(start, len(BOMBS), 4),)) for start in range(4)]
    side = threading.Thread(target=usual)
    for thread in [*threads, side]:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    side.join()
    _, most = relay.resident()
    verdict.expect(not faults, f"usual mail beside them: {faults[:3]}")
    verdict.expect(most <= BUDGET_KB, f"all at once: {most} KB")
    cpu = relay.cpu_seconds() - cpu
    print(f"all at once: {time.monotonic() - began:.1f} s, {cpu:.1f} s of CPU, at most {most} KB; {len(waits)} usual "
          f"messages beside them, {max(waits):.2f} s at most", flush=True)


main()
