"""Whatever the CA does, the state says it in the CA's words, tries again when it may, and ends well once it is over.

Mail is never tracked while there is no certificate.
"""

import http.server
import json
import pathlib
import re
import threading

import handshake
import rest
from base import HOST, LINKS, TARGET, Acme, load_tests  # noqa: F401
from failing import SECOND_PAUSE, Failing
from front import Answer, changed, error, hung_up, late, problem, silent, swapped
from nginx import Authority
from pebble import names
from support import until

NOT_JSON = Answer(200, {"Content-Type": "text/html"}, b"<html>Sign in to the network</html>")


def invalid(kind, detail):
    """The order ends in this error."""
    def change(body):
        body["status"] = "invalid"
        body["error"] = {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail, "status": 403}

    return changed(change)


# Name: the kinds of requests, what is done to them, what the state says, one of several where it is a tuple.
FAULTS = {
    "directory_500": ("directory", error(500), "500"),
    "directory_is_a_sign_in_page": ("directory", lambda _asked: NOT_JSON, ()),
    "directory_404": ("directory", error(404), "404"),
    "hangs_up": ("directory", hung_up, ()),
    "nonces_500": ("nonce", error(500), "nonce"),
    "account_refused": ("account", problem(403, "unauthorized", "no more accounts today"), "no more accounts today"),
    "terms_have_changed": ("account", problem(403, "userActionRequired", "agree to the new terms"),
                           "agree to the new terms"),
    "order_500": ("order", error(500), "500"),
    "order_503_of_a_balancer": ("order", error(503, b"no backend"), "503"),
    "order_server_internal": ("order", problem(500, "serverInternal", "the database is away"), "the database is away"),
    "order_malformed": ("order", problem(400, "malformed", "an odd request"), "an odd request"),
    "order_unauthorized": ("order", problem(403, "unauthorized", "this account is locked"), "this account is locked"),
    "order_caa": ("order", problem(403, "caa", "CAA record prevents issuance"), "CAA record prevents issuance"),
    "order_rate_limited_without_a_time": ("order", problem(429, "rateLimited", "too many certificates"),
                                          "too many certificates"),
    "order_ends_invalid": ("look", invalid("dns", "the name was not found"), "the name was not found"),
    "authorization_500": ("authorization", error(500), "500"),
    "challenge_500": ("challenge", error(500), "500"),
    "finalize_bad_csr": ("finalize", problem(400, "badCSR", "weak key"), "weak key"),
    "finalize_server_internal": ("finalize", problem(500, "serverInternal", "no signer"), "no signer"),
    "finalize_not_ready": ("finalize", problem(403, "orderNotReady", "come back later"), "come back later"),
    "nonces_are_never_good": ("order", problem(400, "badNonce", "a nonce of yesterday"), ("nonce",)),
    "certificate_404": ("certificate", error(404), "404"),
    "certificate_is_none": ("certificate", lambda asked: swapped(asked, b""), "certificate"),
    "certificate_is_text": ("certificate", lambda asked: swapped(asked, b"-----BEGIN CERTIFICATE-----\nAAAA\n"
                                                                        b"-----END CERTIFICATE-----\n"), "certificate"),
}


class Faults(Failing):
    def goes_through(self, kind, fault, said):
        found = self.fails(kind, fault, said)
        self.assertTrue(20 < self.retry_in(found) <= SECOND_PAUSE, found)
        self.assertLessEqual(len(self.front.orders(HOST)), 2)
        self.recovers()

    def test_nobody_listens(self):
        self.server = self.begin(clock=True)
        self.front.deafen()
        self.domain = self.ask(self.server)
        found = self.failing(self.server, self.domain)
        self.assertRegex(found["message"], "(?i)connect|refused|reach")
        self.assertTrue(20 < self.retry_in(found) <= SECOND_PAUSE, found)
        self.assertIsNone(self.tracked(self.server))
        self.front.listen()
        self.recovers()

    def test_the_state_is_kept_over_a_restart(self):
        found = self.fails("order", problem(403, "unauthorized", "this account is locked"), "this account is locked")
        asked = len(self.front.orders(HOST))
        self.server.restart()
        again = self.failing(self.server, self.domain)
        self.assertIn("this account is locked", again["message"])
        self.assertIsNone(self.tracked(self.server))
        # A relay that is started again and again by whoever watches it is not to become a storm.
        self.assertLessEqual(len(self.front.orders(HOST)), asked + 1)
        self.assertGreaterEqual(self.retry_in(again), min(self.retry_in(found), 20) - 5)
        self.recovers()

    def test_a_ca_that_nobody_vouches_for(self):
        nobody = Authority(self.folder / "nobody")
        self.server = self.begin(clock=True, settings={"acme": {"ca_file": str(nobody.root)}})
        domain = self.ask(self.server)
        found = self.failing(self.server, domain)
        self.assertIn("certificate", found["message"].lower())
        self.assertEqual(self.front.requests(), [])

    def test_a_host_that_the_ca_finds_elsewhere(self):
        self.found_at("127.0.0.9", "links.a.example.org", "a.example.org", "127.0.0.9")

    def test_someone_else_answers_the_challenge(self):
        class Other(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"welcome")

            def log_message(self, *_):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.8", self.plain), Other) as other:
            threading.Thread(target=other.serve_forever, args=(0.05,), daemon=True).start()
            try:
                self.found_at("127.0.0.8", "links.b.example.org", "b.example.org", "welcome")
            finally:
                other.shutdown()

    def found_at(self, address, host, name, said):
        self.dns.zone(name, LINKS)
        names().lead(host, address)
        self.server = self.begin(clock=True)
        self.domain = self.ask(self.server, name)
        found = self.failing(self.server, self.domain)
        self.assertIn(said, found["message"])
        self.assertIsNone(self.tracked(self.server, name))
        names().lead(host, "127.0.0.1")
        self.pass_to_next_try(self.server, self.domain)
        self.ready(self.server, self.domain)

    def test_verify_tries_again(self):
        self.fails("order", problem(403, "unauthorized", "this account is locked"), "this account is locked")
        self.front.heal()
        rest.verify(self.server, self.domain)
        self.ready(self.server, self.domain)

    def test_the_command_line_says_it(self):
        self.fails("order", problem(403, "unauthorized", "this account is locked"), "this account is locked")
        text = " ".join(self.server.command("domain", "show", "example.com").split())
        self.assertIn(HOST, text)
        self.assertIn("this account is locked", text)


class Slowness(Failing):
    slow = True

    def test_silence(self):
        found = self.fails("order", silent, (), seconds=100)
        self.assertRegex(found["message"], "(?i)time|answer")
        self.recovers()

    def test_slow_is_no_fault(self):
        kinds = ("directory", "nonce", "account", "order", "authorization", "challenge", "look", "finalize",
                 "certificate")
        server = self.begin(faults={kind: late(1.5) for kind in kinds})
        domain = self.ask(server)
        self.ready(server, domain, seconds=90)
        self.assertEqual(len(self.front.orders(HOST)), 1)


def add(name, kind, fault, said):
    setattr(Faults, f"test_{name}", lambda self: self.goes_through(kind, fault, said))


for name, (kind, fault, said) in FAULTS.items():
    add(name, kind, fault, said)


class WrongCertificates(Failing):
    """What the CA hands out does not fit: it is not used, and not kept."""

    def given(self, host):
        issuer = Authority(self.folder / "issuer")
        pair = issuer.issue("given", host)
        body = pair.with_suffix(".pem").read_bytes() + issuer.root.read_bytes()
        self.fails("certificate", lambda asked: swapped(asked, body), "certificate")
        self.assertEqual(handshake.alert(self.secure, HOST), handshake.REFUSED)
        self.server.restart()
        self.assertEqual(handshake.alert(self.secure, HOST), handshake.REFUSED)
        self.recovers()

    def test_for_another_key(self):
        self.given(HOST)

    def test_for_another_host(self):
        self.given("www.example.com")

    def test_of_another_order(self):
        """A whole certificate of this CA, for another host and another key."""
        kept = []

        def other(asked):
            answer = asked.forward()
            if answer.refused_nonce:
                return answer
            kept.append(answer.body)
            return Answer(answer.status, answer.headers, kept[0])

        self.server = self.begin(clock=True)
        until("a certificate of the target", lambda: handshake.shaken(self.secure, TARGET, self.root), 15)
        kept.append((self.server.keys / f"cert-{TARGET}.pem").read_bytes())
        self.front.fail("certificate", other)
        self.domain = self.ask(self.server)
        self.failing(self.server, self.domain)
        self.assertEqual(handshake.alert(self.secure, HOST), handshake.REFUSED)
        self.recovers()


class Bodies(Acme):
    def test_one_that_is_too_long(self):
        """64 MiB of directory: refused long before its end, or at least not kept whole in memory many times."""
        huge = json.dumps({"meta": {"text": "x" * (64 << 20)}}).encode()
        answer = Answer(200, {"Content-Type": "application/json"}, huge)
        server = self.begin(faults={"directory": lambda _asked: answer})
        found = self.failing(server, self.ask(server), 60)
        self.assertTrue(found["message"])
        self.assertLess(len(found["message"]), 2000)
        status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
        self.assertLess(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1024, 200)

    def test_words_that_are_no_words(self):
        """What the CA says is shown, but not as a terminal or a browser would carry it out."""
        detail = "no\x1b[31m\r\nX-Evil: 1\n<script>\u202e" + "x" * 100_000
        server = self.begin()
        self.front.fail("order", problem(403, "unauthorized", detail))
        found = self.failing(server, self.ask(server))
        self.assertLess(len(found["message"]), 5000)
        text = server.command("domain", "show", "example.com")
        for part in ("\x1b", "\r", "\u202e"):
            self.assertNotIn(part, text)
        self.assertNotIn("\x1b", server.log())
