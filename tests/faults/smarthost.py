"""A smarthost that goes wrong as it is told, and keeps what it took.

A script is data: what is offered after EHLO, whether there is TLS, and for each stage of a session what is done there
instead of the right thing. Stages: connect, banner, ehlo, starttls, handshake, auth, mail, rcpt, data, body (after the
first line of the message), dot, rset, quit. What is done is one step or a list of them:

    "250 2.0.0 Ok"       a reply; with LF in it, several lines in one write
    b"250 Ok\r\n"        these bytes
    RIGHT                what would have been said
    HANG                 silence until the other side hangs up
    DEAF                 the same without reading
    CLOSE, RESET         the end of the connection, by FIN or by RST
    Pause, Drip, Flood   see there

or a function that is given the session and gives one of these, or None for the right thing. A reply of class 2 to MAIL
and RCPT, or 3 to DATA, has the session go on as if it were the right one. The script may be changed while sessions
are open; they follow the new one from their next stage on, and those that hang do not.

Nothing is judged here: `copies` has every message that was read to its dot, with the reply that it got.
"""

import base64
import collections
import dataclasses
import email.parser
import select
import socket
import ssl
import struct
import threading

RIGHT, HANG, DEAF, CLOSE, RESET = "<right>", "<hang>", "<deaf>", "<close>", "<reset>"
OFFER = ("PIPELINING", "SIZE 50000000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")


@dataclasses.dataclass(frozen=True)
class Pause:
    seconds: float


@dataclasses.dataclass(frozen=True)
class Drip:
    """A reply, or RIGHT, one byte at a time in a segment of its own."""

    text: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class Flood:
    """So many bytes: this piece again and again."""

    piece: bytes
    size: int


@dataclasses.dataclass(frozen=True)
class Script:
    do: dict = dataclasses.field(default_factory=dict)
    offer: tuple = OFFER
    # With a context STARTTLS is offered, or, where `implicit`, TLS spoken from the first byte.
    tls: ssl.SSLContext | None = None
    implicit: bool = False
    # What the socket takes without being read, where that matters.
    buffer: int | None = None


@dataclasses.dataclass
class Copy:
    """One message that was read to its dot. `reply` is None where none was given."""

    sender: str
    recipients: list
    message: bytes
    encrypted: bool
    reply: str | None = None

    @property
    def taken(self):
        return self.reply is not None and self.reply.startswith("2")

    @property
    def message_id(self):
        return email.parser.BytesHeaderParser().parsebytes(self.message)["Message-ID"]


class Over(Exception):
    """The session has ended."""


class Smarthost:
    def __init__(self, script=Script()):
        self.script = script
        self.lock = threading.Lock()
        self.copies = []
        # How often each scripted stage was come to, how often anything connected, what AUTH brought, how much of a
        # flood was got rid of.
        self.met, self.connections, self.logins, self.flooded = {}, 0, [], 0
        self.closing = threading.Event()
        self.listener = None
        self.port = 0
        self.listen()

    def listen(self):
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        if self.script.buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.script.buffer)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def deafen(self):
        """Refuses connections from now on, until `listen`."""
        # A thread in accept() holds the socket open beyond close().
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def stop(self):
        self.closing.set()
        self.deafen()

    def accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections += 1
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = Session(self, connection)
        try:
            session.run()
        except (OSError, ValueError, Over):
            pass
        finally:
            session.socket.close()

    def count(self, stage):
        with self.lock:
            self.met[stage] = self.met.get(stage, 0) + 1


class Session:
    def __init__(self, smarthost, connection):
        self.smarthost, self.socket, self.encrypted = smarthost, connection, False
        # What was read: whole lines, and what is behind the last of them.
        self.lines, self.rest = collections.deque(), b""
        self.forget()

    def forget(self):
        self.sender, self.recipients, self.recipient, self.copy = None, [], None, None

    @property
    def script(self):
        return self.smarthost.script

    def run(self):
        self.stage("connect", None)
        if self.script.implicit:
            self.handshake()
        self.stage("banner", "220 mx.example.net ESMTP")
        while True:
            self.command(self.line().rstrip(b"\r\n").decode("utf-8", "replace"))

    def command(self, line):
        verb, _, rest = line.partition(" ")
        match verb.upper():
            case "EHLO":
                offer = self.script.offer
                if self.script.tls and not self.encrypted:
                    offer += ("STARTTLS",)
                *lines, last = "mx.example.net", *offer
                self.stage("ehlo", "".join(f"250-{word}\n" for word in lines) + f"250 {last}")
                self.forget()
            case "HELO":
                self.stage("helo", "250 mx.example.net")
                self.forget()
            case "STARTTLS":
                if self.stage("starttls", "220 2.0.0 Go ahead") == "2":
                    self.handshake()
            case "AUTH":
                self.authenticate(rest)
            case "MAIL":
                self.sender = line
                if self.stage("mail", "250 2.1.0 Ok") != "2":
                    self.sender = None
            case "RCPT" if self.sender is not None:
                self.recipient = rest.partition("<")[2].partition(">")[0]
                if self.stage("rcpt", "250 2.1.5 Ok") == "2":
                    self.recipients.append(self.recipient)
            case "DATA" if self.sender is not None:
                right = "354 Go on" if self.recipients else "554 5.5.1 No valid recipients"
                if self.stage("data", right) == "3":
                    self.message()
            case "RCPT" | "DATA":
                self.say("503 5.5.1 Send MAIL first")
            case "RSET":
                self.forget()
                self.stage("rset", "250 2.0.0 Ok")
            case "QUIT":
                self.stage("quit", "221 2.0.0 Bye")
                raise Over
            case _:
                self.say("500 5.5.2 What?")

    def message(self):
        lines = []
        while (line := self.line()) != b".\r\n":
            lines.append(line[1:] if line.startswith(b".") else line)
            if len(lines) == 1:
                self.stage("body", None)
        self.copy = Copy(self.sender, self.recipients, b"".join(lines), self.encrypted)
        with self.smarthost.lock:
            self.smarthost.copies.append(self.copy)
        self.stage("dot", "250 2.0.0 Ok: taken")
        self.forget()

    def authenticate(self, argument):
        mechanism, _, initial = argument.partition(" ")
        if mechanism.upper() == "PLAIN":
            self.note_login(base64.b64decode(initial).decode().split("\0")[1:])
        else:
            self.note_login([self.ask("Username:"), self.ask("Password:")])
        self.stage("auth", "235 2.7.0 Ok")

    def ask(self, prompt):
        self.say("334 " + base64.b64encode(prompt.encode()).decode())
        return base64.b64decode(self.line()).decode()

    def note_login(self, login):
        with self.smarthost.lock:
            self.smarthost.logins.append((*login, self.encrypted))

    def handshake(self):
        # What goes wrong here is an answer to the client's hello. Sent before, it would be plaintext behind STARTTLS.
        if not self.rest:
            self.socket.recv(1, socket.MSG_PEEK)
        self.stage("handshake", None)
        # A real server throws away what came before TLS (RFC 3207, section 5).
        self.lines.clear()
        self.rest = b""
        self.socket = self.script.tls.wrap_socket(self.socket, server_side=True)
        self.encrypted = True

    def stage(self, name, right):
        """Does what the script says, or the right thing; gives the class of the last reply."""
        steps = self.script.do.get(name)
        steps = steps(self) if callable(steps) else steps
        if steps is None:
            return self.say(right) if right else None
        self.smarthost.count(name)
        said = None
        for step in steps if isinstance(steps, list) else [steps]:
            said = self.step(step, right) or said
        return said

    def step(self, step, right):
        match step:
            case Pause(seconds):
                self.smarthost.closing.wait(seconds)
            case Drip(text, seconds):
                text = right if text == RIGHT else text
                for byte in wire(text):
                    self.socket.sendall(bytes([byte]))
                    if self.smarthost.closing.wait(seconds):
                        raise Over
                return self.said(text)
            case Flood(piece, size):
                block = piece * max(1, 65536 // len(piece))
                for _ in range(size // len(block)):
                    self.socket.sendall(block)
                    with self.smarthost.lock:
                        self.smarthost.flooded += len(block)
            case bytes():
                self.socket.sendall(step)
                return self.said(step.decode("latin-1")) if step.endswith(b"\n") else None
            case _ if step == RIGHT:
                return self.say(right)
            case _ if step in (HANG, DEAF):
                self.hang(deaf=step == DEAF)
            case _ if step == RESET:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                raise Over
            case _ if step == CLOSE:
                raise Over
            case _:
                return self.say(step)

    def say(self, text):
        # Noted first: whoever sees the relay act on it finds it here.
        said = self.said(text)
        self.socket.sendall(wire(text))
        return said

    def said(self, reply):
        if self.copy and self.copy.reply is None:
            self.copy.reply = reply
        return reply[:1]

    def hang(self, deaf):
        """Until the other side has hung up, or this smarthost stops; one that does not read never learns the first,
        so it gives up when the script has changed."""
        watch, script = select.poll(), self.script
        watch.register(self.socket.fileno(), select.POLLRDHUP | (0 if deaf else select.POLLIN))
        while not self.smarthost.closing.is_set() and not (deaf and self.script is not script):
            happened = watch.poll(100)
            if happened and (happened[0][1] & ~select.POLLIN or not self.socket.recv(65536)):
                break
        raise Over

    def line(self):
        while not self.lines:
            received = self.socket.recv(65536)
            if not received:
                raise Over
            *lines, self.rest = (self.rest + received).split(b"\n")
            self.lines.extend(line + b"\n" for line in lines)
        return self.lines.popleft()


def wire(text):
    return text.replace("\n", "\r\n").encode() + b"\r\n"
