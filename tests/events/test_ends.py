"""The server ends in the middle, by SIGTERM and by SIGKILL: everything arrives at least once, each under one id."""

import collections

import paths  # noqa: F401, I001
from base import Case, attempts, hook, side_by_side, told
from letters import submit
from receiver import Later
from support import until

load_tests = side_by_side
MAILS = 40
KINDS = ("email.sent", "email.delivered")


class Ends(Case):
    def test_everything_arrives(self):
        http = self.receiver()
        server = self.relay()
        paths = ("/steady", "/shaky")
        hooks = {path: hook(server, http.url(path), KINDS)[0] for path in paths}
        http.steps["/steady"] = lambda *_: Later(0.1)
        # Some fail once, some twice; more would end what may be tried.
        http.steps["/shaky"] = lambda request, _: Later(
            0.1, 500 if sum(one.id == request.id for one in http.got("/shaky")) < ord(request.id[-1]) % 3 else 200)
        mails = []
        for end in ("kill", "stop", "kill"):
            mails += [submit(server) for _ in range(MAILS // 4)]
            already = len(http.got("/steady"))
            http.wait("/steady", already + 4)
            getattr(server, end)()
            server.start()
        mails += [submit(server) for _ in range(MAILS // 4)]
        wanted = {(mail.id, kind) for mail in mails for kind in KINDS}
        for path in paths:
            with self.subTest(path):
                def taken(path=path):
                    return {(one.data["email_id"], one.kind) for one in http.got(path) if one.answered == 200}

                until(lambda: f"{wanted - taken()} at {path}", lambda: taken() >= wanted)
                self.assertEqual(taken(), wanted)
                for mail in mails:
                    kinds = [one.kind for one in http.got(path)
                             if one.answered == 200 and one.data["email_id"] == mail.id]
                    self.assertEqual(list(dict.fromkeys(kinds)), list(KINDS), "one after the other")
                bodies = collections.defaultdict(set)
                for one in http.got(path):
                    bodies[one.id].add((one.body, one.data["email_id"], one.kind))
                self.assertEqual(len(bodies), len(wanted), "an event has one id")
                self.assertTrue(all(len(each) == 1 for each in bodies.values()), "an id is of one event")
                def open(path=path):
                    return [one for one in told(server, hooks[path]) if one["status"] != "success"]

                until(lambda: f"all to be noted: {[(one, attempts(server, hooks[path], one['id'])) for one in open()]}",
                      lambda: not open())
                self.assertEqual(len(told(server, hooks[path])), len(wanted))
