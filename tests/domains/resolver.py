"""A resolver between the relay and the real server, that fails as it is told.

It hands each question on, over the transport that it came by, and the answer back with the flags that a recursive
resolver sets: recursion available, no authority. A fault is a function that is given a Query and gives the bytes to
answer with, or None for silence (over TCP: the end of the connection). It goes by the name, or the name and type, that
is asked for; EVERYTHING is any name.
"""

import dataclasses
import socket
import struct
import threading
import time

import packet
from knot import bound_pair

EVERYTHING = "*"
TIMEOUT = 5


@dataclasses.dataclass(frozen=True)
class Query:
    data: bytes
    tcp: bool
    # Gives the right answer.
    forward: object


@dataclasses.dataclass(frozen=True)
class Question:
    name: str
    kind: str
    tcp: bool
    at: float


def servfail(query):
    return packet.reply(query.data, packet.SERVFAIL, packet.RA)


def refused(query):
    return packet.reply(query.data, packet.REFUSED, packet.RA)


def not_implemented(query):
    return packet.reply(query.data, 4, packet.RA)


def silent(_query):
    return None


def late(seconds):
    """The answer as it is now, given later."""
    def fault(query):
        answer = query.forward()
        time.sleep(seconds)
        return answer

    return fault


def truncated(query):
    """Over UDP the question and nothing else; TCP has all."""
    return query.forward() if query.tcp else packet.reply(query.data, flags=packet.RA | packet.TC)


def truncated_for_good(query):
    """TCP is hung up on."""
    return None if query.tcp else packet.reply(query.data, flags=packet.RA | packet.TC)


def truncated_within(query):
    """Over UDP a part of the truth, of which nothing may be believed; over TCP nothing."""
    name, _ = packet.question(query.data)
    part = packet.record(name, "CNAME", packet.wire("part.example.net"))
    return None if query.tcp else packet.reply(query.data, flags=packet.RA | packet.TC, answers=[part])


def lame(query):
    """A server that knows nothing of the zone points up to the root, with neither authority nor recursion."""
    return packet.reply(query.data, authority=[packet.record(".", "NS", packet.wire("a.root.example.net"), 3600)])


def lame_sideways(query):
    """Or to other servers of the same zone."""
    name, _ = packet.question(query.data)
    server = packet.wire("ns.elsewhere.example.net")
    return packet.reply(query.data, authority=[packet.record(name.partition(".")[2], "NS", server, 3600)])


def malformed(query):
    """Two answers are announced, and what follows is no record."""
    whole = bytearray(packet.reply(query.data, flags=packet.RA))
    struct.pack_into("!H", whole, 6, 2)
    return bytes(whole) + b"\xc0\xff\x00\x05\xff\xff"


def cut_off(query):
    """The right answer, less its end."""
    answer = query.forward()
    return answer[:-(len(answer) - packet.end_of_question(answer)) // 2]


def garbage(query):
    return query.data[:2] + b"\xff" * 40


def wrong_id(query):
    """The answer to some other question, with everything else as it should be."""
    answer = bytearray(query.forward())
    answer[0] ^= 0xFF
    return bytes(answer)


def wrong_question(query):
    """The id is right, the name is not: what a careless forger sends."""
    end = packet.end_of_question(query.data)
    other = query.data[:packet.HEADER.size] + packet.wire("other.example.net") + query.data[end - 4:end]
    return packet.reply(other, flags=packet.RA)


class Resolver:
    """`address` is a (host, port). With `tcp` False nothing listens there on TCP. `asked` has every question."""

    def __init__(self, upstream, tcp=True):
        self.upstream = upstream
        self.lock = threading.Lock()
        self.faults, self.questions = {}, []
        self.listener, self.udp = bound_pair()
        self.address = self.udp.getsockname()
        threading.Thread(target=self.serve_udp, daemon=True).start()
        if tcp:
            threading.Thread(target=self.serve_tcp, daemon=True).start()
        else:
            self.listener.close()

    def fail(self, fault, name=EVERYTHING, kind=None):
        """From now on this is done for questions about a name (of one type)."""
        with self.lock:
            self.faults[name.lower(), kind] = fault

    def heal(self, name=EVERYTHING, kind=None):
        with self.lock:
            del self.faults[name.lower(), kind]

    def asked(self, name, kind=None, since=0.0):
        """Questions about a name, since a time of time.monotonic()."""
        with self.lock:
            return [one for one in self.questions
                    if one.name == name.lower() and kind in (None, one.kind) and one.at >= since]

    def stop(self):
        # A thread that waits in a socket holds it open beyond close().
        for one in (self.udp, self.listener):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # Not connected, as UDP never is, or closed before: its thread is woken all the same.
            one.close()

    def serve_udp(self):
        while True:
            try:
                data, client = self.udp.recvfrom(65535)
            except OSError:
                return
            if not data:
                return
            threading.Thread(target=self.answer_udp, args=(data, client), daemon=True).start()

    def answer_udp(self, data, client):
        if answer := self.answer(data, False):
            try:
                self.udp.sendto(answer, client)
            except OSError:
                pass  # Stopped in between.

    def serve_tcp(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(client,), daemon=True).start()

    def talk(self, client):
        with client:
            try:
                while (data := packet.read_tcp(client)) and (answer := self.answer(data, True)):
                    client.sendall(struct.pack("!H", len(answer)) + answer)
            except OSError:
                pass

    def answer(self, data, tcp):
        name, kind = packet.question(data)
        with self.lock:
            self.questions.append(Question(name, kind, tcp, time.monotonic()))
            places = ((name, kind), (name, None), (EVERYTHING, kind), (EVERYTHING, None))
            fault = next((self.faults[place] for place in places if place in self.faults), None)
        query = Query(data, tcp, lambda: self.forward(data, tcp))
        return fault(query) if fault else query.forward()

    def forward(self, data, tcp):
        try:
            answer = (packet.exchange_tcp if tcp else packet.exchange_udp)(self.upstream, data, TIMEOUT)
        except OSError:
            answer = None
        if answer is None:
            return packet.reply(data, packet.SERVFAIL, packet.RA)
        return packet.reflagged(answer, packet.RA, packet.AA)
