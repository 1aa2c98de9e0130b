"""Mail of a real Postfix through trackpost into the mailboxes of another, and what comes back when it cannot."""

import email
import email.policy
import pathlib
import smtplib
import unittest

from around import Around
from route import Route
from support import SENDER, check, fixture, folder, named, received, until


class PostfixOnBothSides(unittest.TestCase):
    """Each test has recipients of its own, and awaits what comes back by the subject of what it sent."""

    STRICT = """smtpd_end_of_data_restrictions =
  check_recipient_access inline:{{strict@example.net = 554 5.7.1 Not this kind of mail}}
"""

    @classmethod
    def setUpClass(cls):
        users = ("ada", "grace", "edsger", "barbara", "donald", "strict")
        cls.route = cls.enterClassContext(Route(users, server=cls.STRICT))

    def test_newsletter_arrives_tracked(self):
        original = fixture("newsletter")
        self.route.front.sendmail(original, ["ada@example.net", "grace@example.net"], sender=SENDER)
        seen = set()
        for user in ("ada", "grace"):
            copy = self.route.behind.wait_for(user)
            seen |= self.tracked(original, copy.message)
            want = {"return-path": f"<{SENDER}>", "x-original-to": f"{user}@example.net"}
            self.assertEqual(copy.notes | want, copy.notes)
            by = received(copy.message)
            self.assertEqual(by, [("mx.example.net", "ESMTP"), ("relay.example.net", "ESMTP"), FROM_SENDMAIL])
        # One message, and links of their own for both.
        self.assertEqual((len({message for message, _ in seen}), len(seen)), (1, 2))

    def tracked(self, original, arrived):
        """Checks a copy of the newsletter; whose its links are."""
        report = check(original, arrived, self.route.relay.web)
        self.assertEqual(report["violations"], [])
        self.assertEqual((len(report["links"]), report["pixel"] is not None), (21, True))
        return {(link["message"], link["recipient"]) for link in report["links"]}

    def test_refused_recipient_is_reported_to_the_sender(self):
        original = named("refused", fixture("newsletter"))
        recipients = ["edsger@example.net", "nobody@example.net"]
        self.route.front.sendmail(original, recipients, "-V", "order-17", sender=SENDER)
        copy = self.route.behind.wait_for("edsger")
        self.tracked(original, copy.message)

        report, text, fields, returned = self.report_on("refused")
        self.assertEqual(report.notes["return-path"], "<>")
        self.assertIn("nobody@example.net", text)
        self.assertIn("User unknown in virtual mailbox table", text)
        self.assertNotIn("edsger", report.message.decode())
        (about_message, about_recipient) = fields
        self.assertEqual(about_message["Reporting-MTA"], "dns; relay.example.net")
        self.assertEqual(about_message["Original-Envelope-Id"], "order-17")
        self.assertEqual(about_recipient["Final-Recipient"].lower(), "rfc822; nobody@example.net")
        self.assertEqual((about_recipient["Action"], about_recipient["Status"]), ("failed", "5.1.1"))
        self.assertRegex(about_recipient["Diagnostic-Code"], "smtp; 550 5.1.1 .*User unknown in virtual mailbox table")
        self.assertEqual(returned["Message-ID"], email.message_from_bytes(original)["Message-ID"])

    def test_refused_message_is_reported_to_the_sender(self):
        original = named("strict", fixture("newsletter"))
        self.route.front.sendmail(original, ["strict@example.net"], sender=SENDER)
        until("the refusal", lambda: "Not this kind of mail" in self.route.relay.log())
        # Postfix still has the sender of what it refused after the dot: the next message must not be mixed up with it.
        self.route.front.sendmail(original, ["donald@example.net"], sender=SENDER)
        copy = self.route.behind.wait_for("donald")
        self.tracked(original, copy.message)

        _, text, (_, about_recipient), _ = self.report_on("strict")
        self.assertIn("Not this kind of mail", text)
        self.assertEqual((about_recipient["Action"], about_recipient["Status"]), ("failed", "5.7.1"))
        self.assertRegex(about_recipient["Diagnostic-Code"], "smtp; 554 5.7.1 .*Not this kind of mail")
        self.assertEqual(self.route.behind.delivered("strict"), 0)

    def test_delivery_is_reported_where_the_sender_asks(self):
        # The smarthost offers DSN, so the request is passed on and the report is its own.
        original = named("asked", fixture("newsletter"))
        options = ("-N", "success,failure", "-V", "order-18")
        self.route.front.sendmail(original, ["barbara@example.net"], *options, sender=SENDER)
        copy = self.route.behind.wait_for("barbara")
        self.tracked(original, copy.message)
        _, _, (about_message, about_recipient), _ = self.report_on("asked")
        self.assertEqual(about_message["Reporting-MTA"], "dns; mx.example.net")
        self.assertEqual(about_message["Original-Envelope-Id"], "order-18")
        self.assertEqual(about_recipient["Original-Recipient"], "rfc822;barbara@example.net")
        self.assertEqual(about_recipient["Action"], "delivered")

    def test_sender_who_wants_no_report_gets_none(self):
        original = named("unwanted", fixture("newsletter"))
        self.route.front.sendmail(original, ["nowhere@example.net"], "-N", "never", sender=SENDER)
        until("the refusal", lambda: 'to="nowhere@example.net"' in self.route.relay.log())
        # Of a later one there is a report, so one of the former would have been there.
        later = named("wanted", original)
        self.route.front.sendmail(later, ["nowhere@example.net"], sender=SENDER)
        self.report_on("wanted")
        until("nothing to be under way", lambda: not self.under_way())
        self.assertEqual(self.reports_on("unwanted"), [])

    def under_way(self):
        relay = self.route.relay.json("queue", "list")["messages"]
        return any((self.route.front.queue(), relay, self.route.behind.queue()))

    def reports_on(self, subject):
        about = f"Subject: {subject}\r\n".encode()
        return [mail for mail in self.route.front.mailbox("news") if about in mail.message]

    def report_on(self, subject):
        """The one report on a message: as it came, its text on one line, its groups of fields, the header returned."""
        until(f"a report on {subject}", lambda: self.reports_on(subject))
        (mail,) = self.reports_on(subject)
        report = email.message_from_bytes(mail.message, policy=email.policy.default)
        self.assertEqual(report.get_content_type(), "multipart/report")
        self.assertEqual(report.get_param("report-type"), "delivery-status")
        self.assertEqual(report["To"], SENDER)
        self.assertTrue(report["Auto-Submitted"].startswith("auto-"), report["Auto-Submitted"])
        text, status, returned = report.iter_parts()
        self.assertEqual(text.get_content_type(), "text/plain")
        self.assertEqual(status.get_content_type(), "message/delivery-status")
        self.assertIn(returned.get_content_type(), ("message/rfc822", "text/rfc822-headers"))
        inside = returned.get_content()
        if returned.get_content_type() == "text/rfc822-headers":
            inside = email.message_from_string(inside)
        return mail, " ".join(text.get_content().split()), list(status.iter_parts()), inside


class TlsAndAuth(unittest.TestCase):
    def test_newsletter_goes_the_whole_way_in_tls(self):
        route = self.enterContext(Route(("ada",), secure=True))
        original = fixture("newsletter")
        route.front.sendmail(original, ["ada@example.net"], sender=SENDER)
        copy = route.behind.wait_for("ada")
        report = check(original, copy.message, route.relay.web)
        self.assertEqual((report["violations"], len(report["links"])), ([], 21))
        by = received(copy.message)
        self.assertEqual(by, [("mx.example.net", "ESMTPS"), ("relay.example.net", "ESMTPSA"), FROM_SENDMAIL])
        until("all queues to be empty", lambda: not route.waiting())


# Mail that sendmail was given has come by no protocol.
FROM_SENDMAIL = ("mail.shop.example.com", None)


class PostfixAroundTheRelay(unittest.TestCase):
    """One Postfix on both sides: what leaves goes through trackpost, as docs/postfix.md has it."""

    ALIASES = "all@example.net ada@example.net, grace@example.net\n"

    def around(self, **options):
        return self.enterContext(Around(("ada", "grace", "archive"), **options))

    def test_newsletter_arrives_tracked_once(self):
        place = pathlib.Path(self.enterContext(folder()))
        (place / "aliases").write_text(self.ALIASES)
        around = self.around(more=f"virtual_alias_maps = texthash:{place}/aliases\nalways_bcc = archive@example.net\n")
        original = fixture("newsletter")
        around.postfix.sendmail(original, ["all@example.net"], sender=SENDER)
        whose = set()
        for user in ("ada", "grace", "archive"):
            whose |= {link["recipient"] for link in self.tracked(around, original, user)}
        self.assertEqual(len(whose), 3)
        until("the queues to be empty", lambda: not around.waiting())
        self.assertEqual([around.postfix.delivered(user) for user in ("ada", "grace", "archive")], [1, 1, 1])

    def tracked(self, around, original, user):
        copy = around.postfix.wait_for(user)
        report = check(original, copy.message, around.relay.web)
        self.assertEqual((report["violations"], len(report["links"])), ([], 21))
        return report["links"]

    def test_submission_is_tracked_and_a_stranger_who_writes_our_domain_is_not(self):
        original = fixture("newsletter")
        for both in (False, True):
            with self.subTest(both=both):
                around = self.around(both=both)
                send(around.submission, original, "ada")
                self.tracked(around, original, "ada")
                send(around.port, original, "grace")
                copy = around.postfix.wait_for("grace")
                self.assertTrue(copy.message.endswith(original), "not an octet of it is changed")
                by = [name for name, _ in received(copy.message)]
                back = ["mail.example.net", "relay.example.net", "mail.example.net"]
                self.assertEqual(by, back if both else back[:1])
                until("the queues to be empty", lambda: not around.waiting())


def send(port, message, user):
    with smtplib.SMTP("127.0.0.1", port, "stranger.example.org") as client:
        client.sendmail("stranger@example.org", [f"{user}@example.net"], message)
