"""Tests of systemd/: the units are sound and tight, and the program works under their rules.

`TRACKPOST=PROGRAM python3 -m unittest` in this folder. Asks `systemd-analyze` and `systemctl`, of which neither needs a
running systemd here; nothing is started but the program itself, with `sandbox.py` in systemd's place.
"""

import errno
import http.client
import json
import os
import pathlib
import re
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import sandbox

HERE = pathlib.Path(__file__).resolve().parent
UNITS = HERE.parents[1] / "systemd"
SERVICE, SOCKET = UNITS / "trackpost.service", UNITS / "trackpost.socket"
MESSAGE = """From: News <news@shop.example.com>\r
Subject: Autumn\r
Content-Type: text/html; charset=utf-8\r
\r
<html><body><a href="https://shop.example.com/autumn">See</a></body></html>\r
"""


def run(*words):
    return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)


class Units(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)

    def install(self, name, text):
        """A file of the machine that `--root` is shown."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def verify(self, service):
        """What is said about a service of this text and the socket beside it, on a machine with little else."""
        for target in ("multi-user", "network-online", "nss-lookup", "sockets", "sysinit", "basic", "shutdown"):
            self.install(f"usr/lib/systemd/system/{target}.target", f"[Unit]\nDescription={target}\n")
        for name in ("system", "-"):
            self.install(f"usr/lib/systemd/system/{name}.slice", f"[Unit]\nDescription={name}\n")
        command = re.search(r"^ExecStart=(\S+)", service, re.M)[1]
        for program in (command, re.search(r"^ExecReload=(\S+)", service, re.M)[1]):
            self.install(program.lstrip("/"), "#!/bin/sh\n").chmod(0o755)
        self.install("etc/systemd/system/trackpost.service", service)
        self.install("etc/systemd/system/trackpost.socket", SOCKET.read_text())
        return run(
            "systemd-analyze", "verify", f"--root={self.root}", "--man=no", "--recursive-errors=no",
            "trackpost.service", "trackpost.socket",
        )

    def test_exposure_is_at_most_1_6(self):
        command = ("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=16")
        told = run(*command, str(SERVICE))
        self.assertEqual(told.returncode, 0, told.stdout)
        loose = self.install("trackpost.service", SERVICE.read_text().replace("RestrictNamespaces=yes\n", ""))
        self.assertNotEqual(run(*command, str(loose)).returncode, 0, "a loose unit passes as well")

    def test_units_are_understood(self):
        told = self.verify(SERVICE.read_text())
        self.assertEqual((told.returncode, told.stdout), (0, ""))

    def test_a_mistake_is_noticed(self):
        told = self.verify(SERVICE.read_text().replace("ProtectClock=", "ProtectClocks="))
        self.assertIn("ProtectClocks", told.stdout)

    def test_units_can_be_enabled(self):
        for unit in (SERVICE, SOCKET):
            self.install(f"etc/systemd/system/{unit.name}", unit.read_text())
            told = run("systemctl", f"--root={self.root}", "enable", unit.name)
            self.assertEqual(told.returncode, 0, told.stdout)
        for wanted in ("multi-user.target.wants/trackpost.service", "sockets.target.wants/trackpost.socket"):
            self.assertTrue((self.root / "etc/systemd/system" / wanted).is_symlink(), wanted)

    def test_the_docs_install_what_the_unit_starts(self):
        text = (UNITS.parent / "docs/install.md").read_text()
        for name in sandbox.service(SERVICE)["ExecStart"][0].split():
            if name.startswith("/"):
                self.assertTrue(name in text, f"{name} is not in docs/install.md")


class Confined(unittest.TestCase):
    """The rules hold in the sandbox: else it would show nothing that the program works there."""

    def attempt(self, code):
        """The errno of a line of Python, or 0."""
        told = run(sys.executable, str(HERE / "sandbox.py"), str(SERVICE), sys.executable, "-c", f"""
import ctypes, mmap, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)

def call(function, *arguments):
    if function(*arguments) == -1:
        raise OSError(ctypes.get_errno(), "")

try:
    {code}
except OSError as e:
    print(e.errno)
else:
    print(0)
""")
        return int(told.stdout)

    def test_what_is_refused(self):
        self.assertEqual(self.attempt("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)"), errno.EAFNOSUPPORT)
        self.assertEqual(self.attempt("os.sched_setaffinity(0, {0})"), errno.EPERM)
        self.assertEqual(self.attempt("os.setgroups([])"), errno.EPERM)
        self.assertEqual(self.attempt("mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)"), errno.EPERM)
        self.assertEqual(self.attempt("call(libc.unshare, 0x10000000)"), errno.EPERM)
        self.assertEqual(self.attempt("call(libc.mlockall, 1)"), errno.EPERM)

    def test_what_is_let_through(self):
        self.assertEqual(self.attempt("socket.socket(socket.AF_INET6).bind(('::1', 0))"), 0)
        self.assertEqual(self.attempt("mmap.mmap(-1, 4096)"), 0)


class Sink(threading.Thread):
    """A smarthost that takes everything."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "localhost:%d" % self.listener.getsockname()[1]
        self.messages = []

    def run(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection):
        with connection, connection.makefile("rb") as lines:
            connection.sendall(b"220 sink.test\r\n")
            for line in lines:
                if line.upper().startswith(b"DATA"):
                    connection.sendall(b"354 go on\r\n")
                    self.messages.append(b"".join(iter(lines.readline, b".\r\n")))
                connection.sendall(b"250 2.0.0 Ok\r\n")


class Serving(unittest.TestCase):
    """Mail, hits, commands, a reload and a stop, under the rules of the unit."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.sink = Sink()
        self.sink.start()
        self.addCleanup(self.sink.listener.close)
        self.config, self.log = self.folder / "trackpost.toml", self.folder / "log"
        self.config.write_text(f"""
hostname = "relay.example.net"
[[smtp.listener]]
address = "127.0.0.1:0"
[smarthost]
address = "{self.sink.address}"
[queue]
min_free = "1MiB"
[tracking]
http = ["127.0.0.1:0"]
link_scheme = "http"
[log]
format = "json"
""")
        with open(self.log, "wb") as log:
            self.server = subprocess.Popen(self.words("serve"), stderr=log)
        self.addCleanup(self.end)

    def words(self, *arguments):
        program = [os.environ["TRACKPOST"], "--config", str(self.config), *arguments]
        return [sys.executable, str(HERE / "sandbox.py"), str(SERVICE), *program]

    def end(self):
        self.server.kill()
        self.server.wait()

    def ask(self, *arguments):
        told = run(*self.words(*arguments))
        self.assertEqual(told.returncode, 0, told.stdout)
        return told.stdout

    def wait_for(self, what, probe):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if found := probe():
                return found
            if self.server.poll() is not None:
                break
            time.sleep(0.05)
        self.fail(f"{what} did not come:\n{self.log.read_text()}")

    def logged(self, message):
        """The first line of the log with this message. A priority may stand before each line."""
        for line in self.log.read_text().splitlines():
            try:
                fields = json.loads(re.sub(r"^<\d>", "", line))
            except ValueError:
                continue
            if message in fields["message"]:
                return fields
        return None

    def port(self, message):
        return int(self.wait_for(message, lambda: self.logged(message))["address"].rsplit(":", 1)[1])

    def test_works_under_the_rules_of_the_unit(self):
        smtp, web = self.port("SMTP listens"), self.port("tracking host listens")
        self.wait_for("ready", lambda: self.logged("ready"))
        self.ask("domain", "add", "shop.example.com", "--subdomain", "links", "--open", "--click")
        self.ask("domain", "update", "shop.example.com", "--force-verified")
        with smtplib.SMTP("127.0.0.1", smtp, timeout=30) as client:
            client.sendmail("news@shop.example.com", ["ada@example.net"], MESSAGE)
            client.sendmail("news@shop.example.com", ["grace@example.net"], MESSAGE + "long line\r\n" * 100_000)
        self.wait_for("mail", lambda: len(self.sink.messages) == 2)
        links = re.findall(rb'"http://links\.shop\.example\.com(/[^"]+)"', b"".join(self.sink.messages))
        self.assertEqual(len(links), 4)
        for link in links:
            client = http.client.HTTPConnection("127.0.0.1", web, timeout=30)
            client.request("GET", link.decode(), headers={"Host": "links.shop.example.com"})
            self.assertIn(client.getresponse().status, (200, 302))
            client.close()
        # History opens a moment after the start; until then there are no events to be had.
        self.wait_for("a click", lambda: "clicked" in run(*self.words("events", "tail", "--limit", "50")).stdout)
        self.ask("key", "rotate")
        self.server.send_signal(signal.SIGHUP)
        self.wait_for("the reload", lambda: self.logged("was reloaded"))
        self.server.terminate()
        self.assertEqual(self.server.wait(60), 0, self.log.read_text())
        self.assertIsNone(re.search("not permitted|panicked", self.log.read_text()))


if __name__ == "__main__":
    unittest.main()
