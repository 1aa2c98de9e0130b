"""Clients of the tracking host: one that many actors share, and one that asks at a steady rate."""
import asyncio, contextlib, socket, threading, time

from ground import HOST

# Of the steady one.
ADDRESS, AGENT = "198.51.100.7", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
# Seconds after which the server may close a connection that says nothing.
IDLE = 5


def request(path, address, agent, method="GET"):
    return (f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: {address}\r\n"
            f"User-Agent: {agent}\r\n\r\n").encode()


class Web:
    """Connections that are kept, and taken in turn by whoever asks."""

    def __init__(self, port, connections=32):
        self.port, self.free = port, asyncio.LifoQueue()
        for _ in range(connections):
            self.free.put_nowait(None)

    async def hit(self, path, address, agent, method="GET"):
        """The status, and the times before it was asked and after it was answered."""
        connection = await self.free.get()
        if connection and time.monotonic() - connection[2] > IDLE:
            connection[1].close()
            connection = None
        try:
            if connection is None:
                connection = await asyncio.open_connection("127.0.0.1", self.port)
            reader, writer = connection[:2]
            before = time.time()
            writer.write(request(path, address, agent, method))
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            if length and method != "HEAD":
                await asyncio.wait_for(reader.readexactly(length), 30)
            connection = reader, writer, time.monotonic()
            return int(head.split(b" ", 2)[1]), before, time.time()
        except BaseException:
            connection = None
            raise
        finally:
            self.free.put_nowait(connection)

    async def close(self):
        while not self.free.empty():
            if connection := self.free.get_nowait():
                connection[1].close()
                with contextlib.suppress(OSError):
                    await connection[1].wait_closed()


class Steady:
    """Asks for each path once, at `rate` a second, over some connections; goes on where one breaks. `answered` says
    when (on the monotonic clock) each path was answered 302 or 200; `others` holds what was answered otherwise, and
    `tried` what was asked at all, with the longest wait for an answer in `slowest`."""

    def __init__(self, port, paths, rate, connections=8):
        self.port, self.paths, self.rate = port, iter(paths), rate
        self.answered, self.others, self.tried, self.slowest = {}, [], set(), 0.0
        self.lock, self.stop, self.number, self.began = threading.Lock(), False, 0, time.monotonic()
        self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(connections)]
        for thread in self.threads:
            thread.start()

    def next(self):
        """The next path, when its time has come; None at the end."""
        with self.lock:
            path, number = next(self.paths, None), self.number
            self.number += 1
        if path is not None:
            time.sleep(max(0, self.began + number / self.rate - time.monotonic()))
        return None if self.stop else path

    def work(self):
        connection = None
        while (path := self.next()) is not None:
            self.tried.add(path)
            try:
                if connection is None:
                    connection = socket.create_connection(("127.0.0.1", self.port), 10)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                began = time.monotonic()
                connection.sendall(request(path, ADDRESS, AGENT))
                status = self.answer(connection)
                done = time.monotonic()
                self.slowest = max(self.slowest, done - began)
                if status in (200, 302):
                    self.answered[path] = done
                else:
                    self.others.append((path, status))
            except (OSError, EOFError):
                if connection:
                    connection.close()
                connection = None
                time.sleep(0.01)
        if connection:
            connection.close()

    @staticmethod
    def answer(connection):
        data = b""
        while b"\r\n\r\n" not in data:
            if not (piece := connection.recv(4096)):
                raise EOFError
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        while len(body) < length:
            if not (piece := connection.recv(4096)):
                raise EOFError
            body += piece
        return int(head.split(b" ", 2)[1])

    def join(self, seconds=600):
        deadline = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(max(0, deadline - time.monotonic()))

    def end(self):
        self.stop = True
        self.join(60)
