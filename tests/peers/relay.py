"""trackpost itself, on a folder of its own, with ports of the system's choice.

The program is the one of TRACKPOST_BIN, or the newest that cargo has built.
"""

import json
import os
import pathlib
import re
import subprocess

from support import DEADLINE, LOGS, last_lines, run, succeed, until

HOST = "relay.example.net"
TRUSTED = {"tls": "none"}


def program():
    if given := os.environ.get("TRACKPOST_BIN"):
        return pathlib.Path(given).resolve()
    root = pathlib.Path(__file__).resolve().parents[2]
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    built = [path for profile in ("debug", "release") if (path := target / profile / "trackpost").exists()]
    if not built:
        raise AssertionError("there is no trackpost: build it, or name it in TRACKPOST_BIN")
    return max(built, key=lambda path: path.stat().st_mtime)


class Relay:
    """A running server. `ports` are those of `listeners`, in their order; `settings` are sections as TOML has them;
    `environment` is what the server has besides ours."""

    def __init__(self, folder, smarthost, listeners=(TRUSTED,), settings=None, environment=None):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        self.config = self.folder / "trackpost.toml"
        self.config.write_text(configuration(smarthost, listeners, settings or {}))
        self.environment = os.environ | (environment or {})
        self.start()

    def start(self):
        """Also after `stop`; the ports are others then, and the log begins anew."""
        command = [program(), "--config", self.config, "serve"]
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=self.environment)
        LOGS.append(self.folder / "log")
        until("the relay to be ready", self.ready)
        self.ports = [int(port) for port in re.findall(r"SMTP listens.*127\.0\.0\.1:(\d+)", self.log())]
        (self.web,) = (int(port) for port in re.findall(r"tracking host listens.*127\.0\.0\.1:(\d+)", self.log()))

    def ready(self):
        if self.process.poll() is not None:
            LOGS.remove(self.folder / "log")
            end = f"the relay ended with {self.process.returncode}"
            raise AssertionError(f"{end}\n{last_lines(self.folder / 'log')}")
        return re.search(r" ready$", self.log(), re.M)

    def stop(self):
        """It must end by itself, without a fault on record."""
        LOGS.remove(self.folder / "log")
        self.process.terminate()
        try:
            code = self.process.wait(DEADLINE * 2)
        finally:
            self.process.kill()
        faults = [line for line in self.log().splitlines() if " ERROR " in line or "panicked" in line]
        if code or faults:
            raise AssertionError(f"the relay ended with {code}, faults: {faults}")

    def log(self):
        return (self.folder / "log").read_text(errors="replace")

    def command(self, *arguments):
        """What a command of trackpost prints."""
        return succeed(program(), "--config", self.config, *arguments)

    def json(self, *arguments):
        return json.loads(self.command(*arguments, "--json"))

    def track(self, domain="shop.example.com"):
        self.command("domain", "add", domain, "--subdomain", "links", "--open", "--click", "--force-verified")

    def key(self, *options):
        """The token of a new API key that may send."""
        return self.command("key", "create", "--name", "peers", "--permission", "sending_access", *options).strip()


def configuration(smarthost, listeners, settings):
    sections = {
        "smarthost": {"address": f"127.0.0.1:{smarthost}", "tls": "none"},
        "queue": {"retry": ["1s"], "min_free": "1MiB"},
        "tracking": {"http": ["127.0.0.1:0"], "link_scheme": "http"},
        "api": {"address": "127.0.0.1:0"},
    }
    for name, keys in settings.items():
        sections[name] = sections.get(name, {}) | keys
    tables = [("[smtp.listener]", {"address": "127.0.0.1:0"} | keys) for keys in listeners] + list(sections.items())
    lines = [f'hostname = "{HOST}"']
    for name, keys in tables:
        lines += [f"[{name}]"] + [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join(lines) + "\n"


def certificate(folder):
    """Makes a certificate for the relay, in files that `[smtp]` takes, and gives the file of the root behind it."""
    folder = pathlib.Path(folder)
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    extensions = f"subjectAltName=DNS:{HOST},IP:127.0.0.1\nbasicConstraints=critical,CA:false\n"
    (folder / "extensions").write_text(extensions)
    made = [
        "req -x509 -keyout root.key -out root.pem -days 2 -subj /CN=Root".split(),
        f"req -new -keyout relay.key -out relay.csr -subj /CN={HOST}".split(),
        "x509 -req -in relay.csr -CA root.pem -CAkey root.key -CAcreateserial -days 2 -extfile extensions "
        "-out relay.pem".split(),
    ]
    for command in made:
        extra = new_key if command[0] == "req" else ()
        ended = run("openssl", *command, *extra, cwd=folder)
        if ended.returncode:
            raise AssertionError(ended.stderr)
    return folder / "root.pem"
