"""A subdomain verifies, and minutes later its host is served over TLS, without anyone touching a certificate."""

import concurrent.futures
import datetime
import os
import re
import ssl
import stat
import threading
import time

import handshake
import mail
import rest
from base import HOST, HOUR, LINKS, SOON, TARGET, Acme, certificate, pem, load_tests  # noqa: F401
from front import Hold
from pebble import Pebble
from support import until

MANY = 40


class First(Acme):
    def test_within_seconds_of_the_verification(self):
        """Without the front, over HTTP/2, and with half of all nonces rejected."""
        self.ca_alone(50)
        domain = rest.create(self.server, "example.com")
        self.assertEqual(certificate(domain)["state"], "waiting")
        began = time.monotonic()
        rest.verify(self.server, domain)
        domain = self.ready(self.server, domain)
        self.assertLess(time.monotonic() - began, SOON)
        sent = until("tracked mail", lambda: self.sent_tracked(self.server), 5)
        self.assertTrue(sent.link.startswith(f"https://{HOST}:{self.secure}/c/"), sent.link)
        self.click(sent.link, self.root)
        self.assertEqual(handshake.curl(sent.link, self.root, "--http2"), ("2", 302, mail.PAGE))
        self.assertEqual(handshake.curl(sent.link, self.root, "--http1.1"), ("1.1", 302, mail.PAGE))

    def ca_alone(self, rejected_nonces):
        self.ca = Pebble(self.folder / "ca", self.plain, rejected_nonces=rejected_nonces)
        self.addCleanup(self.ca.stop)
        self.dns.zone("example.com", LINKS)
        self.server = self.start("https://%s:%d" % self.ca.address + self.ca.directory)

    def sent_tracked(self, server, name="example.com"):
        sent = mail.send(server, self.smarthost, name)
        return sent if sent.host else None

    def test_no_link_before_the_certificate(self):
        server = self.begin()
        hold = Hold()
        self.front.fail("certificate", hold)
        domain = rest.create(server, "example.com")
        self.assertIsNone(self.tracked(server))
        domain = rest.verify(server, domain)
        self.assertEqual((domain["status"], rest.status(domain)), ("verified", "verified"))
        hold.wait()
        domain = self.reaches(server, domain, ("ordering",))
        self.assertIsNone(self.tracked(server))
        self.assertIn("certificate", domain["tracking"])
        self.assertNotIn("active_tracking_subdomain", domain)
        self.assertEqual(handshake.alert(self.secure, HOST), handshake.REFUSED)
        self.front.heal()
        self.ready(server, domain)
        until("mail to be tracked", lambda: self.tracked(server) == HOST, 5)

    def test_each_link_that_is_sent_works(self):
        """Mail goes out all the time; whatever has a link can be clicked at that moment."""
        server = self.begin()
        over = threading.Event()

        def letters():
            seen = []
            while not over.is_set():
                sent = mail.send(server, self.smarthost, "example.com")
                seen.append(sent.link is not None)
                if sent.link:
                    self.click(sent.link, self.root)
            return seen

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            working = pool.submit(letters)
            try:
                domain = self.ready(server, self.ask(server))
                until("mail to be tracked", lambda: self.tracked(server), 5)
            finally:
                over.set()
            seen = working.result()
        self.assertTrue(seen and seen == sorted(seen), f"tracked, and then not: {seen}")
        # In use is what `ready` need not have seen yet.
        self.assertEqual(rest.fetch(server, domain)["active_tracking_subdomain"], "links")

    def test_what_is_shown_of_it(self):
        server = self.begin()
        domain = self.obtained(server)
        self.assertEqual(certificate(domain)["host"], HOST)
        shown = handshake.shake(self.secure, HOST, self.root)
        said = datetime.datetime.fromisoformat(certificate(domain)["valid_until"])
        self.assertAlmostEqual(said.timestamp(), shown.not_after, delta=2)
        self.assertNotIn("next_try_at", certificate(domain))
        self.assertNotIn("message", certificate(domain))
        (listed,) = rest.done(server, 200, "GET", "/domains")["data"]
        self.assertEqual(listed.get("certificate", certificate(domain)), certificate(domain))
        text = server.command("domain", "show", "example.com")
        (line,) = [one for one in text.splitlines() if HOST in one and "certificate" in one.lower()]
        self.assertIn("valid", line)
        self.assertIn(certificate(domain)["valid_until"][:4], line)
        data = server.json("domain", "show", "example.com")
        self.assertEqual((certificate(data)["state"], certificate(data)["host"]), ("valid", HOST))

    def test_the_files(self):
        """A chain and its key are one file, so that there is never half of a pair."""
        server = self.begin()
        self.obtained(server)
        for name in ("acme-account.json", f"cert-{HOST}.pem"):
            self.assertEqual(stat.S_IMODE(os.stat(server.keys / name).st_mode), 0o600, name)
        self.assertEqual(stat.S_IMODE(os.stat(server.keys).st_mode) & 0o077, 0)
        text = (server.keys / f"cert-{HOST}.pem").read_text()
        self.assertGreaterEqual(text.count("BEGIN CERTIFICATE"), 2, "an intermediate that clients do not have")
        self.assertEqual(text.count("PRIVATE KEY-----\n"), 2)
        shown = handshake.shake(self.secure, HOST, self.root)
        self.assertEqual(handshake.public_key(shown.der), ("id-ecPublicKey", "prime256v1"))
        self.assertLessEqual(set(pem(server.keys)), {HOST, TARGET})

    def test_each_host_has_a_key_of_its_own(self):
        server = self.begin(names=("example.com", "example.org"))
        for name in ("example.com", "example.org"):
            self.obtained(server, name)
        keys = [re.search(r"-----BEGIN [A-Z ]*PRIVATE.*?-----END", path.read_text(), re.S)[0]
                for path in pem(server.keys).values()]
        self.assertGreaterEqual(len(keys), 2)
        self.assertEqual(len(set(keys)), len(keys))

    def test_the_target_has_one(self):
        server = self.begin()
        until("a certificate of the target", lambda: handshake.shaken(self.secure, TARGET, self.root), SOON)
        self.assertEqual(len(self.front.orders(TARGET)), 1)
        self.assertEqual(self.front.orders(), self.front.orders(TARGET), "nothing else is configured")
        self.assertIn(TARGET, pem(server.keys))

    def test_letters_beyond_ascii(self):
        plain = "xn--bcher-kva.example"
        server = self.begin(names=(plain,))
        domain = self.ready(server, self.ask(server, "bücher.example"))
        self.assertEqual(certificate(domain)["host"], "links.bücher.example")
        handshake.shake(self.secure, f"links.{plain}", self.root)
        until("mail to be tracked", lambda: self.tracked(server, plain) == f"links.{plain}", 5)

    def test_a_host_in_capitals(self):
        server = self.begin()
        self.obtained(server)
        sent = mail.send(server, self.smarthost, "example.com")
        # Python writes the name down as it is given; nobody else would find a certificate for it by looking closely.
        self.assertIsNone(handshake.alert(self.secure, HOST.upper()))
        answer = handshake.click(sent.link.replace(HOST, "Links.Example.COM"), self.root)
        self.assertEqual((answer.status, answer.location), (302, mail.PAGE))


class Bounds(Acme):
    def test_nothing_is_ordered_that_is_not_verified(self):
        server = self.begin()
        self.dns.zone("example.org")
        rest.create(server, "example.com")
        pending = self.ask(server, "example.org")
        self.assertEqual(rest.status(pending), "pending")
        self.assertEqual(certificate(pending)["state"], "waiting")
        for host in ("links.example.org", HOST, "www.example.com"):
            self.assertEqual(handshake.alert(self.secure, host), handshake.REFUSED)
        # One that is ordered later shows that the others had their time.
        self.dns.zone("example.net", LINKS)
        self.obtained(server, "example.net")
        self.assertEqual({name for one in self.front.orders() for name in one.names}, {"links.example.net", TARGET})

    def test_challenges_of_nobody(self):
        server = self.begin()
        self.obtained(server)
        for path in ("/.well-known/acme-challenge/", "/.well-known/acme-challenge/AAAA", "/.well-known/acme-challenge",
                     "/.well-known/acme-challenge/../../c/x", "/.well-known/acme-challenge/%2e%2e"):
            self.assertEqual(mail.follow(server, f"http://{HOST}:{self.plain}{path}"), (404, None), path)

    def test_many_questions_are_one_order(self):
        server = self.begin()
        hold = Hold()
        self.front.fail("finalize", hold)
        domain = self.ask(server)
        hold.wait()
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda _: rest.verify(server, domain), range(20)))
        self.front.heal()
        self.ready(server, domain)
        rest.verify(server, domain)
        self.assertEqual(rest.fetch(server, domain)["certificate"]["state"], "valid")
        self.assertEqual(len(self.front.orders(HOST)), 1)

    def test_links_over_http_need_none(self):
        server = self.begin(settings={"tracking": {"link_scheme": "http"}})
        domain = self.ask(server)
        self.assertEqual(certificate(domain)["state"], "none")
        self.assertEqual(self.tracked(server), HOST)

    def test_the_account_is_made_once(self):
        server = self.begin(names=("example.com", "example.org"))
        self.obtained(server)
        self.obtained(server, "example.org")
        server.restart()
        self.dns.zone("example.net", LINKS)
        self.obtained(server, "example.net")
        made = [one for one in self.front.requests("account") if one.answer.status in (200, 201)]
        self.assertEqual([one.answer.status for one in made if one.answer.status == 201], [201], made)


class Several(Acme):
    def test_two_at_once(self):
        names = ("example.com", "example.org")
        server = self.begin(names=names)
        domains = [rest.create(server, name) for name in names]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda domain: rest.verify(server, domain), domains))
        for domain, name in zip(domains, names, strict=True):
            self.ready(server, domain)
            until(f"mail of {name} to be tracked", lambda name=name: self.tracked(server, name), 5)
            self.click(mail.send(server, self.smarthost, name).link, self.root)
        shown = [handshake.shake(self.secure, f"links.{name}", self.root) for name in names]
        self.assertNotEqual(shown[0].serial, shown[1].serial)
        self.assertEqual([len(self.front.orders(f"links.{name}")) for name in names], [1, 1])

    def test_forty_at_once(self):
        """Orders are paced, and all end."""
        names = [f"d{number}.example.com" for number in range(MANY)]
        server = self.begin(names=())
        self.dns.zone("example.com", *(f"links.d{number} CNAME {TARGET}." for number in range(MANY)))
        domains = [rest.create(server, name) for name in names]
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda domain: rest.verify(server, domain), domains))
        for domain in domains:
            self.ready(server, domain, seconds=90)
        took = time.monotonic() - began
        for name in names:
            handshake.shake(self.secure, f"links.{name}", self.root)
            self.assertEqual(len(self.front.orders(f"links.{name}")), 1, name)
        at_once = self.front.at_once()
        print(f"{MANY} hosts in {took:.1f} s, {at_once} orders at once", flush=True)
        self.assertLess(at_once, MANY / 2)


class Hosts(Acme):
    def test_earlier_subdomains_are_served(self):
        server = self.begin(clock=True)
        domain = self.obtained(server)
        sent = mail.send(server, self.smarthost, "example.com")
        self.dns.zone("example.com", LINKS, f"go CNAME {TARGET}.")
        self.clock.go_on(25 * HOUR)
        hold = Hold()
        self.front.fail("certificate", hold)
        rest.update(server, domain, tracking_subdomain="go")
        domain = rest.verify(server, domain)
        hold.wait()
        # Verified, and without a certificate: the one before stays in use.
        self.assertEqual(self.tracked(server), HOST)
        self.assertEqual(rest.fetch(server, domain)["active_tracking_subdomain"], "links")
        self.front.heal()
        domain = self.ready(server, domain)
        until("the new one to be in use", lambda: self.tracked(server) == "go.example.com", 5)
        self.assertEqual(certificate(domain)["host"], "go.example.com")
        self.assertEqual({one["host"]: one["state"] for one in domain["certificates"]},
                         {"go.example.com": "valid", HOST: "valid"})
        self.click(sent.link, self.root)
        self.click(mail.send(server, self.smarthost, "example.com").link, self.root)
        server.restart()
        self.click(sent.link, self.root)

    def test_a_removed_domain_is_served(self):
        server = self.begin()
        domain = self.obtained(server)
        sent = mail.send(server, self.smarthost, "example.com")
        rest.remove(server, domain)
        self.click(sent.link, self.root)
        server.restart()
        self.click(sent.link, self.root)

    def test_no_grace_no_link(self):
        server = self.begin(settings={"tracking": {"removed_domain_grace": "0"}})
        domain = self.obtained(server)
        sent = mail.send(server, self.smarthost, "example.com")
        rest.remove(server, domain)
        # Whether TLS still works is not promised; that the link says "gone" where it does, is.
        self.assertIn(self.over_tls(sent.link), (410, handshake.REFUSED))
        self.assertEqual(mail.follow(server, sent.link.replace("https", "http")), (410, None))

    def over_tls(self, link):
        """The status with which a link is answered, or the alert in place of a handshake."""
        refused = handshake.alert(self.secure, HOST)
        try:
            return refused or handshake.click(link, self.root).status
        except ssl.SSLError:
            # The certificate has gone in between.
            return handshake.alert(self.secure, HOST)
