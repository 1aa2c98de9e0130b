"""Signing secrets: a rotated one signs for 24 hours more, by the clock, and then no longer."""

import paths  # noqa: F401, I001
from base import Case, hook, ok, side_by_side
from case import DAY
from letters import submit
from verifiers import in_python, headers_of, is_signed, signatures

load_tests = side_by_side


class Secrets(Case):
    def test_two_for_a_day(self):
        http = self.receiver()
        server = self.relay(clock=True)
        id, first = hook(server, http.url("/hook"), ["email.sent"])

        def sent(count):
            submit(server)
            return http.wait("/hook", count, "email.sent")[count - 1]

        one = sent(1)
        self.assertEqual((len(signatures(one)), is_signed(one, first)), (1, True))
        made = ok(server, "POST", f"/webhooks/{id}/signing-secret/rotate")
        second = made.pop("signing_secret")
        self.assertEqual(made, {"object": "webhook", "id": id})
        self.assertNotEqual(first, second)
        self.assertRegex(second, r"\Awhsec_[A-Za-z0-9+/]{32}\Z")
        self.assertEqual(ok(server, "GET", f"/webhooks/{id}")["signing_secret"], second)

        one = sent(2)
        self.assertEqual(len(signatures(one)), 2)
        for secret in (first, second):
            self.assertTrue(is_signed(one, secret))
            self.assertEqual(in_python(one.body, headers_of(one), secret), (True, True))
        # The clock goes on; what it says is signed too.
        for ahead, secrets in ((DAY - 120, [first, second]), (DAY + 60, [second])):
            self.clock.set(ahead)
            one = sent(3 if ahead < DAY else 4)
            self.assertAlmostEqual(int(one.headers["svix-timestamp"]), one.at + ahead, delta=10)
            self.assertEqual([is_signed(one, secret) for secret in (first, second)], [first in secrets, True])
            self.assertEqual(len(signatures(one)), len(secrets))
        # Also over a restart.
        server.restart()
        one = sent(5)
        self.assertEqual([is_signed(one, secret) for secret in (first, second)], [False, True])
