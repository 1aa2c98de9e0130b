"""The life of a domain's keys: made, published, looked for, used, turned over, brought from elsewhere, and gone."""

import datetime
import json
import pathlib
import re
import shutil
import socket
import struct
import time
import unittest

import paths  # noqa: F401, I001: it says where some of the others are
import parallel
import relay
import rest
import verifiers
from server import TARGET, Clock
from signing import DOMAIN, Ground, keys, txt, without_trace
from support import folder, succeed, until

LINKS = f"links CNAME {TARGET}."
MESSAGE = b"From: news@shop.example.com\r\nTo: ada@example.net\r\nSubject: x\r\n" \
          b"Date: Tue, 24 Nov 2026 06:00:00 +0000\r\n\r\nHello.\r\n"
UNSIGNED = b"From: news@shop.example.com\r\nTo: ada@example.net\r\nSubject: x\r\n" \
           b"Date: Tue, 24 Nov 2026 06:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n" \
           b"<html><body><a href=\"https://www.example.org/\">Look</a></body></html>\r\n"
SIGNED = b"DKIM-Signature: v=1; a=rsa-sha256; d=shop.example.com; s=elsewhere;\r\n" \
         b" h=from; bh=AAAA; b=AAAA\r\n" + UNSIGNED
HOUR = 3600


def openssl(*arguments):
    return succeed("openssl", *arguments, text=False)


def load_tests(_loader, tests, _pattern):
    return parallel.Suite(tests)


class Case(unittest.TestCase):
    def ground(self, settings=None, environment=None):
        kept = folder()
        self.addCleanup(kept.cleanup)
        self.folder = pathlib.Path(kept.name)
        ground = Ground(self.folder / "ground", settings, environment=environment)
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

    def refused(self, ground, want, *arguments):
        ended = ground.server.attempt("domain", *arguments)
        self.assertEqual((ended.returncode, ended.stdout), (1, ""), arguments)
        self.assertIn(want, ended.stderr)


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


class Lost(Case):
    """The record goes. The clock of the relay is ours."""

    def lost(self, on_signed):
        clock = Clock(self.enterContext(folder()))
        ground = self.ground({"rewrite": {"on_signed": on_signed}}, clock.environment)
        domain = ground.signed()
        self.assertEqual(self.both(ground), (True, True))
        ground.dns.zone(DOMAIN, LINKS)
        domain = rest.verify(ground.server, domain)
        self.assertEqual((keys(domain)[0]["status"], domain["status"]), ("temporary_failure", "partially_verified"))
        return ground, domain, clock

    def both(self, ground):
        """Whether a message that brings a signature of its domain is signed by us, and whether it is tracked."""
        arrived = ground.one(SIGNED)
        own = [selector for of, selector in verifiers.signatures(arrived) if of == DOMAIN]
        self.assertIn(own, (["trackpost"], ["elsewhere"]))
        return own == ["trackpost"], b"/c/" in arrived

    def after_72_hours(self, ground, domain, clock):
        clock.set(70 * HOUR)
        ground.server.restart()
        until("the look in the 70th hour", lambda: later(keys(rest.fetch(ground.server, domain))[0], clock))
        self.wait(ground, domain, "temporary_failure")
        self.assertEqual(self.both(ground), (True, True))
        clock.set(75 * HOUR)
        ground.server.restart()
        domain = self.wait(ground, domain, "failed")
        self.assertEqual(domain["status"], "failed")
        self.assertEqual((keys(domain)[0]["found"], "next_check_at" in keys(domain)[0]),
                         (f"found nothing at trackpost._domainkey.{DOMAIN}", False))
        self.assertIn("trackpost is not verified", self.command(ground, "show", DOMAIN))
        self.assertEqual(verifiers.signatures(ground.one(MESSAGE)), [], "no longer signed")
        # Tracking has a record of its own, so what brings no signature goes on being tracked.
        self.assertIn(b"/c/", ground.one(UNSIGNED))
        return domain

    def test_skip_leaves_signed_mail_alone_after_72_hours(self):
        ground, domain, clock = self.lost("skip")
        domain = self.after_72_hours(ground, domain, clock)
        self.assertEqual(self.both(ground), (False, False))
        self.assertEqual(without_trace(ground.one(SIGNED)), SIGNED)
        # Not given up for ever: somebody publishes it again, and asks.
        ground.publish(domain)
        domain = rest.verify(ground.server, domain)
        self.assertEqual((domain["status"], self.both(ground)), ("verified", (True, True)))

    def test_rewrite_tracks_it_and_breaks_the_signature_it_brings(self):
        ground, domain, clock = self.lost("rewrite")
        self.after_72_hours(ground, domain, clock)
        self.assertEqual(self.both(ground), (False, True))


def later(record, clock):
    """The relay has looked since its clock was set: the next look is ahead of that."""
    at = record.get("next_check_at")
    return at and datetime.datetime.fromisoformat(at).timestamp() > time.time() + clock.ahead


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
        # Once more, before the new one was seen: somebody may be publishing it. By force it takes the place of that.
        self.refused(ground, f"the TXT record trackpost2._domainkey.{DOMAIN} of the key made last is still awaited",
                     "dkim", "rotate", DOMAIN)
        self.assertEqual(keys(rest.fetch(ground.server, domain)), [new, old])
        self.command(ground, "dkim", "rotate", DOMAIN, "--force")
        domain = rest.verify(ground.server, domain)
        self.assertNotEqual(keys(domain)[0]["value"], new["value"])
        self.assertEqual([key["status"] for key in keys(domain)], ["pending", "verified"])
        self.assertEqual(self.signs(ground), "trackpost")
        ground.publish(domain)
        domain = self.wait(ground, domain, "verified", "verified")
        self.assertEqual((domain["status"], self.signs(ground)), ("verified", "trackpost2"))
        # Mail that trackpost signed until now is on its way.
        self.refused(ground, f"may be signed with the key of trackpost._domainkey.{DOMAIN}", "dkim", "rotate", DOMAIN)
        # The record of the earlier one may go.
        ground.dns.zone(DOMAIN, LINKS, txt(keys(domain)[0]))
        domain = rest.verify(ground.server, domain)
        self.assertEqual([key["status"] for key in keys(domain)], ["verified", "temporary_failure"])
        self.assertEqual((domain["status"], self.signs(ground)), ("verified", "trackpost2"))

        self.command(ground, "dkim", "rotate", DOMAIN, "--force")
        domain = rest.fetch(ground.server, domain)
        self.assertEqual([key["name"].split(".")[0] for key in keys(domain)], ["trackpost", "trackpost2"])
        self.assertNotEqual(keys(domain)[0]["value"], first[0]["value"])
        self.assertEqual(self.signs(ground), "trackpost2")
        self.assertEqual(set(self.key_files(ground)),
                         {f"dkim-{DOMAIN}-trackpost.key", f"dkim-{DOMAIN}-trackpost2.key"})

    def test_an_earlier_key_is_forgotten(self):
        ground = self.ground()
        domain = ground.signed()
        self.refused(ground, "the key of selector trackpost signs mail", "dkim", "forget", DOMAIN, "trackpost")
        self.command(ground, "dkim", "rotate", DOMAIN)
        for selector, want in (
            ("trackpost", "the key of selector trackpost signs mail"),
            ("trackpost2", "the key of selector trackpost2 signs mail, or is to"),
            ("other", "the domain has no DKIM key of selector other"),
            ("a_b", "is no DKIM selector"),
        ):
            self.refused(ground, want, "dkim", "forget", DOMAIN, selector)
        domain = rest.fetch(ground.server, domain)
        ground.publish(domain)
        domain = rest.verify(ground.server, domain)
        shown = json.loads(self.command(ground, "dkim", "forget", DOMAIN, "trackpost", "--json"))
        self.assertEqual([key["name"] for key in keys(shown)], [f"trackpost2._domainkey.{DOMAIN}"])
        self.assertEqual(self.key_files(ground), {f"dkim-{DOMAIN}-trackpost2.key": 0o600})
        self.assertEqual(self.signs(ground), "trackpost2")
        ground.server.restart()
        self.assertEqual(keys(rest.fetch(ground.server, domain)), keys(domain)[:1])
        # Its selector is free again, so no record is taken from anything.
        self.assertIn(f"trackpost._domainkey.{DOMAIN}", self.command(ground, "dkim", "rotate", DOMAIN))
        self.assertEqual(self.signs(ground), "trackpost2")


class Litter(Case):
    def test_none_is_left_by_those_who_hang_up(self):
        """They ask for the domain to go, and go themselves."""
        ground = self.ground()
        for number in range(12):
            domain = rest.create(ground.server, DOMAIN, subdomain=None, dkim=True)
            self.assertEqual(len(self.key_files(ground)), 1)
            with socket.create_connection(("127.0.0.1", ground.server.api), 10) as client:
                client.sendall(f"DELETE /domains/{domain['id']} HTTP/1.1\r\nHost: x\r\n"
                               f"Authorization: Bearer {ground.server.token}\r\n\r\n".encode())
                # Some at once, by a reset; some while the log is being synced.
                time.sleep(number % 6 / 2000)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            rest.call(ground.server, "DELETE", f"/domains/{domain['id']}")
            until("it to be gone", lambda: not rest.done(ground.server, 200, "GET", "/domains")["data"])
            until("the file to be gone", lambda: self.key_files(ground) == {}, 10)

    def test_what_a_crash_has_left_is_swept_at_the_start(self):
        ground = self.ground()
        ground.signed()
        folder = ground.folder / "relay/data/keys"
        left = [folder / f"dkim-{name}.key" for name in ("gone.example.com-trackpost", "a-b.test-mail_2")]
        ours = folder / f"dkim-{DOMAIN}-trackpost.key"
        kept = [ours, folder / "dkim-notes.txt", folder / f"dkim-{DOMAIN}-elsewhere.key"]
        for file in (*left, *kept[1:]):
            file.write_bytes(ours.read_bytes())
        ground.server.restart()
        self.assertEqual([file.exists() for file in left], [False, False])
        self.assertEqual([file.exists() for file in kept], [True, True, True])
        for file in left:
            self.assertIn(str(file), ground.server.log())
        self.assertEqual(self.signs(ground), "trackpost")

    def test_nothing_is_swept_where_the_settings_are_gone(self):
        """The log is lost; the keys are all that is left of the domain."""
        ground = self.ground()
        ground.signed()
        files = self.key_files(ground)
        ground.server.kill()
        for gone in ("log", "store"):
            shutil.rmtree(ground.folder / "relay/data" / gone)
        ground.server.token = None
        ground.server.start()
        self.assertEqual((len(files), self.key_files(ground)), (1, files))


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
