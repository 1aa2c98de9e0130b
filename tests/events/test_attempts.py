"""Attempts at endpoints that do not take what they are sent: how often, when, in which order, and who notices."""

import itertools
import time
import urllib.request

import paths  # noqa: F401, I001
from base import OPERATOR, Case, attempts, hook, ok, side_by_side, told
from letters import hit, submit
from receiver import CLOSE, DRIP, EARLY, ENDLESS, GARBAGE, HANG, LINES, Later, Reply
from support import until
from verifiers import is_signed

load_tests = side_by_side
LIFE = ("email.sent", "email.delivered", "email.opened", "email.clicked")


def failing(*steps):
    """These first, and all is well from then on."""
    return lambda _, before: steps[before] if before < len(steps) else 200


class Attempts(Case):
    def setUp(self):
        super().setUp()
        self.http = self.receiver()

    def settled(self, server, id, status):
        """What an endpoint is told, once nothing is under way any more and the newest is so."""
        return until(lambda: f"{status} in {told(server, id)}",
                     lambda: (now := told(server, id)) and now[0]["status"] == status and now)

    def disabled(self, server, id):
        return until(lambda: f"{id} to be disabled: {told(server, id)}",
                     lambda: (shown := ok(server, "GET", f"/webhooks/{id}"))["status"] == "disabled" and shown)

    def notice(self, url):
        """The mail to the operator about this endpoint, at the smarthost."""
        def found():
            with self.smarthost.lock:
                return [one for one in self.smarthost.copies
                        if one.recipients == [OPERATOR] and url.encode() in one.message.replace(b"=\r\n", b"")]

        return until(f"the mail about {url}", found)

    def figure(self, server, name):
        """Of Prometheus."""
        with urllib.request.urlopen(f"http://127.0.0.1:{server.api}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == name)

    def test_pauses_and_the_end(self):
        server = self.relay({"webhooks": {"retry": ["400ms", "1200ms"]}})
        id, secret = hook(server, self.http.url("/bad"), ["email.sent", "email.delivered"])
        self.http.steps["/bad"] = failing(500, 404, 302, Reply(503, body=b"later"))
        self.send()
        sent = self.http.wait("/bad", 3, "email.sent")
        delivered = self.http.wait("/bad", 2, "email.delivered")
        self.assertEqual(len({one.id for one in sent}), 1)
        self.assertEqual(len({one.body for one in sent}), 1)
        self.assertTrue(all(is_signed(one, secret) for one in sent + delivered))
        for (one, next), pause in zip(itertools.pairwise(sent), (0.4, 1.2)):
            self.assertGreaterEqual(next.at - one.at, pause - 0.01)
            self.assertLess(next.at - one.at, pause * 1.1 + 1)
        # Given up, the next event of the message has its turn.
        self.assertGreaterEqual(delivered[0].at, sent[2].at)
        newest, oldest = self.settled(server, id, "success")
        self.assertEqual([(one["id"], one["type"], one["status"]) for one in (newest, oldest)], [
            (delivered[0].id, "email.delivered", "success"), (sent[0].id, "email.sent", "failed")])
        tried = attempts(server, id, sent[0].id)[::-1]
        self.assertEqual([one["http_status_code"] for one in tried], [500, 404, 302])
        (first, second) = attempts(server, id, delivered[0].id)[::-1]
        self.assertEqual([(one["http_status_code"], one["response"]) for one in (first, second)],
                         [(503, "later"), (200, "{}")])
        ids = [one["id"] for one in tried] + [first["id"], second["id"]]
        self.assertEqual(len(set(ids)), 5)
        self.assertTrue(all(one.startswith("atmpt_") for one in ids))
        # What was given up is sent again when it is asked for, and so is what was taken.
        for event in (sent[0], delivered[0]):
            self.assertEqual(ok(server, "POST", f"/webhooks/{id}/events/{event.id}/replay"),
                             {"object": "webhook_event", "id": event.id})
        again = self.http.wait("/bad", 4, "email.sent")[3], self.http.wait("/bad", 3, "email.delivered")[2]
        self.assertEqual([(one.id, one.body) for one in again], [(one.id, one.body) for one in (sent[0], delivered[0])])
        until("both to be taken", lambda: {one["status"] for one in told(server, id)} == {"success"})
        self.assertEqual(len(attempts(server, id, sent[0].id)), 4)

    def test_what_receivers_do(self):
        """Each fails once in a way of its own, and has everything in the end; one that is slow delays nobody else."""
        server = self.relay()
        target = self.http.url("/target")
        faults = {
            "hang": (HANG, 0), "close": (CLOSE, 0), "early": (EARLY, 0), "error": (500, 500), "slow": (Later(4), 200),
            "redirect": (Reply(307, (("Location", target),)), 307), "see": (Reply(303, (("Location", target),)), 303),
            "endless": (ENDLESS, 200), "long": (Reply(400, body=b"x" * 300_000), 400),
            "empty": (Reply(204, body=b""), 204),
            "lines": (LINES, 0), "drip": (DRIP, 0), "garbage": (GARBAGE, 0),
        }
        hooks = {}
        for name, (step, _) in faults.items():
            self.http.steps[f"/{name}"] = failing(step)
            hooks[name], _ = hook(server, self.http.url(f"/{name}"), ["email.sent"])
        quick, _ = hook(server, self.http.url("/quick"), ["email.sent"])
        at = time.time()
        submit(server)
        self.assertLess(self.http.wait("/quick", 1)[0].at - at, 3)
        for name, (_, status) in faults.items():
            with self.subTest(name):
                (event,) = self.settled(server, hooks[name], "success")
                tried = attempts(server, hooks[name], event["id"])[::-1]
                self.assertEqual(tried[0]["http_status_code"], status)
                self.assertTrue(status or tried[0]["response"], "why nothing was answered")
                self.assertLessEqual(len(tried[0]["response"]), 1000)
                self.assertEqual(len(tried), 1 if 200 <= status < 300 else 2)
                ids = {one.id for one in self.http.got(f"/{name}")}
                self.assertEqual(ids, {event["id"]})
        self.assertEqual(self.http.got("/target"), [], "nothing is followed")
        self.assertLess(self.http.flooded, 32 << 20)
        flooded = self.http.flooded
        time.sleep(0.5)
        self.assertEqual(self.http.flooded, flooded, "an answer without end is hung up on")

    def test_who_hangs_delays_nobody(self):
        """However many events wait for one endpoint; and the end of the server waits for it no longer than a moment."""
        server = self.relay()
        for path in ("/hang", "/stall", "/quick"):
            hook(server, self.http.url(path), ["email.sent", "email.delivered"])
        self.http.steps |= {"/hang": HANG, "/stall": DRIP}
        at = time.time()
        mails = [submit(server) for _ in range(40)]
        came = self.http.wait("/quick", 80)
        self.assertEqual({one.data["email_id"] for one in came}, {mail.id for mail in mails})
        self.assertLess(came[-1].at - at, 8)
        at = time.time()
        server.stop()
        self.assertLess(time.time() - at, 8)
        server.start()
        # What was cut is sent again.
        self.http.steps.clear()
        for path in ("/hang", "/stall"):
            until(lambda path=path: f"80 at {path}: {len(self.http.got(path))}", lambda path=path: len(
                {one.id for one in self.http.got(path) if one.answered == 200}) == 80)

    def test_order_within_a_message(self):
        """Whatever fails in between, an event comes after all those of its message before it."""
        server = self.relay({"webhooks": {"retry": ["100ms"] * 3}})

        def tried(request):
            return sum(one.id == request.id for one in self.http.got(request.path))

        for path in ("/shaky", "/slow", "/good"):
            hook(server, self.http.url(path), LIFE)
        # The first attempts, none to two of them.
        self.http.steps["/shaky"] = lambda request, _: 500 if tried(request) < ord(request.id[-1]) % 3 else 200
        self.http.steps["/slow"] = lambda *_: Later(0.05)
        recipients = ("ada@example.net", "grace@example.net")
        mails = [self.send(recipients) for _ in range(6)]
        for mail in mails:
            for recipient in recipients:
                hit(server, mail.pixels[recipient])
                hit(server, mail.links[recipient][0])
        for path in ("/shaky", "/slow", "/good"):
            with self.subTest(path):
                def taken(path=path):
                    return [one for one in self.http.got(path) if one.answered == 200]

                until(lambda: f"48 at {path}: {len(taken())}", lambda: len({one.id for one in taken()}) >= 48)
                self.assertEqual(len(taken()), 48)
                for mail in mails:
                    for recipient in recipients:
                        kinds = [one.kind for one in taken()
                                 if (one.data["email_id"], one.data["to"]) == (mail.id, [recipient])]
                        self.assertEqual(sorted(kinds[:2] + sorted(kinds[2:])), sorted(LIFE))
                        self.assertEqual(kinds[:2], ["email.sent", "email.delivered"])
                    # Nothing is sent while something before it of the same message waits to be tried again.
                    tries = [one.id for one in self.http.got(path) if one.data["email_id"] == mail.id]
                    self.assertEqual([id for id, _ in itertools.groupby(tries)], list(dict.fromkeys(tries)))

    def test_gone_is_disabled_at_once(self):
        server = self.relay({"webhooks": {"notify": OPERATOR}})
        url = self.http.url("/gone")
        id, _ = hook(server, url, ["email.sent"])
        self.http.steps["/gone"] = failing(410)
        first = submit(server)
        shown = self.disabled(server, id)
        self.assertIn("410", shown["disabled_because"])
        self.assertEqual(len(self.notice(url)), 1)
        self.assertEqual(self.figure(server, "trackpost_webhooks_disabled"), 1)
        self.assertEqual(self.figure(server, 'trackpost_webhook_attempts_total{outcome="failure"}'), 1)
        # What happens while it is disabled is never told; what was waiting goes out when it is enabled.
        unseen = self.send()
        time.sleep(1)
        self.assertEqual(len(self.http.got("/gone")), 1)
        ok(server, "PATCH", f"/webhooks/{id}", {"status": "enabled"})
        self.http.wait("/gone", 2)
        later = submit(server)
        came = self.http.wait("/gone", 3)
        self.assertEqual([one.data["email_id"] for one in came], [first.id, first.id, later.id])
        self.assertNotIn(unseen.id, [one.data["email_id"] for one in came])
        self.assertNotIn("disabled_because", ok(server, "GET", f"/webhooks/{id}"))
        self.assertEqual(self.figure(server, "trackpost_webhooks_disabled"), 0)
        until("both to be counted",
              lambda: self.figure(server, 'trackpost_webhook_attempts_total{outcome="success"}') == 2)

    def test_failing_for_long_is_disabled(self):
        server = self.relay({"webhooks": {"notify": OPERATOR, "disable_after": "2s", "retry": ["300ms"] * 20}})
        url = self.http.url("/dead")
        id, _ = hook(server, url, ["email.sent"])
        shaky, _ = hook(server, self.http.url("/shaky"), ["email.sent"])
        self.http.steps["/dead"] = 500
        self.http.steps["/shaky"] = lambda _, before: 200 if before % 4 == 3 else 500
        at = time.time()
        for _ in range(4):
            submit(server)
        shown = self.disabled(server, id)
        self.assertGreater(time.time() - at, 2)
        self.assertIn("every attempt", shown["disabled_because"])
        (mail,) = self.notice(url)
        self.assertEqual(mail.sender.partition("<")[2].partition(">")[0], "", "nobody is to answer it")
        count = len(self.http.got("/dead"))
        time.sleep(1)
        self.assertEqual(len(self.http.got("/dead")), count)
        # One that takes something now and then is not given up.
        until("all to be taken", lambda: {one["status"] for one in told(server, shaky)} == {"success"})
        self.assertEqual(ok(server, "GET", f"/webhooks/{shaky}")["status"], "enabled")
