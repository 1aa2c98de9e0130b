"""A real browser, Debian's Chromium without a window, that believes one root beside those it comes with, and finds the
hosts of a test on loopback and nothing else anywhere.

It is told what to do over a pipe (DevTools protocol: JSON, each message ended by a NUL), so it needs no port, and ends
by itself when its test does not get to end it.
"""

import contextlib
import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import time

import paths  # noqa: F401
from support import LOGS, last_lines, succeed, until

# Of one answer, and of what a page comes to; a start on a busy machine is the longest.
SECONDS = 60
# It reads from 3 and writes to 4, which a shell makes of what Python hands on.
SHELL = 'exec "$0" "$@" 3<&0 4>&1 </dev/null >&2'
# What it does by itself would only be in the way; upgrading http to https by guess would look like HSTS.
OPTIONS = ("--headless", "--remote-debugging-pipe", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
           "--no-proxy-server", "--disable-background-networking", "--disable-component-update", "--disable-sync",
           "--disable-features=HttpsUpgrades,HttpsFirstBalancedModeAutoEnable")


class Refused(AssertionError):
    """The browser says that it could not do what it was told."""


class Browser:
    """One with a home, a profile and a page of its own."""

    def __init__(self, folder, hosts, root):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        trust(self.folder, root)
        rules = [f"MAP {host} 127.0.0.1" for host in hosts] + ["MAP * ~NOTFOUND", "EXCLUDE 127.0.0.1"]
        # Its own sandbox is not for root.
        options = [*OPTIONS, *(["--no-sandbox"] if os.getuid() == 0 else []), f"--user-data-dir={self.folder}/profile",
                   f"--host-resolver-rules={', '.join(rules)}", "about:blank"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "DBUS_"))}
        environment |= {"HOME": str(self.folder), "TMPDIR": str(self.folder)}
        self.log = self.folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(["/bin/sh", "-c", SHELL, find("chromium"), *options], env=environment,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                            start_new_session=True)
        LOGS.append(self.log)
        self.session, self.asked, self.received = None, 0, b""
        try:
            page = until("a page", self.page, SECONDS)
            self.session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        except BaseException:
            self.stop()
            raise

    def page(self):
        targets = self.call("Target.getTargets")["targetInfos"]
        return next((one["targetId"] for one in targets if one["type"] == "page"), None)

    def call(self, method, **parameters):
        """What it answers to a command; what it tells without being asked is passed over."""
        self.asked += 1
        session = {"sessionId": self.session} if self.session else {}
        message = json.dumps({"id": self.asked, "method": method, "params": parameters} | session)
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(message.encode() + b"\0")
            self.process.stdin.flush()
        end = time.monotonic() + SECONDS
        while (answer := self.receive(end)).get("id") != self.asked:
            pass
        if "error" in answer:
            raise Refused(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def receive(self, end):
        while b"\0" not in self.received:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))
            more = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not more:
                raise AssertionError(f"the browser {'ended' if ready else 'is silent'}\n{last_lines(self.log)}")
            self.received += more
        message, _, self.received = self.received.partition(b"\0")
        return json.loads(message)

    def open(self, address):
        """Goes there, as if it were typed in; None, or the error that the browser shows instead of a page."""
        return self.call("Page.navigate", url=address).get("errorText") or None

    def value(self, script):
        """What a script in the page comes to; None while there is no page, but the way to the next one."""
        try:
            found = self.call("Runtime.evaluate", expression=script, returnByValue=True, userGesture=True)
        except Refused:
            return None
        if "exceptionDetails" in found:
            raise AssertionError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def loaded(self, address):
        """Waits until the page is this one, with all that is in it."""
        until(lambda: f"{address}, instead of {self.value('location.href')}: {self.value('document.title')}",
              lambda: self.value("[location.href, document.readyState]") == [address, "complete"], SECONDS)

    def stop(self):
        """It has no more to say, and all processes that it has started are of its group."""
        if self.process.poll() is None:
            with contextlib.suppress(AssertionError):
                self.session = None
                self.call("Browser.close")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for end in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                end.close()
        LOGS.remove(self.log)


def trust(home, root):
    """A database of NSS in a home, as a user has it, with this root as one for servers."""
    database = home / ".pki" / "nssdb"
    database.mkdir(parents=True)
    program = find("certutil")
    succeed(program, "-N", "-d", f"sql:{database}", "--empty-password")
    succeed(program, "-A", "-d", f"sql:{database}", "-n", "root of the test", "-t", "C,,", "-i", root)


def find(program):
    if found := shutil.which(program):
        return found
    raise AssertionError(f"{program} is missing (Debian: chromium, libnss3-tools)")
