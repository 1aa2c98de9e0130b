"""Two programs that verify signatures and know nothing of us or of each other: dkimpy, and OpenDKIM's testmsg.

Both ask the DNS server of the test for the record. OpenDKIM asks who is in /etc/resolv.conf, on port 53, so it is run
where that file is another: in a mount namespace of its own, which root may make.
"""

import pathlib
import random
import re
import shutil
import socket
import subprocess
import tempfile

import dkim
import dns.resolver

import paths  # noqa: F401
from support import run

PATIENCE = 600
SCRIPT = """mount --bind "$1/resolv.conf" /etc/resolv.conf || exit
for message in "$1"/*.eml; do
    opendkim-testmsg -t "$1" <"$message" >"$message.said" 2>&1
    echo "exit $?" >>"$message.said"
done
"""


def signatures(message):
    """(domain, selector) of each signature, in order."""
    head = re.sub(rb"\r\n(?=[ \t])", b"", message.partition(b"\r\n\r\n")[0])
    values = re.findall(rb"^DKIM-Signature[ \t]*:(.*)$", head, re.M | re.I)
    return [(tag(value, b"d"), tag(value, b"s")) for value in values]


def tag(value, name):
    found = re.search(rb"(?:^|;)\s*" + name + rb"\s*=([^;]*)", value)
    return re.sub(rb"\s", b"", found[1]).decode().lower() if found else None


def dkimpy(message, domain, server):
    """What dkimpy says of the one signature of a domain: None where all is well, else what is not."""
    places = [place for place, (of, _) in enumerate(signatures(message)) if of == domain]
    if len(places) != 1:
        return f"{len(places)} signatures of {domain}"
    texts = Texts(server)
    try:
        good = dkim.DKIM(message, minkey=2048).verify(places[0], texts)
    except dkim.DKIMException as e:
        return f"{type(e).__name__}: {e}"
    if not texts.asked:
        return "the record was not asked for"
    return None if good else "the signature does not hold"


class Texts:
    """TXT records of a server, as dkimpy asks for them. They are kept: a test that changes one takes another."""

    kept = {}

    def __init__(self, server):
        self.server, self.asked = server, []

    def __call__(self, name, timeout=5):
        name = name.decode() if isinstance(name, bytes) else name
        self.asked.append(name)
        if (key := (self.server, name)) not in self.kept:
            self.kept[key] = self.look(name, timeout)
        return self.kept[key]

    def look(self, name, timeout):
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port, resolver.lifetime = [self.server[0]], self.server[1], timeout
        try:
            answer = resolver.resolve(name, "TXT", search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return None
        return b"".join(answer[0].strings)


def opendkim(messages, server):
    """What OpenDKIM says of each of these messages, by name: "" where all is well. `server` must be on port 53."""
    assert server[1] == 53, server
    with tempfile.TemporaryDirectory(prefix="trackpost-opendkim-") as kept:
        folder = pathlib.Path(kept)
        (folder / "resolv.conf").write_text(f"nameserver {server[0]}\noptions timeout:5 attempts:2\n")
        for name, message in messages.items():
            (folder / f"{name}.eml").write_bytes(message)
        for program in ("opendkim-testmsg", "unshare"):
            if not shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin"):
                raise AssertionError(f"{program} is missing (Debian: opendkim-tools, util-linux)")
        ended = run("unshare", "--mount", "sh", "-c", SCRIPT, "sh", folder, timeout=PATIENCE)
        if ended.returncode:
            raise AssertionError(f"OpenDKIM was not run: {ended.stdout}{ended.stderr}")
        said = {name: (folder / f"{name}.eml.said").read_text() for name in messages}
    return {name: "" if text == "exit 0\n" else text.strip() for name, text in said.items()}


def address():
    """A loopback address of whose port 53 nobody makes use at this moment."""
    while True:
        host = ".".join(["127", *(str(random.randrange(1, 255)) for _ in range(3))])
        try:
            with socket.create_server((host, 53)), socket.socket(type=socket.SOCK_DGRAM) as udp:
                udp.bind((host, 53))
                return host, 53
        except OSError:
            continue


def failures(messages, domain, plain, on_53):
    """Everything that one of the two does not like, by name; `plain` and `on_53` are the DNS server's addresses."""
    theirs = opendkim(messages, on_53)
    told = {name: (dkimpy(message, domain, plain), theirs[name]) for name, message in messages.items()}
    return {name: said for name, said in told.items() if any(said)}


def openssl(*arguments, **options):
    ended = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, check=False, **options)
    if ended.returncode:
        raise AssertionError(f"openssl {arguments}: {ended.stderr.decode(errors='replace')}")
    return ended.stdout
