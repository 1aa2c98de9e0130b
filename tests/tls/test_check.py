"""`trackpost check --online` says what would fail before it does."""

import json
import pathlib
import unittest

import paths  # noqa: F401
import relay
import rest
from base import HOST, LINKS, TARGET, Acme, Files, load_tests  # noqa: F401
from front import error, problem
from smarthost import CLOSE, Script
from support import folder, run, succeed, until


class Said:
    def checked(self, server, *options):
        return server.attempt("check", "--online", *options)

    def said(self, ended, *parts, code=1):
        """One line on stderr names all of this, and the exit code says it too."""
        self.assertEqual(ended.returncode, code, ended.stdout + ended.stderr)
        lines = [line for line in ended.stderr.splitlines() if all(part in line for part in parts)]
        self.assertTrue(lines, f"{parts}: {ended.stderr}")


class Online(Said, Acme):
    def fine(self):
        server = self.begin()
        self.obtained(server)
        return server

    def test_all_is_well(self):
        server = self.fine()
        ended = self.checked(server)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""), ended.stdout)
        for part in (f"smarthost 127.0.0.1:{self.smarthost.port}", TARGET, HOST, self.front.directory,
                     f"certificate of {HOST}: it is valid", f"tracking for example.com: opens and clicks, by {HOST}"):
            self.assertIn(part, ended.stdout)
        # Nobody was written to.
        self.assertEqual([copy for copy in self.smarthost.copies if not copy.taken], [])

    def test_an_order_that_failed(self):
        server = self.begin(faults={"order": problem(403, "unauthorized", "not for you")})
        self.failing(server, self.ask(server))
        ended = self.checked(server)
        self.said(ended, f"certificate of {HOST}", "there is none", "not for you")
        self.said(ended, "tracking for example.com", "off", "no certificate", "not for you")

    def test_mail_that_is_switched_off(self):
        """It is said, and meant."""
        server = self.fine()
        server.command("tracking", "off")
        ended = self.checked(server)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""), ended.stdout)
        self.assertIn("tracking for example.com: off: switched off", ended.stdout)

    def test_without_a_server(self):
        server = self.fine()
        server.stop()
        ended = self.checked(server)
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertIn("no server", ended.stdout)

    def test_a_smarthost_that_is_down(self):
        server = self.fine()
        self.smarthost.deafen()
        self.said(self.checked(server), "smarthost", str(self.smarthost.port), "refused")
        self.smarthost.listen()

    def test_a_smarthost_that_hangs_up(self):
        server = self.fine()
        self.smarthost.script = Script({"banner": CLOSE})
        self.said(self.checked(server), "smarthost", str(self.smarthost.port))

    def test_a_smarthost_without_the_tls_that_is_wanted(self):
        server = self.fine()
        before, head, after = server.config.read_text().partition("[smarthost]")
        server.config.write_text(before + head + after.replace('tls = "none"', 'tls = "required"', 1))
        self.said(self.checked(server), "smarthost", "TLS")

    def test_a_host_that_leads_elsewhere(self):
        server = self.fine()
        self.dns.zone("example.com", "links CNAME other.example.net.")
        self.said(self.checked(server), HOST, "other.example.net")

    def test_a_host_that_leads_nowhere(self):
        server = self.fine()
        self.dns.zone("example.com")
        self.said(self.checked(server), HOST)

    def test_a_target_without_an_address(self):
        server = self.fine()
        self.dns.zone("relay.example.net")
        self.said(self.checked(server), TARGET, "address")

    def test_no_dns(self):
        server = self.fine()
        self.resolver.stop()
        self.said(self.checked(server), TARGET, "not known")

    def test_a_ca_that_is_down(self):
        server = self.fine()
        self.front.deafen()
        self.said(self.checked(server), self.front.directory, "refused")
        self.front.listen()

    def test_a_ca_that_is_ill(self):
        server = self.fine()
        self.front.fail("directory", error(503))
        self.said(self.checked(server), self.front.directory, "503")

    def test_another_server_at_the_directory(self):
        server = self.fine()
        self.front.fail("directory", error(200))
        self.said(self.checked(server), self.front.directory)

    def test_a_ca_that_nobody_vouches_for(self):
        server = self.fine()
        lines = [line for line in server.config.read_text().splitlines() if not line.startswith("ca_file")]
        server.config.write_text("\n".join(lines) + "\n")
        self.said(self.checked(server), self.front.directory, "certificate")

    def test_as_data(self):
        server = self.fine()
        self.dns.zone("example.com", "links CNAME other.example.net.")
        ended = self.checked(server, "--json")
        self.assertEqual(ended.returncode, 1)
        data = json.loads(ended.stdout)
        (found,) = [one for one in data["online"] if HOST in one["what"]]
        self.assertIn("other.example.net", found["fault"])
        self.assertEqual([one["fault"] for one in data["online"] if HOST not in one["what"]],
                         [None] * (len(data["online"]) - 1))

    def test_offline_nothing_is_asked(self):
        server = self.fine()
        self.smarthost.deafen()
        self.front.deafen()
        ended = server.attempt("check")
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.smarthost.listen()
        self.front.listen()

    def test_earlier_hosts_and_removed_domains(self):
        server = self.fine()
        self.dns.zone("example.org", LINKS)
        domain = self.ask(server, "example.org")
        rest.remove(server, domain)
        self.dns.zone("example.org")
        self.assertEqual(self.checked(server).returncode, 0)

    def test_something_else_than_smtp(self):
        server = self.fine()
        self.smarthost.script = Script({"banner": "HTTP/1.1 400 Bad Request"})
        self.said(self.checked(server), "smarthost", str(self.smarthost.port))

    def test_a_smarthost_that_has_no_room(self):
        server = self.fine()
        self.smarthost.script = Script({"banner": "421 4.3.2 no room"})
        self.said(self.checked(server), "smarthost", "no room")


class OfFiles(Said, Files):
    """Pairs that somebody else brings."""

    def begin(self, *hosts):
        for host in hosts:
            self.put(host)
        self.dns.zone("example.com", LINKS)
        server = self.files()
        self.verified(server)
        return server

    def test_all_is_well(self):
        server = self.begin(HOST, TARGET)
        self.assertEqual(self.tracked(server), HOST)
        ended = self.checked(server)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""), ended.stdout)

    def test_a_pair_that_is_gone(self):
        server = self.begin(HOST, TARGET)
        for end in ("key", "pem"):
            (self.certificates / f"{HOST}.{end}").unlink()
        until("tracking to be off", lambda: self.tracked(server) is None, 15)
        self.said(self.checked(server), "tracking for example.com", "no certificate", "no pair of files")

    def test_no_pair_for_the_target(self):
        server = self.begin(HOST)
        self.said(self.checked(server), "warning", "tracking.certificates_dir", f"no pair for {TARGET}", code=0)

    def test_pairs_that_are_of_no_use(self):
        self.put("other.example.com", "www.example.com")
        server = self.begin(HOST, TARGET)
        (self.certificates / f"{TARGET}.key").chmod(0o666)
        ended = self.checked(server)
        self.said(ended, "warning", f"no certificate for {TARGET}", "mode 0666 lets others at this key", code=0)
        self.said(ended, "warning", "no certificate for other.example.com", "does not name", code=0)
        (self.certificates / f"{TARGET}.key").chmod(0o640)
        self.assertNotIn(TARGET, self.checked(server).stderr)

    def test_one_that_signed_itself(self):
        server = self.begin(HOST, TARGET)
        new = self.folder / "new"
        succeed("openssl", *"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=Own".split(),
                "-addext", f"subjectAltName=DNS:{HOST}", "-keyout", f"{new}.key", "-out", f"{new}.pem")
        for end in ("key", "pem"):
            pathlib.Path(f"{new}.{end}").replace(self.certificates / f"{HOST}.{end}")
        until("a word about it", lambda: "signed by itself: browsers refuse" in server.log(), 15)
        self.said(self.checked(server), "warning", f"certificate of {HOST}", "signed by itself", code=0)


class OwnPairs(Said, unittest.TestCase):
    """What mail and the API show: `check` says before a start what a start refuses."""

    def setUp(self):
        kept = folder()
        self.addCleanup(kept.cleanup)
        self.folder = pathlib.Path(kept.name)
        relay.certificate(self.folder)
        self.config = self.folder / "trackpost.toml"

    def both(self, section):
        """What `check` and `serve` end with."""
        files = {"certificate_file": str(self.folder / "relay.pem"), "key_file": str(self.folder / "relay.key")}
        settings = {"smtp": files} if section == "smtp" else {"api": files | {"tls": "files"}}
        listener = {"tls": "starttls"} if section == "smtp" else relay.TRUSTED
        self.config.write_text(relay.configuration(25, (listener,), settings))
        return [run(relay.program(), "--config", self.config, command) for command in ("check", "serve")]

    def test_a_key_that_others_read(self):
        for section in ("smtp", "api"):
            for mode in (0o644, 0o666, 0o620):
                with self.subTest(section=section, mode=mode):
                    (self.folder / "relay.key").chmod(mode)
                    check, serve = self.both(section)
                    why = f"{self.folder}/relay.key: mode {mode:04o} lets others at this key; chmod 640 it"
                    self.said(check, f"{section}.key_file: {why}")
                    self.said(serve, why)

    def test_a_pair_that_does_not_go_together(self):
        (self.folder / "relay.key").write_bytes((self.folder / "root.key").read_bytes())
        for section in ("smtp", "api"):
            with self.subTest(section):
                for ended in self.both(section):
                    self.said(ended, f"{self.folder}/relay.key: does not go with {self.folder}/relay.pem")

    def test_a_certificate_that_is_none(self):
        (self.folder / "relay.pem").write_text("hello")
        for section in ("smtp", "api"):
            with self.subTest(section):
                check, serve = self.both(section)
                self.said(check, f"{section}.certificate_file: {self.folder}/relay.pem: holds no certificate")
                self.said(serve, "holds no certificate")

    def test_good_ones(self):
        (self.folder / "relay.key").chmod(0o640)
        for section, keys in (("smtp", {}), ("api", {"tls": "files"})):
            files = {"certificate_file": str(self.folder / "relay.pem"), "key_file": str(self.folder / "relay.key")}
            self.config.write_text(relay.configuration(25, ({"tls": "starttls"},) if section == "smtp" else
                                                       (relay.TRUSTED,), {section: files | keys}))
            ended = run(relay.program(), "--config", self.config, "check")
            self.assertEqual((ended.returncode, ended.stderr), (0, ""), section)
            self.assertFalse((self.folder / "data").exists(), "nothing was made")
