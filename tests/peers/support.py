"""What all tests here use: waiting, running programs, messages, and the comparison of what arrived with what was sent.

Starts nothing and knows no server; those are postfix.py and relay.py.
"""

import email
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "verify"))
import fixtures  # noqa: E402
import verify  # noqa: E402

DEADLINE = 30
# Of what runs just now. Where a wait is in vain, their last lines say more.
LOGS = []
SENDER = "news@shop.example.com"
POLICY = verify.Policy(("links.shop.example.com",))


def until(what, done, deadline=DEADLINE):
    """Polls `done` until it gives something true, which is returned. `what` may be a function that tells more."""
    end = time.monotonic() + deadline
    while not (result := done()):
        if time.monotonic() > end:
            told = what() if callable(what) else what
            raise AssertionError("\n".join([f"waited {deadline} s for {told}", *map(last_lines, LOGS)]))
        time.sleep(0.02)
    return result


def last_lines(log):
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join([f"--- {log}", *lines[-30:]])


def run(*command, text=True, **options):
    """A program to its end, with what it printed. It must not ask anything."""
    options.setdefault("timeout", DEADLINE)
    if "input" not in options:
        options["stdin"] = subprocess.DEVNULL
    return subprocess.run([str(part) for part in command], capture_output=True, text=text, **options)


def succeed(*command, **options):
    """As `run`, and it must succeed; what it printed on stdout."""
    ended = run(*command, **options)
    if ended.returncode:
        raise AssertionError(f"{command}: exit {ended.returncode}\n{ended.stdout}\n{ended.stderr}")
    return ended.stdout


def folder():
    """A temporary folder through which Postfix's own user may pass."""
    made = tempfile.TemporaryDirectory(prefix="trackpost-peers-")
    pathlib.Path(made.name).chmod(0o755)
    return made


def free_ports(count):
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def fixture(name):
    """A message of fixtures/mail, with CRLF."""
    return (fixtures.FOLDER / f"{name}.eml").read_bytes()


def local(message):
    """With the line ends of this system, as programs write mail to sendmail."""
    return message.replace(b"\r\n", b"\n")


def check(original, arrived, web):
    """The checker's report on two messages with CRLF; every link was followed at the tracking host, on port `web`."""
    report = verify.verify(original, arrived, POLICY)
    verify.resolve(report, f"http://127.0.0.1:{web}")
    return report


def received(message):
    """(host, protocol) of each server that a message went through, the last first; no protocol for sendmail."""
    fields = email.message_from_bytes(message).get_all("Received")
    pattern = re.compile(r"by (\S+).*?(?: with (\w*SMTP\w*)|\Z|;)", re.S)
    return [pattern.search(str(field)).groups() for field in fields]


def named(subject, message):
    """A message with another subject."""
    return re.sub(rb"^Subject: (?:.*\r\n)(?:[ \t].*\r\n)*", b"Subject: %s\r\n" % subject.encode(), message, flags=re.M)


# What a client has to quote, and what no one may touch.
DOTS = b"""From: Example Shop <news@shop.example.com>\r
To: ada@example.net\r
Subject: Dots\r
Date: Tue, 24 Nov 2026 06:00:00 +0000\r
Message-ID: <dots@shop.example.com>\r
\r
.\r
..\r
.hidden\r
From here on a line that mbox would quote.\r
Trailing blanks \t \r
\r
.\r
The end.\r
"""
