"""Everything that a browser here may find beside the relay: pages by their hosts, on one port of loopback.

What is asked for is written down, so that a page which asks for something by itself is noticed.
"""

import http.server
import threading

from support import until


class World:
    """`asked` has (address, Referer) of every request, also of those for which there is no page."""

    def __init__(self):
        self.asked, self.texts, world = [], {}, self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                address = f"http://{self.headers['Host']}{self.path}"
                # A browser asks for this wherever it goes.
                icon = self.path == "/favicon.ico"
                if not icon:
                    world.asked.append((address, self.headers.get("Referer")))
                text = world.texts.get(address)
                self.send_response(204 if icon else 404 if text is None else 200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write((text or "").encode())

            do_POST = do_GET

            def log_message(self, *_):
                """Nowhere."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def put(self, host, path, text):
        """The address of a page."""
        address = f"http://{host}{path}"
        self.texts[address] = text
        return address

    def asked_of(self, host):
        return [address for address, _ in self.asked if address.startswith(f"http://{host}/")]

    def wait(self, address):
        return until(lambda: f"a request for {address} among {self.asked}",
                     lambda: any(one == address for one, _ in self.asked))

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
