"""`trackpost domain verify` and `show`: the records to add, how they are, and what was found instead, to be read."""

import json

import rest
from case import LINKS, Case, side_by_side as load_tests  # noqa: F401
from server import TARGET

HOST = "links.example.com"


class Command(Case):
    def begin(self, *records, settings=None):
        self.dns.zone("example.com", *records)
        server = self.relay(settings)
        server.command("domain", "add", "example.com", "--subdomain", "links", "--open", "--click")
        return server

    def row(self, text, kind="CNAME", name=HOST):
        """The words of the one line about a record."""
        lines = [line for line in text.splitlines() if line.split()[:2] == [kind, name]]
        self.assertEqual(len(lines), 1, text)
        return lines[0].split()

    def test_add_says_what_to_do(self):
        self.dns.zone("example.com")
        server = self.relay()
        text = server.command("domain", "add", "example.com", "--subdomain", "links", "--open", "--click")
        row = self.row(text)
        self.assertIn(TARGET, row)
        self.assertIn("not_started", row)

    def test_verify_in_vain(self):
        server = self.begin("links CNAME old.example.net.")
        ended = server.attempt("domain", "verify", "example.com")
        row = self.row(ended.stdout)
        self.assertEqual(row[:3], ["CNAME", HOST, TARGET])
        self.assertIn("pending", row)
        self.assertIn(f"found CNAME old.example.net, expected {TARGET}", " ".join(ended.stdout.split()))
        self.assertEqual(ended.stderr, "")

    def test_verify_done(self):
        server = self.begin(LINKS)
        text = server.command("domain", "verify", "example.com")
        row = self.row(text)
        self.assertIn("verified", row)
        self.assertNotIn("found", text)
        self.assertEqual(self.tracked(server), HOST)

    def test_a_table_lines_up(self):
        server = self.begin(LINKS)
        server.command("domain", "verify", "example.com")
        server.command("domain", "update", "example.com", "--subdomain", "a.much.longer.name")
        text = server.command("domain", "show", "example.com")
        rows = [line for line in text.splitlines() if "CNAME" in line and TARGET in line]
        self.assertEqual(len(rows), 2, text)
        self.assertEqual(rows[0].index(TARGET), rows[1].index(TARGET), text)
        self.assertTrue(all(line == line.rstrip() for line in text.splitlines()), text)

    def test_addresses(self):
        server = self.begin("links A 192.0.2.1")
        text = " ".join(server.attempt("domain", "verify", "example.com").stdout.split())
        self.assertIn("proxied or flattened", text)
        self.assertIn("DNS only", text)

    def test_a_name_that_was_doubled(self):
        server = self.begin(f"links.example.com CNAME {TARGET}.")
        self.assertIn("links.example.com.example.com", server.attempt("domain", "verify", "example.com").stdout)

    def test_caa(self):
        settings = {"tracking": {"tls": "acme", "https": ["127.0.0.1:0"]},
                    "acme": {"caa_issuer": "ca.example.net", "directory": "https://127.0.0.1:9/directory"}}
        server = self.begin(LINKS, '@ CAA 0 issue "other.example.org"', settings=settings)
        text = server.attempt("domain", "verify", "example.com").stdout
        self.assertIn("pending", self.row(text, "CAA", "example.com"))
        self.assertIn('0 issue "ca.example.net"', text)

    def test_show_says_what_verify_said(self):
        server = self.begin("links CNAME old.example.net.")
        before = server.command("domain", "show", "example.com")
        self.assertIn("not_started", self.row(before))
        server.attempt("domain", "verify", "example.com")
        after = server.command("domain", "show", "example.com")
        self.assertIn("pending", self.row(after))
        self.assertIn("found CNAME old.example.net", " ".join(after.split()))

    def test_list(self):
        server = self.begin(LINKS)
        server.command("domain", "verify", "example.com")
        (line,) = [line for line in server.command("domain", "list").splitlines() if "example.com" in line]
        self.assertIn("verified", line)

    def test_json_is_data(self):
        server = self.begin("links CNAME old.example.net.")
        shown = json.loads(server.attempt("domain", "verify", "example.com", "--json").stdout)
        self.assertEqual((shown["name"], rest.status(shown)), ("example.com", "pending"))
        self.assertIn("found CNAME old.example.net", rest.record(shown)["found"])
        self.assertEqual(server.json("domain", "show", "example.com")["records"], shown["records"])
        (listed,) = rest.done(server, 200, "GET", "/domains")["data"]
        self.assertEqual(listed["id"], shown["id"])

    def test_force(self):
        server = self.begin()
        text = server.command("domain", "verify", "example.com", "--force")
        self.assertIn("verified", self.row(text))
        self.assertIn("operator", text)
        self.assertEqual(self.tracked(server), HOST)
        self.assertIn("operator", server.command("domain", "show", "example.com"))
        (listed,) = rest.done(server, 200, "GET", "/domains")["data"]
        self.assertEqual(listed["status"], "verified")

    def test_one_that_is_not_there(self):
        server = self.begin()
        for command in ("verify", "show", "remove"):
            ended = server.attempt("domain", command, "example.org")
            self.assertEqual((ended.returncode, ended.stdout), (1, ""), command)
            self.assertIn("example.org", ended.stderr)

    def test_remove_says_what_becomes_of_links(self):
        server = self.begin(LINKS)
        server.command("domain", "verify", "example.com")
        self.assertIn("90 days", server.command("domain", "remove", "example.com"))
        self.assertEqual(rest.done(server, 200, "GET", "/domains")["data"], [])
