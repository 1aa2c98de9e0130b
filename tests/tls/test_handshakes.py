"""What a client may speak on the HTTPS listener, and what it is told where it may not."""

import concurrent.futures
import pathlib
import re
import socket
import ssl
import struct
import time
import unittest

import handshake
import mail
import relay
from base import HOST, LINKS, TARGET, Acme, Files, load_tests  # noqa: F401
from support import folder, run, succeed, until

UNKNOWN = ("other.example.net", "example.com", "www.links.example.com", "links.example.com.evil.example", "127.0.0.1",
           "localhost", "xn--bcher-kva.example", "a" * 63 + ".example.com")
OLD = {"TLS 1.0": ("-tls1",), "TLS 1.1": ("-tls1_1",)}
# By openssl's names; those that OpenSSL 3 does not have at all are not among them.
BAD_CIPHERS = ("AES128-SHA", "AES256-SHA256", "AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES256-SHA384",
               "DHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-NULL-SHA", "NULL-SHA256", "AECDH-NULL-SHA",
               "ADH-AES128-GCM-SHA256")
GOOD_CIPHERS = ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305")
GOOD_SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")


class Listener(Files):
    """With certificates from files, as who gives them changes nothing here."""

    def setUp(self):
        super().setUp()
        self.put(HOST)
        self.put(TARGET)
        self.dns.zone("example.com", LINKS)
        self.server = self.files()

    def sent(self):
        self.verified(self.server)
        sent = mail.send(self.server, self.smarthost, "example.com")
        self.assertEqual(sent.host, HOST)
        return sent


class Names(Listener):
    def test_unknown_names_are_refused(self):
        self.assertIsNone(handshake.alert(self.secure, HOST))
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            for host in (*UNKNOWN, None):
                with self.subTest(host=host, version=version):
                    self.assertEqual(handshake.alert(self.secure, host, version), handshake.REFUSED)

    def test_a_name_that_is_none(self):
        """Written by hand, as clients do not send such."""
        for name in (b"a\0b.example.com", b"links.example.com\0", b"-", b".", b"", b"a b", "bücher.example".encode(),
                     b"\xff\xfe", b"*.example.com", b"links_.example.com", b"a" * 300):
            with self.subTest(name):
                level, _ = first_record(self.secure, hello(name))
                self.assertIn(level, ("alert", "closed"))
        handshake.shake(self.secure, HOST, self.root)

    def test_a_name_with_a_final_dot(self):
        """Not allowed in a handshake (RFC 6066, section 3): served or refused, but nothing else."""
        self.assertIn(handshake.alert(self.secure, f"{HOST}."), (None, handshake.REFUSED, "decode_error",
                                                                "illegal_parameter"))

    def test_the_hello_in_pieces(self):
        data = hello(HOST.encode())
        with socket.create_connection(("127.0.0.1", self.secure), 10) as client:
            for at in range(len(data)):
                client.sendall(data[at:at + 1])
            self.assertEqual(client.recv(1), b"\x16")

    def test_another_host_inside_than_outside(self):
        """The token is what counts: a link of one host is refused under another's name."""
        sent = self.sent()
        _, port, path = handshake.split(sent.link)
        for name, host, status in ((HOST, "other.example.net", (404, 421)), (TARGET, HOST, (302, 421)),
                                   (HOST, HOST, (302,)), (HOST, f"{HOST}:{port}", (302,))):
            with self.subTest(name=name, host=host):
                context = handshake.trusting(self.root)
                with socket.create_connection(("127.0.0.1", port), 10) as plain:
                    with context.wrap_socket(plain, server_hostname=name) as secure:
                        secure.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                        self.assertIn(handshake.parse(handshake.read(secure)).status, status)


class Versions(Listener):
    def test_old_protocols_are_refused(self):
        for name, options in OLD.items():
            with self.subTest(name):
                told, _ = handshake.s_client(self.secure, HOST, *options, "-cipher", "DEFAULT@SECLEVEL=0")
                self.assertRegex(told, "alert (protocol version|handshake failure)")

    def test_new_ones_are_spoken(self):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            shown = handshake.shake(self.secure, HOST, self.root, handshake.trusting(self.root, version=version))
            self.assertEqual(shown.version, {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name])

    def test_bad_ciphers_are_refused(self):
        for cipher in BAD_CIPHERS:
            with self.subTest(cipher):
                told, _ = handshake.s_client(self.secure, HOST, "-tls1_2", "-cipher", f"{cipher}@SECLEVEL=0")
                self.assertRegex(told, "alert handshake failure|alert illegal parameter")

    def test_good_ones_are_taken(self):
        choices = (("-tls1_2", "-cipher", GOOD_CIPHERS), ("-tls1_3", "-ciphersuites", GOOD_SUITES))
        for version, option, choice in choices:
            for cipher in choice:
                with self.subTest(cipher):
                    told, _ = handshake.s_client(self.secure, HOST, version, option, cipher, "-CAfile", self.root,
                                                 "-verify_return_error")
                    self.assertIn(f"Cipher is {cipher}", told)
                    self.assertIn("Verify return code: 0 (ok)", told)

    def test_no_renegotiation_and_no_compression(self):
        told, _ = handshake.s_client(self.secure, HOST, "-tls1_2")
        self.assertIn("Secure Renegotiation IS supported", told)
        self.assertIn("Compression: NONE", told)

    def test_sessions_are_resumed(self):
        file = self.folder / "session"
        for version in ("-tls1_2", "-tls1_3"):
            # With TLS 1.3 tickets come after the handshake, so something has to be read first.
            told = self.said(version, "-sess_out", file)
            self.assertRegex(told, r"\nNew, TLSv1\.[23]")
            told = self.said(version, "-sess_in", file)
            self.assertRegex(told, r"\nReused, TLSv1\.[23]", version)

    def test_sessions_are_resumed_after_a_certificate_was_changed(self):
        file = self.folder / "session"
        shown = handshake.shake(self.secure, HOST, self.root)
        self.said("-tls1_3", "-sess_out", file)
        self.put(HOST)
        until("the new one", lambda: handshake.shake(self.secure, HOST, self.root).serial != shown.serial, 15)
        told = self.said("-tls1_3", "-sess_in", file)
        self.assertRegex(told, r"\nReused, TLSv1\.3")
        self.assertIn("HTTP/1.1 ", told)

    def test_sessions_end_with_the_certificate(self):
        """Who has a session of a host without one is refused as anybody is."""
        file = self.folder / "session"
        self.said("-tls1_3", "-sess_out", file)
        for end in ("key", "pem"):
            (self.certificates / f"{HOST}.{end}").unlink()
        until("it to be gone", lambda: handshake.alert(self.secure, HOST) == handshake.REFUSED, 15)
        told = self.said("-tls1_3", "-sess_in", file)
        self.assertRegex(told, "unrecognized name")
        self.assertNotIn("HTTP/1.1 ", told)

    def test_sessions_end_with_the_server(self):
        """Keys of tickets are in memory alone: after a restart a client begins anew, and is answered."""
        file = self.folder / "session"
        self.said("-tls1_3", "-sess_out", file)
        self.server.restart()
        told = self.said("-tls1_3", "-sess_in", file)
        self.assertRegex(told, r"\nNew, TLSv1\.3")
        self.assertIn("HTTP/1.1 ", told)

    def said(self, *options):
        ended = run("openssl", "s_client", "-connect", f"127.0.0.1:{self.secure}", "-servername", HOST, *options,
                    "-ign_eof", input=f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")
        return ended.stdout + ended.stderr


class Resumption(unittest.TestCase):
    """Of sessions with the listeners for mail and with the API, which have one certificate."""

    def test_sessions_are_resumed(self):
        with folder() as name:
            here = pathlib.Path(name)
            relay.certificate(here)
            files = {"certificate_file": str(here / "relay.pem"), "key_file": str(here / "relay.key")}
            listeners = ({"tls": "starttls"}, {"tls": "implicit"})
            settings = {"smtp": files, "api": files | {"tls": "files"}}
            server = relay.Relay(here / "relay", 25, listeners, settings)
            try:
                (api,) = re.findall(r"API listens.*127\.0\.0\.1:(\d+)", server.log())
                quit, get = "QUIT\r\n", f"GET /healthz HTTP/1.1\r\nHost: {relay.HOST}\r\nConnection: close\r\n\r\n"
                for what, port, options, said in (
                    ("starttls", server.ports[0], ("-starttls", "smtp"), quit),
                    ("implicit", server.ports[1], (), quit),
                    ("api", int(api), (), get),
                ):
                    for version in ("-tls1_2", "-tls1_3"):
                        with self.subTest(what, version=version):
                            self.resumed(port, said, here, version, *options)
            finally:
                server.stop()

    def resumed(self, port, said, here, *options):
        for word, session in (("New", "-sess_out"), ("Reused", "-sess_in")):
            ended = run("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", relay.HOST, "-ign_eof",
                        "-CAfile", here / "root.pem", "-verify_return_error", *options, session, here / "session",
                        input=said, timeout=handshake.TIMEOUT)
            self.assertRegex(ended.stdout, rf"\n{word}, TLSv1\.[23]", ended.stderr)
            self.assertRegex(ended.stdout, r"\n(221 2\.0\.0|HTTP/1\.1 200)")


class Protocols(Listener):
    def test_http_by_alpn(self):
        for offered, taken in ((("h2", "http/1.1"), "h2"), (("http/1.1", "h2"), "h2"), (("http/1.1",), "http/1.1"),
                               (("h2",), "h2"), ((), None)):
            with self.subTest(offered):
                context = handshake.trusting(self.root, offered)
                self.assertEqual(handshake.shake(self.secure, HOST, self.root, context).alpn, taken)
        context = handshake.trusting(self.root, ("spdy/3", "h3"))
        with self.assertRaisesRegex(OSError, "(?i)no.application.protocol"):
            handshake.shake(self.secure, HOST, self.root, context)

    def test_links_by_each(self):
        sent = self.sent()
        self.assertEqual(handshake.curl(sent.link, self.root, "--http2"), ("2", 302, mail.PAGE))
        self.assertEqual(handshake.curl(sent.link, self.root, "--http1.1"), ("1.1", 302, mail.PAGE))
        self.assertEqual(handshake.curl(sent.link, self.root, "--no-alpn"), ("1.1", 302, mail.PAGE))
        self.assertEqual(handshake.curl(sent.link, self.root, "--http2", "--head"), ("2", 302, mail.PAGE))
        self.assertEqual(handshake.curl(sent.link, self.root, "--http2", "--request", "POST")[:2], ("2", 405))
        self.assertEqual(handshake.curl(sent.link[:-3] + "AAA", self.root, "--http2")[:2], ("2", 404))
        self.assertEqual(handshake.curl(sent.pixel, self.root, "--http2")[:2], ("2", 200))

    def test_clicks_are_recorded_by_each(self):
        sent = self.sent()
        handshake.curl(sent.link, self.root, "--http2", "--user-agent", "Mozilla/5.0 (by HTTP/2)")
        handshake.curl(sent.link, self.root, "--http1.1", "--user-agent", "Mozilla/5.0 (by HTTP/1.1)")
        tail = ("events", "tail", "--json")
        until("two clicks", lambda: self.server.attempt(*tail).stdout.count('"email.clicked"') == 2, 15)

    def test_hsts_is_the_tracking_hosts_alone(self):
        sent = self.sent()
        seen = handshake.click(sent.link, self.root)
        value = seen.headers.get("strict-transport-security", "")
        self.assertGreaterEqual(int(re.search(r"max-age=(\d+)", value)[1]), 180 * 24 * 3600)
        # Nothing below it and nobody's list is ours to decide on.
        self.assertNotIn("includesubdomains", value.lower())
        self.assertNotIn("preload", value.lower())
        for link in (sent.pixel, sent.link[:-3] + "AAA", f"https://{HOST}:{self.secure}/robots.txt"):
            self.assertIn("strict-transport-security", handshake.click(link, self.root).headers, link)
        plain = self.plain_headers(sent.link)
        self.assertNotIn("strict-transport-security", plain)

    def plain_headers(self, link):
        _, _, path = handshake.split(link)
        with socket.create_connection(("127.0.0.1", self.plain), 10) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
            seen = handshake.parse(handshake.read(client))
        self.assertEqual(seen.status, 302)
        return seen.headers

    def test_plain_http_on_the_tls_port(self):
        with socket.create_connection(("127.0.0.1", self.secure), 10) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            data = handshake.read(client)
        # An alert, an answer that says what is wrong, or nothing: but an end.
        self.assertTrue(data == b"" or data[0] == 0x15 or data.startswith(b"HTTP/1.1 400"), data)

    def test_streams_are_few(self):
        """SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113, section 6.5.2): a client that reads no answer holds no more."""
        context = handshake.trusting(self.root, ("h2",))
        with socket.create_connection(("127.0.0.1", self.secure), handshake.TIMEOUT) as plain:
            with context.wrap_socket(plain, server_hostname=HOST) as client:
                client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
                data = b""
                while len(data) < 9 or len(data) < 9 + int.from_bytes(data[:3], "big"):
                    data += client.recv(1024) or self.fail(f"no frame: {data}")
        self.assertEqual(data[3], 4, "the first frame has the settings")
        settings = dict(struct.iter_unpack("!HI", data[9:9 + int.from_bytes(data[:3], "big")]))
        self.assertIn(settings.get(3), range(8, 33))

    def test_many_streams_at_once(self):
        sent = self.sent()
        host, port, path = handshake.split(sent.link)
        links = [f"https://{host}:{port}{path}"] * 50
        told = succeed("curl", "--silent", "--show-error", "--parallel", "--http2", "--noproxy", "*", "--cacert",
                       self.root, "--resolve", f"{host}:{port}:127.0.0.1", "--write-out", "%{http_code}\n",
                       *(part for link in links for part in ("--output", "/dev/null", link)))
        self.assertEqual(told.split(), ["302"] * 50)


class Cost(Acme):
    def test_unknown_names_cost_little_and_order_nothing(self):
        server = self.begin()
        self.obtained(server)
        orders, before = len(self.front.orders()), memory(server)
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            ended = list(pool.map(lambda n: first_record(self.secure, hello(b"h%d.example.net" % n)), range(2000)))
        took = time.monotonic() - began
        self.assertEqual({level for level, _ in ended}, {"alert"})
        print(f"2,000 handshakes with unknown names in {took:.1f} s", flush=True)
        self.assertLess(memory(server) - before, 30)
        # An order after them shows that there was time for one.
        self.dns.zone("example.org", LINKS)
        self.obtained(server, "example.org")
        self.assertEqual(len(self.front.orders()), orders + 1)
        self.assertEqual(len([line for line in server.log().splitlines() if "example.net" in line and "h1" in line]), 0,
                         "one line for each stranger fills a disk")


def memory(server):
    """MiB that the relay has now."""
    with open(f"/proc/{server.process.pid}/status") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read())[1]) // 1024


def hello(name):
    """A ClientHello for TLS 1.2 and 1.3 with this name in it, as bytes."""
    def sized(data, size=2):
        return len(data).to_bytes(size, "big") + data

    def extension(number, data):
        return struct.pack("!H", number) + sized(data)

    key = bytes(range(1, 33))
    extensions = b"".join([
        extension(0, sized(b"\0" + sized(name))),
        extension(10, sized(struct.pack("!HH", 0x001D, 0x0017))),
        extension(11, sized(b"\0", 1)),
        extension(13, sized(struct.pack("!3H", 0x0403, 0x0804, 0x0401))),
        extension(43, sized(struct.pack("!HH", 0x0304, 0x0303), 1)),
        extension(51, sized(struct.pack("!H", 0x001D) + sized(key))),
    ])
    body = struct.pack("!H", 0x0303) + bytes(32) + sized(b"", 1) + sized(struct.pack("!4H", 0x1301, 0x1302, 0xC02B,
                                                                                      0xC02F)) + b"\1\0"
    body += sized(extensions)
    return b"\x16\x03\x01" + sized(b"\1" + sized(body, 3))


def first_record(port, data):
    """('alert', its number), ('handshake', None), or ('closed', None): what comes back first."""
    with socket.create_connection(("127.0.0.1", port), handshake.TIMEOUT) as client:
        client.sendall(data)
        try:
            got = client.recv(7)
        except ConnectionError:
            return "closed", None
        return ("closed", None) if not got else ("alert", got[6]) if got[0] == 0x15 else ("handshake", None)
