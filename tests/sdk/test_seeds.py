"""The snippets of the page that tracking follows, for Node, Python and curl, run as they stand there but for the key,
the server and the id of the domain; how they are run tells what they got."""

import json
import re
import sys
import textwrap
import unittest

import contract
from ground import CNAME_TARGET, TESTS, Ground
from scripts import Node, environment
from support import run
from web import call, scratch

PAGE = TESTS.parent / "fixtures" / "seeds" / "open-and-click-tracking.md"
HOST, KEY, ID = "https://api.resend.com", "re_xxxxxxxxx", "d91cd9bd-1176-453e-8fc1-35364d380206"
# In the order of the page.
CREATE, UPDATE, VERIFY = range(3)


def snippets(language):
    """All of one language, in the page's order, each without the page's indent."""
    pattern = rf"^( *)```\w+ {re.escape(language)} [^\n]*\n(.*?)^\1```$"
    found = re.findall(pattern, PAGE.read_text(), re.M | re.S)
    return [textwrap.dedent(code) for _, code in found]


class Snippets:
    """`run` runs one and gives what the API answered, as far as the snippet's language lets it be seen."""

    def setUp(self):
        self.ground = self.enterContext(Ground())
        self.code = snippets(self.language)
        self.assertEqual(len(self.code), 3)

    def snippet(self, which, id=ID):
        code = self.code[which]
        self.assertEqual((KEY in code, ID in code), (True, which != CREATE))
        return code.replace(HOST, self.ground.server.api).replace(KEY, self.ground.key).replace(ID, id)

    def api(self, status, method, path, value=None):
        return contract.read(call(self.ground.server, self.ground.key, method, path, value), status)

    def test_create_update_verify(self):
        self.run_one(201, self.snippet(CREATE))
        (item,) = self.api(200, "GET", "/domains")["data"]
        created = contract.domain(self.api(200, "GET", f"/domains/{item['id']}"))
        self.assertEqual((created["name"], created["status"]), ("example.com", "not_started"))
        self.is_tracked_at_links(created)

        id = self.api(201, "POST", "/domains", {"name": "bare.example.com"})["id"]
        self.assertEqual(self.api(200, "GET", f"/domains/{id}")["records"], [])
        # Twice, since the first subdomain that a domain gets is no change.
        for _ in range(2):
            self.run_one(200, self.snippet(UPDATE, id))
            self.is_tracked_at_links(contract.domain(self.api(200, "GET", f"/domains/{id}")))
        self.run_one(200, self.snippet(VERIFY, id))
        domain = self.api(200, "GET", f"/domains/{id}")
        self.assertEqual((domain["status"], domain["records"][0]["status"]), ("pending", "pending"))

    def is_tracked_at_links(self, domain):
        self.assertEqual((domain["open_tracking"], domain["click_tracking"]), (True, True))
        self.assertEqual(domain["tracking_subdomain"], "links")
        record = contract.tracking(domain, "links")
        self.assertEqual((record["type"], record["value"], record["status"]), ("CNAME", CNAME_TARGET, "not_started"))


class WithNode(Snippets, unittest.TestCase):
    language = "Node.js"

    def setUp(self):
        super().setUp()
        self.node = Node(self.ground.folder / "node")

    def run_one(self, status, code):
        """The snippet leaves `data` and `error`."""
        scratch(self.node.folder, "snippet.mjs", f"{code}\nconsole.log(JSON.stringify({{ data, error }}));\n".encode())
        result = json.loads(self.node.run("snippet.mjs", base=self.ground.server.api, key=""))
        self.assertIsNone(result["error"])
        self.assertTrue(result["data"]["id"])


class WithPython(Snippets, unittest.TestCase):
    language = "Python"

    def run_one(self, status, code):
        """The snippet ends in an exception where the answer was an error."""
        file = scratch(self.ground.folder, "snippet.py", code.encode())
        ended = run(sys.executable, file, env=environment() | {"RESEND_API_URL": self.ground.server.api})
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))


class WithCurl(Snippets, unittest.TestCase):
    language = "cURL"

    def run_one(self, status, code):
        """A file of curl's own settings has it tell the status."""
        scratch(self.ground.folder, ".curlrc", b'silent\nshow-error\nnoproxy = "*"\nwrite-out = "\\n%{http_code}"\n')
        ended = run("bash", "-c", code, env=environment() | {"CURL_HOME": str(self.ground.folder)})
        self.assertEqual(ended.returncode, 0, ended.stderr)
        body, _, code = ended.stdout.rpartition("\n")
        self.assertEqual(int(code), status, body)
        self.assertTrue(json.loads(body)["id"])
