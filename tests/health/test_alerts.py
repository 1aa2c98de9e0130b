"""The alert rules: Prometheus takes them, and the program serves from its start what they ask for."""

import re
import subprocess
import unittest

from ground import TOP, Case, ask

RULES, TESTS = TOP / "config/alerts.yml", TOP / "config/alerts.test.yml"


class Alerts(Case):
    def test_prometheus_takes_the_rules_and_their_tests_pass(self):
        for what, file in (("check", RULES), ("test", TESTS)):
            ended = subprocess.run(["promtool", what, "rules", file], capture_output=True, text=True)
            self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)

    def test_every_rule_has_a_test_in_which_it_fires(self):
        rules = set(re.findall(r"alert: (\w+)", RULES.read_text()))
        # An entry without alerts says that it does not fire.
        fires = set(re.findall(r"alertname: (\w+)\s+exp_alerts:", TESTS.read_text()))
        self.assertEqual(rules - fires, set())

    def test_what_the_rules_ask_for_is_there_from_the_start(self):
        relay = self.relay(self.sink())
        relay.start()
        page = ask(relay.api, "/metrics")[1]
        families = set(re.findall(r"^# TYPE (\w+)", page, re.M))
        expressions = re.sub(r"^\s*#.*$", "", RULES.read_text(), flags=re.M)
        asked = set(re.findall(r"\btrackpost_\w+", expressions))
        self.assertGreater(len(asked), 12)
        self.assertEqual({name for name in asked if re.sub("_bucket$", "", name) not in families}, set())
        # What grows is seen to grow only where it was there before.
        growing = set(re.findall(r"(?:increase|rate)\((\w+)", expressions))
        there = set(re.findall(r"^(\w+)(?:\{.*\})? \S+$", page, re.M))
        self.assertEqual(growing - there, set(), "an alert would miss the first of these")


if __name__ == "__main__":
    unittest.main()
