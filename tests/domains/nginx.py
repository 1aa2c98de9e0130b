"""A real nginx as the customer's proxy that ends TLS, and the certificates that it shows."""

import contextlib
import os
import pathlib
import random
import shutil
import socket
import subprocess

import paths  # noqa: F401
from support import LOGS, last_lines, succeed, until

HEAD = """daemon off;
{main}
pid {folder}/pid;
error_log stderr notice;
{user}
events {{ }}
http {{
    {http}
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {listen} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location / {{ {location} }}
    }}
}}
"""


def free_port(given=set()):
    """A port below those that the system gives out: it stays free while nothing listens there."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        low = int(file.read().split()[0])
    while True:
        port = random.SystemRandom().randrange(max(1024, low // 2), low)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if port not in given:
                given.add(port)
                return port


def forward(port, host="$http_host"):
    """What a location says to hand on everything, with this Host."""
    return f"proxy_pass http://127.0.0.1:{port}; proxy_set_header Host {host};"


class Nginx:
    """Runs in the foreground until it is stopped.

    `listen` is what it says to listen on, if not this port alone; `http` is what stands beside the one server, `main`
    what stands above all.
    """

    def __init__(self, folder, port, certificate, location, listen=None, http="", main=""):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        # Workers of the user who may read the folder, where we are root.
        user = "user root;" if os.getuid() == 0 else ""
        file = self.folder / "nginx.conf"
        file.write_text(HEAD.format(folder=self.folder, listen=listen or f"127.0.0.1:{port}", http=http, user=user,
                                    main=main, certificate=f"{certificate}.pem", key=f"{certificate}.key",
                                    location=location))
        log = self.folder / "log"
        program = shutil.which("nginx", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
        if not program:
            raise AssertionError("nginx is missing (Debian: nginx-light)")
        with log.open("wb") as to:
            self.process = subprocess.Popen([program, "-p", self.folder, "-e", "stderr", "-c", file],
                                            stdin=subprocess.DEVNULL, stdout=to, stderr=to)
        LOGS.append(log)
        until("nginx to be ready", self.ready)

    def ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"nginx ended with {self.process.returncode}\n{last_lines(self.folder / 'log')}")
        return "start worker process " in (self.folder / "log").read_text(errors="replace")

    def stop(self):
        if self.process.poll() is not None:
            return
        LOGS.remove(self.folder / "log")
        # The fast end: nothing that is open is waited for.
        self.process.terminate()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()


class Authority:
    """A private root, as the file ROOT.pem, and what it issues: NAME.pem and NAME.key in its folder."""

    def __init__(self, folder, days=2):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        self.root = self.folder / "root.pem"
        self.openssl(f"req -x509 -keyout root.key -out root.pem -days {days} -subj /CN=Root", new_key=True)

    def issue(self, name, host, days=2):
        """`host` is a name, or what a certificate may be for as openssl has it: `IP:127.0.0.1`."""
        names = host if ":" in host else f"DNS:{host}"
        (self.folder / "extensions").write_text(f"subjectAltName={names}\nbasicConstraints=critical,CA:false\n")
        self.openssl(f"req -new -keyout {name}.key -out {name}.csr -subj /CN={name}", new_key=True)
        self.openssl(f"x509 -req -in {name}.csr -CA root.pem -CAkey root.key -CAcreateserial -days {days} "
                     f"-extfile extensions -out {name}.pem")
        return self.folder / name

    def openssl(self, arguments, new_key=False):
        extra = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes") if new_key else ()
        succeed("openssl", *arguments.split(), *extra, cwd=self.folder)
