"""`curl smtp://` and `smtps://` with a message to upload."""

import unittest

from relay import HOST
from submission import Submission
from support import DOTS, SENDER, check, fixture, local, received, run

# Exit codes.
REFUSED_DATA, SEND_FAILED, UNTRUSTED, LOGIN_DENIED = 8, 55, 60, 67


class Curl(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        users = ("plain", "starttls", "login", "implicit", "one", "two", "dots", "newlines")
        cls.server = cls.enterClassContext(Submission(users))

    def curl(self, scheme, listener, recipients, message, *options, host=HOST):
        """With the host's name, which curl holds against the certificate."""
        port = self.server.ports[listener]
        to = [option for user in recipients for option in ("--mail-rcpt", f"{user}@example.net")]
        return run(
            "curl", "--disable", "--silent", "--show-error", "--verbose", "--noproxy", "*", "--max-time", "20",
            "--url", f"{scheme}://{host}:{port}/app.shop.example.com", "--resolve", f"{host}:{port}:127.0.0.1",
            "--mail-from", SENDER, *to, "--upload-file", self.server.file("-".join(recipients), message), *options,
        )

    def secure(self, token=None):
        return "--ssl-reqd", "--cacert", self.server.root, "--user", f"resend:{token or self.server.token}"

    def arrives(self, protocol, scheme, listener, users, *options):
        original = fixture("newsletter")
        ended = self.curl(scheme, listener, users, original, *options)
        self.assertEqual(ended.returncode, 0, ended.stderr)
        seen = set()
        for user in users:
            copy = self.server.behind.wait_for(user)
            report = check(original, copy.message, self.server.relay.web)
            self.assertEqual((report["violations"], len(report["links"])), ([], 21))
            self.assertEqual(received(copy.message)[1], (HOST, protocol))
            seen |= {link["recipient"] for link in report["links"]}
        self.assertEqual(len(seen), len(users))

    def test_without_tls_from_a_trusted_network(self):
        self.arrives("ESMTP", "smtp", "plain", ["plain"])

    def test_starttls(self):
        self.arrives("ESMTPSA", "smtp", "starttls", ["starttls"], *self.secure())

    def test_starttls_and_auth_login(self):
        self.arrives("ESMTPSA", "smtp", "starttls", ["login"], *self.secure(), "--login-options", "AUTH=LOGIN")

    def test_smtps(self):
        self.arrives("ESMTPSA", "smtps", "implicit", ["implicit"], *self.secure())

    def test_two_recipients_have_links_of_their_own(self):
        self.arrives("ESMTPSA", "smtps", "implicit", ["one", "two"], *self.secure())

    def test_dots_and_blanks_arrive_as_they_are(self):
        ended = self.curl("smtp", "plain", ["dots"], DOTS)
        self.assertEqual(ended.returncode, 0, ended.stderr)
        copy = self.server.behind.wait_for("dots")
        self.assertTrue(copy.message.endswith(DOTS), copy.message)

    def test_bare_newlines_are_refused_or_made_whole(self):
        # curl sends a file as it is, and adds the end of a line where it finds no CRLF.
        refused = self.curl("smtp", "plain", ["newlines"], local(DOTS))
        self.assertEqual(refused.returncode, REFUSED_DATA, refused.stderr)
        self.assertIn("550 5.5.2", refused.stderr)
        taken = self.curl("smtp", "normalizing", ["newlines"], local(DOTS))
        self.assertEqual(taken.returncode, 0, taken.stderr)
        copy = self.server.behind.wait_for("newlines")
        self.assertTrue(copy.message.endswith(DOTS + b"\r\n"), copy.message)

    def test_certificate_and_its_name_are_verified(self):
        for scheme, listener in (("smtp", "starttls"), ("smtps", "implicit")):
            auth = ("--ssl-reqd", "--user", f"resend:{self.server.token}")
            stranger = self.curl(scheme, listener, ["plain"], DOTS, *auth)
            self.assertEqual(stranger.returncode, UNTRUSTED, stranger.stderr)
            misnamed = self.curl(scheme, listener, ["plain"], DOTS, *self.secure(), host="other.example.net")
            self.assertEqual(misnamed.returncode, UNTRUSTED, misnamed.stderr)

    def test_wrong_password_is_refused(self):
        for scheme, listener in (("smtp", "starttls"), ("smtps", "implicit")):
            ended = self.curl(scheme, listener, ["plain"], DOTS, *self.secure("re_wrong"))
            self.assertEqual(ended.returncode, LOGIN_DENIED, ended.stderr)
            self.assertIn("< 535 5.7.8", ended.stderr)

    def test_nobody_sends_without_auth(self):
        for scheme, listener in (("smtp", "starttls"), ("smtps", "implicit")):
            ended = self.curl(scheme, listener, ["plain"], DOTS, "--ssl-reqd", "--cacert", self.server.root)
            self.assertEqual(ended.returncode, SEND_FAILED, ended.stderr)
            self.assertIn("< 530 5.7.0", ended.stderr)
