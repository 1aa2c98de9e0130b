"""What was obtained is kept in files, and an order that a crash cut off is made again."""

import shutil

import handshake
import mail
import rest
from base import HOST, LINKS, SOON, TARGET, Acme, certificate, pem, load_tests  # noqa: F401
from front import Hold
from pebble import Pebble
from support import until


class Kept(Acme):
    def begin_with_one(self, **options):
        server = self.begin(**options)
        domain = self.obtained(server)
        until("a certificate of the target", lambda: handshake.shaken(self.secure, TARGET, self.root), SOON)
        return server, domain, handshake.shake(self.secure, HOST, self.root)

    def test_no_new_order_after_a_restart(self):
        server, domain, shown = self.begin_with_one()
        orders = len(self.front.orders())
        for again in (server.restart, lambda: (server.stop(), server.start())):
            again()
            self.assertEqual(handshake.shake(self.secure, HOST, self.root).serial, shown.serial)
            fetched = rest.fetch(server, domain)
            self.assertEqual(certificate(fetched)["state"], "valid")
            self.assertEqual(self.tracked(server), HOST)
        rest.verify(server, domain)
        # One that is ordered shows that orders would have been made.
        self.dns.zone("example.org", LINKS)
        self.obtained(server, "example.org")
        self.assertEqual(len(self.front.orders()), orders + 1)

    def test_the_ca_is_not_needed_for_a_start(self):
        server, domain, shown = self.begin_with_one()
        sent = mail.send(server, self.smarthost, "example.com")
        server.stop()
        self.front.deafen()
        server.start()
        self.assertEqual(handshake.shake(self.secure, HOST, self.root).serial, shown.serial)
        self.click(sent.link, self.root)
        self.assertEqual(self.tracked(server), HOST)
        self.assertEqual(certificate(rest.fetch(server, domain))["state"], "valid")

    def test_without_the_store(self):
        server, _, shown = self.begin_with_one()
        sent = mail.send(server, self.smarthost, "example.com")
        for end in ("stop", "kill"):
            getattr(server, end)()
            shutil.rmtree(server.data / "store")
            server.start()
            self.assertEqual(handshake.shake(self.secure, HOST, self.root).serial, shown.serial, end)
            self.click(sent.link, self.root)
            self.assertEqual(self.tracked(server), HOST, end)
        self.assertEqual(len(self.front.orders(HOST)), 1)

    def test_without_a_store_that_opens(self):
        server, _, shown = self.begin_with_one()
        sent = mail.send(server, self.smarthost, "example.com")
        server.stop()
        shutil.rmtree(server.data / "store")
        (server.data / "store").write_text("not a folder")
        server.start()
        self.assertEqual(handshake.shake(self.secure, HOST, self.root).serial, shown.serial)
        self.click(sent.link, self.root)
        # It has complained, which is no clean end.
        server.kill()

    def test_files_that_are_lost_are_made_again(self):
        server, domain, shown = self.begin_with_one()
        server.stop()
        pem(server.keys)[HOST].unlink()
        server.start()
        self.another(shown)
        self.ready(server, domain)
        self.assertEqual(len(self.front.orders(HOST)), 2)

    def another(self, shown):
        def seen():
            now = handshake.shaken(self.secure, HOST, self.root)
            return now if now and now.serial != shown.serial else None

        return until("another certificate", seen, SOON)

    def test_files_that_are_of_no_use_are_made_again(self):
        server, _, shown = self.begin_with_one()
        file = pem(server.keys)[HOST]
        whole = file.read_bytes()
        for broken in (pem(server.keys)[TARGET].read_bytes(), b"", whole[:300], whole.replace(b"PRIVATE", b"PUBLIC")):
            server.kill()
            file.write_bytes(broken)
            server.start()
            shown = self.another(shown)
        # It has complained, which is no clean end.
        server.kill()

    def test_an_account_that_the_ca_has_forgotten(self):
        """A CA that was set up anew knows none of its accounts (RFC 8555, section 6.7: accountDoesNotExist)."""
        server, _, _ = self.begin_with_one()
        self.ca.stop()
        self.ca = Pebble(self.folder / "another", self.plain, port=self.ca.address[1])
        self.addCleanup(self.ca.stop)
        self.dns.zone("example.org", LINKS)
        domain = self.ask(server, "example.org")
        self.ready(server, domain, seconds=30)
        handshake.shake(self.secure, "links.example.org", self.root)


class Killed(Acme):
    """kill -9 in the middle of an order, after each of its steps."""

    def at(self, kind):
        server = self.begin()
        until("a certificate of the target", lambda: handshake.shaken(self.secure, TARGET, self.root), SOON)
        hold = Hold()
        self.front.fail(kind, hold)
        domain = self.ask(server)
        hold.wait()
        server.kill()
        self.front.heal()
        server.start()
        self.ready(server, domain, seconds=2 * SOON)
        until("mail to be tracked", lambda: self.tracked(server), 5)
        self.click(mail.send(server, self.smarthost, "example.com").link, self.root)
        self.assertLessEqual(len(self.front.orders(HOST)), 2)
        # Nothing half written stays behind.
        self.assertEqual({path.name for path in server.keys.iterdir() if HOST in path.name}, {f"cert-{HOST}.pem"})

    def test_order(self):
        self.at("order")

    def test_authorization(self):
        self.at("authorization")

    def test_challenge(self):
        self.at("challenge")

    def test_finalize(self):
        self.at("finalize")

    def test_certificate(self):
        self.at("certificate")

    def test_account(self):
        server = self.begin()
        hold = Hold()
        server.stop()
        shutil.rmtree(server.keys)
        self.front.fail("account", hold)
        server.start()
        hold.wait()
        server.kill()
        self.front.heal()
        server.start()
        self.obtained(server)
