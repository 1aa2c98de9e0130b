"""The relay as a process whose environment, start and end a test decides, and the clock that it sees.

What a running server is, its configuration file and its commands come from tests/peers.
"""

import glob
import os
import pathlib
import re
import signal
import subprocess

import paths  # noqa: F401
import relay
from support import LOGS, run, until

TARGET = "track.relay.example.net"


class Server(relay.Relay):
    """As in tests/peers, but started by `start`, again where it was ended; `log()` is that of the last start.

    `ports` has SMTP, `web` the plain tracking listener, `api` that of REST.
    """

    def __init__(self, folder, smarthost, resolver, settings=None, environment=None):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        self.config = self.folder / "trackpost.toml"
        sections = {"dns": {"servers": ["%s:%d" % resolver]}, "tracking": {"cname_target": TARGET}}
        for name, keys in (settings or {}).items():
            sections[name] = sections.get(name, {}) | keys
        # What is for testing DNS is not for testing how fast one may ask.
        sections["api"] = {"rate_limit": 10000} | sections.get("api", {})
        self.config.write_text(relay.configuration(smarthost, (relay.TRUSTED,), sections))
        self.environment = dict(environment or {})
        self.process = None
        self.start()

    def start(self):
        command = [relay.program(), "--config", self.config, "serve"]
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=os.environ | self.environment)
        LOGS.append(self.folder / "log")
        until("the relay to be ready", self.ready)
        self.ports = self.listening("SMTP")
        self.web = self.listening("tracking host")[0]
        (self.api,) = self.listening("API")
        self.token = getattr(self, "token", None) or self.command("key", "create", "--name", "tests").strip()

    def listening(self, what):
        return [int(port) for port in re.findall(rf"{what} listens.*127\.0\.0\.1:(\d+)", self.log())]

    def kill(self):
        """As a crash ends it."""
        LOGS.remove(self.folder / "log")
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def restart(self):
        self.kill()
        self.start()

    def close(self):
        """Its end as a test's last step."""
        if self.process.poll() is None:
            self.stop()

    def attempt(self, *arguments):
        """A command that may fail, with its exit code and what it printed."""
        return run(relay.program(), "--config", self.config, *arguments)


class Clock:
    """The wall clock of a relay, by libfaketime; the one that only goes on is left alone."""

    def __init__(self, folder):
        found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
        if not found:
            raise AssertionError("libfaketime is missing (Debian: libfaketime)")
        self.file = pathlib.Path(folder) / "clock"
        self.environment = {"LD_PRELOAD": found[0], "FAKETIME_TIMESTAMP_FILE": str(self.file), "FAKETIME_NO_CACHE": "1",
                            "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        self.ahead = 0
        self.set(0)

    def set(self, ahead):
        """How many seconds it is ahead of ours."""
        self.ahead = round(ahead)
        new = self.file.with_suffix(".new")
        new.write_text(f"{self.ahead:+d}\n")
        new.replace(self.file)

    def go_on(self, seconds):
        self.set(self.ahead + seconds)
