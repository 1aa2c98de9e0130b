"""What the CA has issued is kept, or not asked for; what is nobody's any more is taken away."""

import json
import signal

import paths  # noqa: F401
import handshake
import mail
import rest
from base import DAY, HOST, HOUR, LINKS, SOON, TARGET, Acme, certificate, load_tests, pem  # noqa: F401
from front import Hold
from pebble import Pebble
from support import until


class Place(Acme):
    def no_place(self, in_the_way):
        """What is in the way of the file is seen before anything is ordered."""
        server = self.begin(clock=True)
        until("a certificate of the target", lambda: handshake.shaken(self.secure, TARGET, self.root), SOON)
        (server.keys / in_the_way).mkdir()
        domain = self.ask(server)
        found = self.failing(server, domain)
        self.assertIn(f"cert-{HOST}", found["message"])
        rest.verify(server, domain)
        self.reaches(server, domain, ("failed",), also=lambda one: one["next_try_at"] != found["next_try_at"])
        self.assertEqual(self.front.orders(HOST), [])
        (server.keys / in_the_way).rmdir()
        self.clock.go_on(HOUR)
        rest.verify(server, domain)
        self.ready(server, domain)
        self.assertEqual(len(self.front.orders(HOST)), 1)

    def test_no_place_for_it_no_order(self):
        self.no_place(f"cert-{HOST}.pem")

    def test_a_file_is_begun_under_a_name_of_its_own(self):
        server = self.begin()
        (server.keys / f"cert-{HOST}.new").mkdir()
        self.ready(server, self.ask(server))
        self.assertTrue((server.keys / f"cert-{HOST}.pem").is_file())

    def test_one_that_cannot_be_written_is_used(self):
        server = self.begin()
        until("a certificate of the target", lambda: handshake.shaken(self.secure, TARGET, self.root), SOON)
        hold = Hold()
        self.front.fail("certificate", hold)
        domain = self.ask(server)
        hold.wait()
        (server.keys / f"cert-{HOST}.pem").mkdir()
        self.front.heal()
        self.ready(server, domain)
        until("mail to be tracked", lambda: self.tracked(server), 5)
        self.click(mail.send(server, self.smarthost, "example.com").link, self.root)
        self.assertIn("would be lost in a restart", server.log())
        (server.keys / f"cert-{HOST}.pem").rmdir()
        until("the file", lambda: (server.keys / f"cert-{HOST}.pem").is_file(), 130)
        shown = handshake.shake(self.secure, HOST, self.root)
        server.kill()
        server.start()
        self.assertEqual(handshake.shake(self.secure, HOST, self.root).serial, shown.serial)
        self.assertEqual(len(self.front.orders(HOST)), 1)

    test_one_that_cannot_be_written_is_used.slow = True

    def test_a_wrong_clock_wastes_one_and_no_more(self):
        server = self.begin(clock=True, validity=DAY)
        self.clock.set(10 * DAY)
        server.restart()
        domain = self.ask(server)
        found = self.failing(server, domain)
        self.assertRegex(found["message"], "clock")
        self.assertGreaterEqual(self.retry_in(found), 11 * HOUR)
        for _ in range(20):
            rest.verify(server, domain)
        self.dns.zone("example.org", LINKS)
        self.failing(server, self.ask(server, "example.org"))
        self.assertLessEqual(len(self.front.orders(HOST)), 2)

    def test_names_of_any_length(self):
        labels = ".".join(["a" * 60] * 3 + ["b" * 55])
        host = f"{labels}.example.com"
        self.assertEqual(len(host), 250)
        server = self.begin(names=(), believing=True)
        self.dns.zone("example.com", f"{labels} CNAME {TARGET}.")
        domain = self.ready(server, rest.verify(server, rest.create(server, "example.com", labels)))
        self.assertEqual(certificate(domain)["host"], host)
        shown = handshake.shake(self.secure, host, self.root)
        server.restart()
        self.assertEqual(handshake.shake(self.secure, host, self.root).serial, shown.serial)
        self.assertEqual(len(self.front.orders(host)), 1)


class Nobody(Acme):
    def gone(self, server):
        until("its file to go", lambda: HOST not in pem(server.keys), SOON)
        self.assertEqual(handshake.alert(self.secure, HOST), handshake.REFUSED)
        server.restart()
        self.assertEqual(handshake.alert(self.secure, HOST), handshake.REFUSED)
        self.assertEqual(set(pem(server.keys)) - {TARGET}, set())

    def test_when_it_is_removed(self):
        server = self.begin(settings={"tracking": {"removed_domain_grace": "0"}})
        domain = self.obtained(server)
        self.assertIn(HOST, pem(server.keys))
        rest.remove(server, domain)
        self.gone(server)

    def test_when_the_grace_is_over(self):
        server = self.begin(clock=True, settings={"tracking": {"removed_domain_grace": "30d"}})
        domain = self.obtained(server)
        rest.remove(server, domain)
        self.clock.go_on(29 * DAY)
        server.restart()
        handshake.shake(self.secure, HOST, self.root)
        self.clock.go_on(2 * DAY)
        server.restart()
        self.gone(server)

    def test_ordered_while_it_is_removed(self):
        server = self.begin(settings={"tracking": {"removed_domain_grace": "0"}})
        hold = Hold()
        self.front.fail("finalize", hold)
        domain = self.ask(server)
        hold.wait()
        rest.remove(server, domain)
        self.front.heal()
        until("the end of the order", lambda: f"certificate issued host={HOST}" in server.log(), SOON)
        self.gone(server)

    def test_it_comes_back(self):
        server = self.begin(settings={"tracking": {"removed_domain_grace": "0"}})
        rest.remove(server, self.obtained(server))
        until("its file to go", lambda: HOST not in pem(server.keys), SOON)
        self.obtained(server)
        handshake.shake(self.secure, HOST, self.root)


class Accounts(Acme):
    def made(self):
        return [one for one in self.front.requests("account") if one.answer and one.answer.status == 201]

    def test_four_that_are_unknown_at_once_make_one(self):
        server = self.begin(names=())
        until("a certificate of the target", lambda: handshake.shaken(self.secure, TARGET, self.root), SOON)
        names = [f"d{number}.example.com" for number in range(4)]
        self.dns.zone("example.com", *(f"links.d{number} CNAME {TARGET}." for number in range(4)))
        self.ca.stop()
        # The first request with the old account is answered when all are there.
        hold = Hold()
        self.front.fail("order", hold)
        self.ca = Pebble(self.folder / "another", self.plain, port=self.ca.address[1])
        self.addCleanup(self.ca.stop)
        domains = [self.ask(server, name) for name in names]
        until("four orders", lambda: len({one.names for one in self.front.orders()}) >= 5, SOON)
        self.front.heal()
        for domain in domains:
            self.ready(server, domain, seconds=30)
        self.assertEqual(len(self.made()), 2, "one at the first CA, one at the other")
        self.assertEqual([path.name for path in server.keys.glob("acme-account*")], ["acme-account.json"])

    def broken(self, change):
        """A file of ours that cannot be read is said, and neither overwritten nor a reason not to serve what is there."""
        server = self.begin()
        self.obtained(server)
        server.stop()
        file = server.keys / "acme-account.json"
        broken = change(file.read_text())
        file.write_text(broken)
        server.start()
        handshake.shake(self.secure, HOST, self.root)
        self.dns.zone("example.org", LINKS)
        domain = self.ask(server, "example.org")
        found = self.failing(server, domain)
        for part in ("acme-account.json", "move it away"):
            self.assertIn(part, found["message"])
        self.assertEqual((file.read_text(), len(self.made())), (broken, 1))
        file.unlink()
        rest.verify(server, domain)
        self.ready(server, domain)
        self.assertEqual(len(self.made()), 2)

    def test_one_that_is_garbage_is_not_overwritten(self):
        self.broken(lambda _: "{")

    def test_one_whose_key_is_none_is_not_overwritten(self):
        def change(text):
            stored = json.loads(text)
            stored["credentials"]["key_pkcs8"] = "AAAA"
            return json.dumps(stored)

        self.broken(change)

    def test_each_ca_has_its_own(self):
        """To another CA and back: the account that was there is used again."""
        server = self.begin(clock=True)
        self.obtained(server)
        first, config = self.ca, server.config.read_text()
        second = Pebble(self.folder / "another", self.plain)
        self.addCleanup(second.stop)
        there = "https://%s:%d" % second.address + second.directory
        files = set()
        other = config.replace(self.front.directory, there)
        turns = ((second.root, other), (first.root, config), (second.root, other))
        for number, (root, text) in enumerate(turns):
            server.config.write_text(text)
            server.restart()
            name = f"example{number}.org"
            self.dns.zone(name, LINKS)
            self.ready(server, self.ask(server, name))
            handshake.shake(self.secure, f"links.{name}", root)
            files |= {path.name for path in server.keys.glob("acme-account*")}
        self.assertEqual(len(files), 2, files)
        self.assertEqual(len(self.made()), 1)
        self.assertEqual((second.log.read_text()).count("POST /sign-me-up -> calling handler"), 1)


class Going(Acme):
    """Between links over HTTP and over HTTPS, by a reload."""

    def scheme(self, server, scheme):
        other = {"http": "https", "https": "http"}[scheme]
        text = server.config.read_text()
        self.assertIn(f'link_scheme = "{other}"', text)
        server.config.write_text(text.replace(f'link_scheme = "{other}"', f'link_scheme = "{scheme}"'))
        server.process.send_signal(signal.SIGHUP)
        until("the reload", lambda: "was reloaded" in server.log(), 10)

    def test_to_https(self):
        server = self.begin(settings={"tracking": {"link_scheme": "http"}})
        domain = self.ask(server)
        self.assertEqual(self.tracked(server), HOST)
        self.assertEqual(self.front.orders(HOST), [])
        self.scheme(server, "https")
        self.ready(server, domain, seconds=SOON)
        until("mail to be tracked", lambda: self.tracked(server) == HOST, 5)
        self.click(mail.send(server, self.smarthost, "example.com").link, self.root)

    def test_back_to_http_links_in_sent_mail_stay_good(self):
        server = self.begin(validity=36)
        domain = self.obtained(server)
        sent = mail.send(server, self.smarthost, "example.com")
        shown = handshake.shake(self.secure, HOST, self.root)
        self.scheme(server, "http")
        self.assertTrue(mail.send(server, self.smarthost, "example.com").link.startswith("http://"))
        until("another certificate", lambda: self.another(HOST, shown), 40)
        self.click(sent.link, self.root)
        self.assertEqual(certificate(rest.fetch(server, domain))["state"], "valid")
        # What never had one gets none.
        self.dns.zone("example.org", LINKS)
        self.ask(server, "example.org")
        self.assertEqual(self.tracked(server, "example.org"), "links.example.org")
        until("another certificate of the target", lambda: self.another(TARGET, None), 10)
        self.assertEqual(self.front.orders("links.example.org"), [])

    test_back_to_http_links_in_sent_mail_stay_good.slow = True

    def another(self, host, shown):
        now = handshake.shaken(self.secure, host, self.root)
        return now if now and (shown is None or now.serial != shown.serial) else None
