"""Postfix, trackpost, and another Postfix as the smarthost, as in docs/postfix.md.

The one in front has the mailboxes of shop.example.com and relays all else to trackpost. The one behind has those of
example.net and knows where shop.example.com is, so that what the relay has to say to a sender comes back to it.
"""

import contextlib
import pathlib
from concurrent.futures import ThreadPoolExecutor

from postfix import Postfix
from relay import HOST, TRUSTED, Relay, certificate
from support import folder, free_ports

# TLS and AUTH towards trackpost, as for a provider; Postfix then wants the certificate and the name.
CLIENT = """smtp_tls_security_level = secure
smtp_tls_secure_cert_match = {host}
smtp_tls_CAfile = {folder}/root.pem
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = texthash:{folder}/password
smtp_sasl_security_options = noanonymous
"""
SERVER = """smtpd_tls_security_level = encrypt
smtpd_tls_cert_file = {folder}/relay.pem
smtpd_tls_key_file = {folder}/relay.key
"""


class Route(contextlib.ExitStack):
    """Runs until it is closed. `users` have mailboxes behind; `secure`: TLS on both ways, with AUTH on the first;
    `server`: lines for the main.cf of the Postfix behind; `more`: settings of the relay."""

    def __init__(self, users, secure=False, server="", more=None):
        super().__init__()
        with contextlib.ExitStack() as unwinding:
            self.folder = pathlib.Path(unwinding.enter_context(folder()))
            front, behind = free_ports(2)
            listener, settings, client = TRUSTED, dict(more or {}), ""
            if secure:
                root = certificate(self.folder)
                client = CLIENT.format(folder=self.folder, host=HOST)
                server += SERVER.format(folder=self.folder)
                listener = {"tls": "starttls", "auth": "required", "trusted_networks": []}
                files = {"certificate_file": f"{self.folder}/relay.pem", "key_file": f"{self.folder}/relay.key"}
                settings |= {"smtp": files, "smarthost": {"tls": "required", "ca_file": str(root)}}
            self.relay = Relay(self.folder / "relay", behind, (listener,), settings)
            unwinding.callback(self.relay.stop)
            self.relay.track()
            relayhost = f"[127.0.0.1]:{self.relay.ports[0]}"
            if secure:
                (self.folder / "password").write_text(f"{relayhost} resend:{self.relay.key()}\n")
            with ThreadPoolExecutor() as starting:
                started = [
                    starting.submit(
                        Postfix, self.folder / "front", front, "mail.shop.example.com", "shop.example.com", ("news",),
                        relayhost=relayhost, more=client,
                    ),
                    starting.submit(
                        Postfix, self.folder / "behind", behind, "mx.example.net", "example.net", users,
                        routes=f"shop.example.com smtp:[127.0.0.1]:{front}\n", more=server,
                    ),
                ]
            for postfix in started:
                if not postfix.exception():
                    unwinding.callback(postfix.result().stop)
            self.front, self.behind = (postfix.result() for postfix in started)
            self.push(unwinding.pop_all())

    def waiting(self):
        """What is on the way, or was given up, anywhere."""
        queue = self.relay.json("queue", "list")
        return self.front.queue() + queue["messages"] + queue["failed"] + self.behind.queue()
