"""One Postfix on both sides of trackpost, set up as docs/postfix.md has it.

It has the mailboxes of example.net. Strangers come to its port 25, here `port`; users and programs to `submission` and
to its sendmail. What goes through trackpost comes back on a port of its own.
"""

import contextlib
import pathlib

from postfix import Postfix
from relay import Relay
from support import folder, free_ports

FILTER = "  -o content_filter=smtp:[127.0.0.1]:{listener}\n"
SUBMISSION = "127.0.0.1:{port} inet n - n - - smtpd\n  -o syslog_name=postfix/submission\n"
BACK = """127.0.0.1:{port} inet n - n - - smtpd
  -o content_filter=
  -o receive_override_options=no_unknown_recipient_checks,no_header_body_checks,no_address_mappings,no_milters
"""


class Around(contextlib.ExitStack):
    """Runs until it is closed. `both`: what comes in goes through trackpost as well, by an inbound listener; `settings`
    are the relay's, `more` lines for main.cf."""

    def __init__(self, users, both=False, settings=None, more=""):
        super().__init__()
        with contextlib.ExitStack() as unwinding:
            self.folder = pathlib.Path(unwinding.enter_context(folder()))
            self.port, self.submission, back = free_ports(3)
            listeners = ({"tls": "none"}, {"tls": "none", "role": "inbound"})
            self.relay = Relay(self.folder / "relay", back, listeners, settings)
            unwinding.callback(self.relay.stop)
            self.relay.track()
            leaves, comes = self.relay.ports
            leaving = FILTER.format(listener=leaves)
            if both:
                more += f"content_filter = smtp:[127.0.0.1]:{comes}\n"
            services = SUBMISSION.format(port=self.submission) + leaving + BACK.format(port=back)
            self.postfix = Postfix(
                self.folder / "postfix", self.port, "mail.example.net", "example.net", users, more=more,
                services=services, pickup=leaving,
            )
            unwinding.callback(self.postfix.stop)
            self.push(unwinding.pop_all())

    def waiting(self):
        return self.postfix.queue() + self.relay.json("queue", "list")["messages"]
