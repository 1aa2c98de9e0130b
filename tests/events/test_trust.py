"""HTTPS endpoints whose certificate is not to be believed get nothing, not even the head of a request."""

import ssl

import paths  # noqa: F401, I001
import relay
from base import Case, attempts, hook, side_by_side, told
from letters import submit
from support import until

load_tests = side_by_side


class Trust(Case):
    def context(self, name):
        """A certificate of a CA of its own, for relay.example.net; the root's file."""
        folder = self.folder / name
        folder.mkdir()
        root = relay.certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "relay.pem", folder / "relay.key")
        return context, root

    def test_who_is_not_believed(self):
        self.dns.zone("relay.example.net", "track A 127.0.0.1", "@ A 127.0.0.1", "other A 127.0.0.1")
        known, root = self.context("known")
        unknown, _ = self.context("unknown")
        believed, stranger, plain = self.receiver(known), self.receiver(unknown), self.receiver()
        server = self.relay({"webhooks": {"ca_file": str(root), "retry": ["100ms"]}})
        urls = {
            "good": believed.url("/good", "relay.example.net"), "address": believed.url("/address"),
            "other name": believed.url("/bad", "other.relay.example.net"),
            "other CA": stranger.url("/bad", "relay.example.net"),
            "no TLS": plain.url("/bad").replace("http:", "https:"),
        }
        hooks = {name: hook(server, url, ["email.sent"])[0] for name, url in urls.items()}
        mail = submit(server)
        for path in ("/good", "/address"):
            self.assertEqual(believed.wait(path, 1)[0].data["email_id"], mail.id)
        for name in ("other name", "other CA", "no TLS"):
            with self.subTest(name):
                (event,) = until(lambda id=hooks[name]: f"an end: {told(server, id)}", lambda id=hooks[name]: [
                    one for one in told(server, id) if one["status"] == "failed"])
                for one in attempts(server, hooks[name], event["id"]):
                    self.assertEqual(one["http_status_code"], 0)
                    self.assertTrue(one["response"])
        for receiver in (believed, stranger, plain):
            self.assertEqual(receiver.got("/bad"), [])
