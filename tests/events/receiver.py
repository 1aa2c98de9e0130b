"""Somebody's endpoint for webhooks, over HTTP or HTTPS, that goes wrong as it is told and keeps what it was sent.

What is done with a request goes by its path: a step, or a function that is given the request and how many came there
before, and gives a step. Steps:

    204, 500, …          an answer of this status
    Reply(…)             one with these headers and this body
    Later(seconds, …)    a step after a while
    HANG                 silence until the other side hangs up, or this receiver stops
    CLOSE                the end of the connection once the request was read
    EARLY                the same with nothing read but the head
    ENDLESS              200, and a body without end
    LINES                200, and header lines without end
    DRIP                 the same, a byte at a time
    GARBAGE              what is no HTTP
"""

import dataclasses
import http.server
import json
import select
import socket
import socketserver
import threading
import time

from support import until

HANG, CLOSE, EARLY, ENDLESS = "<hang>", "<close>", "<early>", "<endless>"
LINES, DRIP, GARBAGE = "<lines>", "<drip>", "<garbage>"


@dataclasses.dataclass(frozen=True)
class Reply:
    status: int
    headers: tuple = ()
    body: bytes = b"{}"


@dataclasses.dataclass(frozen=True)
class Later:
    seconds: float
    step: object = 200


@dataclasses.dataclass
class Request:
    """`headers` by their names in small letters. `at` is when it was read, `answered` what status was given to it."""

    path: str
    headers: dict
    body: bytes
    at: float
    answered: int | None = None

    @property
    def id(self):
        return self.headers["svix-id"]

    @property
    def event(self):
        return json.loads(self.body)

    @property
    def kind(self):
        return self.event["type"]

    @property
    def data(self):
        return self.event["data"]


class Receiver(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """`steps` has what is done by path; everything else is answered 200. `flooded` are bytes of endless bodies."""

    daemon_threads, block_on_close, request_queue_size = True, False, 128

    def __init__(self, tls=None):
        self.steps, self.requests, self.lock, self.closing = {}, [], threading.Lock(), threading.Event()
        self.counts, self.flooded, self.connections, self.tls = {}, 0, 0, tls
        super().__init__(("127.0.0.1", 0), Handler)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def url(self, path, host="127.0.0.1"):
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{path}"

    def get_request(self):
        connection, address = super().get_request()
        self.connections += 1
        if self.tls:
            # The handshake is the thread's that serves it.
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request, client_address):
        """The other side may hang up whenever it likes."""

    def got(self, path, *kinds):
        """What came to a path, of these kinds of events where some are named."""
        with self.lock:
            return [one for one in self.requests if one.path == path and (not kinds or one.kind in kinds)]

    def wait(self, path, count, *kinds, **deadline):
        """The first `count` requests at least, once they are there."""
        def told():
            return f"{count} requests at {path}, of which came {[(one.kind, one.id) for one in self.got(path, *kinds)]}"

        return until(told, lambda: len(found := self.got(path, *kinds)) >= count and found, **deadline)

    def stop(self):
        self.closing.set()
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, timeout = "HTTP/1.1", 60

    def log_message(self, *_):
        """Nowhere."""

    def do_GET(self):
        self.do_POST()

    def do_POST(self):
        server, size = self.server, int(self.headers.get("Content-Length", 0))
        with server.lock:
            before = server.counts.get(self.path, 0)
            server.counts[self.path] = before + 1
        step = server.steps.get(self.path, 200)
        if step == EARLY:
            raise ConnectionAbortedError
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.path, headers | {"method": self.command}, self.rfile.read(size), time.time())
        step = step(request, before) if callable(step) else step
        if isinstance(step, Later):
            server.closing.wait(step.seconds)
            step = step.step
        request.answered = step.status if isinstance(step, Reply) else step if isinstance(step, int) else None
        with server.lock:
            server.requests.append(request)
        self.do(step)

    def do(self, step):
        match step:
            case int():
                self.do(Reply(step))
            case Reply(status, headers, body):
                self.send_response(status)
                for name, value in (*headers, ("Content-Length", str(len(body)))):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
            case _ if step == HANG:
                watch = select.poll()
                watch.register(self.connection.fileno(), select.POLLRDHUP)
                while not self.server.closing.is_set() and not watch.poll(100):
                    pass
                raise ConnectionAbortedError
            case _ if step == CLOSE:
                raise ConnectionAbortedError
            case _ if step == ENDLESS:
                self.send_response(200)
                self.end_headers()
                self.flood(b"x" * 8192)
            case _ if step == LINES:
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                self.flood(b"X-Line: %s\r\n" % (b"x" * 1000))
            case _ if step == DRIP:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Line: ")
                self.flood(b"x", 0.1)
            case _ if step == GARBAGE:
                self.wfile.write(b"220 mx.example.net ESMTP\r\n")
                raise ConnectionAbortedError

    def flood(self, piece, pause=0):
        while not self.server.closing.wait(pause):
            self.wfile.write(piece)
            self.server.flooded += len(piece)


class Listener:
    """Counts who connects to a port of loopback, over IPv4 and IPv6, and hangs up."""

    def __init__(self):
        four = socket.create_server(("127.0.0.1", 0))
        self.port, self.connections = four.getsockname()[1], 0
        self.sockets = [four]
        if socket.has_ipv6:
            try:
                self.sockets.append(socket.create_server(("::1", self.port), family=socket.AF_INET6))
            except OSError:
                pass  # A system without IPv6 has nobody who could connect by it.
        for one in self.sockets:
            threading.Thread(target=self.accept, args=(one,), daemon=True).start()

    def accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()

    def stop(self):
        for one in self.sockets:
            one.shutdown(socket.SHUT_RDWR)
            one.close()
