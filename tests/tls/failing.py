"""A relay whose orders come to nothing until the fault is over. Pauses are long, so its clock is moved past them."""

import handshake
import rest
from base import HOST, Acme, certificate
from support import until

# The first pause is a minute, and a little more by chance.
SECOND_PAUSE = 120


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
