"""Just enough of DNS messages (RFC 1035) to ask one question, and to change an answer on its way.

Names in questions are never compressed, so everything here reads the header and the first question; what follows is
left as it came, but for the SOA of a short answer, which tells which state of a zone is served.
"""

import secrets
import socket
import struct

TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "TXT": 16, "AAAA": 28, "OPT": 41, "HTTPS": 65, "CAA": 257}
NAMES = {number: name for name, number in TYPES.items()}
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, REFUSED = 0, 1, 2, 3, 5
QR, AA, TC, RD, RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
HEADER = struct.Struct("!6H")


def question(data):
    """(name, type) that a message asks for, the name in small letters and without the last dot."""
    labels, at = [], HEADER.size
    while size := data[at]:
        labels.append(data[at + 1:at + 1 + size].decode("latin-1").lower())
        at += size + 1
    (number,) = struct.unpack_from("!H", data, at + 1)
    return ".".join(labels) or ".", NAMES.get(number, f"TYPE{number}")


def end_of_question(data):
    at = HEADER.size
    while data[at]:
        at += data[at] + 1
    return at + 5


def wire(name):
    labels = [label for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"


def record(name, kind, data, ttl=0):
    """One record of class IN as it stands in a message; `data` is that of its type."""
    return wire(name) + struct.pack("!HHIH", TYPES[kind], 1, ttl, len(data)) + data


def reply(query, code=NOERROR, flags=0, answers=(), authority=()):
    """An answer of our own to a query: its id and question, this code, these records."""
    number, asked = struct.unpack_from("!HH", query)
    end = end_of_question(query)
    header = HEADER.pack(number, QR | (asked & RD) | flags | code, 1, len(answers), len(authority), 0)
    return header + query[HEADER.size:end] + b"".join(answers) + b"".join(authority)


def reflagged(answer, on=0, off=0):
    (flags,) = struct.unpack_from("!H", answer, 2)
    return answer[:2] + struct.pack("!H", flags & ~off | on) + answer[4:]


def serial(address, zone, tcp=False, timeout=0.5):
    """The serial of a zone that a server has, or None where it gives no SOA of exactly this zone."""
    number = secrets.randbelow(1 << 16)
    query = HEADER.pack(number, 0, 1, 0, 0, 0) + wire(zone) + struct.pack("!HH", TYPES["SOA"], 1)
    answer = (exchange_tcp if tcp else exchange_udp)(address, query, timeout)
    got, _, _, count, _, _ = HEADER.unpack_from(answer)
    if got != number or not count:
        return None
    # The owner is the name asked for: a pointer to it, or the root, which is one byte.
    at = len(query) + (2 if answer[len(query)] >= 0xC0 else 1)
    kind, _, _, size = struct.unpack_from("!HHIH", answer, at)
    data = answer[at + 10:at + 10 + size]
    return struct.unpack_from("!I", data, size - 20)[0] if kind == TYPES["SOA"] else None


def exchange_udp(address, query, timeout):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout)
        client.connect(address)
        client.send(query)
        return client.recv(65535)


def exchange_tcp(address, query, timeout):
    with socket.create_connection(address, timeout) as client:
        client.sendall(struct.pack("!H", len(query)) + query)
        return read_tcp(client)


def read_tcp(client):
    """The next message of a TCP connection, or None at its end."""
    head = read(client, 2)
    return head and read(client, struct.unpack("!H", head)[0])


def read(client, size):
    data = b""
    while len(data) < size:
        if not (more := client.recv(size - len(data))):
            return None
        data += more
    return data
