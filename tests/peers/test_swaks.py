"""swaks over STARTTLS with AUTH, and over TLS from the first byte."""

import unittest

from submission import Submission
from support import DOTS, SENDER, check, fixture, received, run


class Swaks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Submission(("plain", "login", "implicit", "dots")))

    def swaks(self, listener, recipient, message, *options):
        # It adds the end of the last line by itself.
        path = self.server.file(recipient, message.removesuffix(b"\r\n"))
        return run(
            "swaks", "--server", "127.0.0.1", "--port", self.server.ports[listener], "--ehlo", "app.shop.example.com",
            "--from", SENDER, "--to", f"{recipient}@example.net", "--data", f"@{path}", "--timeout", "10", *options,
        )

    def trusting(self, tls):
        return tls, "--tls-verify", "--tls-ca-path", self.server.root

    def auth(self, kind, password=None):
        return "--auth", kind, "--auth-user", "resend", "--auth-password", password or self.server.token

    def arrives(self, listener, user, *options):
        original = fixture("newsletter")
        ended = self.swaks(listener, user, original, *options)
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
        copy = self.server.behind.wait_for(user)
        report = check(original, copy.message, self.server.relay.web)
        self.assertEqual((report["violations"], len(report["links"])), ([], 21))
        self.assertEqual(received(copy.message)[1], ("relay.example.net", "ESMTPSA"))

    def test_starttls_and_auth_plain(self):
        self.arrives("starttls", "plain", *self.trusting("--tls"), *self.auth("PLAIN"))

    def test_starttls_and_auth_login(self):
        self.arrives("starttls", "login", *self.trusting("--tls"), *self.auth("LOGIN"))

    def test_tls_from_the_first_byte(self):
        self.arrives("implicit", "implicit", *self.trusting("--tlsc"), *self.auth("PLAIN"))

    def test_certificate_is_verified(self):
        # Not signed by any root of the system's: without our root swaks must leave.
        for listener, option in (("starttls", "--tls"), ("implicit", "--tlsc")):
            ended = self.swaks(listener, "plain", DOTS, option, "--tls-verify", *self.auth("PLAIN"))
            self.assertEqual(ended.returncode, 29, ended.stdout)
            self.assertNotIn("MAIL FROM", ended.stdout)

    def test_dots_and_blanks_arrive_as_they_are(self):
        ended = self.swaks("plain", "dots", DOTS)
        self.assertEqual(ended.returncode, 0, ended.stdout)
        copy = self.server.behind.wait_for("dots")
        self.assertTrue(copy.message.endswith(DOTS), copy.message)

    def test_wrong_password_is_refused(self):
        for listener, tls in (("starttls", "--tls"), ("implicit", "--tlsc")):
            for kind in ("PLAIN", "LOGIN"):
                wrong = self.server.token[:-1] + ("a" if self.server.token[-1] != "a" else "b")
                ended = self.swaks(listener, "plain", DOTS, *self.trusting(tls), *self.auth(kind, wrong))
                self.assertEqual(ended.returncode, 28, ended.stdout)
                self.assertIn("<~* 535 5.7.8 ", ended.stdout)
                self.assertNotIn("MAIL FROM", ended.stdout)

    def test_nobody_sends_without_auth(self):
        for listener, tls in (("starttls", "--tls"), ("implicit", "--tlsc")):
            ended = self.swaks(listener, "plain", DOTS, *self.trusting(tls))
            self.assertEqual(ended.returncode, 23, ended.stdout)
            self.assertIn("<~* 530 5.7.0 ", ended.stdout)
