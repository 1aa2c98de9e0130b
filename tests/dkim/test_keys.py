"""The life of a domain's keys: made, published, looked for, used, turned over, brought from elsewhere, and gone."""

import pathlib
import re
import unittest

import paths  # noqa: F401, I001: it says where some of the others are
import parallel
import relay
import rest
import verifiers
from server import TARGET
from signing import DOMAIN, Ground, keys, txt
from support import folder, succeed, until

LINKS = f"links CNAME {TARGET}."
MESSAGE = b"From: news@shop.example.com\r\nTo: ada@example.net\r\nSubject: x\r\n" \
          b"Date: Tue, 24 Nov 2026 06:00:00 +0000\r\n\r\nHello.\r\n"


def openssl(*arguments):
    return succeed("openssl", *arguments, text=False)


def load_tests(_loader, tests, _pattern):
    return parallel.Suite(tests)


class Case(unittest.TestCase):
    def ground(self):
        kept = folder()
        self.addCleanup(kept.cleanup)
        self.folder = pathlib.Path(kept.name)
        ground = Ground(self.folder / "ground")
        self.addCleanup(ground.close)
        return ground

    def signs(self, ground):
        """The selector with which mail sent now is signed; None where it is not. What is signed must verify."""
        arrived = ground.one(MESSAGE)
        found = verifiers.signatures(arrived)
        if not found:
            return None
        self.assertIsNone(verifiers.dkimpy(arrived, DOMAIN, ground.dns.address))
        ((domain, selector),) = found
        self.assertEqual(domain, DOMAIN)
        return selector

    def wait(self, ground, domain, *states, seconds=30):
        """Until the keys' records have these states, the one of the newest first; the domain then."""
        def seen():
            fetched = rest.fetch(ground.server, domain)
            return fetched if [key["status"] for key in keys(fetched)] == list(states) else None

        return until(lambda: f"{states} instead of {keys(rest.fetch(ground.server, domain))}", seen, seconds)

    def key_files(self, ground):
        found = (ground.folder / "relay/data/keys").glob("dkim-*")
        return {path.name: path.stat().st_mode & 0o777 for path in found}

    def command(self, ground, *arguments):
        return ground.server.command("domain", *arguments)


class Life(Case):
    def test_is_made_published_and_used(self):
        ground = self.ground()
        domain = rest.create(ground.server, DOMAIN, subdomain=None, dkim=True)
        self.assertEqual((domain["dkim"], domain["status"]), (True, "not_started"))
        (record,) = keys(domain)
        shown = {key: record[key] for key in ("record", "name", "type", "ttl", "status")}
        self.assertEqual(shown, {"record": "DKIM", "name": f"trackpost._domainkey.{DOMAIN}", "type": "TXT",
                                 "ttl": "Auto", "status": "not_started"})
        self.assertRegex(record["value"], r"\Av=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A[A-Za-z0-9+/]{359}B\Z")
        self.assertEqual(self.key_files(ground), {f"dkim-{DOMAIN}-trackpost.key": 0o600})
        self.assertIsNone(self.signs(ground))

        domain = rest.verify(ground.server, domain)
        self.assertEqual((domain["status"], keys(domain)[0]["found"]),
                         ("pending", f"found nothing at trackpost._domainkey.{DOMAIN}"))
        self.assertIsNone(self.signs(ground))
        ground.dns.zone(DOMAIN, txt(record))
        domain = self.wait(ground, domain, "verified")
        self.assertEqual(domain["status"], "verified")
        self.assertNotIn("found", keys(domain)[0])
        self.assertEqual(self.signs(ground), "trackpost")

        domain = rest.update(ground.server, domain, dkim=False)
        self.assertEqual((domain["dkim"], keys(domain), domain["status"]), (False, [], "verified"))
        self.assertIsNone(self.signs(ground))
        domain = rest.update(ground.server, domain, dkim=True)
        self.assertEqual((keys(domain)[0]["value"], domain["status"]), (record["value"], "not_started"))
        self.assertIsNone(self.signs(ground))
        rest.verify(ground.server, domain)
        self.assertEqual(self.signs(ground), "trackpost")

    def test_what_dns_has_instead_is_said(self):
        ground = self.ground()
        domain = rest.create(ground.server, DOMAIN, subdomain=None, dkim=True)
        (record,) = keys(domain)
        value, name = record["value"], "trackpost._domainkey"
        half = len(value) // 2
        table = {
            "other": (f'{name} TXT "v=DKIM1; p={"MIIB" * 8}"', "another public key"),
            "cut": (f'{name} TXT "{value[:255]}"', "found the first 237 of the 392 characters of the key"),
            "revoked": (f'{name} TXT "v=DKIM1; p="', "revoked"),
            "quoted": (rf'{name} TXT "\"v=DKIM1; p=x\""', "quotation marks"),
            "spf": (f'{name} TXT "v=spf1 -all"', "does not begin with v=DKIM1"),
            "several": (f'{txt(record)}\n{name} TXT "v=DKIM1; p=MIIB"', "found 2 TXT records"),
            "doubled": (f"{name}.{DOMAIN} TXT {txt(record).partition(' TXT ')[2]}", f"enter {name} alone"),
            "nothing": ("", "found nothing at"),
        }
        for name_of, (records, want) in table.items():
            with self.subTest(name_of):
                ground.dns.zone(DOMAIN, records)
                domain = rest.verify(ground.server, domain)
                self.assertIn(want, keys(domain)[0].get("found", "nothing was found wrong"))
                self.assertEqual(keys(domain)[0]["status"], "pending")
        # As providers may rewrite it: tags in another order, split elsewhere, behind a CNAME.
        tags = f"v=DKIM1; p={value.partition('p=')[2]} ; t=s; k=rsa;"
        strings = f'"{tags[:half]}" "{tags[half:half + 9]}" "{tags[half + 9:]}"'
        ground.dns.zone(DOMAIN, f"{name} CNAME key", f"key TXT {strings}")
        domain = rest.verify(ground.server, domain)
        self.assertEqual(keys(domain)[0]["status"], "verified", keys(domain))
        self.assertEqual(self.signs(ground), "trackpost")

    def test_weighs_on_the_domain_beside_the_tracking_record(self):
        ground = self.ground()
        domain = rest.create(ground.server, DOMAIN, dkim=True)
        ground.dns.zone(DOMAIN, LINKS)
        domain = rest.verify(ground.server, domain)
        self.assertEqual(domain["status"], "partially_verified")
        # Tracking does not wait for the key, nor the key for tracking.
        self.assertTrue(domain["tracking"].startswith("opens and clicks, by links."), domain["tracking"])
        ground.dns.zone(DOMAIN, *map(txt, keys(domain)))
        domain = rest.verify(ground.server, domain)
        self.assertEqual((domain["status"], keys(domain)[0]["status"]), ("partially_verified", "verified"))
        self.assertEqual(self.signs(ground), "trackpost")

    def test_a_record_that_is_lost_goes_on_for_a_while(self):
        ground = self.ground()
        domain = ground.signed()
        ground.dns.zone(DOMAIN, LINKS)
        domain = rest.verify(ground.server, domain)
        self.assertEqual((keys(domain)[0]["status"], domain["status"]), ("temporary_failure", "partially_verified"))
        self.assertIn("d=shop.example.com", ground.one(MESSAGE).decode().partition("From:")[0])
        ground.publish(domain)
        self.wait(ground, domain, "verified")

    def test_comes_back_after_a_crash(self):
        ground = self.ground()
        domain = ground.signed()
        ground.server.restart()
        self.assertEqual(self.signs(ground), "trackpost")
        self.assertEqual(keys(rest.fetch(ground.server, domain)), keys(domain))

    def test_goes_with_the_domain(self):
        ground = self.ground()
        domain = ground.signed()
        (first,) = keys(domain)
        rest.remove(ground.server, domain)
        self.assertEqual(self.key_files(ground), {})
        self.assertIsNone(self.signs(ground))
        domain = rest.create(ground.server, DOMAIN, subdomain=None, dkim=True)
        self.assertNotEqual(keys(domain)[0]["value"], first["value"])
        self.assertEqual(keys(domain)[0]["status"], "not_started")
        self.assertIsNone(self.signs(ground))

    def test_a_backup_has_the_key(self):
        ground = self.ground()
        ground.signed()
        archive, config = self.folder / "backup.tar", self.folder / "again/trackpost.toml"
        ground.server.command("backup", archive)
        ground.server.kill()
        config.parent.mkdir()
        succeed(relay.program(), "--config", config, "restore", archive)
        ground.server.folder, ground.server.config = config.parent, config
        ground.server.start()
        self.assertEqual(self.signs(ground), "trackpost")


class BadInput(Case):
    def test_a_key_that_others_read_is_refused(self):
        ground = self.ground()
        domain = ground.signed()
        file = ground.folder / f"relay/data/keys/dkim-{DOMAIN}-trackpost.key"
        file.chmod(0o644)
        ground.server.restart()
        self.assertIsNone(self.signs(ground))
        why = f"{file}: mode 0644 lets others read this key; chmod 600 it"
        self.assertIn(f"mail is not signed: {why}", ground.server.log())
        self.assertIn(why, self.command(ground, "show", DOMAIN))
        file.write_text("nothing")
        file.chmod(0o600)
        ground.server.restart()
        self.assertIsNone(self.signs(ground))
        self.assertIn("no DKIM key that can be used", ground.server.log())
        # Another key helps, as for a key that was lost.
        self.command(ground, "dkim", "rotate", DOMAIN)
        ground.publish(rest.fetch(ground.server, domain))
        rest.verify(ground.server, domain)
        self.assertEqual(self.signs(ground), "trackpost2")
        ground.server.kill()

    def test_a_key_that_is_exposed_and_mended_while_the_server_runs(self):
        """No restart, and no change of a setting: the file alone."""
        ground = self.ground()
        ground.signed()
        file = ground.folder / f"relay/data/keys/dkim-{DOMAIN}-trackpost.key"
        self.assertEqual(self.signs(ground), "trackpost")
        kept = file.read_bytes()
        broken = {
            "lets others read this key": lambda: file.chmod(0o644),
            "no DKIM key that can be used": lambda: file.write_text("nothing"),
            "No such file": file.unlink,
        }
        for why, breaks in broken.items():
            with self.subTest(why):
                breaks()
                until("mail that is not signed", lambda: self.signs(ground) is None, 15)
                self.assertIn(why, self.command(ground, "show", DOMAIN))
                checked = ground.server.attempt("check", "--online")
                self.assertEqual(checked.returncode, 1)
                self.assertRegex(checked.stderr, rf"signing for {DOMAIN}: off: .*{why}")
                file.write_bytes(kept)
                file.chmod(0o600)
                self.assertIn("with selector trackpost", self.command(ground, "show", DOMAIN))
                until("mail that is signed", lambda: self.signs(ground) == "trackpost", 15)
        self.assertEqual(ground.server.log().count("mail is not signed: "), len(broken))
        # It has complained, which is no clean end.
        ground.server.kill()

    def test_fields_of_the_wrong_kind(self):
        ground = self.ground()
        for bad in ("yes", 1, [], {}):
            answer = rest.call(ground.server, "POST", "/domains", {"name": DOMAIN, "dkim": bad})
            self.assertEqual((answer.status, answer.body["name"]), (422, "validation_error"))
        domain = rest.create(ground.server, DOMAIN, subdomain=None, dkim=None)
        self.assertFalse(domain["dkim"])
        self.assertFalse(rest.update(ground.server, domain, dkim=None)["dkim"])
        self.assertEqual(self.key_files(ground), {})

    def test_commands_that_cannot_be_done(self):
        ground = self.ground()
        self.command(ground, "add", DOMAIN)
        for want, arguments in (
            ("DKIM is off for this domain", ("dkim", "rotate", DOMAIN)),
            ("there is no sender domain other.example.com", ("dkim", "rotate", "other.example.com")),
            ("No such file", ("dkim", "import", DOMAIN, "--key", self.folder / "none")),
        ):
            ended = ground.server.attempt("domain", *arguments)
            self.assertEqual((ended.returncode, ended.stdout), (1, ""), arguments)
            self.assertIn(want, ended.stderr)
        for arguments in (("dkim", "import", DOMAIN), ("dkim", "turn", DOMAIN), ("update", DOMAIN, "--dkim", "on")):
            self.assertEqual(ground.server.attempt("domain", *arguments).returncode, 2, arguments)


class Rotation(Case):
    def test_two_selectors_take_turns(self):
        ground = self.ground()
        domain = ground.signed()
        first = keys(domain)
        text = self.command(ground, "dkim", "rotate", DOMAIN)
        self.assertIn("with selector trackpost; trackpost2 is not verified", text)
        domain = rest.fetch(ground.server, domain)
        new, old = keys(domain)
        self.assertEqual((new["name"], new["status"]), (f"trackpost2._domainkey.{DOMAIN}", "not_started"))
        self.assertEqual((old["value"], old["status"], old["earlier"]), (first[0]["value"], "verified", True))
        self.assertEqual((domain["status"], self.signs(ground)), ("partially_verified", "trackpost"))
        # Once more, before the new one was seen: it takes the place of that.
        self.command(ground, "dkim", "rotate", DOMAIN)
        domain = rest.verify(ground.server, domain)
        self.assertNotEqual(keys(domain)[0]["value"], new["value"])
        self.assertEqual([key["status"] for key in keys(domain)], ["pending", "verified"])
        self.assertEqual(self.signs(ground), "trackpost")
        ground.publish(domain)
        domain = self.wait(ground, domain, "verified", "verified")
        self.assertEqual((domain["status"], self.signs(ground)), ("verified", "trackpost2"))
        # The record of the earlier one may go.
        ground.dns.zone(DOMAIN, LINKS, txt(keys(domain)[0]))
        domain = rest.verify(ground.server, domain)
        self.assertEqual([key["status"] for key in keys(domain)], ["verified", "temporary_failure"])
        self.assertEqual((domain["status"], self.signs(ground)), ("verified", "trackpost2"))

        self.command(ground, "dkim", "rotate", DOMAIN)
        domain = rest.fetch(ground.server, domain)
        self.assertEqual([key["name"].split(".")[0] for key in keys(domain)], ["trackpost", "trackpost2"])
        self.assertNotEqual(keys(domain)[0]["value"], first[0]["value"])
        self.assertEqual(self.signs(ground), "trackpost2")
        self.assertEqual(set(self.key_files(ground)),
                         {f"dkim-{DOMAIN}-trackpost.key", f"dkim-{DOMAIN}-trackpost2.key"})


class Import(Case):
    def key(self, *options, name="key.pem"):
        """A private key by OpenSSL, in a file."""
        file = self.folder / name
        openssl("genpkey", *(options or ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")), "-out", file)
        return file

    def test_of_both_forms(self):
        ground = self.ground()
        self.command(ground, "add", DOMAIN)
        key = self.key()
        public = re.sub(rb"-----.*-----|\s", b"", openssl("pkey", "-in", key, "-pubout")).decode()
        old = self.folder / "old.pem"
        old.write_bytes(openssl("rsa", "-in", key, "-traditional"))
        self.assertIn("BEGIN RSA PRIVATE KEY", old.read_text())
        for file, selector in ((key, "s2026"), (old, "mail-2")):
            text = self.command(ground, "dkim", "import", DOMAIN, "--key", file, "--selector", selector)
            self.assertIn(f"v=DKIM1; k=rsa; p={public}", text)
            domain = next(one for one in rest.done(ground.server, 200, "GET", "/domains")["data"])
            ground.publish(rest.fetch(ground.server, domain))
            domain = rest.verify(ground.server, domain)
            self.assertEqual((domain["dkim"], keys(domain)[0]["status"]), (True, "verified"))
            self.assertEqual(self.signs(ground), selector)
        files = {f"dkim-{DOMAIN}-s2026.key": 0o600, f"dkim-{DOMAIN}-mail_2.key": 0o600}
        self.assertEqual(self.key_files(ground), files)

    def test_keys_that_are_not_taken(self):
        ground = self.ground()
        ground.signed()
        small = self.key("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", name="small.pem")
        curve = self.key("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", name="curve.pem")
        edwards = self.key("-algorithm", "ED25519", name="edwards.pem")
        good = self.key()
        locked = self.folder / "locked.pem"
        openssl("pkey", "-in", good, "-aes256", "-passout", "pass:x", "-out", locked)
        public = self.folder / "public.pem"
        openssl("pkey", "-in", good, "-pubout", "-out", public)
        binary, large = self.folder / "binary", self.folder / "large"
        binary.write_bytes(bytes(range(256)) * 8)
        large.write_bytes(good.read_bytes() + b"x" * 3_000_000)
        for want, file, *more in (
            ("no private key in PEM form", binary),
            (f"{large}: it has more than 32 KiB", large),
            ("1024 bits", small),
            ("not RSA", curve),
            ("not RSA", edwards),
            ("encrypted", locked),
            ("no private key", public),
            ("is no DKIM selector", good, "--selector", "a_b"),
            ("mail is signed with the key of selector trackpost", good, "--selector", "trackpost"),
        ):
            ended = ground.server.attempt("domain", "dkim", "import", DOMAIN, "--key", file, *more)
            self.assertEqual((ended.returncode, ended.stdout), (1, ""), file)
            self.assertIn(want, ended.stderr)
        self.assertEqual(self.key_files(ground), {f"dkim-{DOMAIN}-trackpost.key": 0o600})
        self.assertEqual(self.signs(ground), "trackpost")
