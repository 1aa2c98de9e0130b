"""What stands between the relay and Pebble: it counts what is asked, and goes wrong as it is told.

Requests are handed on with the Host that they came with, so Pebble writes this address into everything that it links
to, and the relay never speaks to it directly. A fault belongs to one kind of request, see KINDS; it is a function that
is given an Asked and gives an Answer, or None to hang up, or HANG for silence.
"""

import base64
import contextlib
import dataclasses
import http.client
import http.server
import json
import socket
import ssl
import threading
import time

import pebble
from support import until

# By Pebble's paths.
KINDS = {"/dir": "directory", "/nonce-plz": "nonce", "/sign-me-up": "account", "/order-plz": "order",
         "/my-order": "look", "/authZ": "authorization", "/chalZ": "challenge", "/finalize-order": "finalize",
         "/certZ": "certificate"}
HANG = "<hang>"
PASSED = ("Content-Type", "Location", "Link", "Replay-Nonce", "Retry-After", "Cache-Control")


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def refused_nonce(self):
        return self.status == 400 and b"error:badNonce" in self.body


@dataclasses.dataclass
class Asked:
    """A request. `names` are those that it orders, if it does; `answer` is None while, or where, there is none."""

    kind: str
    path: str
    at: float
    names: tuple
    forward: object
    answer: Answer | None = None
    answered_at: float | None = None


def error(status, body=b"<html>Something is wrong</html>", **headers):
    """What a load balancer says."""
    written = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    return lambda _asked: Answer(status, {"Content-Type": "text/html"} | written, body)


def problem(status, kind, detail, **headers):
    """What an ACME server says (RFC 8555, section 6.7)."""
    body = json.dumps({"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail, "status": status}).encode()

    def fault(asked):
        # With a nonce that is good, as the next request needs one.
        nonce = asked.forward().headers.get("Replay-Nonce") if asked.kind == "nonce" else None
        written = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        return Answer(status, {"Content-Type": "application/problem+json"} | written
                      | ({"Replay-Nonce": nonce} if nonce else {}), body)

    return fault


def changed(change):
    """Pebble's answer, with its JSON changed by a function that is given the object."""
    def fault(asked):
        answer = asked.forward()
        if answer.refused_nonce:
            return answer
        body = json.loads(answer.body)
        change(body)
        return dataclasses.replace(answer, body=json.dumps(body).encode())

    return fault


def swapped(asked, body):
    """Pebble's answer with another body."""
    answer = asked.forward()
    return answer if answer.refused_nonce else dataclasses.replace(answer, body=body)


def of(host, fault):
    """The fault for orders of one host alone."""
    return lambda asked: fault(asked) if host in asked.names else asked.forward()


def late(seconds):
    def fault(asked):
        time.sleep(seconds)
        return asked.forward()

    return fault


def silent(_asked):
    return HANG


def hung_up(_asked):
    return None


class Hold:
    """Keeps the answer back, after Pebble has given it, until `release`. `reached` tells when the first one came."""

    def __init__(self):
        self.reached, self.released = threading.Event(), threading.Event()

    def __call__(self, asked):
        answer = asked.forward()
        if not answer.refused_nonce:
            self.reached.set()
            self.released.wait(120)
        return answer

    def release(self):
        self.released.set()

    def wait(self, seconds=30):
        until("a request that is held back", self.reached.is_set, seconds)


class Front:
    """`directory` is the address of the directory, for `[acme]`."""

    def __init__(self, behind):
        self.behind = behind
        self.lock = threading.Lock()
        self.faults, self.asked = {}, []
        self.closing = threading.Event()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        listener = pebble.authority().folder / "listener"
        self.context.load_cert_chain(f"{listener}.pem", f"{listener}.key")
        self.port = 0
        self.listen()
        self.directory = f"https://127.0.0.1:{self.port}{behind.directory}"

    def listen(self):
        """Answers, again where it was deaf."""
        # The port is kept while it is deaf, as nobody else is given one below those of the system.
        server = None
        while server is None:
            server = self.bound(self.port or pebble.free_port())
        self.port, self.server = server.server_address[1], server
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def bound(self, port):
        """None where somebody else took the port since it was seen to be free."""
        try:
            return Server(("127.0.0.1", port), self)
        except OSError:
            if self.port:
                raise
            return None

    def deafen(self):
        """Refuses connections from now on, and ends those that are open, until `listen`."""
        self.server.shutdown()
        self.server.server_close()
        with self.lock:
            still = list(self.server.open)
        for connection in still:
            # One may be over already.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def stop(self):
        self.closing.set()
        self.heal()
        if self.thread.is_alive():
            self.deafen()
        self.thread.join()

    def fail(self, kind, fault):
        """From now on this is done for requests of a kind."""
        if kind not in KINDS.values():
            raise ValueError(kind)
        with self.lock:
            self.faults[kind] = fault

    def heal(self):
        with self.lock:
            for fault in self.faults.values():
                if isinstance(fault, Hold):
                    fault.release()
            self.faults = {}

    def requests(self, kind=None, since=0.0):
        with self.lock:
            return [one for one in self.asked if kind in (None, one.kind) and one.at >= since]

    def orders(self, host=None, since=0.0):
        """Orders that were asked for, those alone that went beyond the nonce."""
        return [one for one in self.requests("order", since)
                if (host is None or host in one.names) and not (one.answer and one.answer.refused_nonce)]

    def at_once(self):
        """How many orders were open at one moment, at most: from their request to their certificate or refusal."""
        steps = []
        for one in self.requests():
            if one.kind == "order" and one.answer and one.answer.status == 201:
                steps.append((one.at, 1))
            elif one.kind == "certificate" and one.answer and one.answer.status == 200:
                steps.append((one.answered_at, -1))
        most = now = 0
        for _, step in sorted(steps):
            now += step
            most = max(most, now)
        return most

    def answer(self, asked):
        with self.lock:
            self.asked.append(asked)
            fault = self.faults.get(asked.kind)
        got = fault(asked) if fault else asked.forward()
        if got is HANG:
            self.closing.wait(180)
            return None
        asked.answer, asked.answered_at = got, time.monotonic()
        return got


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address, front):
        self.front, self.open = front, set()
        super().__init__(address, Handler)

    def finish_request(self, request, client_address):
        """In a thread of its own, so a slow handshake is in nobody's way."""
        request.settimeout(180)
        try:
            with self.front.context.wrap_socket(request, server_side=True) as connection:
                with self.front.lock:
                    self.open.add(connection)
                try:
                    super().finish_request(connection, client_address)
                finally:
                    with self.front.lock:
                        self.open.discard(connection)
        except OSError:
            pass  # The other side is gone, or does not trust us.


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.serve()

    do_HEAD = do_POST = do_GET

    def serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kind = KINDS.get("/" + self.path.strip("/").partition("/")[0], "other")
        front = self.server.front
        answer = front.answer(Asked(kind, self.path, time.monotonic(), ordered(kind, body), lambda: self.forward(body)))
        if answer is None:
            self.close_connection = True
            return
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def forward(self, body):
        context = ssl.create_default_context(cafile=pebble.authority().root)
        connection = http.client.HTTPSConnection(*self.server.front.behind.address, context=context, timeout=30)
        try:
            headers = {name: self.headers[name] for name in ("Host", "Content-Type", "User-Agent", "Accept")
                       if name in self.headers}
            connection.request(self.command, self.path, body or None, headers)
            got = connection.getresponse()
            kept = {name: value for name, value in got.headers.items() if name in PASSED}
            return Answer(got.status, kept, got.read())
        except (OSError, http.client.HTTPException):
            return Answer(502, {"Content-Type": "text/plain"}, b"there is no answer from behind")
        finally:
            connection.close()


def ordered(kind, body):
    """The names in a request for an order, which is signed but not secret."""
    if kind != "order":
        return ()
    payload = json.loads(body)["payload"]
    text = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    return tuple(one["value"] for one in json.loads(text)["identifiers"])
