"""Certificates of a smarthost at 127.0.0.1, good ones and others, made anew for each run by the `openssl` command."""

import pathlib
import ssl
import subprocess

# Kind: who signs it, the name in it, its first and last day.
LONG_AGO, FAR = ("20200101000000Z", "20200201000000Z"), ("20200101000000Z", "20991231235959Z")
KINDS = {
    "good": ("ca", "IP:127.0.0.1", FAR),
    "expired": ("ca", "IP:127.0.0.1", LONG_AGO),
    "wrong-name": ("ca", "DNS:other.example.net", FAR),
    "unknown-ca": ("other-ca", "IP:127.0.0.1", FAR),
}
CONFIG = """[ca]
default_ca = x
[x]
new_certs_dir = {folder}
database = {folder}/{name}.index
serial = {folder}/{name}.serial
default_md = sha256
policy = any
x509_extensions = extensions
unique_subject = no
[any]
commonName = optional
[extensions]
basicConstraints = CA:FALSE
subjectAltName = {names}
[req]
distinguished_name = none
[none]
"""


def make(folder):
    """The server side's TLS context for each of KINDS; the root to be believed is `ca.pem` in the folder."""
    folder = pathlib.Path(folder)
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "other-ca"):
        openssl("req", "-x509", *key, "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem",
                "-days", "3650", "-subj", f"/CN={name}.test")
    contexts = {}
    for kind, (ca, names, (first, last)) in KINDS.items():
        config, request, pem = (folder / f"{kind}.{end}" for end in ("cnf", "csr", "pem"))
        config.write_text(CONFIG.format(folder=folder, name=kind, names=names))
        (folder / f"{kind}.index").touch()
        (folder / f"{kind}.serial").write_text(f"10{len(contexts)}0\n")
        openssl("req", "-new", *key, "-keyout", folder / f"{kind}.key", "-out", request, "-subj", "/CN=mx.example.net")
        openssl("ca", "-batch", "-notext", "-config", config, "-cert", folder / f"{ca}.pem",
                "-keyfile", folder / f"{ca}.key", "-startdate", first, "-enddate", last, "-in", request, "-out", pem)
        contexts[kind] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        contexts[kind].load_cert_chain(pem, folder / f"{kind}.key")
    return contexts


def openssl(*arguments):
    ran = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"openssl {arguments[0]}: {ran.stderr}")
