"""Two clients that hide nothing: one that speaks HTTP/1.1 over a socket, for requests byte by byte, and curl's program.

Both give an Answer, read as it came; what it must hold is contract.py's.
"""

import json
import pathlib
import re
import socket
from dataclasses import dataclass

from ground import DEADLINE
from support import run


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes


class Wire:
    """A connection that is kept while both sides want that, and opened anew where one of them did not."""

    def __init__(self, port):
        self.port, self.socket, self.reader = port, None, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.socket:
            self.reader.close()
            self.socket.close()
        self.socket = None

    def send(self, method, path, headers, body=None, chunked=False):
        """`headers` are lines. A body goes as it is, or in chunks of an odd size."""
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self.port), DEADLINE)
            self.reader = self.socket.makefile("rb")
        head = "\r\n".join([f"{method} {path} HTTP/1.1", *headers, "", ""]).encode()
        try:
            self.socket.sendall(head + (chunks(body) if chunked else body or b""))
        except ConnectionError:
            # A server may answer, and hang up, before it has read everything.
            pass
        answer = read(self.reader)
        if "close" in answer.headers.get("connection", "") or any(
                line.lower() == "connection: close" for line in headers):
            self.close()
        return answer


def call(server, key, method, path, value=None, body=None):
    """A plain request of its own, as most tests want it; `value` is sent as JSON, `body` as it is."""
    headers = [f"Host: 127.0.0.1:{server.port}", "Accept: */*"]
    if key is not None:
        headers.append(f"Authorization: Bearer {key}")
    if value is not None:
        body = json.dumps(value).encode()
    if body is not None:
        headers += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    with Wire(server.port) as wire:
        return wire.send(method, path, headers, body)


def chunks(body, size=17):
    parts = [body[at:at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def read(reader):
    start = reader.readline()
    match = re.match(rb"HTTP/1\.1 (\d{3}) ", start)
    if not match:
        raise AssertionError(f"no answer but {start!r}")
    headers = {}
    while (line := reader.readline().strip()):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    if "chunked" in headers.get("transfer-encoding", ""):
        body = b""
        while size := int(reader.readline(), 16):
            body += reader.read(size)
            reader.readline()
        reader.readline()
    else:
        body = reader.read(int(headers.get("content-length", 0)))
    return Answer(int(match[1]), headers, body)


def curl(base, key, method, path, *options):
    """What curl has after `curl -X METHOD BASE/PATH` with these options."""
    head = ["--disable", "--silent", "--show-error", "--noproxy", "*", "--max-time", str(DEADLINE), "--include"]
    login = ["--header", f"Authorization: Bearer {key}"] if key is not None else []
    ended = run("curl", *head, "--request", method, f"{base}{path}", *login, *options, text=False)
    if ended.returncode:
        raise AssertionError(f"curl: exit {ended.returncode}: {ended.stderr.decode()}")
    output = ended.stdout
    # A body that was announced is asked for first.
    while output.startswith(b"HTTP/1.1 100"):
        output = output.partition(b"\r\n\r\n")[2]
    start, _, rest = output.partition(b"\r\n")
    lines, _, body = rest.partition(b"\r\n\r\n")
    pairs = (line.partition(":") for line in lines.decode("latin-1").split("\r\n"))
    return Answer(int(start.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}, body)


def scratch(folder, name, content):
    path = pathlib.Path(folder) / name
    path.write_bytes(content)
    return path
