"""Every kind of event reaches endpoints that were made with the SDKs and with curl, over HTTPS and HTTP, in the shape
of the contract, and what receivers verify it with takes it, and nothing else."""

import json
import ssl
import time

import paths  # noqa: F401, I001
import relay
import rest
import shapes
import verifiers
from base import EVENTS, Case, attempts, ok, side_by_side, told
from letters import GMAIL, PAGES, hit, submit
from smarthost import Script
from support import run, until

load_tests = side_by_side
TAGS = {"category": "confirm_email", "campaign": "autumn"}
KINDS = {"email.sent": 4, "email.delivered": 1, "email.bounced": 1, "email.delivery_delayed": 2, "email.failed": 1,
         "email.opened": 2, "email.clicked": 1, "domain.created": 1, "domain.updated": 1, "domain.deleted": 1}


def refuse(session):
    """Some recipients are not there, some never will be."""
    return {"nobody@example.net": "550 5.1.1 No such user", "later@example.net": "451 4.2.0 Come again",
            "never@example.net": "451 4.2.0 Come again"}.get(session.recipient)


class Kinds(Case):
    def setUp(self):
        super().setUp()
        # The endpoint over HTTPS has a name, and a certificate of a CA of its own.
        self.dns.zone("relay.example.net", "track A 127.0.0.1", "@ A 127.0.0.1")
        root = relay.certificate(self.folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "relay.pem", self.folder / "relay.key")
        self.https, self.http = self.receiver(context), self.receiver()
        self.node = verifiers.Node(self.folder / "node")
        self.server = self.relay({"webhooks": {"ca_file": str(root)}})
        self.smarthost.script = Script({"rcpt": refuse})

    def curl(self, method, path, body):
        ended = run("curl", "--disable", "--silent", "--fail-with-body", "--noproxy", "*", "--request", method,
                    "--header", f"Authorization: Bearer {self.server.token}", "--json", json.dumps(body),
                    f"http://127.0.0.1:{self.server.api}{path}")
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
        return json.loads(ended.stdout)

    def create(self):
        """Three endpoints, each by another program: receiver and path, id, secret."""
        https = self.https.url("/node", "relay.example.net")
        self.node_variables = {"ENDPOINT": https, "EVENTS": ",".join(EVENTS)}
        by_node = json.loads(self.node.script(self.server, "webhooks.mjs", "create", **self.node_variables))
        with verifiers.python_sdk(self.server) as sdk:
            by_python = sdk.Webhooks.create({"endpoint": self.http.url("/python"), "events": list(EVENTS)})
        by_curl = self.curl("POST", "/webhooks", {"endpoint": self.http.url("/curl"), "events": EVENTS})
        return [(receiver, path, made["id"], made["signing_secret"]) for receiver, path, made in (
            (self.https, "/node", by_node), (self.http, "/python", by_python), (self.http, "/curl", by_curl))]

    def happen(self):
        """One of everything. The message whose copies were delivered, bounced, put off; that which was removed."""
        domain = rest.create(self.server, "example.org")
        until("domain.created", lambda: self.http.got("/curl", "domain.created"))
        rest.update(self.server, domain, open_tracking=False)
        until("domain.updated", lambda: self.http.got("/curl", "domain.updated"))
        rest.remove(self.server, domain)
        ada = self.send(tags=TAGS.items())
        gone = submit(self.server, ("nobody@example.net", "later@example.net"), tags=TAGS.items())
        removed = submit(self.server, ("never@example.net",), tags=TAGS.items())
        until("both delays", lambda: len(self.http.got("/curl", "email.delivery_delayed")) >= 2)
        self.server.command("queue", "remove", removed.id)
        ada.read()
        self.assertEqual(hit(self.server, ada.pixels["ada@example.net"]), (200, None))
        hit(self.server, ada.pixels["ada@example.net"], agent=GMAIL, address="192.0.2.80")
        self.assertEqual(hit(self.server, ada.links["ada@example.net"][0]), (302, PAGES[0]))
        return ada, gone, removed

    def test_every_kind_for_every_client(self):
        endpoints = self.create()
        ada, gone, removed = self.happen()
        sent = []
        for receiver, path, _, secret in endpoints:
            for kind, count in KINDS.items():
                receiver.wait(path, count, kind)
            sent += [(one.body, verifiers.headers_of(one), secret) for one in receiver.got(path)]
        # Notices of ours are mail as well, and told as such; and example.com has just been made.
        own = {"example.org", ada.id, gone.id, removed.id}
        first = None
        for receiver, path, *_ in endpoints:
            came = [one for one in receiver.got(path) if one.data.get("email_id", one.data.get("name")) in own]
            kinds = [one.kind for one in came]
            self.assertEqual({kind: kinds.count(kind) for kind in KINDS}, KINDS, path)
            bodies = {one.id: one.body for one in came}
            first = first or bodies
            self.assertEqual(bodies, first, "the same events everywhere")
            for one in came:
                shapes.event(one.event)
                self.assertEqual((one.headers["content-type"], one.headers["method"]), ("application/json", "POST"))
                self.assertRegex(one.id, r"\Amsg_[0-9A-Za-z]{27}\Z")
                self.assertAlmostEqual(int(one.headers["svix-timestamp"]), one.at, delta=5)
        self.told_right({one.kind: one for one in came}, ada, gone, removed)
        self.verified(sent)
        self.read(endpoints)

    def told_right(self, by_kind, ada, gone, removed):
        """What each kind says beyond its shape."""
        data = {kind: one.data for kind, one in by_kind.items()}
        for kind, mail, to in (("email.delivered", ada, "ada@example.net"), ("email.opened", ada, "ada@example.net"),
                               ("email.clicked", ada, "ada@example.net"), ("email.bounced", gone, "nobody@example.net"),
                               ("email.failed", removed, "never@example.net")):
            told = data[kind]
            self.assertEqual((told["email_id"], told["message_id"], told["to"]), (mail.id, mail.message_id, [to]))
            self.assertEqual((told["subject"], told["tags"]), ("Offer", TAGS))
        with self.subTest("from is the field, as the contract has it"):
            self.assertEqual({one["from"] for one in data.values() if "from" in one}, {"News <news@example.com>"})
        click = data["email.clicked"]["click"]
        self.assertEqual((click["ipAddress"], click["link"]), ("198.51.100.7", PAGES[0]))
        self.assertIn("Firefox", click["userAgent"])
        self.assertEqual(by_kind["email.clicked"].event["created_at"], click["timestamp"])
        bounce = data["email.bounced"]["bounce"]
        self.assertEqual(bounce["type"], "Permanent")
        self.assertIn("550 5.1.1 No such user", json.dumps(bounce))
        opens = {one.data["open"]["ipAddress"] for one in self.http.got("/curl", "email.opened")}
        self.assertEqual(opens, {"198.51.100.7", "192.0.2.80"}, "a machine's is told as well")
        for kind, opened in (("domain.created", True), ("domain.updated", False), ("domain.deleted", False)):
            self.assertEqual((data[kind]["name"], data[kind]["open_tracking"]), ("example.org", opened))
            self.assertEqual((data[kind]["tracking_subdomain"], data[kind]["status"]), ("links", "not_started"))
            (record,) = data[kind]["records"]
            self.assertEqual((record["record"], record["name"]), ("Tracking", "links.example.org"))

    def verified(self, sent):
        """By all four; and neither with a letter changed, nor signed six minutes ago or ahead, nor with what is
        somebody else's secret or event."""
        body, headers, secret = sent[0]
        other_secret = next(one for *_, one in sent if one != secret)
        changed = [(body.replace(b"2", b"3", 1), headers, secret), (body + b" ", headers, secret),
                   (body, headers | {"id": headers["id"][:-1] + "_"}, secret), (body, headers, other_secret)]
        for seconds in (-360, 360):
            timestamp = str(int(time.time()) + seconds)
            signed = verifiers.sign(body, headers["id"], timestamp, secret)
            changed.append((body, headers | {"timestamp": timestamp, "signature": signed}, secret))
        wanted = [(True, True)] * len(sent) + [(False, False)] * len(changed)
        self.assertEqual([verifiers.in_python(*one) for one in sent + changed], wanted)
        self.assertEqual(self.node.verified(sent + changed), wanted)

    def read(self, endpoints):
        """What was told, over the API by those who made the endpoint; then they remove it."""
        (_, _, node, _), (_, _, python, secret), (_, _, curl, _) = endpoints
        event = self.https.got("/node", "email.clicked")[0].id
        until("all to be noted", lambda: all(one["status"] == "success" for id in (node, python, curl)
                                             for one in told(self.server, id)))
        self.node.script(self.server, "webhooks.mjs", "read", node, event, **self.node_variables)
        again = self.https.wait("/node", 2, "email.clicked")
        self.assertEqual([one.id for one in again], [event] * 2, "a replay has the same id")
        self.node.script(self.server, "webhooks.mjs", "remove", node, **self.node_variables)
        with verifiers.python_sdk(self.server) as sdk:
            shown = sdk.Webhooks.get(python)
            self.assertEqual((shown["signing_secret"], shown["status"]), (secret, "enabled"))
            page = sdk.Webhooks.list_events(python, {"limit": 3})
            self.assertEqual((len(page["data"]), page["has_more"]), (3, True))
            one = sdk.Webhooks.get_event(python, event)
            self.assertEqual((one["id"], one["payload"]["type"]), (event, "email.clicked"))
            self.assertEqual(len(sdk.Webhooks.list_event_attempts(python, event)["data"]), 1)
            self.assertEqual(sdk.Webhooks.replay_event(python, event)["id"], event)
            rotated = sdk.Webhooks.rotate_signing_secret(python)["signing_secret"]
            self.assertNotEqual(rotated, secret)
            sdk.Webhooks.update({"webhook_id": python, "events": ["email.sent"]})
            self.assertEqual(sdk.Webhooks.get(python)["events"], ["email.sent"])
            self.assertTrue(sdk.Webhooks.remove(python)["deleted"])
        self.assertEqual([one["http_status_code"] for one in attempts(self.server, curl, event)], [200])
        self.assertEqual(self.curl("DELETE", f"/webhooks/{curl}", {}),
                         {"object": "webhook", "id": curl, "deleted": True})
        self.assertEqual(ok(self.server, "GET", "/webhooks")["data"], [])
