"""A real HAProxy that hands on TCP connections, each with a PROXY v2 header, and looks whether the relay lives."""

import os
import pathlib
import shutil
import subprocess

import paths  # noqa: F401
from pebble import end, reachable
from support import LOGS, last_lines, until

CONFIG = """global
    log stderr format raw local0
defaults
    mode tcp
    log global
    timeout connect 5s
    timeout client 60s
    timeout server 60s
"""
# The check brings a header too, which says LOCAL: nobody's address.
PASS = """listen {name}
    bind 127.0.0.1:{port}
    server relay 127.0.0.1:{behind} send-proxy-v2 check check-send-proxy inter 100ms
"""


class Haproxy:
    """Runs in the foreground until it is stopped. `ports` are pairs: where it listens, and where it hands on to."""

    def __init__(self, folder, *ports):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        passes = [PASS.format(name=f"to{behind}", port=port, behind=behind) for port, behind in ports]
        file = self.folder / "haproxy.cfg"
        file.write_text(CONFIG + "".join(passes))
        program = shutil.which("haproxy", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
        if not program:
            raise AssertionError("haproxy is missing (Debian: haproxy)")
        self.log = self.folder / "log"
        with self.log.open("wb") as to:
            self.process = subprocess.Popen([program, "-f", file], stdin=subprocess.DEVNULL, stdout=to, stderr=to)
        LOGS.append(self.log)
        until("HAProxy to listen", lambda: self.listens(ports))

    def listens(self, ports):
        if self.process.poll() is not None:
            raise AssertionError(f"HAProxy ended with {self.process.returncode}\n{last_lines(self.log)}")
        return all(reachable(("127.0.0.1", port)) for port, _ in ports)

    def told(self):
        return self.log.read_text(errors="replace")

    def stop(self):
        if self.process.poll() is None:
            LOGS.remove(self.log)
            end(self.process)
