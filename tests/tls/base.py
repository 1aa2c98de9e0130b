"""A relay that orders its certificates from a Pebble of its own, with the front between them, and what it says of
them."""

import datetime
import pathlib

import paths  # noqa: F401
import case
import handshake
import mail
import nginx
import rest
from case import LINKS
from front import Front
from pebble import Pebble, authority
from server import TARGET, Server
from support import until
from together import load_tests

HOST = "links.example.com"
# From verification to certificate.
SOON = 15
DAY, HOUR = case.DAY, case.HOUR


class TlsServer(Server):
    """As Server, with listeners whose ports are known before it starts: `web` is the plain one, `tls` the other."""

    def __init__(self, folder, smarthost, resolver, settings, environment, ports):
        self.plain, self.tls = ports
        super().__init__(folder, smarthost, resolver, settings, environment)

    def start(self):
        super().start()
        self.web = self.plain
        until("the TLS listener", lambda: f"127.0.0.1:{self.tls}" in self.log())

    @property
    def data(self):
        return self.folder / "data"

    @property
    def keys(self):
        return self.data / "keys"


class Tls(case.Case):
    """A relay with HTTPS listeners, whoever gives the certificates."""

    def setUp(self):
        super().setUp()
        self.plain, self.secure = nginx.free_port(), nginx.free_port()

    def serve(self, settings, clock=False, environment=None, start=TlsServer):
        tracking = {"http": [f"127.0.0.1:{self.plain}"], "https": [f"127.0.0.1:{self.secure}"],
                    "link_scheme": "https", "link_port": self.secure}
        merged = settings | {"tracking": tracking | settings.get("tracking", {})}
        environment = (self.clock.environment if clock else {}) | (environment or {})
        server = start(self.folder / "relay", self.smarthost.port, self.resolver.address, merged, environment,
                       (self.plain, self.secure))
        self.addCleanup(server.close)
        return server

    def click(self, link, root):
        """Follows a link over TLS; it must redirect to where it leads."""
        seen = handshake.click(link, root)
        self.assertEqual((seen.status, seen.location), (302, mail.PAGE))
        return seen


class Files(Tls):
    """With pairs of files that openssl has made, in `certificates`."""

    def setUp(self):
        super().setUp()
        self.authority = nginx.Authority(self.folder / "authority")
        self.root = self.authority.root
        self.certificates = self.folder / "certificates"
        self.certificates.mkdir(mode=0o700)
        self.made = 0

    def files(self, settings=None, **options):
        given = {"tracking": {"tls": "files", "certificates_dir": str(self.certificates)}}
        for name, keys in (settings or {}).items():
            given[name] = given.get(name, {}) | keys
        return self.serve(given, **options)

    def put(self, host, names=None, days=2):
        """A new pair for a host, the certificate for `names` if given; each file is there at one moment."""
        self.made += 1
        pair = self.authority.issue(f"pair{self.made}", names or host, days)
        for end in ("key", "pem"):
            made = pair.with_name(f"{pair.name}.{end}")
            made.chmod(0o600)
            made.replace(self.certificates / f"{host}.{end}")


class Acme(Tls):
    def begin(self, clock=False, settings=None, environment=None, names=("example.com",), faults=(), **pebble):
        """Pebble, the front, with faults by kind, and a relay; zones of `names` lead their hosts to it. Nothing is
        verified yet."""
        self.ca = Pebble(self.folder / "ca", self.plain, **pebble)
        self.addCleanup(self.ca.stop)
        self.front = Front(self.ca)
        self.addCleanup(self.front.stop)
        for kind, fault in dict(faults).items():
            self.front.fail(kind, fault)
        for name in names:
            self.dns.zone(name, LINKS)
        return self.start(self.front.directory, clock, settings, environment)

    def start(self, directory, clock=False, settings=None, environment=None):
        given = {"tracking": {"tls": "acme"},
                 "acme": {"directory": directory, "ca_file": str(authority().root), "caa_issuer": "ca.example.net",
                          "contact": "operator@example.net"}}
        for name, keys in (settings or {}).items():
            given[name] = given.get(name, {}) | keys
        return self.serve(given, clock, environment)

    @property
    def root(self):
        return self.ca.root

    def ask(self, server, name="example.com", **fields):
        """A domain whose verification is asked for, so that an order is due."""
        return rest.verify(server, rest.create(server, name, **fields))

    def ready(self, server, domain, host=None, seconds=SOON):
        """Waits for the certificate; the domain then."""
        return self.reaches(server, domain, ("valid",), host, seconds)

    def reaches(self, server, domain, states, host=None, seconds=30, also=lambda certificate: True):
        def seen():
            fetched = rest.fetch(server, domain)
            found = certificate(fetched, host)
            return fetched if found["state"] in states and also(found) else None

        return until(lambda: f"{states}, instead of {rest.fetch(server, domain)['certificates']}", seen, seconds)

    def obtained(self, server, name="example.com", **fields):
        """A domain with its certificate, and mail that is tracked."""
        domain = self.ready(server, self.ask(server, name, **fields))
        until("mail to be tracked", lambda: self.tracked(server, domain["name"]), 10)
        return domain

    def failing(self, server, domain, seconds=30):
        """The certificate's state once an attempt has failed, with the words of who refused it."""
        domain = self.reaches(server, domain, ("failed", "waiting"), seconds=seconds,
                              also=lambda found: found.get("message") and found.get("next_try_at"))
        return certificate(domain)

    def retry_in(self, found):
        """Seconds until the next attempt, as the relay says; by its own clock."""
        return datetime.datetime.fromisoformat(found["next_try_at"]).timestamp() - self.now()

    def pass_to_next_try(self, server, domain):
        """Moves the relay's clock to where it says that it tries again. It is started anew, as one that sleeps does
        not see that a clock was set."""
        found = certificate(rest.fetch(server, domain))
        self.clock.go_on(self.retry_in(found) + 2)
        server.restart()

    def host(self, name="example.com"):
        return f"links.{name}"


def certificate(domain, host=None):
    """The state of a host's certificate; that of the host which is asked for unless named."""
    if host is None:
        return domain["certificate"]
    (found,) = [one for one in domain["certificates"] if one["host"] == host]
    return found


def pem(folder):
    """Files of certificates by their host."""
    return {path.name[len("cert-"):-len(".pem")]: path for path in pathlib.Path(folder).glob("cert-*.pem")}


__all__ = ["DAY", "HOST", "HOUR", "LINKS", "SOON", "TARGET", "Acme", "Files", "Tls", "TlsServer", "certificate",
           "load_tests", "pem"]
