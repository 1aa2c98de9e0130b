"""Without `allow_private`, nobody makes us connect to what is not public, however it is written or named."""

import paths  # noqa: F401, I001
import rest
from base import Case, attempts, hook, ok, side_by_side, told
from letters import submit
from receiver import Listener
from support import until

load_tests = side_by_side
# With the port of a listener on loopback for PORT.
REFUSED = """
    http://hooks.example.net:PORT/ http://127.0.0.1:PORT/ ftp://hooks.example.net/ file:///etc/passwd
    gopher://example.net/ javascript:alert(1) data:text/plain,x unix:/run/x.sock ws://hooks.example.net/
    HTTP://hooks.example.net/ //example.net/ hooks.example.net https:// https://user@hooks.example.net/
    https://user:secret@hooks.example.net/ https://:secret@hooks.example.net/
    https://hooks.example.net@127.0.0.1:PORT/ https://hooks.example.net:0/ https://hooks.example.net:65536/
    https://127.0.0.1:PORT/ https://127.1:PORT/ https://127.0.1:PORT/ https://127.255.255.254/
    https://2130706433:PORT/ https://017700000001:PORT/ https://0177.0.0.1:PORT/ https://0x7f000001:PORT/
    https://0x7f.0.0.1:PORT/ https://0x7f.1:PORT/ https://0:PORT/ https://0.0.0.0:PORT/ https://127.0.0.1.:PORT/
    https://①②⑦.⓪.⓪.①:PORT/ https://127。0。0。1:PORT/ https://%31%32%37.0.0.1:PORT/ https://localhost:PORT/
    https://LOCALHOST:PORT/ https://localhost.:PORT/ https://a.localhost:PORT/ https://10.0.0.1/
    https://10.255.255.255/ https://172.16.0.1/ https://172.31.255.255/ https://192.168.0.1/ https://169.254.1.1/
    https://169.254.169.254/latest/meta-data/ https://2852039166/latest/meta-data/ https://0xa9fea9fe/
    https://100.64.0.1/ https://192.0.0.1/ https://198.18.0.1/ https://192.0.2.1/ https://198.51.100.1/
    https://203.0.113.1/ https://224.0.0.1/ https://240.0.0.1/ https://255.255.255.255/ https://[::1]:PORT/
    https://[::]:PORT/ https://[0:0:0:0:0:0:0:1]:PORT/ https://[::ffff:127.0.0.1]:PORT/
    https://[::ffff:7f00:1]:PORT/ https://[::127.0.0.1]:PORT/ https://[64:ff9b::7f00:1]:PORT/
    https://[64:ff9b::169.254.169.254]/ https://[64:ff9b:1::7f00:1]/ https://[2002:7f00:1::]:PORT/
    https://[2002:a9fe:a9fe::1]/ https://[fe80::1]:PORT/ https://[fc00::1]/
    https://[fd00:ec2::254]/latest/meta-data/ https://[ff02::1]/ https://[2001:db8::1]/ https://[2001::1]/
    https://[fec0::1]/ https://[fe80::1%25lo]:PORT/ https://168.63.129.16/ https://[::ffff:168.63.129.16]/
    https://[2606:4700::5efe:127.0.0.1]/ https://[2606:4700::200:5efe:8.8.8.8]/ https://192.175.48.1/
    https://hooks.example.net:25/ https://hooks.example.net:6379/ https://hooks.example.net:80/
""".split()
# What a name of the zone example.net leads to.
NAMED = {
    "loopback": "A 127.0.0.1", "other": "A 127.8.9.10", "private": "A 10.1.2.3", "wide": "A 192.168.1.1",
    "metadata": "A 169.254.169.254", "zero": "A 0.0.0.0", "six": "AAAA ::1", "unspecified": "AAAA ::",
    "mapped": "AAAA ::ffff:127.0.0.1", "translated": "AAAA 64:ff9b::7f00:1", "sixtofour": "AAAA 2002:7f00:1::",
    "local": "AAAA fe80::1", "unique": "AAAA fd00::1", "both": ("A 127.0.0.1", "AAAA ::1"),
    "many": ("A 10.0.0.1", "A 127.0.0.1"), "alias": "CNAME track.relay.example.net.", "chain": "CNAME alias",
    "isatap": "AAAA 2606:4700::5efe:7f00:1", "azure": "A 168.63.129.16", "localhost": "CNAME localhost.", "nothing": 'TXT "127.0.0.1"', "empty": (),
}


class Addresses(Case):
    def setUp(self):
        super().setUp()
        self.listener = Listener()
        self.addCleanup(self.listener.stop)
        self.server = self.relay({"webhooks": {"allow_private": False, "retry": ["100ms"],
                                               "ports": [443, 8443, self.listener.port]}})

    def test_what_is_written(self):
        id, _ = hook(self.server, "https://hooks.example.net/", ["email.sent"])
        for url in (one.replace("PORT", str(self.listener.port)) for one in REFUSED):
            with self.subTest(url):
                for method, path in (("POST", "/webhooks"), ("PATCH", f"/webhooks/{id}")):
                    answer = rest.call(self.server, method, path, {"endpoint": url, "events": ["email.sent"]})
                    self.assertEqual((answer.status, answer.body.get("name")), (422, "validation_error"), answer.body)
        (only,) = ok(self.server, "GET", "/webhooks")["data"]
        self.assertEqual((only["id"], only["endpoint"]), (id, "https://hooks.example.net/"))

    def test_what_a_name_leads_to(self):
        hooks = {}
        self.dns.zone("example.net", *(f"{name} {record}" for name, records in NAMED.items()
                                       for record in ([records] if type(records) is str else records)))
        for name in NAMED:
            url = f"https://{name}.example.net:{self.listener.port}/"
            hooks[name], _ = hook(self.server, url, ["email.sent"])
        submit(self.server)
        for name, id in hooks.items():
            with self.subTest(name):
                event = until(lambda id=id: f"an end: {told(self.server, id)}",
                              lambda id=id: next((one for one in told(self.server, id) if one["status"] == "failed"),
                                                 None))
                for one in attempts(self.server, id, event["id"]):
                    self.assertEqual(one["http_status_code"], 0)
                    self.assertRegex(one["response"], "no public address|not known|has no address")
        self.assertEqual(self.listener.connections, 0)

    def test_what_is_stored_from_before(self):
        """An endpoint that was allowed when it was made is not, once private addresses are not any more."""
        server = self.server
        port = self.listener.port
        server.stop()
        text = server.config.read_text()
        server.config.write_text(text.replace("allow_private = false", "allow_private = true"))
        server.start()
        urls = (f"https://127.0.0.1:{port}/", f"http://127.0.0.1:{port}/", f"https://[::1]:{port}/")
        hooks = [hook(server, url, ["email.sent"])[0] for url in urls]
        server.stop()
        server.config.write_text(text)
        server.start()
        submit(server)
        for id, url in zip(hooks, urls):
            with self.subTest(url):
                until(lambda id=id: f"an end: {told(server, id)}",
                      lambda id=id: any(one["status"] == "failed" for one in told(server, id)))
        self.assertEqual(self.listener.connections, 0)
