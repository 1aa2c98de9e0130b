"""The customer's own proxy: in front of the plain listener while they are here, in front of `cname_target` for ever
after."""

import json
import pathlib
import re
import signal
import socket
import threading

import handshake
import mail
import rest
from base import HOST, LINKS, TARGET, Acme, certificate, load_tests  # noqa: F401
from case import Case
from nginx import Authority, Nginx, forward, free_port
from support import until

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/tls.md"
CLIENT = "192.0.2.7"


def recipe(section):
    """What the nginx of a section of docs/tls.md says in its location."""
    part = PAGE.read_text().partition(f"\n## {section}\n")[2]
    block = re.search(r"```nginx\n(.*?)```", part, re.S)[1]
    return re.search(r"location / \{\n(.*?)\n    \}", block, re.S)[1]


def events(server, kind="email.clicked"):
    lines = server.attempt("events", "tail", "--json").stdout.splitlines()
    return [event for event in map(json.loads, lines) if event["type"] == kind]


class InFront(Case):
    """TLS is ended by the customer's nginx; the relay has no certificates at all."""

    def setUp(self):
        super().setUp()
        self.port = free_port()
        self.authority = Authority(self.folder / "authority")
        self.root = self.authority.root
        self.dns.zone("example.com", LINKS)

    def begin(self, location, listen=None, http="", trusted=("127.0.0.1",), scheme="https"):
        settings = {"tracking": {"link_scheme": scheme, "link_port": self.port, "trusted_proxies": list(trusted)},
                    "webhooks": {"allow_private": True}}
        server = self.relay(settings, environment={"SSL_CERT_FILE": str(self.root)})
        proxy = Nginx(self.folder / "proxy", self.port, self.authority.issue("proxy", HOST), location(server),
                      listen, http)
        self.addCleanup(proxy.stop)
        return server

    def through(self, server):
        domain = self.verified(server)
        self.assertEqual((certificate(domain)["state"], certificate(domain)["host"]), ("external", HOST))
        until("tracking to be on", lambda: self.tracked(server) == HOST, 10)
        sent = mail.send(server, self.smarthost, "example.com")
        seen = handshake.click(sent.link, self.root)
        self.assertEqual((seen.status, seen.location), (302, mail.PAGE))
        (event,) = until("a click", lambda: events(server))
        self.assertEqual(event["email_id"], sent.id)

    def test_the_recipe_of_the_docs(self):
        """Its upstream is at another port, as the one that it names is taken by whoever runs the tests."""
        server = self.begin(lambda _: recipe("A proxy in front: nginx"), http=f"upstream trackpost {{ server "
                            f"127.0.0.1:{self.upstream()}; keepalive 32; }}")
        self.through(server)

    def upstream(self):
        """Where the relay will listen; a port that is written down before it starts."""
        self.plain = free_port()
        return self.plain

    def relay(self, settings=None, **options):
        if hasattr(self, "plain"):
            settings["tracking"]["http"] = [f"127.0.0.1:{self.plain}"]
        return super().relay(settings, **options)

    def test_with_the_address_of_the_client(self):
        server = self.begin(lambda server: forward(server.web)
                            + "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;")
        self.through(server)

    def test_a_reload_to_https_asks_the_host_at_once(self):
        server = self.begin(lambda server: forward(server.web), scheme="http")
        domain = self.verified(server)
        self.assertEqual((certificate(domain)["state"], self.tracked(server)), ("none", HOST))
        text = server.config.read_text()
        self.assertIn('link_scheme = "http"', text)
        server.config.write_text(text.replace('link_scheme = "http"', 'link_scheme = "https"'))
        server.process.send_signal(signal.SIGHUP)
        until("the reload", lambda: "was reloaded" in server.log(), 10)
        # By itself a look is due in an hour, and the settings are gone through once in a minute.
        until("an answer over https", lambda: rest.fetch(server, domain)["tracking"].endswith(f"by {HOST}"), 10)
        link = mail.send(server, self.smarthost, "example.com").link
        self.assertTrue(link.startswith(f"https://{HOST}:{self.port}/"), link)
        self.assertEqual(handshake.click(link, self.root).location, mail.PAGE)

    def test_with_another_host_and_x_forwarded_host(self):
        server = self.begin(lambda server: forward(server.web, "internal.example.net")
                            + "proxy_set_header X-Forwarded-Host $host;")
        self.through(server)

    def test_with_x_forwarded_host_and_a_port(self):
        server = self.begin(lambda server: forward(server.web, "internal.example.net")
                            + "proxy_set_header X-Forwarded-Host $http_host;")
        self.through(server)

    def test_nobody_is_believed_who_is_not_trusted(self):
        server = self.begin(lambda server: forward(server.web, "internal.example.net")
                            + "proxy_set_header X-Forwarded-Host $host;", trusted=())
        domain = self.verified(server)
        self.assertNotIn("active_tracking_subdomain", domain)
        self.assertIsNone(self.tracked(server))

    def test_behind_a_balancer_that_speaks_proxy(self):
        """A balancer before their nginx says who the client is by the PROXY protocol; nginx hands it on."""
        behind = self.port
        self.port = free_port()
        own = "set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol;"
        server = self.begin(lambda server: forward(server.web) + "proxy_set_header X-Forwarded-For $remote_addr;",
                            listen=f"127.0.0.1:{behind} proxy_protocol", http=own)
        balancer = Balancer(self.port, behind)
        self.addCleanup(balancer.stop)
        self.through(server)


class Balancer:
    """Hands connections on, each with a PROXY header before it that names CLIENT."""

    def __init__(self, port, behind):
        self.behind = behind
        self.listener = socket.create_server(("127.0.0.1", port), backlog=32)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.behind), 10)
            server.sendall(f"PROXY TCP4 {CLIENT} 192.0.2.1 40000 443\r\n".encode())
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self.carry, args=(one, other), daemon=True).start()

    @staticmethod
    def carry(one, other):
        try:
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Left(Acme):
    """A customer has left: their domain is removed, with no grace, and their own nginx stands behind the name.

    Links have a port here, so their nginx has the same one, on another address of this machine.
    """

    theirs = "127.0.0.2"

    def leave(self, location, http=""):
        server = self.begin(settings={"tracking": {"removed_domain_grace": "0"}})
        until("a certificate of the target", lambda: handshake.shaken(self.secure, TARGET, self.root), 15)
        domain = self.obtained(server)
        sent = mail.send(server, self.smarthost, "example.com")
        self.click(sent.link, self.root)
        until("the click", lambda: len(events(server)) == 1)
        self.own = Authority(self.folder / "own")
        proxy = Nginx(self.folder / "proxy", self.secure, self.own.issue("proxy", HOST), location,
                      f"{self.theirs}:{self.secure}", http)
        self.addCleanup(proxy.stop)
        rest.remove(server, domain)
        return server, sent

    def behind(self, sent):
        return handshake.click(sent.link, self.own.root, self.theirs)

    def works(self, server, sent):
        for end in (lambda: None, server.restart):
            end()
            seen = self.behind(sent)
            self.assertEqual((seen.status, seen.location), (302, mail.PAGE))
            self.assertEqual(handshake.click(sent.pixel, self.own.root, self.theirs).status, 200)
            # Without it the link is gone.
            self.assertEqual(mail.follow(server, sent.link.replace("https", "http")), (410, None))
            self.assertEqual(handshake.click(sent.link[:-3] + "AAA", self.own.root, self.theirs).status, 404)
        # Not recorded; another click is, and comes after them.
        self.dns.zone("example.org", LINKS)
        self.obtained(server, "example.org")
        other = mail.send(server, self.smarthost, "example.org")
        self.click(other.link, self.root)
        found = until("another click", lambda: len(events(server)) > 1 and events(server))
        self.assertEqual({event["email_id"] for event in found}, {sent.id, other.id})
        self.assertEqual(len([event for event in found if event["email_id"] == sent.id]), 1)

    def test_the_recipe_of_the_docs(self):
        location = recipe("When a customer leaves")
        self.assertIn(f"https://{TARGET};", location)
        server, sent = self.leave(location, f"upstream {TARGET} {{ server 127.0.0.1:{self.secure}; }}")
        self.works(server, sent)

    def test_with_the_certificate_of_the_target_looked_at(self):
        verify = f"proxy_ssl_verify on; proxy_ssl_trusted_certificate {self.folder}/ca/issued.pem; " \
                 "proxy_ssl_verify_depth 2;"
        location = recipe("When a customer leaves") + verify
        # The file has to be there when nginx starts, which is after Pebble.
        server, sent = self.leave(location, f"upstream {TARGET} {{ server 127.0.0.1:{self.secure}; }}")
        self.works(server, sent)

    def test_over_plain_http(self):
        location = f"proxy_pass http://{TARGET}; proxy_set_header X-Forwarded-Host $http_host;"
        server, sent = self.leave(location, f"upstream {TARGET} {{ server 127.0.0.1:{self.plain}; }}")
        self.works(server, sent)

    def test_without_a_name_in_the_handshake(self):
        """What nginx does unless it is told: it gets an alert, and its client a 502, and nobody a wrong page."""
        location = recipe("When a customer leaves").replace("proxy_ssl_server_name on;", "")
        _, sent = self.leave(location, f"upstream {TARGET} {{ server 127.0.0.1:{self.secure}; }}")
        self.assertEqual(self.behind(sent).status, 502)

    def test_of_another_customer(self):
        """The token is bound to the host; no proxy gets it past that."""
        location = f"proxy_pass https://{TARGET}; proxy_ssl_server_name on; " \
                   "proxy_set_header X-Forwarded-Host links.example.org;"
        _, sent = self.leave(location, f"upstream {TARGET} {{ server 127.0.0.1:{self.secure}; }}")
        self.assertEqual(self.behind(sent).status, 404)
