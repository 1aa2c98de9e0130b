"""The program under test: `trackpost serve` in a folder of its own, its commands, and a client of it."""

import json
import os
import pathlib
import re
import signal
import smtplib
import subprocess
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]


def binary():
    """TRACKPOST_BIN, else the program that was built last."""
    if named := os.environ.get("TRACKPOST_BIN"):
        return pathlib.Path(named).resolve()
    target = TOP / os.environ.get("CARGO_TARGET_DIR", "target")
    built = [target / kind / "trackpost" for kind in ("debug", "release")]
    built = [path for path in built if path.exists()]
    if not built:
        raise FileNotFoundError(f"no trackpost below {target}: cargo build, or TRACKPOST_BIN=…")
    return max(built, key=lambda path: path.stat().st_mtime)


def until(what, seconds, probe):
    """Polls until `probe` gives something; what that is."""
    end = time.monotonic() + seconds
    pause = 0.02
    while not (found := probe()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)
    return found


class Relay:
    """`settings` has whole lines of TOML by section, in the order in which they are to stand."""

    def __init__(self, settings, folder=None):
        self.kept = tempfile.TemporaryDirectory(prefix="trackpost-faults-", dir=folder)
        self.folder = pathlib.Path(self.kept.name)
        self.config = self.folder / "trackpost.toml"
        sections = {
            "": {"hostname": "relay.example.net"},
            "[smtp.listener]": {"address": "127.0.0.1:0"},
            "queue": {"retry": ["1s"], "min_free": "1MiB"},
            "tracking": {"http": ["127.0.0.1:0"], "link_scheme": "http", "cname_target": "track.relay.example.net"},
            "api": {"address": "127.0.0.1:0"},
            "log": {"format": "json"},
        }
        for section, keys in settings.items():
            sections.setdefault(section, {}).update(keys)
        self.config.write_text("".join(
            (f"[{section}]\n" if section else "") + "".join(f"{key} = {json.dumps(keys[key])}\n" for key in keys)
            for section, keys in sections.items()
        ))
        self.process = None
        self.starts = 0

    def start(self):
        self.starts += 1
        self.log = self.folder / f"log.{self.starts}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([binary(), "serve", "--config", self.config], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, env=environment())
        until(self.told, 20, self.is_ready)
        listens = next(line for line in self.lines() if line.get("message") == "SMTP listens")
        self.port = int(listens["address"].rpartition(":")[2])

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"it ended with {self.process.returncode}: {self.told()}")
        return any(line.get("message") == "ready" for line in self.lines())

    def told(self):
        return self.log.read_text(errors="replace")

    def lines(self):
        """The log as objects. What is no JSON, such as the words of a panic, has its text as `raw`."""
        whole = self.told().split("\n")[:-1]
        return [json.loads(line) if line.startswith("{") else {"raw": line} for line in whole]

    def ask(self, *arguments):
        """A command with `--json`; its answer, or None where it failed."""
        ran = self.run(*arguments, "--json")
        return json.loads(ran.stdout) if ran.returncode == 0 else None

    def run(self, *arguments):
        return subprocess.run([binary(), *arguments, "--config", self.config], capture_output=True, timeout=30,
                              env=environment())

    def client(self):
        return smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.example.com", timeout=60)

    def peak_memory(self):
        """In bytes, since the start."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024

    def terminate(self, seconds):
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it runs {seconds} s after SIGTERM: {self.told()[-3000:]}") from None

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.kept.cleanup()


def submit(client, sender, recipients, message, options=()):
    """One transaction that must be accepted; the queue id."""
    for code, reply in (client.mail(sender, options), *(client.rcpt(to) for to in recipients), client.data(message)):
        assert code == 250, (code, reply)
    return re.search(rb"queued as (\S+)", reply)[1].decode()


def environment():
    return {name: value for name, value in os.environ.items() if name != "TRACKPOST_CONFIG"}
