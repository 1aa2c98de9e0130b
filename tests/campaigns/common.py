"""What the campaigns share: the relay as a process, a smarthost that counts, clients, and the account of what was lost.

Nothing here knows the relay's inside. It is driven through its configuration file, its command line and SMTP; a
message is told by its one recipient, ID@example.net, as that survives everything that the relay may do to it.
"""
import atexit, contextlib, http.client, os, random, re, shutil, signal, socket, subprocess, sys, tempfile, threading
import time
from collections import Counter

DOMAIN = "shop.example.com"


def free_port(given=set()):
    """A port below those that the system gives to outgoing connections: a relay that was killed must find it free when
    it starts again, and a port from the system could be a sender's own by then."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        low = int(file.read().split()[0])
    while True:
        port = random.SystemRandom().randrange(max(1024, low // 2), low)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if port not in given:
                given.add(port)
                return port


def wait(done, what, seconds=120):
    """Until `done` gives something true, which is returned; exits with `what` when it does not."""
    if (found := within(done, seconds)) is None:
        sys.exit(what)
    return found


def within(done, seconds, pause=0.05):
    """Like `wait`, but gives None when the time is over."""
    deadline = time.monotonic() + seconds
    while not (found := done()):
        if time.monotonic() > deadline:
            return None
        time.sleep(pause)
    return found


class Relay:
    """The relay, in a folder of its own and on free ports. `settings` maps a section's head to lines of it."""

    def __init__(self, binary, smarthost, settings=None, data=None):
        self.binary, self.folder = os.path.abspath(binary), tempfile.mkdtemp(prefix="trackpost-campaign-")
        self.data = data or os.path.join(self.folder, "data")
        self.config, self.log = os.path.join(self.folder, "trackpost.toml"), os.path.join(self.folder, "log")
        self.smtp, self.web, self.api, self.process = free_port(), free_port(), free_port(), None
        sections = {
            "": ['hostname = "relay.example.net"', f'data_dir = "{self.data}"'],
            "[[smtp.listener]]": [f'address = "127.0.0.1:{self.smtp}"'],
            "[smarthost]": [f'address = "127.0.0.1:{smarthost}"', 'tls = "none"'],
            "[tracking]": [f'http = ["127.0.0.1:{self.web}"]', 'link_scheme = "http"'],
            "[api]": [f'address = "127.0.0.1:{self.api}"'],
        }
        for head, lines in (settings or {}).items():
            sections.setdefault(head, []).extend(lines)
        # Whatever ends the script ends it as well.
        atexit.register(lambda: self.lives() and self.kill())
        with open(self.config, "w") as file:
            file.write("\n".join(line for head, lines in sections.items() for line in [head, *lines]) + "\n")

    def start(self, wrapper=(), environment=None, seconds=30):
        """Seconds until it greets. `wrapper` is a command that becomes the relay (`prlimit`, `strace -D`)."""
        began, command = time.monotonic(), [*wrapper, self.binary, "--config", self.config, "serve"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                            env={**os.environ, **(environment or {})})
        while not self.greets():
            if self.process.poll() is not None or time.monotonic() - began > seconds:
                raise RuntimeError(f"the relay does not start: {self.last_line()}")
            time.sleep(0.01)
        return time.monotonic() - began

    def greets(self, seconds=5):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.smtp), seconds) as connection:
            return connection.recv(3) == b"220"
        return False

    def ready(self):
        """True if it says of itself that it works."""
        connection = http.client.HTTPConnection("127.0.0.1", self.api, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def lives(self):
        return self.process is not None and self.process.poll() is None

    def let_go(self):
        """Ends a strace that watches it; it goes on."""
        with open(f"/proc/{self.process.pid}/status") as file:
            tracer = int(re.search(r"TracerPid:\s+(\d+)", file.read())[1])
        if tracer:
            os.kill(tracer, signal.SIGTERM)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        return self.process.wait()

    def stop(self, seconds=60):
        """Ends it politely; the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return "none in time"

    def cleanup(self):
        if self.lives():
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def add_domain(self):
        subprocess.run([self.binary, "--config", self.config, "domain", "add", DOMAIN, "--subdomain", "links", "--open",
                        "--click", "--force-verified"], check=True, stdout=subprocess.DEVNULL)

    def recorded(self, queue_id):
        """True when its history knows the message as one that went out."""
        shown = subprocess.run([self.binary, "--config", self.config, "queue", "show", queue_id], capture_output=True,
                               text=True)
        return shown.returncode == 0 and re.search(r"\s(relayed|delivered)\s", shown.stdout) is not None

    def logged(self, pattern, offset=0):
        """Lines of its log from `offset` on that match."""
        with open(self.log, "rb") as file:
            file.seek(offset)
            return [line for line in file.read().decode(errors="replace").splitlines() if re.search(pattern, line)]

    def log_size(self):
        return os.path.getsize(self.log) if os.path.exists(self.log) else 0

    def panics(self, offset=0):
        return self.logged(r"panicked at|SIGSEGV|stack overflow|memory allocation of", offset)

    def last_line(self):
        return (self.logged(".") or ["(nothing logged)"])[-1]

    def resident(self, pid=None):
        """KB of memory, now and at most."""
        with open(f"/proc/{pid or self.process.pid}/status") as file:
            found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", file.read(), re.M))
        return int(found["VmRSS"]), int(found["VmHWM"])

    def thread_states(self):
        """A letter for each thread, as in proc(5)."""
        folder = f"/proc/{self.process.pid}/task"
        for name in os.listdir(folder):
            with open(os.path.join(folder, name, "stat")) as file:
                yield file.read().rpartition(")")[2].split()[0]

    def sockets(self):
        """Sockets that it has open."""
        folder, count = f"/proc/{self.process.pid}/fd", 0
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                count += os.readlink(os.path.join(folder, name)).startswith("socket:")
        return count

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Sink:
    """A smarthost. Takes everything at once and counts it by recipient, unless told to defer or to be down."""

    def __init__(self, keep=False, down=False):
        self.lock = threading.Lock()
        self.arrived = Counter()
        self.taken = {} if keep else None
        self.attempts = []
        self.note_attempts = False
        self.defer = None
        # Seconds from a final dot to its reply, and what every reply waits for beside that.
        self.pause, self.gate = 0, threading.Event()
        self.gate.set()
        self.open = 0
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        if not down:
            self.up()

    def up(self):
        self.listener.listen(1024)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.lock:
            self.open += 1
        with contextlib.suppress(OSError):
            self.converse(connection, connection.makefile("rb"))
        with self.lock:
            self.open -= 1
        connection.close()

    def converse(self, connection, lines):
        recipients = []
        connection.sendall(b"220 sink\r\n")
        while line := lines.readline():
            verb, reply = line[:4].upper(), b"250 ok\r\n"
            if verb == b"EHLO":
                reply = b"250-sink\r\n250-PIPELINING\r\n250-SMTPUTF8\r\n250 8BITMIME\r\n"
            elif verb == b"MAIL" or verb == b"RSET":
                recipients = []
            elif verb == b"RCPT":
                who = line.split(b"<")[1].split(b"@")[0].decode()
                if self.note_attempts:
                    with self.lock:
                        self.attempts.append((time.monotonic(), who))
                if self.defer:
                    reply = self.defer
                else:
                    recipients.append(who)
            elif verb == b"DATA" and not recipients:
                reply = b"503 5.5.1 no recipient\r\n"
            elif verb == b"DATA":
                connection.sendall(b"354 go\r\n")
                body = []
                while (line := lines.readline()) not in (b".\r\n", b""):
                    if self.taken is not None:
                        body.append(line[1:] if line.startswith(b".") else line)
                if line == b"":
                    return
                self.gate.wait()
                time.sleep(self.pause)
                with self.lock:
                    self.arrived.update(recipients)
                    if self.taken is not None:
                        for who in recipients:
                            self.taken.setdefault(who, []).append(b"".join(body))
                recipients = []
            connection.sendall(reply)

    def lacks(self, expected):
        with self.lock:
            return expected - self.arrived.keys()

    def copies(self):
        with self.lock:
            return sum(self.arrived.values())


class Client:
    """One SMTP session; OSError and EOFError where it breaks."""

    def __init__(self, port, source=None, timeout=20):
        self.connection = socket.create_connection(("127.0.0.1", port), timeout, source and (source, 0))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.replies = self.connection.makefile("rb")
        self.greeting = self.reply()
        if self.greeting.startswith("220"):
            self.say(b"EHLO campaign.example.com\r\n")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.replies.close()
        self.connection.close()

    def reply(self):
        """The last line of the next reply."""
        while True:
            if not (line := self.replies.readline()).endswith(b"\n"):
                raise EOFError
            if line[3:4] != b"-":
                return line.decode(errors="replace").strip()

    def say(self, data):
        self.connection.sendall(data)
        return self.reply()

    def send(self, ident, data, parameters=""):
        """The reply to the message, or the first that refused it."""
        self.connection.sendall(f"MAIL FROM:<news@{DOMAIN}>{parameters}\r\nRCPT TO:<{ident}@example.net>\r\n"
                                "DATA\r\n".encode())
        replies = [self.reply() for _ in range(3)]
        refused = [line for line in replies if line[0] not in "23"]
        if not replies[2].startswith("354"):
            return refused[0]
        stuffed = data.replace(b"\r\n.", b"\r\n..")
        return self.say((b"." if stuffed.startswith(b".") else b"") + stuffed + b".\r\n")


def letter(ident, size):
    """A letter in HTML with twenty links."""
    head = (f"From: News <news@{DOMAIN}>\r\nTo: {ident}@example.net\r\nSubject: {ident}\r\n"
            f"Message-ID: <{ident}@{DOMAIN}>\r\nMIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n")
    return (head + body(size)).encode()


def body(size, known={}):
    if size not in known:
        links = "<html><body>" + "".join(
            f'<p>Offer {n}: <a href="https://{DOMAIN}/p/{n}?a=1&amp;b=2">see</a></p>\r\n' for n in range(20))
        line = "<p>Words that fill the message, line after line, as letters have them.</p>\r\n"
        known[size] = links + line * max(0, (size - len(links)) // len(line)) + "</body></html>\r\n"
    return known[size]


class Senders:
    """Clients that send as fast as they can, and go on where a connection breaks. What was answered 250 is in
    `acknowledged`, with its queue id in `queue_ids`; replies that refused are counted in `refused`, and their messages
    are in `refused_ids`."""

    def __init__(self, port, count=16, sizes=(10_000,), seed=1, prefix="m", limit=None, each=lambda senders: None):
        self.port, self.sizes, self.seed, self.prefix, self.limit, self.each = port, sizes, seed, prefix, limit, each
        self.acknowledged, self.queue_ids, self.next = set(), {}, 0
        self.refused, self.refused_ids = Counter(), set()
        self.lock, self.stop = threading.Lock(), False
        self.threads = [threading.Thread(target=self.work, args=(n,), daemon=True) for n in range(count)]
        for thread in self.threads:
            thread.start()

    def work(self, number):
        chance = random.Random(self.seed * 1000 + number)
        while not self.stop:
            with contextlib.suppress(OSError, EOFError, IndexError), Client(self.port) as client:
                if client.greeting.startswith("220"):
                    self.session(client, chance)
            # The relay is down, or has ended the session.
            self.stop or time.sleep(0.02)

    def session(self, client, chance):
        while not self.stop:
            with self.lock:
                if self.limit is not None and self.next >= self.limit:
                    self.stop = True
                    return
                self.next += 1
                ident = f"{self.prefix}{self.next}"
            reply = client.send(ident, letter(ident, chance.choice(self.sizes)))
            with self.lock:
                if reply.startswith("250"):
                    self.acknowledged.add(ident)
                    self.queue_ids[ident] = reply.split()[-1]
                else:
                    self.refused[reply[:9]] += 1
                    self.refused_ids.add(ident)
            self.each(self)

    def join(self, seconds=60):
        deadline = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(max(0, deadline - time.monotonic()))

    def end(self):
        self.stop = True
        self.join()


def missing(acknowledged, sink, patience=20, seconds=300):
    """What was acknowledged and does not arrive, although nothing has arrived for `patience` seconds."""
    deadline, quiet, count = time.monotonic() + seconds, time.monotonic() + patience, -1
    while time.monotonic() < min(deadline, quiet):
        if not (lost := sink.lacks(acknowledged)):
            break
        if count != (count := sink.copies()):
            quiet = time.monotonic() + patience
        time.sleep(0.05)
    return lost


def settle(sink, seconds=1.5):
    """Waits until nothing more arrives: mail whose sender never saw a reply may be under way as well."""
    count = None
    while count != (count := sink.copies()):
        time.sleep(seconds)


def more_than_one(sink):
    with sink.lock:
        return sum(count - 1 for count in sink.arrived.values())


class Verdict:
    """Collects what went wrong, says so at once, and ends the script."""

    def __init__(self):
        self.faults = []

    def expect(self, good, what):
        if not good:
            self.faults.append(what)
            print(f"  WRONG: {what}", flush=True)
        return good

    def end(self, summary, kept=()):
        print(f"{summary}: {'as it should be' if not self.faults else f'{len(self.faults)} faults'}", flush=True)
        if self.faults:
            for folder in kept:
                print(f"kept: {folder}")
        sys.exit(1 if self.faults else 0)
