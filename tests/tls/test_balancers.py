"""A load balancer in front of the tracking listeners, which names its clients by the PROXY protocol: HAProxy, and by
hand what HAProxy never sends."""

import http.client
import ipaddress
import itertools
import socket

import handshake
import mail
from base import HOST, LINKS, Acme, Files, TlsServer, load_tests  # noqa: F401
from haproxy import Haproxy
from nginx import free_port
from support import succeed, until

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
numbers = itertools.count(1)


def header(client, command=1):
    """A PROXY v2 header of a TCP client by its address; None for one that gives none."""
    if client is None:
        return SIGNATURE + bytes([0x20 | command, 0, 0, 0])
    address = ipaddress.ip_address(client)
    both = address.packed * 2 + (40000).to_bytes(2) + (443).to_bytes(2)
    return SIGNATURE + bytes([0x20 | command, 0x11 if address.version == 4 else 0x21]) + len(both).to_bytes(2) + both


def agent():
    """One that no other hit has, so that its hit is found by it."""
    return f"Mozilla/5.0 (balanced {next(numbers)})"


def recorded(server, agent):
    """The client's address in the record of the hit with this agent, which must be there once. The log has it before
    the agent and its length: 0 or 1, and the four or sixteen octets."""
    text = bytes([len(agent)]) + agent.encode()

    def seen():
        return [before for log in (server.data / "log").glob("*.log") for before in log.read_bytes().split(text)[:-1]]

    (before,) = until(f"the hit of {agent}", seen, 10)
    # The longer one first: what stands before an IPv4 address is text and a time, and is no 1 there.
    for kind, octets in ((1, 16), (0, 4)):
        if before[-octets - 1] == kind:
            return str(ipaddress.ip_address(before[-octets:]))
    raise AssertionError(before[-20:])


class Balanced(Acme):
    """All comes through HAProxy, the CA's challenge too: the relay's listeners are at `inner`."""

    def setUp(self):
        super().setUp()
        self.inner = free_port(), free_port()

    def serve(self, settings, clock=False, environment=None):
        http, https = ([f"127.0.0.1:{port}"] for port in self.inner)
        tracking = {"http": http, "https": https, "proxy_protocol": ["127.0.0.1"]}
        settings = settings | {"tracking": settings.get("tracking", {}) | tracking}
        server = super().serve(settings, clock, environment, lambda *given: TlsServer(*given[:-1], self.inner))
        self.balancer = Haproxy(self.folder / "haproxy", (self.plain, self.inner[0]), (self.secure, self.inner[1]))
        self.addCleanup(self.balancer.stop)
        return server

    def curl(self, url, port, client, agent, *options):
        return succeed("curl", "--silent", "--show-error", "--max-time", 20, "--noproxy", "*", "--cacert", self.root,
                       "--resolve", f"{HOST}:{port}:127.0.0.1", "--interface", client, "--user-agent", agent,
                       "--output", "/dev/null", "--write-out", "%{http_version} %{http_code} %{redirect_url}",
                       *options, url)

    def test_a_certificate_comes_and_hits_have_their_client(self):
        server = self.begin()
        domain = self.obtained(server)
        self.assertEqual(domain["status"], "verified")
        sent = mail.send(server, self.smarthost, "example.com")
        self.assertTrue(sent.link.startswith(f"https://{HOST}:{self.secure}/c/"), sent.link)
        plain = sent.link.replace(f"https://{HOST}:{self.secure}", f"http://{HOST}:{self.plain}")
        for client, url, port, *options in (
            ("127.0.0.71", sent.link, self.secure, "--http2"),
            ("127.0.0.72", sent.link, self.secure, "--http1.1"),
            ("127.0.0.73", plain, self.plain),
        ):
            with self.subTest(client):
                version = "2" if "--http2" in options else "1.1"
                own = agent()
                self.assertEqual(self.curl(url, port, client, own, *options), f"{version} 302 {mail.PAGE}")
                self.assertEqual(recorded(server, own), client)
        self.assertEqual(handshake.alert(self.secure, "links.example.org"), handshake.REFUSED)
        # It has looked all the while, ten times a second, and always found the relay.
        self.assertNotIn("DOWN", self.balancer.told())


class ByHand(Files):
    """On both kinds of listeners; 127.0.0.1 is a balancer, 127.0.0.9 is none."""

    def begin(self, balancer="127.0.0.1", trusted=()):
        self.put(HOST)
        self.dns.zone("example.com", LINKS)
        server = self.files({"tracking": {"proxy_protocol": [balancer], "trusted_proxies": list(trusted)}})
        self.verified(server)
        self.link = mail.send(server, self.smarthost, "example.com").link
        return server

    def ask(self, begin, secure, agent="x", headers=(), source="127.0.0.1"):
        """What comes in answer to a click on a connection that begins so; None where it is closed without one."""
        port = self.secure if secure else self.plain
        _, _, path = handshake.split(self.link)
        lines = [f"GET {path} HTTP/1.1", f"Host: {HOST}", f"User-Agent: {agent}", "Connection: close", *headers]
        try:
            with socket.create_connection(("127.0.0.1", port), handshake.TIMEOUT, (source, 0)) as plain:
                plain.sendall(begin)
                opened = handshake.trusting(self.root).wrap_socket(plain, server_hostname=HOST) if secure else plain
                with opened as connection:
                    connection.sendall("\r\n".join([*lines, "", ""]).encode())
                    seen = handshake.read(connection)
                return handshake.parse(seen).status if seen else None
        except OSError:
            return None

    def test_who_the_header_names_is_the_client(self):
        server = self.begin(trusted=("192.0.2.9",))
        forwarded = "X-Forwarded-For: 203.0.113.5"
        for secure in (False, True):
            for client, headers, want in (
                ("192.0.2.7", (), "192.0.2.7"),
                ("2001:db8::7", (), "2001:db8::7"),
                ("::ffff:192.0.2.8", (), "192.0.2.8"),
                ("192.0.2.7", (forwarded,), "192.0.2.7"),
                ("192.0.2.9", (forwarded,), "203.0.113.5"),
            ):
                with self.subTest(client=client, headers=headers, secure=secure):
                    own = agent()
                    self.assertEqual(self.ask(header(client), secure, own, headers), 302)
                    self.assertEqual(recorded(server, own), want)
            for begin in (header(None, 0), header("192.0.2.7", 0), header(None)):
                with self.subTest(begin=begin, secure=secure):
                    own = agent()
                    self.assertEqual(self.ask(begin, secure, own), 302)
                    self.assertEqual(recorded(server, own), "127.0.0.1", "the connection's own")

    def test_nobody_comes_in_without_one(self):
        self.begin()
        version_1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 443\r\n"
        cut, long = header("192.0.2.7")[:13], SIGNATURE + b"\x21\x11\xff\xff"
        for secure in (False, True):
            self.assertEqual(self.ask(header("192.0.2.7"), secure), 302)
            for begin in (b"", version_1, cut, long, header("192.0.2.7", 2)):
                with self.subTest(begin=begin, secure=secure):
                    self.assertIsNone(self.ask(begin, secure))

    def test_nor_with_one_from_somewhere_else(self):
        self.begin()
        for begin in (b"", header("192.0.2.7")):
            # What was not read may take the answer with it.
            self.assertIn(self.ask(begin, False, source="127.0.0.9"), (403, None))
            self.assertIsNone(self.ask(begin, True, source="127.0.0.9"))
        connection = http.client.HTTPConnection("127.0.0.1", self.plain, 20, ("127.0.0.9", 0))
        self.addCleanup(connection.close)
        connection.connect()
        self.assertEqual(handshake.parse(handshake.read(connection.sock)).status, 403)

    def test_who_sends_none_is_not_waited_for(self):
        self.begin()
        for port in (self.plain, self.secure):
            with socket.create_connection(("127.0.0.1", port), 20) as silent:
                silent.sendall(SIGNATURE)
                self.assertEqual(silent.recv(1), b"")
