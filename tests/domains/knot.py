"""A real authoritative server, Knot DNS, on a loopback port of the system's choice, with zones that a test writes.

It runs in the foreground on a folder of its own, reads nothing of the system's configuration, and ends by its id. The
root is one of its zones, so a name that no zone holds is NXDOMAIN with authority, as the world would say it.
"""

import os
import pathlib
import shutil
import socket
import subprocess
import threading
import time

import packet

PATIENCE = 30
SEARCH = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"


class Knot:
    """`address` is a (host, port) for both UDP and TCP; it listens on `also` as well, which are such pairs. All methods
    may be called from several threads."""

    def __init__(self, folder, also=()):
        self.also = also
        self.folder = pathlib.Path(folder).resolve()
        (self.folder / "zones").mkdir(parents=True)
        (self.folder / "db").mkdir()
        self.log = self.folder / "log"
        self.lock = threading.Lock()
        self.zones, self.serials, self.process = {}, {}, None
        # How much of the log is about what came before.
        self.read = 0
        self.write(".", (), 0)
        for _ in range(20):
            if self.start():
                return
        raise AssertionError(f"knotd does not start:\n{self.told()}")

    def start(self):
        """True when it serves; a port that someone else took in between is no fault."""
        self.address = ("127.0.0.1", free_port())
        self.configure()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([find("knotd"), "-c", self.folder / "knot.conf"],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self.wait_for(".")
        except AssertionError:
            if "in use" not in self.told():
                self.stop()
                raise
        if "in use" not in self.told():
            return True
        self.stop()
        return False

    def zone(self, name, *records, ttl=0):
        """Writes a zone, or writes it anew, and returns when it is served over UDP and TCP.

        `records` are lines as a zone file has them: `links CNAME track.relay.example.net.`. SOA and NS are there. How
        long an answer may be kept is `ttl`, in seconds, also for one that says that there is nothing.
        """
        with self.lock:
            self.write(canonical(name), records, ttl)
            try:
                self.reload()
                self.wait_for(canonical(name))
            except AssertionError:
                # A zone with a fault must not be in the way of those after it.
                del self.zones[canonical(name)]
                raise

    def remove_zone(self, name):
        """From now on the zone above it answers."""
        with self.lock:
            del self.zones[canonical(name)]
            self.reload()
            self.wait(f"{name} to be gone", lambda: self.served(canonical(name)) is None)

    def stop(self):
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def told(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def write(self, name, records, ttl):
        self.serials[name] = self.serials.get(name, 0) + 1
        origin = name if name == "." else f"{name}."
        # The last number is how long NXDOMAIN and "no such record" are kept (RFC 2308, section 4).
        soa = f"@ {ttl} SOA ns.invalid. hostmaster.invalid. {self.serials[name]} 3600 600 86400 {ttl}"
        lines = [f"$ORIGIN {origin}", f"$TTL {ttl}", soa, "@ NS ns.invalid.", *records]
        self.zones[name] = self.folder / "zones" / f"{'root' if name == '.' else name}.zone"
        self.zones[name].write_text("\n".join(lines) + "\n")

    def configure(self):
        listen = ", ".join(f"{host}@{port}" for host, port in (self.address, *self.also))
        server = {"rundir": f'"{self.folder}"', "listen": f"[{listen}]", "udp-workers": 1, "tcp-workers": 1,
                  "background-workers": 1, "pidfile": f'"{self.folder}/pid"'}
        # Zones come from their files alone: no journal, and nothing written back.
        template = {"storage": f'"{self.folder}/zones"', "journal-content": "none", "zonefile-load": "whole",
                    "zonefile-sync": -1, "semantic-checks": "off"}
        parts = ["server:", *(f"    {key}: {value}" for key, value in server.items()),
                 "control:", f'    listen: "{self.folder}/control"',
                 "database:", f'    storage: "{self.folder}/db"',
                 "log:", "  - target: stderr", "    any: info",
                 "template:", "  - id: default", *(f"    {key}: {value}" for key, value in template.items()), "zone:"]
        for name, file in self.zones.items():
            parts += [f'  - domain: "{name}"', f'    file: "{file}"']
        new = self.folder / "knot.conf.new"
        new.write_text("\n".join(parts) + "\n")
        new.replace(self.folder / "knot.conf")

    def reload(self):
        self.read = len(self.told())
        self.configure()
        ran = subprocess.run([find("knotc"), "-s", self.folder / "control", "-t", str(PATIENCE), "reload"],
                             stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE * 2)
        if ran.returncode:
            raise AssertionError(f"knotc reload: {ran.stdout}{ran.stderr}\n{self.told()}")

    def wait_for(self, name):
        wanted = self.serials[name]
        self.wait(f"zone {name} with serial {wanted}",
                  lambda: self.served(name) == wanted and self.served(name, tcp=True) == wanted)

    def wait(self, what, done):
        end = time.monotonic() + PATIENCE
        while not done():
            code, told = self.process.poll(), self.told()[self.read:]
            if code is not None or "error:" in told or "in use" in told or time.monotonic() > end:
                raise AssertionError(f"waited for {what} (knotd's exit: {code})\n{told[-4000:]}")
            time.sleep(0.01)

    def served(self, name, tcp=False):
        try:
            return packet.serial(self.address, name, tcp)
        except OSError:
            return None


def canonical(name):
    return name.lower().rstrip(".") or "."


def find(program):
    if found := shutil.which(program, path=SEARCH):
        return found
    raise AssertionError(f"{program} is missing (Debian: knot)")


def free_port(given=set()):
    """One that is free for TCP and UDP at this moment, and was given to nobody else here.

    Knot DNS shares a port with whoever would share it, so two of them on one would not notice.
    """
    while True:
        pair = bound_pair()
        port = pair[0].getsockname()[1]
        for one in pair:
            one.close()
        if port not in given:
            given.add(port)
            return port


def bound_pair():
    """A TCP socket that listens and a UDP socket, on the same port of the system's choice."""
    while True:
        tcp, udp = socket.create_server(("127.0.0.1", 0), backlog=128), socket.socket(type=socket.SOCK_DGRAM)
        try:
            udp.bind(tcp.getsockname())
            return tcp, udp
        except OSError:
            tcp.close()
            udp.close()
