#!/usr/bin/env python3
"""Mail that was not written by us, sent through the relay and looked at from outside.

    tests/campaign corpus [FOLDER]

Collects messages into FOLDER (see tests/verify/corpus.py; kept, and not collected again), sends each over SMTP to a
recipient of its own, and compares what the smarthost is given with what was sent, by tests/verify, which shares no code
with the relay. Every link is followed at the relay's tracking host and must lead to the exact original. Exits 1 if
anything was damaged, lost, sent twice or refused.
"""
import multiprocessing, os, pathlib, socket, subprocess, sys, tempfile, threading, time
from collections import Counter

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "verify"))
import folder as checker  # noqa: E402
import verify  # noqa: E402

BINARY, CORPUS = sys.argv[1], pathlib.Path(sys.argv[2])
CONFIG = """hostname = "relay.example.net"
[[smtp.listener]]
address = "127.0.0.1:{smtp}"
[smarthost]
address = "127.0.0.1:{sink}"
tls = "none"
[tracking]
http = ["127.0.0.1:{web}"]
link_scheme = "http"
"""


class Sink:
    """Keeps what it is given, by recipient."""

    def __init__(self):
        self.taken = {}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection):
        lines, recipients = connection.makefile("rb"), []
        connection.sendall(b"220 sink\r\n")
        while line := lines.readline():
            verb = line[:4].upper()
            if verb == b"EHLO":
                connection.sendall(b"250-sink\r\n250-PIPELINING\r\n250-SMTPUTF8\r\n250 8BITMIME\r\n")
                continue
            if verb == b"RCPT":
                recipients.append(line.split(b"<")[1].split(b"@")[0].decode())
            elif verb == b"DATA":
                connection.sendall(b"354 go\r\n")
                body = []
                while (line := lines.readline()) not in (b".\r\n", b""):
                    body.append(line[1:] if line.startswith(b".") else line)
                for recipient in recipients:
                    self.taken.setdefault(recipient, []).append(b"".join(body))
                recipients = []
            connection.sendall(b"250 ok\r\n")


def send(port, messages):
    """Gives the replies to those that were not taken."""
    refused = []
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        replies = connection.makefile("rb")

        def say(data):
            connection.sendall(data)
            while (line := replies.readline())[3:4] == b"-":
                pass
            return line.decode().strip()

        say(b"")
        say(b"EHLO corpus.example.com\r\n")
        for number, path in enumerate(messages):
            data = path.read_bytes()
            data = data if data.endswith(b"\r\n") else data + b"\r\n"
            stuffed = b"".join(b"." + line if line.startswith(b".") else line for line in data.splitlines(keepends=True))
            say(b"MAIL FROM:<news@shop.example.com> BODY=8BITMIME\r\n")
            say(b"RCPT TO:<m%d@example.net>\r\n" % number)
            say(b"DATA\r\n")
            reply = say(stuffed + b".\r\n")
            if not reply.startswith("250"):
                refused.append((path.name, reply))
        say(b"QUIT\r\n")
    return refused


def checked(job):
    path, sent, base = job
    original = path.read_bytes()
    original = original if original.endswith(b"\r\n") else original + b"\r\n"
    try:
        report = verify.verify(original, sent, verify.Policy(("links.shop.example.com",)))
        verify.resolve(report, base)
    except Exception as error:
        report = {"changed": False, "links": [], "violations": [{"kind": "checker", "detail": repr(error)[:300]}]}
    return path.name, report


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def main():
    messages = sorted(CORPUS.glob("*.eml"))
    sink, smtp, web = Sink(), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="trackpost-corpus-") as folder:
        config = os.path.join(folder, "trackpost.toml")
        pathlib.Path(config).write_text(CONFIG.format(smtp=smtp, sink=sink.port, web=web))
        with open(os.path.join(folder, "log"), "wb") as log:
            relay = subprocess.Popen([BINARY, "--config", config, "serve"], stderr=log, stdin=subprocess.DEVNULL)
        try:
            wait(lambda: os.path.exists(os.path.join(folder, "data", "admin.sock")), "the relay does not start")
            options = "--subdomain links --open --click --force-verified".split()
            subprocess.run([BINARY, "--config", config, "domain", "add", "shop.example.com", *options], check=True,
                           stdout=subprocess.DEVNULL)
            refused = send(smtp, messages)
            names = {name for name, _ in refused}
            sent = [(f"m{n}", path) for n, path in enumerate(messages) if path.name not in names]
            wait(lambda: all(who in sink.taken for who, _ in sent), "mail is missing")
            time.sleep(1)
            twice = sum(len(copies) - 1 for copies in sink.taken.values())
            jobs = [(path, sink.taken[who][0], f"http://127.0.0.1:{web}") for who, path in sent]
            counts, kinds = Counter(), Counter()
            with multiprocessing.Pool() as pool:
                for name, report in pool.imap(checked, jobs, chunksize=8):
                    counts.update(messages=1, changed=report["changed"], links_followed=len(report["links"]))
                    for fault in report["violations"]:
                        kinds[fault["kind"]] += 1
                        print(name, fault["kind"], fault["detail"], sep="\t")
        finally:
            relay.terminate()
            relay.wait(60)
    for name, reply in refused:
        print(name, reply, sep="\trefused: ")
    print(f"{dict(counts)}, {len(refused)} refused, {twice} sent twice, violations: {dict(kinds)}")
    return 1 if kinds or refused or twice else 0


def wait(done, what):
    deadline = time.monotonic() + 120
    while not done():
        if time.monotonic() > deadline:
            sys.exit(what)
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
