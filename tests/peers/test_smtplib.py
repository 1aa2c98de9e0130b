"""Python's smtplib, as applications use it."""

import smtplib
import ssl
import unittest
from email.message import EmailMessage

from submission import Submission
from support import DEADLINE, DOTS, SENDER, check, fixture, received


class Smtplib(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        users = ("ada", "grace", "implicit", "login", "eightbit", "jürgen", "dots")
        cls.server = cls.enterClassContext(Submission(users))
        cls.context = ssl.create_default_context(cafile=cls.server.root)

    def starttls(self):
        client = self.enterContext(smtplib.SMTP("127.0.0.1", self.server.ports["starttls"], timeout=DEADLINE))
        client.starttls(context=self.context)
        return client

    def implicit(self):
        port = self.server.ports["implicit"]
        return self.enterContext(smtplib.SMTP_SSL("127.0.0.1", port, context=self.context, timeout=DEADLINE))

    def plain(self):
        return self.enterContext(smtplib.SMTP("127.0.0.1", self.server.ports["plain"], timeout=DEADLINE))

    def arrived(self, user, original, protocol):
        """Checks the one message of a mailbox; the checker's report."""
        copy = self.server.behind.wait_for(user)
        report = check(original, copy.message, self.server.relay.web)
        self.assertEqual(report["violations"], [])
        self.assertEqual(received(copy.message)[1], ("relay.example.net", protocol))
        return report

    def test_offers(self):
        always = {"pipelining", "size", "8bitmime", "smtputf8", "enhancedstatuscodes", "dsn"}
        client = self.enterContext(smtplib.SMTP("127.0.0.1", self.server.ports["starttls"], timeout=DEADLINE))
        client.ehlo()
        self.assertLessEqual(always | {"starttls"}, client.esmtp_features.keys())
        client.starttls(context=self.context)
        client.ehlo()
        self.assertLessEqual(always | {"auth"}, client.esmtp_features.keys())
        self.assertNotIn("starttls", client.esmtp_features)
        self.assertEqual(client.esmtp_features["auth"].split(), ["PLAIN", "LOGIN"])
        self.assertEqual(int(client.esmtp_features["size"]), 50 << 20)
        plain = self.plain()
        plain.ehlo()
        self.assertLessEqual(always, plain.esmtp_features.keys())
        self.assertFalse({"auth", "starttls"} & plain.esmtp_features.keys())

    def test_one_of_several_recipients_is_refused(self):
        client = self.starttls()
        client.login("resend", self.server.token)
        recipients = ["ada@example.net", "no one@example..net", "grace@example.net"]
        original = fixture("newsletter")
        refused = client.sendmail(SENDER, recipients, original)
        self.assertEqual(list(refused), ["no one@example..net"])
        self.assertEqual(refused["no one@example..net"][0], 501)
        reports = [self.arrived(user, original, "ESMTPSA") for user in ("ada", "grace")]
        self.assertEqual([len(report["links"]) for report in reports], [21, 21])
        # The session goes on.
        self.assertEqual(client.noop()[0], 250)

    def test_tls_from_the_first_byte(self):
        client = self.implicit()
        client.login("resend", self.server.token)
        client.sendmail(SENDER, ["implicit@example.net"], fixture("newsletter"))
        self.arrived("implicit", fixture("newsletter"), "ESMTPSA")

    def test_auth_login(self):
        client = self.starttls()
        client.ehlo()
        client.user, client.password = "resend", self.server.token
        self.assertEqual(client.auth("LOGIN", client.auth_login, initial_response_ok=False)[0], 235)
        client.sendmail(SENDER, ["login@example.net"], fixture("newsletter"))
        self.arrived("login", fixture("newsletter"), "ESMTPSA")

    def test_eight_bits(self):
        client = self.starttls()
        client.login("resend", self.server.token)
        original = fixture("eightbit")
        self.assertFalse(original.isascii())
        client.sendmail(SENDER, ["eightbit@example.net"], original, mail_options=["BODY=8BITMIME"])
        self.assertEqual(len(self.arrived("eightbit", original, "ESMTPSA")["links"]), 2)

    def test_addresses_beyond_ascii(self):
        message = EmailMessage()
        message["From"] = "Grüße <grüße@shop.example.com>"
        message["To"] = "jürgen@example.net"
        message["Subject"] = "Grüße aus Köln"
        message["Date"] = "Tue, 24 Nov 2026 06:00:00 +0000"
        message["Message-ID"] = "<utf8@shop.example.com>"
        link = '<a href="https://shop.example.com/für-dich?a=1&amp;b=2">für Dich</a>'
        message.set_content(f"<p>Hallo Jürgen, {link}</p>", "html", cte="8bit")
        client = self.starttls()
        client.login("resend", self.server.token)
        self.assertEqual(client.send_message(message), {})
        # What smtplib makes of it.
        original = message.as_bytes(policy=message.policy.clone(utf8=True, linesep="\r\n"))
        self.assertIn("To: jürgen@example.net\r\n".encode(), original)
        self.assertEqual(len(self.arrived("jürgen", original, "UTF8SMTPSA")["links"]), 1)

    def test_wrong_password_is_refused(self):
        for connect in (self.starttls, self.implicit):
            with self.assertRaises(smtplib.SMTPAuthenticationError) as refused:
                connect().login("resend", "re_wrong")
            self.assertEqual(refused.exception.smtp_code, 535)

    def test_nobody_sends_without_auth(self):
        for connect in (self.starttls, self.implicit):
            with self.assertRaises(smtplib.SMTPSenderRefused) as refused:
                connect().sendmail(SENDER, ["ada@example.net"], DOTS)
            self.assertEqual(refused.exception.smtp_code, 530)

    def test_key_of_another_domain_sends_nothing_of_ours(self):
        self.server.relay.track("shop.example.org")
        client = self.starttls()
        client.login("resend", self.server.relay.key("--domain", "shop.example.org"))
        with self.assertRaises(smtplib.SMTPDataError) as refused:
            client.sendmail(SENDER, ["ada@example.net"], DOTS)
        self.assertEqual(refused.exception.smtp_code, 550)
        self.assertIn(b"5.7.1", refused.exception.smtp_error)

    def test_dots_and_blanks_arrive_as_they_are(self):
        self.plain().sendmail(SENDER, ["dots@example.net"], DOTS)
        copy = self.server.behind.wait_for("dots")
        self.assertTrue(copy.message.endswith(DOTS), copy.message)
