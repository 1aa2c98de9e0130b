"""A real ACME server, Pebble, and the DNS that it looks hosts up in, both on loopback ports of the system's choice.

Its own listeners show a certificate from a root that is made here, `authority().root`; that of what it issues comes
from its management port. It rejects good nonces, as it does by default, and asks for the challenge on one port: that
of the relay's plain tracking listener, so each relay has a Pebble of its own.
"""

import atexit
import functools
import json
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import urllib.request

import paths  # noqa: F401
from knot import bound_pair
from nginx import Authority, free_port
from support import LOGS, last_lines, until

# Percent of good nonces that are rejected, unless a test says otherwise.
REJECTED_NONCES = 5
shared = threading.Lock()


class Pebble:
    """`address` is a (host, port), `directory` the path of the directory there, `root` the file of its root."""

    directory = "/dir"

    def __init__(self, folder, http_port, validity=None, blocked=(), rejected_nonces=REJECTED_NONCES, port=None,
                 believing=False):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        self.root = self.folder / "issued.pem"
        self.log = self.folder / "log"
        self.address, management = ("127.0.0.1", port or free_port()), ("127.0.0.1", free_port())
        listener = authority().folder / "listener"
        config = {"listenAddress": "%s:%d" % self.address, "managementListenAddress": "%s:%d" % management,
                  "certificate": f"{listener}.pem", "privateKey": f"{listener}.key", "httpPort": http_port,
                  # TLS-ALPN-01 is nothing that the relay does.
                  "tlsPort": free_port(), "externalAccountBindingRequired": False, "domainBlocklist": list(blocked)}
        if validity:
            # Seconds. Without it, five years.
            config["certificateValidityPeriod"] = validity
        (self.folder / "config.json").write_text(json.dumps({"pebble": config}))
        environment = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": str(rejected_nonces)}
        if believing:
            # It asks for no challenge: some hosts are beyond what pebble-challtestsrv answers about.
            environment["PEBBLE_VA_ALWAYS_VALID"] = "1"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([find("pebble"), "-config", self.folder / "config.json", "-dnsserver",
                                             "%s:%d" % names().address], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env=os.environ | environment)
        LOGS.append(self.log)
        until("Pebble to listen", lambda: self.listens(self.address) and self.listens(management))
        self.root.write_bytes(self.fetch(management, "/roots/0"))

    def listens(self, address):
        if self.process.poll() is not None:
            LOGS.remove(self.log)
            raise AssertionError(f"Pebble ended with {self.process.returncode}\n{last_lines(self.log)}")
        return reachable(address)

    def fetch(self, address, path):
        context = ssl.create_default_context(cafile=authority().root)
        with urllib.request.urlopen("https://%s:%d" % address + path, context=context, timeout=10) as got:
            return got.read()

    def stop(self):
        if self.process.poll() is None:
            LOGS.remove(self.log)
            end(self.process)


class Names:
    """pebble-challtestsrv as a DNS server that knows every name, at 127.0.0.1 unless it is told otherwise."""

    def __init__(self, folder):
        self.address, self.management = pair(), ("127.0.0.1", free_port())
        command = [find("pebble-challtestsrv"), "-dns01", "%s:%d" % self.address, "-management",
                   "%s:%d" % self.management, "-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]
        with open(folder / "names.log", "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        atexit.register(end, self.process)
        until("pebble-challtestsrv to listen", lambda: reachable(self.address) and reachable(self.management))

    def lead(self, host, address):
        """From now on a name is looked up to be at another address."""
        for path, told in (("clear-a", {}), ("add-a", {"addresses": [address]})):
            body = json.dumps({"host": f"{host}."} | told).encode()
            urllib.request.urlopen("http://%s:%d/%s" % (*self.management, path), body, timeout=10).close()


@functools.cache
def kept():
    """A folder for what all tests of a run share."""
    made = tempfile.TemporaryDirectory(prefix="trackpost-acme-")
    atexit.register(made.cleanup)
    return pathlib.Path(made.name)


def authority():
    """The root whose certificate Pebble's listeners show, valid for so long that a test may move the relay's clock."""
    with shared:
        return the_authority()


@functools.cache
def the_authority():
    made = Authority(kept() / "authority", days=36500)
    made.issue("listener", "IP:127.0.0.1", days=36500)
    return made


def names():
    with shared:
        return the_names()


@functools.cache
def the_names():
    return Names(kept())


def pair():
    """An address that is free for both UDP and TCP at this moment."""
    both = bound_pair()
    address = both[0].getsockname()
    for one in both:
        one.close()
    return address


def reachable(address):
    try:
        socket.create_connection(address, 1).close()
        return True
    except OSError:
        return False


def end(process):
    process.terminate()
    try:
        process.wait(10)
    finally:
        process.kill()
        process.wait()


def find(program):
    if found := shutil.which(program):
        return found
    raise AssertionError(f"{program} is missing (Debian: pebble)")
