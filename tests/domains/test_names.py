"""What DNS may hold at the tracking host: what is right in the end, and what is said about everything that is not."""

import time

import rest
from case import LINKS, Case, side_by_side as load_tests  # noqa: F401
from server import TARGET
from support import until

HOST = "links.example.com"
HOPS = 8

# Zones, by name, with which the host is verified.
RIGHT = {
    "a record": {"example.com": [LINKS]},
    "upper case": {"example.com": ["LINKS CNAME Track.RELAY.example.NET."]},
    "two hops in a zone": {"example.com": [f"links CNAME a\na CNAME {TARGET}."]},
    "many hops": {"example.com": ["links CNAME h1", f"h{HOPS} CNAME {TARGET}.",
                                  *(f"h{n} CNAME h{n + 1}" for n in range(1, HOPS))]},
    "hops over zones": {"example.com": ["links CNAME links.cdn.example.org."],
                        "cdn.example.org": ["links CNAME pool.example.net."],
                        "example.net": [f"pool CNAME {TARGET}."]},
    "a wildcard": {"example.com": [f"* CNAME {TARGET}."]},
    "a zone of its own above": {"example.com": [LINKS, "@ A 192.0.2.1", "@ MX 10 mx", "links.sub A 192.0.2.2"]},
    "a target that leads on": {"example.com": [LINKS], "relay.example.net": ["track CNAME edge", "edge A 192.0.2.9"]},
    "a target without an address": {"example.com": [LINKS], "relay.example.net": []},
}

# Zones with which it is not, and what is said instead, in parts.
WRONG = {
    "another target": (
        {"example.com": ["links CNAME old.example.net."]},
        [f"found CNAME old.example.net, expected {TARGET}"]),
    "a chain to another target": (
        {"example.com": ["links CNAME a.cdn.example.org."], "cdn.example.org": ["a CNAME old.example.net."]},
        ["CNAME", "example", f"expected {TARGET}"]),
    "a target that only begins alike": (
        {"example.com": [f"links CNAME {TARGET}.example.org."]},
        [f"{TARGET}.example.org", f"expected {TARGET}"]),
    "a target written without its last dot": (
        {"example.com": [f"links CNAME {TARGET}"]},
        [f"{TARGET}.example.com", f"expected {TARGET}"]),
    "addresses": (
        {"example.com": ["links A 192.0.2.1", "links A 192.0.2.2"]},
        ["proxied or flattened", "DNS only"]),
    "addresses of IPv6": (
        {"example.com": ["links AAAA 2001:db8::1"]},
        ["proxied or flattened", "DNS only"]),
    "the addresses of the target itself": (
        {"example.com": ["links A 127.0.0.1"]},
        ["proxied or flattened"]),
    "a name that was doubled": (
        {"example.com": [f"links.example.com CNAME {TARGET}."]},
        ["links.example.com.example.com"]),
    "nothing": ({"example.com": []}, []),
    "no zone": ({}, []),
    "other records": ({"example.com": ['links TXT "hello"', "links MX 10 mx"]}, []),
    "names below": ({"example.com": [f"www.links CNAME {TARGET}."]}, []),
    "a loop": ({"example.com": ["links CNAME a", "a CNAME links"]}, []),
    "a loop of one": ({"example.com": ["links CNAME links"]}, []),
    "a loop over zones": (
        {"example.com": ["links CNAME links.example.org."], "example.org": ["links CNAME links.example.com."]}, []),
    "a chain into nothing": ({"example.com": ["links CNAME a", "a CNAME nowhere.example.org."]}, []),
}


class Names(Case):
    """Each row on a relay of its own."""

    def look(self, zones, direct):
        for name, records in zones.items():
            self.dns.zone(name, *records)
        server = self.relay(direct=direct)
        began = time.monotonic()
        domain = rest.verify(server, rest.create(server, "example.com"))
        self.assertLess(time.monotonic() - began, 2, "DNS answers at once")
        return server, domain

    def right(self, zones):
        server, domain = self.look(zones, direct=False)
        self.assertEqual((domain["status"], rest.status(domain)), ("verified", "verified"), domain)
        self.assertNotIn("found", rest.record(domain))
        self.assertEqual(self.tracked(server), HOST)

    def wrong(self, zones, said):
        server, domain = self.look(zones, direct=False)
        self.assertEqual((domain["status"], rest.status(domain)), ("pending", "pending"), domain)
        found = rest.record(domain).get("found", "")
        self.assertTrue(found, domain)
        for part in said:
            self.assertIn(part, found)
        if not any("proxied" in part for part in said):
            self.assertNotIn("proxied", found)
        self.assertIsNone(self.tracked(server))

    def test_an_authoritative_server_may_be_asked_itself(self):
        zones, said = WRONG["a chain to another target"]
        _, domain = self.look(zones, direct=True)
        for part in said:
            self.assertIn(part, rest.record(domain)["found"])

    def test_hops_over_zones_of_an_authoritative_server(self):
        _, domain = self.look(RIGHT["hops over zones"], direct=True)
        self.assertEqual(rest.status(domain), "verified", domain)


def add(name, method, *row):
    setattr(Names, "test_" + name.replace(" ", "_"), lambda self: getattr(self, method)(*row))


for name, zones in RIGHT.items():
    add(f"right {name}", "right", zones)
for name, (zones, said) in WRONG.items():
    add(f"wrong {name}", "wrong", zones, said)


class Levels(Case):
    def test_several_labels(self):
        self.dns.zone("example.com", f"a.b.links CNAME {TARGET}.")
        server = self.relay()
        domain = self.verified(server, subdomain="A.b.Links")
        self.assertEqual(rest.record(domain)["name"], "a.b.links.example.com")
        self.assertEqual(self.tracked(server), "a.b.links.example.com")

    def test_a_sender_domain_below_another(self):
        self.dns.zone("example.com", LINKS)
        self.dns.zone("shop.example.com", "links A 192.0.2.1")
        server = self.relay()
        self.verified(server)
        shop = rest.verify(server, rest.create(server, "shop.example.com"))
        self.assertEqual(rest.status(shop), "pending")
        self.assertEqual(self.tracked(server), HOST)
        self.assertIsNone(self.tracked(server, "shop.example.com"))


class Lifetimes(Case):
    """An answer is believed as long as it says, and no longer (RFC 1035, RFC 2308)."""

    def after(self, first, ttl):
        self.dns.zone("example.com", *first, ttl=ttl)
        server = self.relay()
        domain = rest.verify(server, rest.create(server, "example.com"))
        self.assertEqual(rest.status(domain), "pending")
        self.dns.zone("example.com", LINKS, ttl=ttl)
        return server, domain

    def test_what_was_missing_is_seen_once_its_time_is_over(self):
        server, domain = self.after([], 2)
        time.sleep(2.5)
        self.assertEqual(rest.status(rest.verify(server, domain)), "verified")

    def test_what_was_wrong_is_seen_once_its_time_is_over(self):
        server, domain = self.after(["links CNAME old.example.net."], 2)
        time.sleep(2.5)
        self.assertEqual(rest.status(rest.verify(server, domain)), "verified")

    def test_what_may_not_be_kept_is_not(self):
        server, domain = self.after(["links CNAME old.example.net."], 0)
        self.assertEqual(rest.status(rest.verify(server, domain)), "verified")

    def test_what_may_be_kept_is_not_asked_again_by_itself(self):
        server, domain = self.after(["links CNAME old.example.net."], 300)
        asked = len(self.resolver.asked(HOST))
        self.assertGreater(asked, 0)
        due = rest.record(domain)["next_check_at"]
        domain = until("the second check", lambda: (now := rest.fetch(server, domain))
                       and rest.record(now)["next_check_at"] != due and now, 30)
        self.assertEqual((rest.status(domain), len(self.resolver.asked(HOST))), ("pending", asked))

    def test_who_asks_for_a_check_is_not_told_what_was_kept(self):
        server, domain = self.after(["links CNAME old.example.net."], 300)
        self.assertEqual(rest.status(rest.verify(server, domain)), "verified")
