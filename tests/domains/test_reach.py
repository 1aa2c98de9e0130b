"""Links in https, with TLS ended by the customer: mail is tracked once we have come back to us over their proxy.

Whatever is in the way is said in `tracking`, and weighs nothing on the records, which are DNS's alone.
"""

import mail
import rest
from case import LINKS, Case, side_by_side as load_tests  # noqa: F401
from nginx import Authority, Nginx, forward, free_port
from server import TARGET
from support import until

HOST = "links.example.com"


class Reach(Case):
    def setUp(self):
        super().setUp()
        self.port = free_port()
        self.authority = Authority(self.folder / "authority")
        self.dns.zone("example.com", LINKS)
        self.proxies = 0

    def begin(self, allow_private=True):
        settings = {"tracking": {"link_scheme": "https", "link_port": self.port},
                    "webhooks": {"allow_private": allow_private}}
        server = self.relay(settings, environment={"SSL_CERT_FILE": str(self.authority.root)})
        return server, rest.create(server, "example.com")

    def proxy(self, location, authority=None, host=HOST):
        self.proxies += 1
        name = f"proxy{self.proxies}"
        proxy = Nginx(self.folder / name, self.port, (authority or self.authority).issue(name, host), location)
        self.addCleanup(proxy.stop)
        return proxy

    def refused(self, server, domain, *said):
        """DNS is right, the rest is not, which is said in words: each of `said`, one of several where it is a tuple."""
        domain = rest.verify(server, domain)
        self.assertEqual((domain["status"], rest.status(domain)), ("verified", "verified"), domain)
        self.assertNotIn("active_tracking_subdomain", domain)
        self.assertIsNone(self.tracked(server))
        words = domain["tracking"].lower()
        for part in said:
            choice = (part,) if isinstance(part, str) else part
            self.assertTrue(any(one in words for one in choice), f"none of {choice}: {domain['tracking']}")

    def comes_back(self, server, domain):
        domain = rest.verify(server, domain)
        self.assertEqual(domain["status"], "verified")
        until(lambda: f"tracking to be on: {rest.fetch(server, domain)['tracking']}",
              lambda: self.tracked(server) == HOST, 10)

    def test_it_comes_back(self):
        server, domain = self.begin()
        self.proxy(forward(server.web))
        domain = rest.verify(server, domain)
        self.assertEqual((domain["status"], domain["active_tracking_subdomain"]), ("verified", "links"), domain)
        sent = mail.send(server, self.smarthost, "example.com")
        self.assertTrue(sent.link.startswith(f"https://{HOST}:{self.port}/c/"), sent.link)

    def test_it_comes_back_with_a_host_that_has_no_port(self):
        server, domain = self.begin()
        self.proxy(forward(server.web, "$host"))
        self.comes_back(server, domain)

    def test_no_proxy_and_then_one(self):
        server, domain = self.begin()
        self.refused(server, domain, HOST, ("connect", "refused", "reach"))
        self.proxy(forward(server.web))
        self.comes_back(server, domain)

    def test_by_itself(self):
        server, domain = self.begin()
        self.refused(server, domain)
        self.proxy(forward(server.web))
        until("tracking to be on", lambda: rest.fetch(server, domain).get("active_tracking_subdomain"), 25)
        self.assertEqual(self.tracked(server), HOST)

    def test_someone_else_behind_the_name(self):
        server, domain = self.begin()
        self.proxy('return 200 "welcome";')
        self.refused(server, domain, HOST)

    def test_someone_who_says_what_was_asked(self):
        """An echo of the path, the arguments and the headers does not show that we are behind it."""
        server, domain = self.begin()
        self.proxy('return 200 "$request_uri $uri $args $host $http_host $http_user_agent $http_accept $request";')
        self.refused(server, domain, HOST)

    def test_an_echo_of_the_last_part(self):
        server, domain = self.begin()
        self.proxy('if ($uri ~ "([^/]+)$") { return 200 $1; } return 404;')
        self.refused(server, domain, HOST)

    def test_a_page_that_is_missing(self):
        server, domain = self.begin()
        self.proxy("return 404;")
        self.refused(server, domain, HOST, "404")

    def test_a_proxy_whose_backend_is_down(self):
        server, domain = self.begin()
        self.proxy(forward(free_port()))
        self.refused(server, domain, HOST, "502")

    def test_another_host_in_front_of_us(self):
        server, domain = self.begin()
        self.proxy(forward(server.web, "other.example.org"))
        self.refused(server, domain, HOST)

    def test_a_redirect_is_not_followed(self):
        server, domain = self.begin()
        self.proxy(f"return 302 http://127.0.0.1:{server.web}$request_uri;")
        self.refused(server, domain, HOST, ("redirect", "302"))

    def test_a_certificate_of_nobody(self):
        server, domain = self.begin()
        self.proxy(forward(server.web), authority=Authority(self.folder / "nobody"))
        self.refused(server, domain, HOST, "certificate")

    def test_a_certificate_for_another_host(self):
        server, domain = self.begin()
        self.proxy(forward(server.web), host="www.example.com")
        self.refused(server, domain, HOST, "certificate")

    def test_a_private_address(self):
        server, domain = self.begin(allow_private=False)
        self.proxy(forward(server.web))
        self.refused(server, domain, "public", "webhooks.allow_private")

    def test_other_addresses_that_are_not_public(self):
        for address in ("10.1.2.3", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1"):
            with self.subTest(address):
                self.dns.zone("relay.example.net", f"track A {address}")
                server, domain = self.once(f"{address.replace('.', '-')}.test")
                self.refused_at(server, domain, "public")

    def once(self, name):
        """A domain on the one relay of a test that goes through several."""
        if not hasattr(self, "server"):
            settings = {"tracking": {"link_scheme": "https", "link_port": self.port}}
            self.server = self.relay(settings, environment={"SSL_CERT_FILE": str(self.authority.root)})
        self.dns.zone(name, LINKS)
        return self.server, rest.create(self.server, name)

    def refused_at(self, server, domain, said):
        domain = rest.verify(server, domain)
        self.assertEqual(domain["status"], "verified")
        self.assertIsNone(self.tracked(server, domain["name"]))
        self.assertIn(said, domain["tracking"])

    def test_addresses_of_ipv6_that_are_not_public(self):
        for address in ("::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"):
            with self.subTest(address):
                self.dns.zone("relay.example.net", f"track AAAA {address}")
                server, domain = self.once(f"a{address.replace(':', '-').replace('.', '-').strip('-')}.test")
                self.refused_at(server, domain, "public")

    def test_a_target_without_an_address(self):
        self.dns.zone("relay.example.net")
        server, domain = self.begin()
        self.refused(server, domain, "address")

    def test_a_change_waits_for_its_way_back_too(self):
        server, domain = self.begin()
        first = self.proxy(forward(server.web))
        self.comes_back(server, domain)
        first.stop()
        self.dns.zone("example.com", LINKS, f"go CNAME {TARGET}.")
        domain = rest.verify(server, rest.update(server, domain, tracking_subdomain="go"))
        self.assertEqual((domain["status"], domain["active_tracking_subdomain"]), ("verified", "links"), domain)
        self.assertEqual(self.tracked(server), HOST)
        self.proxy(forward(server.web), host="go.example.com")
        rest.verify(server, domain)
        until("the new one to be in use", lambda: self.tracked(server) == "go.example.com", 10)

    def test_the_operator_vouches(self):
        server, domain = self.begin()
        server.command("domain", "verify", "example.com", "--force")
        self.assertEqual(self.tracked(server), HOST)


class Plain(Case):
    def test_links_in_http_need_no_way_back(self):
        self.dns.zone("example.com", LINKS)
        self.dns.zone("relay.example.net")
        server = self.relay()
        domain = self.verified(server)
        self.assertEqual(domain["active_tracking_subdomain"], "links")
        self.assertEqual(self.tracked(server), HOST)
