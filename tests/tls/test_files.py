"""`tracking.tls = "files"`: pairs that someone else renews, taken as they change; and keys that others may read."""

import re
import subprocess
import time

import handshake
import mail
import relay
import rest
from base import DAY, HOST, LINKS, SOON, TARGET, Acme, Files, certificate
from base import load_tests  # noqa: F401
from support import until

# Files are looked at every few seconds.
TAKEN = 15


class Pairs(Files):
    def begin(self, *hosts, **options):
        for host in hosts:
            self.put(host)
        self.dns.zone("example.com", LINKS)
        return self.files(**options)

    def test_links_work(self):
        server = self.begin(HOST, TARGET)
        domain = self.verified(server)
        self.assertEqual((certificate(domain)["state"], certificate(domain)["host"]), ("valid", HOST))
        self.assertIn("valid_until", certificate(domain))
        sent = mail.send(server, self.smarthost, "example.com")
        self.click(sent.link, self.root)
        self.assertEqual(handshake.curl(sent.link, self.root), ("2", 302, mail.PAGE))
        for host in (HOST, TARGET):
            handshake.shake(self.secure, host, self.root)
        self.assertEqual(handshake.alert(self.secure, "links.example.org"), handshake.REFUSED)

    def test_from_the_first_handshake_on(self):
        """They are there before the listener is."""
        server = self.begin(HOST)
        for _ in range(8):
            handshake.shake(self.secure, HOST, self.root)
            server.restart()

    def test_changed_files_are_taken(self):
        server = self.begin(HOST, TARGET)
        self.verified(server)
        shown, other = (handshake.shake(self.secure, host, self.root) for host in (HOST, TARGET))
        pid = server.process.pid
        with_it = handshake.trusting(self.root)
        self.put(HOST)
        until("the new one", lambda: handshake.shake(self.secure, HOST, self.root, with_it).serial != shown.serial,
              TAKEN)
        self.assertEqual(handshake.shake(self.secure, TARGET, self.root).serial, other.serial)
        self.assertEqual((server.process.poll(), server.process.pid), (None, pid))

    def test_a_reload_takes_them_too(self):
        server = self.begin(HOST)
        shown = handshake.shake(self.secure, HOST, self.root)
        self.put(HOST)
        server.process.send_signal(1)
        until("the new one", lambda: handshake.shake(self.secure, HOST, self.root).serial != shown.serial, TAKEN)

    def test_a_pair_that_comes_later(self):
        server = self.begin(TARGET)
        domain = self.verified(server)
        self.assertEqual(certificate(domain)["state"], "waiting")
        self.assertIn("certificate", domain["tracking"])
        self.assertIsNone(self.tracked(server))
        self.assertEqual(handshake.alert(self.secure, HOST), handshake.REFUSED)
        self.put(HOST)
        until("mail to be tracked", lambda: self.tracked(server) == HOST, TAKEN)
        self.click(mail.send(server, self.smarthost, "example.com").link, self.root)

    def test_a_pair_that_goes(self):
        """Whether it is still shown is open, but no link may rest on it for long."""
        server = self.begin(HOST)
        self.verified(server)
        self.assertEqual(self.tracked(server), HOST)
        for end in ("pem", "key"):
            (self.certificates / f"{HOST}.{end}").unlink()
        server.restart()
        self.assertIsNone(self.tracked(server))

    def test_a_change_for_the_worse_is_not_taken(self):
        server = self.begin(HOST)
        domain = self.verified(server)
        shown = handshake.shake(self.secure, HOST, self.root)
        for number, break_it in enumerate((self.cut_off, self.other_key, self.other_host, self.nothing)):
            with self.subTest(break_it.__name__):
                break_it()
                until("a word about it", lambda number=number: self.complaints(server) > number, TAKEN)
                self.assertEqual(handshake.shake(self.secure, HOST, self.root).serial, shown.serial)
                self.assertEqual(self.tracked(server), HOST)
        self.assertEqual(certificate(rest.fetch(server, domain))["state"], "valid")
        self.put(HOST)
        until("the new one", lambda: handshake.shake(self.secure, HOST, self.root).serial != shown.serial, TAKEN)

    def complaints(self, server):
        return len([line for line in server.log().splitlines() if " WARN " in line and HOST in line])

    def cut_off(self):
        file = self.certificates / f"{HOST}.pem"
        self.write("pem", file.read_bytes()[:200])

    def other_key(self):
        self.put("other.example.com")
        self.write("pem", (self.certificates / "other.example.com.pem").read_bytes())

    def other_host(self):
        self.put(HOST, "www.example.com")

    def nothing(self):
        self.write("pem", b"")

    def write(self, end, data):
        new = self.certificates / "new"
        new.write_bytes(data)
        new.chmod(0o600)
        new.replace(self.certificates / f"{HOST}.{end}")

    def test_one_of_many_hosts(self):
        """One pair with several names, under the name of each host."""
        names = f"DNS:{HOST},DNS:{TARGET}"
        self.put(HOST, names)
        self.put(TARGET, names)
        self.begin()
        for host in (HOST, TARGET):
            handshake.shake(self.secure, host, self.root)

    def test_a_wildcard(self):
        self.put(HOST, "*.example.com")
        server = self.begin()
        self.verified(server)
        self.click(mail.send(server, self.smarthost, "example.com").link, self.root)

    def test_one_that_has_expired(self):
        self.put(HOST, days=2)
        server = self.begin(clock=True)
        domain = self.verified(server)
        self.assertEqual(self.tracked(server), HOST)
        self.clock.set(3 * DAY)
        until("tracking to be off", lambda: self.tracked(server) is None, TAKEN)
        found = certificate(rest.fetch(server, domain))
        self.assertNotEqual(found["state"], "valid")
        self.put(HOST, days=5)
        until("tracking to be on", lambda: self.tracked(server) == HOST, TAKEN)

    def test_links_go_on_when_it_has(self):
        """A browser that its user lets through is not sent away: the certificate is shown to the end and beyond."""
        server = self.begin(HOST, clock=True)
        self.verified(server)
        shown = handshake.shake(self.secure, HOST, self.root)
        self.clock.set(3 * DAY)
        server.restart()
        self.assertEqual(handshake.shake(self.secure, HOST, self.root).serial, shown.serial)


class Refused(Files):
    """A pair that is of no use, at the start. It is said, and not served; mail and other hosts go on."""

    def refused(self, server, *said):
        self.assertEqual(handshake.alert(self.secure, HOST), handshake.REFUSED)
        handshake.shake(self.secure, TARGET, self.root)
        lines = [line for line in server.log().splitlines() if re.search(" (WARN|ERROR) ", line)]
        self.assertTrue([line for line in lines if all(part in line for part in said)], f"{said}: {lines}")
        domain = self.verified(server)
        self.assertNotEqual(certificate(domain)["state"], "valid")
        self.assertIsNone(self.tracked(server))

    def begin(self, spoil):
        self.dns.zone("example.com", LINKS)
        self.put(TARGET)
        self.put(HOST)
        spoil(self.certificates / f"{HOST}.pem", self.certificates / f"{HOST}.key")
        server = self.files()
        return server

    def readable(self, mode):
        self.refused(self.begin(lambda _, key: key.chmod(mode)), f"{HOST}.key")

    def test_a_key_that_all_may_read(self):
        self.readable(0o644)

    def test_a_key_that_others_may_read(self):
        self.readable(0o604)

    def test_a_key_that_all_may_write(self):
        self.readable(0o666)

    def test_a_key_that_is_none(self):
        self.refused(self.begin(lambda _, key: key.write_text("no key")), HOST, "key")

    def test_a_key_that_is_a_folder(self):
        self.refused(self.begin(lambda _, key: (key.unlink(), key.mkdir())), f"{HOST}.key")

    def test_a_key_that_is_missing(self):
        self.refused(self.begin(lambda _, key: key.unlink()), HOST)

    def test_a_key_of_another(self):
        self.refused(self.begin(lambda _, key: key.write_bytes((self.certificates / f"{TARGET}.key").read_bytes())),
                     HOST, "key")

    def test_a_certificate_of_another(self):
        self.refused(self.begin(lambda *_: self.put(HOST, "www.example.com")), HOST)

    def test_a_certificate_that_is_none(self):
        self.refused(self.begin(lambda chain, _: chain.write_text("hello")), HOST)

    def test_a_name_that_is_none(self):
        """Other files in the folder are nobody's business."""
        self.put(HOST)
        self.put(TARGET)
        for name in ("README", "..pem", "a b.pem", "x" * 200 + ".pem", ".hidden.pem", "links_.example.com.pem"):
            (self.certificates / name).write_text("hello")
        (self.certificates / "folder.pem").mkdir()
        (self.certificates / "dead.example.com.pem").symlink_to("nowhere")
        (self.certificates / "loop.example.com.pem").symlink_to("loop.example.com.pem")
        server = self.files()
        handshake.shake(self.secure, HOST, self.root)
        self.put(HOST, days=3)
        until("a change to be taken", lambda: handshake.shake(self.secure, HOST, self.root).not_after
              > time.time() + 2.5 * DAY, TAKEN)
        server.kill()


class OwnKeys(Acme):
    """The same for what we keep ourselves."""

    def test_a_key_that_all_may_read(self):
        server = self.begin()
        self.obtained(server)
        until("a certificate of the target", lambda: handshake.shaken(self.secure, TARGET, self.root), SOON)
        name = "acme-account.json"
        server.stop()
        (server.keys / name).chmod(0o644)
        ended = self.once(server)
        self.assertNotEqual(ended.returncode, 0)
        self.assertIn(name, ended.stderr + ended.stdout)
        self.assertNotIn("panicked", ended.stderr)
        self.checked(server, name)
        (server.keys / name).chmod(0o600)
        self.assertEqual(server.attempt("check").returncode, 0)
        server.start()
        handshake.shake(self.secure, HOST, self.root)

    def test_a_certificate_of_one_host_that_all_may_read(self):
        """It stops neither mail nor the other hosts, and another takes its place, as its key is no secret any more."""
        server = self.begin()
        domain = self.obtained(server)
        until("a certificate of the target", lambda: handshake.shaken(self.secure, TARGET, self.root), SOON)
        shown, name = handshake.shake(self.secure, HOST, self.root), f"cert-{HOST}.pem"
        of_target = handshake.shake(self.secure, TARGET, self.root).serial
        server.stop()
        (server.keys / name).chmod(0o644)
        self.checked(server, name)
        server.start()
        self.assertEqual(handshake.shake(self.secure, TARGET, self.root).serial, of_target)
        lines = [line for line in server.log().splitlines() if " ERROR " in line and name in line]
        self.assertTrue(any("0644" in line for line in lines), lines)

        def another():
            now = handshake.shaken(self.secure, HOST, self.root)
            return now and now.serial != shown.serial

        until("another certificate", another, SOON)
        self.assertEqual((server.keys / name).stat().st_mode & 0o777, 0o600)
        self.ready(server, domain)
        until("mail to be tracked", lambda: self.tracked(server) == HOST, 10)
        self.assertEqual(server.attempt("check").returncode, 0)
        # It has complained, which is no clean end.
        server.kill()

    def checked(self, server, name):
        """`trackpost check` says it before a start does."""
        ended = server.attempt("check")
        self.assertEqual((ended.returncode, ended.stdout), (1, ""), ended.stderr)
        self.assertRegex(ended.stderr, rf"data_dir: .*{name}: mode 0644 lets others read this key; chmod 600 it")

    def once(self, server):
        try:
            return subprocess.run([relay.program(), "--config", server.config, "serve"], stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True, timeout=20)
        except subprocess.TimeoutExpired:
            raise AssertionError("it has started") from None
