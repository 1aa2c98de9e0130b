"""Listeners for both families on one port, as docs/tls.md has them."""

import http.client

import paths  # noqa: F401
import handshake
import mail
import nginx
from base import HOST, LINKS, TARGET, Files, load_tests  # noqa: F401


class Wildcards(Files):
    def test_both_families_on_one_port(self):
        plain, secure = nginx.free_port(), nginx.free_port()
        self.put(HOST)
        self.put(TARGET)
        self.dns.zone("example.com", LINKS)
        both = {"http": [f"127.0.0.1:{self.plain}", f"0.0.0.0:{plain}", f"[::]:{plain}"],
                "https": [f"127.0.0.1:{self.secure}", f"[::]:{secure}", f"0.0.0.0:{secure}"], "link_port": secure}
        server = self.files({"tracking": both})
        self.verified(server)
        sent = mail.send(server, self.smarthost, "example.com")
        _, _, path = handshake.split(sent.link)
        for address in ("127.0.0.1", "::1"):
            with self.subTest(address):
                self.assertEqual(handshake.click(sent.link, self.root, address).location, mail.PAGE)
                connection = http.client.HTTPConnection(address, plain, timeout=10)
                connection.request("GET", path, headers={"Host": HOST, "User-Agent": handshake.AGENT})
                self.assertEqual(connection.getresponse().headers["Location"], mail.PAGE)
                connection.close()
