"""`trackpost check --online` says what would fail before it does."""

import json

import paths  # noqa: F401
import rest
from base import HOST, LINKS, TARGET, Acme, load_tests  # noqa: F401
from front import error
from smarthost import CLOSE, Script


class Online(Acme):
    def checked(self, server, *options):
        return server.attempt("check", "--online", *options)

    def fine(self):
        server = self.begin()
        self.obtained(server)
        return server

    def said(self, ended, *parts):
        """One line on stderr names all of this, and the exit code says it too."""
        self.assertEqual(ended.returncode, 1, ended.stdout + ended.stderr)
        lines = [line for line in ended.stderr.splitlines() if all(part in line for part in parts)]
        self.assertTrue(lines, f"{parts}: {ended.stderr}")

    def test_all_is_well(self):
        server = self.fine()
        ended = self.checked(server)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""), ended.stdout)
        for part in (f"smarthost 127.0.0.1:{self.smarthost.port}", TARGET, HOST, self.front.directory):
            self.assertIn(part, ended.stdout)
        # Nobody was written to.
        self.assertEqual([copy for copy in self.smarthost.copies if not copy.taken], [])

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
