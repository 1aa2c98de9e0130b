"""What the tests here stand on: the real program with its API, a DNS server for its look-ups, a smarthost behind it.

The DNS server, the smarthost and the relay itself are those of tests/domains, tests/faults and tests/peers; all run on
loopback, on ports of the system's choice, in a folder that is removed at the end.
"""

import contextlib
import itertools
import os
import pathlib
import re
import smtplib
import sys
import tempfile
import urllib.error
import urllib.request

TESTS = pathlib.Path(__file__).resolve().parent.parent
# Behind this folder, so that what is here is found first, and tests/peers before what has the same name elsewhere.
sys.path += [str(TESTS / folder) for folder in ("peers", "faults", "domains")]
from knot import Knot  # noqa: E402
from relay import TRUSTED, Relay  # noqa: E402
from smarthost import Smarthost  # noqa: E402
from support import DEADLINE, until  # noqa: E402, F401

CNAME_TARGET = "track.relay.example.net"
# So many requests a second that no test but those of the limit comes near.
AMPLE = 1000
NUMBERS = itertools.count(1)
# Where tests/tools.sh installs what package.json lists.
TARGET = TESTS.parent / os.environ.get("CARGO_TARGET_DIR", "target")
NODE_MODULES = (TARGET / "tools" / "node" / "node_modules").resolve()


class Server(Relay):
    """A relay with its API; `api` is its base without a slash at the end."""

    def start(self):
        super().start()
        (port,) = re.findall(r"API listens.*127\.0\.0\.1:(\d+)", self.log())
        self.port, self.api = int(port), f"http://127.0.0.1:{port}"
        # What is ready to take mail may still be opening its store.
        until("the store to be open", self.is_whole)

    def is_whole(self):
        try:
            return urllib.request.urlopen(f"{self.api}/readyz", timeout=DEADLINE).status == 200
        except urllib.error.HTTPError:
            return False

    def key(self, *options, permission="full_access"):
        """The token of a new API key."""
        return self.command("key", "create", "--name", "tests", "--permission", permission, *options).strip()


class Ground(contextlib.ExitStack):
    """Runs until it is closed. `key` is a token with full access; `settings` are sections of the configuration, and
    `environment` is what the server has besides ours."""

    def __init__(self, settings=None, listeners=(TRUSTED,), environment=None):
        super().__init__()
        with contextlib.ExitStack() as unwinding:
            made = unwinding.enter_context(tempfile.TemporaryDirectory(prefix="trackpost-sdk-"))
            self.folder = pathlib.Path(made)
            self.dns = Knot(self.folder / "dns")
            unwinding.callback(self.dns.stop)
            self.dns.zone("relay.example.net", "track A 127.0.0.1")
            self.smarthost = Smarthost()
            unwinding.callback(self.smarthost.stop)
            sections = {"dns": {"servers": ["%s:%d" % self.dns.address]}, "api": {"rate_limit": AMPLE},
                        "tracking": {"cname_target": CNAME_TARGET}}
            for name, keys in (settings or {}).items():
                sections[name] = sections.get(name, {}) | keys
            self.server = Server(self.folder / "relay", self.smarthost.port, listeners, sections,
                                 environment)
            unwinding.callback(self.server.stop)
            self.key = self.server.key()
            self.push(unwinding.pop_all())

    def send(self, sender, recipient, message, login=None):
        """One message over SMTP; its queue id, which is the API's `email_id`."""
        with smtplib.SMTP("127.0.0.1", self.server.ports[0], "client.example.com", timeout=DEADLINE) as client:
            client.ehlo()
            if login:
                client.login("resend", login)
            for code, reply in (client.mail(sender), client.rcpt(recipient), client.data(message)):
                if code != 250:
                    raise smtplib.SMTPResponseException(code, reply)
        return re.search(rb"queued as (\S+)", reply)[1].decode()

    def arrived(self, recipient):
        """The message as the smarthost took it for this recipient, once it has."""
        def found():
            return next((copy for copy in list(self.smarthost.copies) if copy.recipients == [recipient] and copy.taken),
                        None)
        return until(f"mail for {recipient}", found).message


def unique(word):
    """A domain name that no other test uses."""
    return f"{word}{next(NUMBERS)}.example.com"
