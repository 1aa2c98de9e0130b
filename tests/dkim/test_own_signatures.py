"""Messages that bring a signature, that cannot be signed, or that the smarthost takes in another form only."""

import pathlib
import re
import unittest

import paths  # noqa: F401, I001: it says where some of the others are
import parallel
import rest
import verifiers
from signing import DOMAIN, Ground, split, without_trace
from smarthost import Script
from support import folder, until

HEAD = "From: News <news@shop.example.com>\r\nTo: ada@example.net\r\nSubject: {subject}\r\n" \
       "Date: Tue, 24 Nov 2026 06:00:00 +0000\r\nMessage-ID: <{subject}@shop.example.com>\r\n"
HTML = "Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" \
       "<html><body><a href=\"https://www.example.org/\">caf\u00e9</a></body></html>\r\n"
TEXT = "\r\nJust text.\r\n"
OWN = "DKIM-Signature: v=1; a=rsa-sha256; d=shop.example.com; s=elsewhere;\r\n h=from; bh=AAAA; b=AAAA\r\n"
OTHERS = "DKIM-Signature: v=1; a=rsa-sha256; d=mailer.example.net; s=a; h=from; bh=AAAA; b=AAAA\r\n" \
         "DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=a; h=from; bh=AAAA; b=AAAA\r\n"


def load_tests(_loader, tests, _pattern):
    return parallel.Suite(tests)


def message(subject, body=HTML, before="", after=""):
    return (before + HEAD.format(subject=subject) + after + body).encode()


class OwnSignatures(unittest.TestCase):
    def ground(self, settings=None, script=None):
        kept = folder()
        self.addCleanup(kept.cleanup)
        ground = Ground(pathlib.Path(kept.name) / "ground", settings, script)
        self.addCleanup(ground.close)
        return ground

    def signers(self, arrived):
        return [selector for domain, selector in verifiers.signatures(arrived) if domain == DOMAIN]

    def test_is_replaced_where_links_were_put_in(self):
        ground = self.ground()
        ground.signed()
        arrived = ground.one(message("html", before=OWN + OTHERS, after=OWN))
        self.assertEqual(self.signers(arrived), ["trackpost"])
        self.assertIn(b"/c/", arrived)
        self.assertIn(OTHERS.encode() + HEAD.format(subject="html").encode() + HTML.encode()[:20], arrived)
        # OpenDKIM and Mail::DKIM look at the others too; dkimpy is asked about ours alone.
        self.assertIsNone(verifiers.dkimpy(arrived, DOMAIN, ground.dns.address))
        self.assertIsNone(verifiers.mail_dkim({"a": arrived}, DOMAIN, ground.dns.address)["a"])

    def test_stays_the_only_one_where_nothing_was_changed(self):
        ground = self.ground()
        ground.signed()
        for name, original in {
            "text": message("text", TEXT, before=OWN),
            "asked": message("asked", before=OWN, after="X-PM-TrackLinks: None\r\nX-PM-TrackOpens: false\r\n"),
        }.items():
            with self.subTest(name):
                self.assertEqual(without_trace(ground.one(original)), original)
        others = message("others", TEXT, before=OTHERS)
        self.assertEqual(without_trace(split(ground.one(others))[1]), others)

    def test_stays_on_the_copies_of_those_who_are_excluded(self):
        ground = self.ground()
        ground.signed(excluded_recipients=["staff@example.net"])
        original = message("both", before=OWN)
        ground.send([original], recipients=["ada@example.net", "staff@example.net"])
        copies = ground.of_recipients(["ada@example.net", "staff@example.net"])
        self.assertEqual(without_trace(copies["staff@example.net"]), original)
        self.assertEqual(self.signers(copies["ada@example.net"]), ["trackpost"])

    def test_keeps_a_message_from_being_rewritten_while_no_key_is_in_use(self):
        ground = self.ground()
        domain = rest.create(ground.server, DOMAIN, dkim=True)
        ground.publish({"records": []})
        domain = rest.verify(ground.server, domain)
        self.assertEqual([record["status"] for record in domain["records"]], ["verified", "pending"])
        original = message("waits", before=OWN)
        self.assertEqual(without_trace(ground.one(original)), original)
        rest.update(ground.server, domain, dkim=False)
        original = message("off", before=OWN)
        self.assertEqual(without_trace(ground.one(original)), original)
        tracked = ground.one(message("tracked"))
        self.assertEqual((self.signers(tracked), b"/c/" in tracked), ([], True))

    def test_a_header_that_can_be_read_in_two_ways_is_not_signed(self):
        ground = self.ground()
        ground.signed()
        odd = {
            "line": message("line", after="no field at all\r\n"),
            "colon": message("colon", after="X-A : b\r\n"),
            "froms": message("froms", after="From: other@shop.example.com\r\n"),
            "vertical tab": message("tab").replace(b"News", b"Ne\x0bws", 1),
        }
        for name, original in odd.items():
            with self.subTest(name):
                arrived = ground.one(original)
                self.assertEqual(verifiers.signatures(arrived), [])
                signed = original.replace(b"Subject:", OWN.encode() + b"Subject:", 1)
                self.assertEqual(without_trace(ground.one(signed)), signed, "and one that is signed is left alone")
        # Two From fields name no domain, so nobody asks for a signature.
        self.assertEqual(ground.server.log().count("not signed: "), 2 * (len(odd) - 1))

    def test_without_8bitmime_what_is_signed_is_what_arrives(self):
        ground = self.ground(script=Script(offer=("PIPELINING",)))
        ground.signed()
        text = "Content-Type: text/plain; charset=utf-8\r\nMIME-Version: 1.0\r\n\r\ncaf\u00e9 \r\n"
        messages = {
            "html": message("html"),
            "text": message("text", text),
            "own": message("own", text, before=OWN),
            "ascii": message("ascii", TEXT),
        }
        arrived = {name: ground.one(original) for name, original in messages.items()}
        for name, copy in arrived.items():
            self.assertTrue(copy.isascii(), name)
            self.assertEqual(self.signers(copy), ["trackpost"], name)
        self.assertEqual(ground.failures(arrived), {})

    def test_mail_of_other_domains_is_not_signed(self):
        ground = self.ground()
        ground.signed()
        for domain in ("example.com", "mail.shop.example.com", "example.org"):
            original = message("other", TEXT).replace(b"news@shop.example.com", f"news@{domain}".encode())
            arrived = ground.one(original, sender=f"news@{domain}")
            self.assertEqual(without_trace(arrived), original)
        # The domain of the From field counts, not that of the envelope.
        arrived = ground.one(message("ours", TEXT), sender="bounces@example.org")
        self.assertEqual(self.signers(arrived), ["trackpost"])

    def test_large_messages_are_signed(self):
        ground = self.ground()
        ground.signed()
        line = "a line of text  with blanks \t \r\n"
        body = "Content-Type: text/plain\r\n\r\n" + line * (5_000_000 // len(line))
        arrived = {"lines": ground.one(message("lines", body)),
                   "html": ground.one(message("html", HTML.replace("caf\u00e9", f"\r\n{line}" * 50_000))),
                   "one line": ground.one(message("one", TEXT + "x" * 1_000_000))}
        self.assertEqual(ground.failures(arrived), {})

    def test_the_panic_switch_stops_tracking_alone(self):
        ground = self.ground()
        ground.signed()
        ground.server.command("tracking", "off")
        until("tracking to be off", lambda: b"/c/" not in ground.one(message("off")))
        arrived = ground.one(message("off"))
        self.assertEqual(self.signers(arrived), ["trackpost"])
        self.assertEqual(ground.failures({"off": arrived}), {})
        self.assertRegex(without_trace(split(arrived)[1]), re.compile(rb"\A" + re.escape(message("off")), re.S))
