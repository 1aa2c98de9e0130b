"""TLS as clients speak it: Python's ssl, curl, openssl s_client. None of them believes what it was not told to."""

import dataclasses
import re
import socket
import ssl

import paths  # noqa: F401
from support import run, succeed

TIMEOUT = 20
AGENT = "Mozilla/5.0 (test)"
# The alert for a name that has no certificate, or for none (RFC 6066, section 3).
REFUSED = "unrecognized_name"


@dataclasses.dataclass(frozen=True)
class Shown:
    """What a server showed in a handshake that verified."""

    serial: str
    not_after: float
    version: str
    cipher: str
    alpn: str | None
    der: bytes


def trusting(root, alpn=("http/1.1",), version=None):
    context = ssl.create_default_context(cafile=str(root))
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if version:
        context.minimum_version = context.maximum_version = version
    return context


def shake(port, host, root, context=None):
    """A handshake with everything verified: the chain up to `root` alone, the name, the time."""
    context = context or trusting(root)
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as plain:
        with context.wrap_socket(plain, server_hostname=host) as secure:
            certificate = secure.getpeercert()
            return Shown(certificate["serialNumber"], ssl.cert_time_to_seconds(certificate["notAfter"]),
                         secure.version(), secure.cipher()[0], secure.selected_alpn_protocol(),
                         secure.getpeercert(binary_form=True))


def shaken(port, host, root):
    """As `shake`, or None where it comes to nothing."""
    try:
        return shake(port, host, root)
    except OSError:
        return None


def alert(port, host, version=None):
    """The name of the alert that ends a handshake; None where it succeeds. `host` None: no name is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if version:
        context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=host) as secure:
                # With TLS 1.3 a server may still refuse after our side is done.
                secure.settimeout(TIMEOUT)
                secure.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                secure.recv(1)
                return None
        except ssl.SSLError as refused:
            return re.sub(r"^(TLSV1|SSLV3|TLSV13)_(ALERT_)?", "", refused.reason or str(refused)).lower()


def split(link):
    """(host, port, path) of a link over https."""
    host, port, path = re.fullmatch(r"https://([^/:]+):(\d+)(/.*)", link).groups()
    return host, int(port), path


@dataclasses.dataclass(frozen=True)
class Response:
    status: int
    headers: dict
    body: bytes

    @property
    def location(self):
        return self.headers.get("location")


def click(link, root, address="127.0.0.1", headers=(), alpn=("http/1.1",)):
    """Follows a link as a browser does that trusts `root`, by Python's ssl."""
    host, port, path = split(link)
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}:{port}", f"User-Agent: {AGENT}", "Connection: close", *headers]
    with socket.create_connection((address, port), TIMEOUT) as plain:
        with trusting(root, alpn).wrap_socket(plain, server_hostname=host) as secure:
            secure.sendall("\r\n".join([*lines, "", ""]).encode())
            return parse(read(secure))


def read(connection):
    data = b""
    while more := connection.recv(65536):
        data += more
    return data


def parse(data):
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    return Response(int(first.split()[1]), {name.lower(): value.strip() for name, _, value in
                                            (line.partition(":") for line in lines)}, body)


def curl(link, root, *options):
    """(HTTP version, status, Location) that curl sees; it is told where the host is, and nothing else."""
    host, port, _ = split(link)
    seen = "%{http_version} %{http_code} %{redirect_url}"
    told = succeed("curl", "--silent", "--show-error", "--max-time", TIMEOUT, "--noproxy", "*", "--cacert", root,
                   "--resolve", f"{host}:{port}:127.0.0.1", "--user-agent", AGENT, "--output", "/dev/null",
                   "--write-out", seen, *options, link)
    version, status, location = (told.split(" ", 2) + [""])[:3]
    return version, int(status), location or None


def s_client(port, host, *options):
    """openssl's client with nothing to say; what it printed on both channels, and its exit code."""
    ended = run("openssl", "s_client", "-connect", f"127.0.0.1:{port}", *(("-servername", host) if host else
                ("-noservername",)), *options, input="", timeout=TIMEOUT)
    return ended.stdout + ended.stderr, ended.returncode


def public_key(der):
    """The kind of key of a certificate, as openssl names it."""
    text = run("openssl", "x509", "-inform", "DER", "-noout", "-text", text=False, input=der).stdout.decode()
    return re.search(r"Public Key Algorithm: (\S+)\n(?:.*\n)*?\s+ASN1 OID: (\S+)", text).groups()
