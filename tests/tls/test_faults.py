"""Whatever the CA does, the state says it in the CA's words, tries again when it may, and ends well once it is over.

Mail is never tracked while there is no certificate. Pauses are long, so the relay's clock is moved past them.
"""

import email.utils
import http.server
import json
import threading
import time

import handshake
import rest
from base import DAY, HOST, HOUR, LINKS, TARGET, Acme, certificate, load_tests  # noqa: F401
from front import Answer, changed, error, hung_up, late, of, problem, silent
from nginx import Authority
from pebble import names
from support import until

SECOND_PAUSE = 120
LONGEST = 12 * HOUR
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


def swapped(asked, body):
    answer = asked.forward()
    return answer if answer.refused_nonce else Answer(answer.status, answer.headers, body)


class Failing(Acme):
    def fails(self, kind, fault, said, host=HOST, seconds=30, **options):
        """A relay whose orders come to nothing; the state, which names what was said."""
        self.server = self.begin(clock=True, faults={kind: fault}, **options)
        self.domain = self.ask(self.server)
        self.assertEqual(self.domain["status"], "verified", "records are DNS's alone")
        found = self.failing(self.server, self.domain, seconds)
        self.assertEqual(found["host"], host)
        self.assertIsNone(self.tracked(self.server))
        for part in (said,) if isinstance(said, str) else said:
            self.assertIn(part.lower(), found["message"].lower())
        self.assertNotIn("valid_until", found)
        self.assertIn("certificate", rest.fetch(self.server, self.domain)["tracking"])
        return found

    def recovers(self):
        self.front.heal()
        self.pass_to_next_try(self.server, self.domain)
        domain = self.ready(self.server, self.domain)
        self.assertNotIn("message", certificate(domain))
        self.assertNotIn("next_try_at", certificate(domain))
        handshake.shake(self.secure, HOST, self.root)
        until("mail to be tracked", lambda: self.tracked(self.server) == HOST, 5)


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


class Pauses(Failing):
    def test_they_grow(self):
        found = self.fails("order", problem(403, "unauthorized", "this account is locked"), "this account is locked")
        for number in range(13):
            wanted = min(60 * 2 ** number, LONGEST)
            self.assertTrue(wanted * 0.5 <= self.retry_in(found) <= wanted * 1.5, (number, wanted, found))
            asked, due = len(self.front.orders(HOST)), found["next_try_at"]
            self.pass_to_next_try(self.server, self.domain)
            domain = self.reaches(self.server, self.domain, ("failed", "waiting"),
                                  also=lambda one, due=due: one.get("next_try_at", due) != due)
            found = certificate(domain)
            self.assertEqual(len(self.front.orders(HOST)), asked + 1)
        self.recovers()

    def retry_after(self, value, wanted, status=429, kind="rateLimited"):
        told = problem(status, kind, "too many certificates", Retry_After=value)
        found = self.fails("order", of(HOST, told), "too many certificates")
        self.assertTrue(wanted - 60 <= self.retry_in(found) <= wanted * 1.25 + 60, found)
        asked = len(self.front.orders(HOST))
        self.assertEqual(asked, 1)
        # Not before, whatever happens.
        self.clock.go_on(wanted - 600)
        self.server.restart()
        again = self.failing(self.server, self.domain)
        self.assertEqual(len(self.front.orders(HOST)), asked)
        self.assertGreater(self.retry_in(again), 0)
        self.recovers()

    def test_seconds(self):
        self.retry_after(7200, 7200)

    def test_a_date(self):
        self.retry_after(email.utils.formatdate(time.time() + 3 * HOUR, usegmt=True), 3 * HOUR)

    def test_longer_than_ours(self):
        self.retry_after(2 * DAY, 2 * DAY)

    def test_of_a_balancer(self):
        self.retry_after(7200, 7200, 503, "serverInternal")

    def test_one_that_is_no_time(self):
        told = problem(429, "rateLimited", "too many", Retry_After="soon")
        found = self.fails("order", of(HOST, told), "too many")
        self.assertTrue(20 < self.retry_in(found) <= SECOND_PAUSE, found)

    def test_one_that_is_too_long_to_be_meant(self):
        told = problem(429, "rateLimited", "too many", Retry_After=10 ** 15)
        found = self.fails("order", of(HOST, told), "too many")
        self.assertLess(self.retry_in(found), 400 * DAY)

    def test_others_go_on(self):
        """A limit is mostly that of one registered domain: no customer's holds for the others."""
        told = problem(429, "rateLimited", "too many certificates for example.com", Retry_After=2 * DAY)
        self.fails("order", of(HOST, told), "too many")
        self.dns.zone("example.org", LINKS)
        self.obtained(self.server, "example.org")

    def test_one_that_waits_for_others_says_so(self):
        """Where a limit does hold for all, a host that was not even asked for has a reason and a time."""
        told = problem(429, "rateLimited", "too many new orders", Retry_After=7200)
        self.server = self.begin(clock=True, faults={"order": told})
        until("an order", lambda: self.front.orders())
        self.domain = self.ask(self.server)
        self.failing(self.server, self.domain)
        self.recovers()

    def test_down_for_many(self):
        """A CA that is down is asked once for each host, and no more before its time."""
        names = [f"d{number}.example.com" for number in range(10)]
        self.server = self.begin(clock=True, names=(), faults={"directory": error(503, Retry_After=3600)})
        self.dns.zone("example.com", *(f"links.d{number} CNAME {TARGET}." for number in range(10)))
        for name in names:
            self.failing(self.server, self.ask(self.server, name))
        self.assertLessEqual(len(self.front.requests("directory")), len(names) + 1)


class Bodies(Acme):
    def test_one_that_is_too_long(self):
        """64 MiB of directory: refused long before its end, or at least not kept whole in memory many times."""
        huge = json.dumps({"meta": {"text": "x" * (64 << 20)}}).encode()
        answer = Answer(200, {"Content-Type": "application/json"}, huge)
        server = self.begin(faults={"directory": lambda _asked: answer})
        found = self.failing(server, self.ask(server), 60)
        self.assertTrue(found["message"])
        self.assertLess(len(found["message"]), 2000)
        status = dict(line.split(":", 1) for line in
                      open(f"/proc/{server.process.pid}/status").read().splitlines() if ":" in line)
        self.assertLess(int(status["VmHWM"].split()[0]) // 1024, 200)

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


class Clocks(Acme):
    def test_one_that_is_behind(self):
        """By its clock the CA's own certificate is not valid yet."""
        self.clock.set(-3 * 365 * DAY)
        server = self.begin(clock=True)
        domain = self.ask(server)
        found = self.failing(server, domain)
        self.assertRegex(found["message"].lower(), "certificate|valid|clock")
        self.assertIsNone(self.tracked(server))
        self.clock.set(0)
        self.ready(server, domain, seconds=30)

    def test_one_that_is_ahead_of_the_certificates_end(self):
        server = self.begin(clock=True, validity=DAY)
        self.clock.set(10 * DAY)
        domain = self.ask(server)
        until("an order", lambda: self.front.orders(HOST))
        found = self.failing(server, domain)
        self.assertIsNone(self.tracked(server), "by its own clock the certificate has expired")
        self.assertRegex(found["message"].lower(), "expire|clock|valid")
        end = time.monotonic() + 5
        while time.monotonic() < end:
            self.assertLessEqual(len(self.front.orders(HOST)), 2)
            time.sleep(0.2)
        self.clock.set(0)
        rest.verify(server, domain)
        self.ready(server, domain, seconds=30)
