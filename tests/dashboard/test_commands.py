"""Commands that pages show are what one would type: each is run, as it stands there."""

import re
import shlex

import paths  # noqa: F401, I001
from base import Case
from crawl import crawl
from together import load_tests  # noqa: F401
from visitor import words

COMMAND = re.compile(r"trackpost [a-z].*")


class Commands(Case):
    def test_all(self):
        self.relay()
        visitor = self.visitor(self.server.token)
        found = crawl(visitor, also=["/dashboard/sign-in"])
        answers = [answer for kept in found.values() for answer in kept] + [self.visitor().get("/dashboard/sign-in")]
        shown = {words(one): answer.path for answer in answers for one in answer.tree.iter("code")
                 if COMMAND.fullmatch(words(one))}
        for command, path in shown.items():
            with self.subTest(command, path=path):
                ended = self.server.attempt(*shlex.split(command)[1:])
                self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertGreater(len(shown), 3)
