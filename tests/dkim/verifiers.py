"""Three programs that verify signatures and know nothing of us or of each other: dkimpy, OpenDKIM's testmsg, and
Mail::DKIM.

All ask the DNS server of the test for the record. OpenDKIM asks who is in /etc/resolv.conf, on port 53, so it is run
where that file is another: in a mount namespace of its own, which root may make. It reads no message that has a field
twice of which there may be one (RFC 5322, section 3.6), so of those only the others speak.
"""

import contextlib
import pathlib
import random
import re
import shutil
import socket
import tempfile

import dkim
import dns.resolver

import paths  # noqa: F401
from support import succeed

PATIENCE = 600
# RFC 5322, section 3.6, but for From and Date, which are there once in each message here.
ONCE = ("Sender", "Reply-To", "To", "Cc", "Bcc", "Message-ID", "In-Reply-To", "References", "Subject")
UNREAD = "opendkim-testmsg: dkim_chunk(): Syntax error\nexit 70"
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
    """What OpenDKIM says of each of these messages, by name: None where all is well. `server` must be on port 53."""
    assert server[1] == 53, server
    with written(messages) as (folder, files):
        (folder / "resolv.conf").write_text(f"nameserver {server[0]}\noptions timeout:5 attempts:2\n")
        for program in ("opendkim-testmsg", "unshare"):
            if not shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin"):
                raise AssertionError(f"{program} is missing (Debian: opendkim-tools, util-linux)")
        succeed("unshare", "--mount", "sh", "-c", SCRIPT, "sh", folder, timeout=PATIENCE)
        said = {name: pathlib.Path(f"{file}.said").read_text() for file, name in files.items()}
    return {name: None if text == "exit 0\n" else text.strip() for name, text in said.items()}


def mail_dkim(messages, domain, server):
    """What Mail::DKIM says of the one signature of a domain in each of these messages, as `opendkim`."""
    script = pathlib.Path(__file__).with_name("verify.pl")
    with written(messages) as (_, files):
        text = succeed("perl", script, *server, *files, timeout=PATIENCE)
    said = {name: [] for name in messages}
    for file, of, result in (line.split(" ", 2) for line in text.splitlines()):
        if of == domain:
            said[files[file]].append(result)
    return {name: None if results == ["pass"] else str(results) for name, results in said.items()}


@contextlib.contextmanager
def written(messages):
    """A folder, and the names of the messages by the file in which each is."""
    with tempfile.TemporaryDirectory(prefix="trackpost-dkim-") as kept:
        folder = pathlib.Path(kept)
        files = {}
        for number, (name, message) in enumerate(messages.items()):
            (file := folder / f"{number}.eml").write_bytes(message)
            files[str(file)] = name
        yield folder, files


def is_unread(message):
    """A field is there twice of which there may be one."""
    head = re.sub(rb"\r\n[ \t]", b" ", message.partition(b"\r\n\r\n")[0])
    names = [line.partition(b":")[0].lower().decode("latin-1") for line in head.split(b"\r\n")]
    return any(names.count(name.lower()) > 1 for name in ONCE)


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
    """Everything that one of them does not like, by name; `plain` and `on_53` are the DNS server's addresses."""
    theirs, perls = opendkim(messages, on_53), mail_dkim(messages, domain, plain)
    found = {}
    for name, message in messages.items():
        wanted = UNREAD if is_unread(message) else None
        said = {"dkimpy": dkimpy(message, domain, plain), "Mail::DKIM": perls[name]}
        said |= {} if theirs[name] == wanted else {"OpenDKIM": theirs[name]}
        if any(said.values()):
            found[name] = said
    return found
