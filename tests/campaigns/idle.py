#!/usr/bin/env python3
"""Thousands of clients that do nothing: 40 KB of memory for each at most, and a new one is answered within a second.

    tests/campaign idle [COUNT]

COUNT (10,000) idle SMTP sessions that have said EHLO, and then, apart, on a relay of its own, as many idle HTTP
connections that have had one answer. They come from many loopback addresses, as one address may not have so many.
While they are there a new client comes again and again; every connection is then looked at, and none may have been
closed. Memory is the process's resident set, before and after, divided by the count. Exits 1 if anything is wrong.
"""
import http.client, resource, select, socket, sys, time
from common import DOMAIN, Client, Relay, Sink, Verdict, letter

BINARY = sys.argv[1]
COUNT = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
MOST_KB = 40
verdict = Verdict()


def connect(port, number, each):
    """Connections of one address: `each`."""
    source = f"127.0.{3 + number // each // 200}.{number // each % 200 + 1}"
    return socket.create_connection(("127.0.0.1", port), 10, (source, 0))


def answer(connection, end):
    data = b""
    while not data.endswith(end):
        if not (piece := connection.recv(4096)):
            raise EOFError(data)
        data += piece
    return data


def smtp_idle(relay, number):
    connection = connect(relay.smtp, number, 50)
    answer(connection, b"\n")
    connection.sendall(b"EHLO idle.example.com\r\n")
    data = answer(connection, b"\n")
    while data.splitlines()[-1][3:4] != b" ":
        data += answer(connection, b"\n")
    return connection


def smtp_new(relay):
    with Client(relay.smtp) as client:
        return client.send("new", letter("new", 10_000)).startswith("250")


def http_idle(relay, number):
    connection = connect(relay.web, number, 500)
    connection.sendall(f"GET /robots.txt HTTP/1.1\r\nHost: links.{DOMAIN}\r\n\r\n".encode())
    if not connection.recv(4096).startswith(b"HTTP/1.1 200"):
        raise EOFError
    return connection


def http_new(relay):
    connection = http.client.HTTPConnection("127.0.0.1", relay.web, timeout=10)
    connection.request("GET", "/robots.txt", headers={"Host": f"links.{DOMAIN}"})
    status = connection.getresponse().status
    connection.close()
    return status == 200


def run(name, idle, new, hard):
    relay = Relay(BINARY, Sink().port, {"[smtp]": ["max_connections = 12000"]})
    # It begins with the usual soft limit of files, and has to raise it itself.
    relay.start(["prlimit", f"--nofile={min(1024, hard)}:{hard}"])
    try:
        relay.add_domain()
        for _ in range(20):
            new(relay)
        before, _ = relay.resident()
        connections, began = [], time.monotonic()
        try:
            for number in range(COUNT):
                connections.append(idle(relay, number))
        except (OSError, EOFError) as error:
            verdict.expect(False, f"{name}: connection {len(connections) + 1}: {error!r}")
        took = time.monotonic() - began
        after, most = relay.resident()
        waits = []
        for _ in range(50):
            start = time.monotonic()
            try:
                good, error = new(relay), "refused"
            except (OSError, EOFError) as broken:
                good, error = False, repr(broken)
            if not verdict.expect(good, f"{name}: a new client is {error}"):
                break
            waits.append(time.monotonic() - start)
        gone = closed(connections)
        each = (after - before) / max(1, len(connections))
        print(f"{name}: {len(connections)} idle in {took:.1f} s, resident {before} KB before, {after} KB after, "
              f"{most} KB at most, {each:.1f} KB each; a new client waited {max(waits, default=0) * 1000:.0f} ms at "
              f"most; {gone} closed", flush=True)
        verdict.expect(len(connections) == COUNT, f"{name}: only {len(connections)}")
        verdict.expect(each <= MOST_KB, f"{name}: {each:.1f} KB each")
        verdict.expect(max(waits, default=9) < 1, f"{name}: a new client waited {max(waits, default=9):.2f} s")
        verdict.expect(not gone, f"{name}: {gone} were closed")
        for connection in connections:
            connection.close()
        verdict.expect(relay.lives() and not relay.panics(), f"{name}: it ended, or panicked: {relay.panics()[:1]}")
        limits = relay.logged("(?i)(files|descriptors|RLIMIT)")
        print(f"{name}: of its files it says: {limits[0] if limits else 'nothing'}")
    finally:
        relay.cleanup()


def closed(connections):
    poll = select.poll()
    for connection in connections:
        poll.register(connection, select.POLLIN | select.POLLHUP)
    return len(poll.poll(0))


def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < COUNT + 200:
        sys.exit(f"the hard limit of open files is {hard}; {COUNT + 200} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    run("SMTP", smtp_idle, smtp_new, hard)
    run("HTTP", http_idle, http_new, hard)
    verdict.end("idle")


main()
