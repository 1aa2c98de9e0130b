"""trackpost as a server for submission, with a Postfix as its smarthost: what the tests of single clients need."""

import contextlib
import pathlib

from postfix import Postfix
from relay import TRUSTED, Relay, certificate
from support import folder, free_ports

LISTENERS = {
    "plain": TRUSTED,
    "starttls": {"tls": "starttls", "auth": "required", "trusted_networks": []},
    "implicit": {"tls": "implicit", "auth": "required", "trusted_networks": []},
    "normalizing": {"bare_newline": "normalize"},
}


class Submission(contextlib.ExitStack):
    """Runs until it is closed. `ports` by the names above, `token` is the password that is right, `root` the file of
    the root certificate; `users` have mailboxes at example.net."""

    def __init__(self, users):
        super().__init__()
        with contextlib.ExitStack() as unwinding:
            self.folder = pathlib.Path(unwinding.enter_context(folder()))
            (port,) = free_ports(1)
            self.behind = Postfix(self.folder / "behind", port, "mx.example.net", "example.net", users)
            unwinding.callback(self.behind.stop)
            self.root = certificate(self.folder)
            files = {"certificate_file": f"{self.folder}/relay.pem", "key_file": f"{self.folder}/relay.key"}
            self.relay = Relay(self.folder / "relay", port, LISTENERS.values(), {"smtp": files})
            unwinding.callback(self.relay.stop)
            self.ports = dict(zip(LISTENERS, self.relay.ports, strict=True))
            self.relay.track()
            self.token = self.relay.key()
            self.push(unwinding.pop_all())

    def file(self, name, message):
        """A message as a file."""
        path = self.folder / name
        path.write_bytes(message)
        return path
