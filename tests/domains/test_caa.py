"""CAA (RFC 8659): who may issue for a tracking host, asked where certificates are ours to order.

The set that governs a host is its own, with CNAMEs followed, else that of the nearest name above it that has one.
"""

import time

import resolver
import rest
from case import LINKS, Case, side_by_side as load_tests  # noqa: F401
from server import TARGET
from support import until

HOST = "links.example.com"
OURS = "ca.example.net"
VALUE = f'0 issue "{OURS}"'
ACME = {"tracking": {"tls": "acme", "https": ["127.0.0.1:0"]},
        # Nothing listens there: no test here gets as far as an order.
        "acme": {"directory": "https://127.0.0.1:9/directory", "caa_issuer": OURS}}
DENIED = '@ CAA 0 issue "other.example.org"'
TARGETS_ZONE = "relay.example.net"

# Sets at example.com that let our CA issue for links.example.com.
ALLOWED = {
    "ours": [f"@ CAA {VALUE}"],
    "ours and others": [DENIED, f"@ CAA {VALUE}", '@ CAA 0 issue ";"'],
    "upper case": ['@ CAA 0 ISSUE "CA.Example.NET"'],
    "a critical property that is known": [f'@ CAA 128 issue "{OURS}"'],
    "spaces": [f'@ CAA 0 issue " {OURS} "'],
    "a parameter of the CA": [f'@ CAA 0 issue "{OURS}; policy=ev"'],
    # Which account it names is the CA's to see (RFC 8657): ours is not known before there is one.
    "an account": [f'@ CAA 0 issue "{OURS}; accounturi=https://{OURS}/account/1"'],
    "the method that we use": [f'@ CAA 0 issue "{OURS}; validationmethods=dns-01,http-01"'],
    "wildcards alone": ['@ CAA 0 issuewild ";"'],
    "wildcards alone for others": ['@ CAA 0 issuewild "other.example.org"'],
    "reports alone": ['@ CAA 0 iodef "mailto:security@example.com"'],
    "a property that is unknown": ['@ CAA 0 tbs "whatever"'],
    "wildcards denied and ours": [f"@ CAA {VALUE}", '@ CAA 0 issuewild ";"'],
    "no set": [],
    "a set beside": ['www CAA 0 issue ";"'],
    "a set below": ['below.links CAA 0 issue ";"'],
}
# And those that do not.
REFUSED = {
    "others": [DENIED],
    "nobody": ['@ CAA 0 issue ";"'],
    "an empty issuer": ['@ CAA 0 issue ""'],
    "a name that ends alike": [f'@ CAA 0 issue "not{OURS}"'],
    "a name below ours": [f'@ CAA 0 issue "www.{OURS}"'],
    "a value that is no value": ['@ CAA 0 issue "%%%%%"'],
    "ours for wildcards alone": [DENIED, f'@ CAA 0 issuewild "{OURS}"'],
    "a critical property that is unknown": [f"@ CAA {VALUE}", '@ CAA 128 tbs "whatever"'],
    "parameters that are none": [f'@ CAA 0 issue "{OURS}; nonsense"'],
    "a method that we do not use": [f'@ CAA 0 issue "{OURS}; validationmethods=dns-01"'],
}


class Base(Case):
    def acme(self, **options):
        return self.relay(ACME, **options)

    def shown(self, domain):
        """(name, value, status) of the record that is asked of the customer, or None."""
        found = rest.record(domain, kind="TrackingCAA")
        if found is None:
            return None
        self.assertEqual((found["type"], found["ttl"]), ("CAA", "Auto"))
        return found["name"], found["value"], found["status"]


class Sets(Base):
    def allowed(self, records):
        self.dns.zone("example.com", LINKS, *records)
        server = self.acme()
        domain = rest.create(server, "example.com")
        self.assertIsNone(self.shown(domain))
        domain = rest.verify(server, domain)
        self.assertIsNone(self.shown(domain))
        self.assertEqual((domain["status"], rest.status(domain)), ("verified", "verified"))
        self.assertEqual(self.tracked(server), HOST)

    def refused(self, records):
        self.dns.zone("example.com", LINKS, *records)
        server = self.acme()
        domain = rest.create(server, "example.com")
        self.assertEqual(self.shown(domain), ("example.com", VALUE, "not_started"), domain)
        self.assertEqual(domain["status"], "not_started")
        domain = rest.verify(server, domain)
        self.assertEqual(self.shown(domain), ("example.com", VALUE, "pending"), domain)
        self.assertEqual(rest.status(domain), "verified")
        self.assertNotEqual(domain["status"], "verified")

        self.dns.zone("example.com", LINKS, *records, f"@ CAA {VALUE}")
        healed = rest.verify(server, domain)
        if "128 tbs" in str(records):
            self.assertEqual(self.shown(healed)[2], "pending", "one that must be understood still is not")
            return
        self.assertEqual(self.shown(healed), ("example.com", VALUE, "verified"), healed)
        self.assertEqual(healed["status"], "verified")
        self.assertEqual(self.tracked(server), HOST)


def add(name, method, records):
    setattr(Sets, "test_" + name.replace(" ", "_").replace("'", ""), lambda self: getattr(self, method)(records))


for name, records in ALLOWED.items():
    add(f"allowed {name}", "allowed", records)
for name, records in REFUSED.items():
    add(f"refused {name}", "refused", records)


class Climbing(Base):
    def governs(self, where, zones, name="example.com", subdomain="links"):
        for zone, records in zones.items():
            self.dns.zone(zone, *records)
        server = self.acme()
        domain = rest.create(server, name, subdomain)
        self.assertEqual(self.shown(domain), where and (where, VALUE, "not_started"), domain)
        domain = rest.verify(server, domain)
        self.assertEqual(self.shown(domain), where and (where, VALUE, "pending"), domain)

    def test_the_host_itself(self):
        self.governs(HOST, {"example.com": ['links CAA 0 issue ";"', f"@ CAA {VALUE}"]})

    def test_the_nearest_name_above(self):
        deny = 'b CAA 0 issue ";"'
        self.governs("b.example.com", {"example.com": [f"a.b CNAME {TARGET}.", deny, f"@ CAA {VALUE}"]},
                     subdomain="a.b")

    def test_a_nearer_one_that_allows(self):
        self.governs(None, {"example.com": [f"a.b CNAME {TARGET}.", f"b CAA {VALUE}", DENIED]}, subdomain="a.b")

    def test_above_the_sender_domain(self):
        self.governs("example.com", {"example.com": [f"links.mail CNAME {TARGET}.", DENIED]}, "mail.example.com")

    def test_above_over_a_zone_cut(self):
        self.governs("example.com", {"example.com": [DENIED], "mail.example.com": [LINKS]}, "mail.example.com")

    def test_the_top_level(self):
        self.governs("com", {"com": [DENIED], "example.com": [LINKS]})

    def test_an_alias_above_is_followed(self):
        """a.b has no set; b is an alias, and the set at its end governs (RFC 8659, section 3)."""
        zones = {"example.com": ["a.b A 192.0.2.1", "b CNAME policy.example.org."],
                 "example.org": ['policy CAA 0 issue ";"']}
        self.dns.zone("example.com", *zones["example.com"])
        self.dns.zone("example.org", *zones["example.org"])
        server = self.acme()
        found = self.shown(rest.create(server, "example.com", "a.b"))
        self.assertIsNotNone(found)
        self.assertEqual(found[1:], (VALUE, "not_started"))

    def test_a_set_that_udp_cannot_carry(self):
        many = [f'@ CAA 0 issue "ca-{n}.authorities.example.org"' for n in range(80)]
        self.governs("example.com", {"example.com": [LINKS, *many]})
        self.assertTrue([one for one in self.resolver.asked("example.com", "CAA") if one.tcp])

    def test_a_set_that_udp_cannot_carry_and_that_allows(self):
        many = [f'@ CAA 0 issue "ca-{n}.authorities.example.org"' for n in range(80)]
        self.governs(None, {"example.com": [LINKS, *many, f"@ CAA {VALUE}"]})


class AtTheTarget(Base):
    """What stands where our own name leads is the operator's affair."""

    def test_a_refusal_there_is_not_the_customers(self):
        self.dns.zone(TARGETS_ZONE, "track A 127.0.0.1", 'track CAA 0 issue ";"')
        self.dns.zone("example.com", LINKS)
        server = self.acme()
        domain = rest.verify(server, rest.create(server, "example.com"))
        self.assertIsNone(self.shown(domain))
        self.assertEqual((domain["status"], rest.status(domain)), ("verified", "verified"))
        until("a word to the operator", lambda: [line for line in server.log().splitlines()
                                                 if "CAA" in line and TARGET in line])

    def test_it_governs_before_what_is_above_the_host(self):
        self.dns.zone(TARGETS_ZONE, "track A 127.0.0.1", f"track CAA {VALUE}")
        self.dns.zone("example.com", LINKS, DENIED)
        server = self.acme()
        domain = rest.verify(server, rest.create(server, "example.com"))
        self.assertIsNone(self.shown(domain))
        self.assertEqual(domain["status"], "verified")

    def test_what_is_above_the_target_does_not_govern(self):
        self.dns.zone(TARGETS_ZONE, "track A 127.0.0.1", DENIED)
        self.dns.zone("example.com", LINKS)
        server = self.acme()
        domain = rest.verify(server, rest.create(server, "example.com"))
        self.assertIsNone(self.shown(domain))
        self.assertEqual(domain["status"], "verified")
        self.assertFalse([line for line in server.log().splitlines() if "CAA" in line and TARGET in line])


class Shown(Base):
    def test_it_comes_with_a_change(self):
        self.dns.zone("example.com", LINKS, 'x CAA 0 issue ";"', f"a.x CNAME {TARGET}.")
        server = self.acme()
        domain = self.verified(server)
        self.assertIsNone(self.shown(domain))
        domain = rest.update(server, domain, tracking_subdomain="a.x")
        self.assertEqual(self.shown(domain), ("x.example.com", VALUE, "not_started"), domain)

    def test_it_stays_listed(self):
        self.dns.zone("example.com", LINKS, DENIED)
        server = self.acme()
        domain = rest.create(server, "example.com")
        self.assertIsNotNone(self.shown(domain))
        self.dns.zone("example.com", LINKS)
        domain = rest.verify(server, domain)
        self.assertEqual(self.shown(domain), ("example.com", VALUE, "verified"), domain)
        self.assertEqual(domain["status"], "verified")
        server.restart()
        self.assertEqual(self.shown(rest.fetch(server, domain)), ("example.com", VALUE, "verified"))

    def test_one_that_comes_up_later(self):
        self.dns.zone("example.com", LINKS)
        server = self.acme()
        domain = self.verified(server)
        self.dns.zone("example.com", LINKS, DENIED)
        domain = rest.verify(server, domain)
        self.assertEqual(self.shown(domain)[:2], ("example.com", VALUE))
        self.assertNotEqual(self.shown(domain)[2], "verified")
        self.assertEqual(rest.status(domain), "verified")

    def test_by_itself(self):
        self.dns.zone("example.com", LINKS, DENIED)
        server = self.acme()
        domain = rest.verify(server, rest.create(server, "example.com"))
        self.dns.zone("example.com", LINKS, f"@ CAA {VALUE}")
        until("it to be verified", lambda: rest.fetch(server, domain)["status"] == "verified", 20)

    def test_a_customer_with_a_proxy_of_their_own_is_not_asked_for_any(self):
        self.dns.zone("example.com", LINKS, DENIED)
        server = self.relay()
        domain = self.verified(server)
        self.assertIsNone(self.shown(domain))
        self.assertEqual(self.resolver.asked("example.com", "CAA"), [])


class NotKnown(Base):
    """A set that cannot be read is neither a refusal nor an allowance."""

    def test_a_verified_one_stays_so(self):
        self.dns.zone("example.com", LINKS, DENIED, f"@ CAA {VALUE}")
        server = self.acme()
        domain = self.verified(server)
        self.resolver.fail(resolver.servfail, kind="CAA")
        domain = rest.verify(server, domain)
        self.assertEqual((domain["status"], rest.status(domain)), ("verified", "verified"))
        self.assertIsNone(self.shown(domain))
        self.assertEqual(self.tracked(server), HOST)

    def test_one_that_was_allowed_after_a_refusal_stays_so(self):
        self.dns.zone("example.com", LINKS, DENIED)
        server = self.acme()
        domain = rest.create(server, "example.com")
        self.dns.zone("example.com", LINKS, f"@ CAA {VALUE}")
        domain = rest.verify(server, domain)
        self.assertEqual(domain["status"], "verified")
        self.resolver.fail(resolver.refused, "example.com", "CAA")
        domain = rest.verify(server, domain)
        self.assertEqual((domain["status"], self.shown(domain)[2]), ("verified", "verified"))

    def test_a_refusal_is_shown_once_it_can_be_read(self):
        self.dns.zone("example.com", LINKS, DENIED)
        self.resolver.fail(resolver.servfail, kind="CAA")
        server = self.acme()
        domain = rest.verify(server, rest.create(server, "example.com"))
        self.assertIsNone(self.shown(domain))
        self.assertNotEqual(domain["status"], "failed")
        self.resolver.heal(kind="CAA")
        fetched = until("the set to be read", lambda: (now := rest.fetch(server, domain)) and self.shown(now) and now,
                        20)
        self.assertEqual(self.shown(fetched)[:2], ("example.com", VALUE))

    def test_silence_about_sets_does_not_hold_up_the_rest(self):
        self.dns.zone("example.com", LINKS)
        self.resolver.fail(resolver.silent, kind="CAA")
        server = self.acme()
        began = time.monotonic()
        domain = rest.create(server, "example.com")
        self.assertLess(time.monotonic() - began, 5)
        domain = rest.verify(server, domain)
        self.assertLess(time.monotonic() - began, 8)
        said = set()

        def verified():
            now = rest.record(rest.fetch(server, domain))
            said.add(now.get("found", ""))
            return now["status"] == "verified"

        until("the record that is there", verified, 40)
        self.assertFalse([words for words in said if "nobody asked" in words], "somebody did")

    def test_a_set_that_udp_cannot_carry_without_tcp(self):
        self.dns.zone("example.com", LINKS, f"@ CAA {VALUE}")
        self.resolver.fail(resolver.truncated_within, "example.com", "CAA")
        server = self.acme()
        domain = rest.verify(server, rest.create(server, "example.com"))
        self.assertIsNone(self.shown(domain), "nothing was refused")
        self.assertNotEqual(domain["status"], "failed")
