"""schemathesis over the API's own description: whatever it asks, no answer is a server error, or one that the
description does not have, in its status, content type, headers or body.

The server has domains, keys, mail and webhooks, whose ids are mixed with those that it makes up; the seed is fixed, and
so is the number of requests. The report is read as well, since a run in which nothing ever succeeds would show little.
"""

import collections
import json
import os
import pathlib
import re
import shutil
import sys
import urllib.parse
import unittest
from concurrent.futures import ThreadPoolExecutor

from ground import Ground
from mail import letter
from scripts import environment
from support import run, until
from web import call

CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
          "response_headers_conformance")
# For each operation and phase; more for a longer run.
EXAMPLES = int(os.environ.get("EXAMPLES", "100"))
SEED = os.environ.get("SEED", "20261124")
DEADLINE = 60 + 6 * EXAMPLES
HOOKS = pathlib.Path(__file__).resolve().with_name("schema_hooks.py")
DOMAINS, KEYS, MAILS, KILLS, WEBHOOKS = 120, 60, 20, 60, 60
# Nobody is at home there, so nothing comes of what they are told.
ENDPOINT = {"endpoint": "https://hooks.example.org/", "events": ["email.sent", "email.delivered"]}


class Schema(unittest.TestCase):
    def setUp(self):
        # 0: no limit of the rate.
        self.ground = self.enterContext(Ground({"api": {"rate_limit": 0}}))

    def api(self, status, method, path, value=None):
        answer = call(self.ground.server, self.ground.key, method, path, value)
        self.assertEqual(answer.status, status, answer.body)
        return json.loads(answer.body)

    def fill(self):
        """Ids by what they are of."""
        def domain(number):
            value = {"name": f"schema{number}.example.com", "open_tracking": bool(number % 2)}
            if number % 3:
                value["tracking_subdomain"] = f"links{number}"
            return self.api(201, "POST", "/domains", value)["id"]

        def mail(number):
            sender, recipient = f"news@schema{number}.example.com", f"schema{number}@example.net"
            return self.ground.send(sender, recipient, letter(sender, recipient, f"Schema {number}"))

        def key(number):
            return self.api(201, "POST", "/api-keys", {"name": f"schema {number}"})["id"]

        def kill(number):
            return self.api(201, "POST", "/kill-list", {"type": "domain", "value": f"killed{number}.example"})["id"]

        def webhook(_):
            return self.api(201, "POST", "/webhooks", ENDPOINT)["id"]

        made = {}
        with ThreadPoolExecutor(4) as pool:
            for kind, make, count in (("domains", domain, DOMAINS), ("keys", key, KEYS),
                                      ("webhooks", webhook, WEBHOOKS), ("emails", mail, MAILS), ("kills", kill, KILLS)):
                made[kind] = list(pool.map(make, range(count)))
        # All of them are told the same, and it stays listed; one has been tried.
        path = f"/webhooks/{made['webhooks'][0]}/events"

        def told():
            return [one["id"] for one in self.api(200, "GET", f"{path}?limit=100")["data"]]

        until("what webhooks are told", lambda: len(told()) == 2 * MAILS)
        until("an attempt", lambda: any(self.api(200, "GET", f"{path}/{one}/attempts")["data"] for one in told()))
        return made | {"told": told()}

    def configuration(self, ids):
        """What is removed is not asked for elsewhere, so that both go on finding something."""
        dictionaries = {
            "kept_domains": ids["domains"][::2], "lost_domains": ids["domains"][1::2], "kept_keys": ids["keys"][::2],
            "lost_keys": ids["keys"][1::2], "emails": ids["emails"], "kills": ids["kills"],
            "kept_webhooks": ids["webhooks"][::2], "lost_webhooks": ids["webhooks"][1::2], "told": ids["told"],
        }
        operations = [
            ("GET PATCH POST", "/domains/", {"path.id": "kept_domains"}),
            ("DELETE", "/domains/", {"path.id": "lost_domains"}), ("PATCH", "/api-keys/", {"path.id": "kept_keys"}),
            ("DELETE", "/api-keys/", {"path.id": "lost_keys"}), ("GET", "/emails/", {"path.id": "emails"}),
            ("POST", "/api-keys$", {"body.domain_id": "kept_domains"}),
            ("GET", "/domains$", {"query.after": "kept_domains"}), ("DELETE", "/kill-list/", {"path.id": "kills"}),
            ("POST", "/opt-outs$", {"body.domain_id": "kept_domains"}),
            ("GET DELETE", "/opt-outs$", {"query.domain_id": "kept_domains"}),
            ("GET PATCH POST", "/webhooks/[^/]*(/signing|$)", {"path.id": "kept_webhooks"}),
            ("DELETE", "/webhooks/", {"path.id": "lost_webhooks"}),
            ("GET", "/webhooks/[^/]*/events$", {"path.id": "kept_webhooks", "query.after": "told"}),
        ]
        lines = [f"hooks = {json.dumps(HOOKS.stem)}"]
        for name, values in dictionaries.items():
            lines += [f"[dictionaries.{name}]", f"values = {json.dumps(values)}"]
        for methods, path, parameters in operations:
            lines += ["[[operations]]", f"include-method = {json.dumps(methods.split())}",
                      f"include-path-regex = {json.dumps('^' + path)}"]
            lines += [f'parameters."{where}" = {{ dictionary = "{name}", probability = 0.6 }}'
                      for where, name in parameters.items()]
        return "\n".join(lines) + "\n"

    def test_each_answer_is_described_by_itself(self):
        """A range of statuses would have everything be as described."""
        described = self.api(200, "GET", "/openapi.json")
        operations = [one for path in described["paths"].values() for one in path.values()]
        names = [one["operationId"] for one in operations]
        self.assertEqual(len(set(names)), len(names), names)
        for one in operations:
            statuses = set(one["responses"])
            # What is not offered asks for no key.
            if "405" not in statuses:
                self.assertLessEqual({"401", "403", "429"}, statuses, one["operationId"])
            self.assertFalse([status for status in statuses if not status.isdecimal()], one["operationId"])
            for status, answer in one["responses"].items():
                self.assertEqual(list(answer["content"]), ["application/json"], (one["operationId"], status))

    def test_answers_are_as_described(self):
        folder = self.ground.folder
        ids = self.fill()
        (folder / "schemathesis.toml").write_text(self.configuration(ids))
        variables = {"PYTHONPATH": str(folder), "WEBHOOKS": ",".join(ids["webhooks"][::2]),
                     "TOLD": ",".join(ids["told"])}
        shutil.copy(HOOKS, folder)
        program = pathlib.Path(sys.executable).with_name("schemathesis")
        ended = run(
            program, "--config-file", folder / "schemathesis.toml", "run", f"{self.ground.server.api}/openapi.json",
            "--checks", ",".join(CHECKS), "--max-examples", EXAMPLES, "--seed", SEED, "--generation-database",
            "none", "--no-shrink", "--workers", "1", "--request-timeout", "20", "--no-color",
            "--header", f"Authorization: Bearer {self.ground.key}", "--report", "har", "--report-har-path",
            folder / "report.har", cwd=folder, env=environment() | variables, timeout=DEADLINE,
        )
        self.assertEqual(ended.returncode, 0, ended.stdout[-20000:] + ended.stderr[-2000:])
        described = self.api(200, "GET", "/openapi.json")["paths"]
        counts = statuses(json.loads((folder / "report.har").read_text()), described)
        for path, operations in described.items():
            for method in operations:
                answers = counts[method.upper(), path]
                wanted = [status for status in map(int, operations[method]["responses"]) if status < 300] or [405]
                self.assertTrue(any(status in wanted for status in answers), (method, path, answers))
        # It lives, and the key too.
        self.api(200, "GET", "/domains?limit=1")


def statuses(report, described):
    """How often each status came, by operation."""
    patterns = {path: re.compile(re.sub(r"\{[^}]*\}", "[^/]*", path)) for path in described}
    counts = collections.defaultdict(collections.Counter)
    for entry in report["log"]["entries"]:
        asked = urllib.parse.urlsplit(entry["request"]["url"]).path
        for path, pattern in patterns.items():
            if pattern.fullmatch(asked):
                counts[entry["request"]["method"], path][entry["response"]["status"]] += 1
    return counts
