"""The relay against a smarthost with every fault of matrix.py: what becomes of each recipient is right.

In this folder:

    TRACKPOST_BIN=… MESSAGES=200 python3 -m unittest test_smarthost [-k NAME]

For each case a relay of its own is sent MESSAGES messages (8), the fault is met, the smarthost comes to its senses, and
then every message has been taken once, or is listed as bounced in the smarthost's own words. More than once is right
only where a connection broke after the final dot, and the log names the message for that. At the end SIGTERM is
answered by exit code 0, and nothing in the log is an error or a panic.
"""

import functools
import os
import re
import tempfile
import unittest

import certificates
import matrix
import parallel
from letters import is_same, letter, message_id
from relay import Relay, submit, until
from smarthost import OFFER, Script, Smarthost

MESSAGES = int(os.environ.get("MESSAGES", "8"))
PATIENCE = 30 + MESSAGES
MIB = 1 << 20
PASSWORD = "open sesame"
SETTLED = {"relayed", "delivered", "bounced"}
MAYBE = "may arrive twice"
# Workers that were connecting when the first of them found that there is no use, and the looks after it since.
NO_STORM = 24


@functools.cache
def ground():
    """A folder for everything, removed at the end, and the TLS contexts by kind of certificate."""
    folder = tempfile.TemporaryDirectory(prefix="trackpost-faults-")
    with open(f"{folder.name}/password", "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(PASSWORD)
    return folder, certificates.make(folder.name)


def load_tests(loader, tests, pattern):
    ground()
    return parallel.Suite(tests)


class Base(unittest.TestCase):
    def smarthost(self, *arguments):
        smarthost = Smarthost(*arguments)
        self.addCleanup(smarthost.stop)
        return smarthost

    def relay(self, case, smarthosts, **sections):
        here = ground()[0].name
        to = {"address": f"127.0.0.1:{smarthosts[0].port}", "tls": case.tls, "ca_file": f"{here}/ca.pem"}
        if case.username:
            to |= {"username": case.username, "password_file": f"{here}/password"}
        # Many messages are not tried again and again while others wait for their first attempt.
        queue = {"retry": [f"{max(1, MESSAGES // 25)}s"]}
        settings = {"smarthost": to, "smarthost.timeouts": dict(case.timeouts), "queue": queue} | sections
        if len(smarthosts) > 1:
            settings["[smarthost.fallback]"] = {"address": f"127.0.0.1:{smarthosts[1].port}", "tls": "none"}
        relay = Relay(settings, here)
        self.addCleanup(relay.close)
        relay.start()
        if case.kind == "tracked":
            added = relay.run("domain", "add", "example.com", "--subdomain", "links", "--open", "--click",
                              "--force-verified")
            self.assertEqual(added.returncode, 0, added.stderr)
        return relay


class Faults(Base):
    """One test a case of the matrix."""

    def check(self, case):
        first = self.smarthost(script(case))
        if case.refuses:
            first.deafen()
        smarthosts = [first, self.smarthost()] if case.fallback else [first]
        relay = self.relay(case, smarthosts)
        try:
            self.meet(case, relay, smarthosts)
        except AssertionError as error:
            raise AssertionError(f"{error}\n\nThe smarthost: {first.met}, {len(first.copies)} copies\nThe log ends:\n"
                                 + relay.told()[-4000:]) from error

    def meet(self, case, relay, smarthosts):
        first, memory = smarthosts[0], relay.peak_memory()
        letters = Letters(case, relay)
        if case.down:
            self.is_down(case, relay, first, letters)
        else:
            letters.reach(case.during)
        flooded = any(isinstance(step, matrix.Flood) for steps in case.do.values() if isinstance(steps, list)
                      for step in steps)
        self.assertEqual(flooded, first.flooded > 0, "bytes of a flood were read")
        if case.fallback:
            self.assertEqual(first.copies, [])
            self.assertEqual(len(smarthosts[1].copies), letters.count)

        if case.refuses:
            first.listen()
        first.script = healthy(case)
        until(lambda: f"the queue to be empty: {relay.ask('queue', 'list')}", PATIENCE,
              lambda: (relay.ask("queue", "list") or {}).get("queued") == 0)
        finally_ = {word: case.after.get(word, stands if stands[0] == "bounced" else ("relayed", "^250 "))
                    for word, stands in ({word: ("relayed", "") for word in case.to} | case.during).items()}
        letters.reach(finally_)
        self.compare(case, relay, letters, finally_, smarthosts)
        if case.kind != "large":
            self.assertLess(relay.peak_memory() - memory, 48 * MIB)
        self.assertEqual(relay.terminate(20), 0)
        told = relay.told()
        self.assertNotIn("panicked", told)
        self.assertEqual([line for line in relay.lines() if line.get("level") == "ERROR" or "raw" in line], [])

    def is_down(self, case, relay, first, letters):
        """Nothing comes through, the queue says why, and one connection at a time looks after it."""
        def why():
            return (relay.ask("queue", "list") or {}).get("smarthost") or ""
        until(lambda: f"{case.down!r}, not {why()!r}", PATIENCE, lambda: re.search(case.down, why()))
        for stage in case.do:
            until(f"{stage} to be come to again", PATIENCE, lambda: first.met.get(stage, 0) >= 2)
        self.assertEqual(relay.ask("queue", "list")["queued"], letters.count)
        self.assertEqual(first.copies, [])
        self.assertLess(first.connections, NO_STORM)
        if case.tls in ("required", "implicit"):
            self.assertEqual(first.logins, [], "the password went to someone who is not known")
        for message in letters.queue().values():
            # Only those that were tried have a reply; it is the reason.
            for recipient in message["recipients"]:
                self.assertIn(recipient["status"], ("queued", "sending", "deferred"))
                if recipient["status"] == "deferred":
                    self.assertRegex(recipient["reply"], case.down)

    def compare(self, case, relay, letters, stands, smarthosts):
        """What the smarthosts have against what the relay says of it."""
        copies = [copy for smarthost in smarthosts for copy in smarthost.copies]
        maybe = [line["queue_id"] for line in relay.lines() if MAYBE in line.get("message", "")]
        for copy in (copy for copy in copies if not copy.recipients):
            self.assertEqual(copy.message, b"", "what is for nobody has no words")
        for n, queue_id in enumerate(letters.ids):
            mine = [copy for copy in copies if copy.message_id == message_id(n)]
            for word in case.to:
                to = letters.address(word, n)
                had = [copy for copy in mine if to in copy.recipients and not (copy.reply or "").startswith(("4", "5"))]
                taken = [copy for copy in had if copy.taken]
                if stands[word][0] == "bounced":
                    self.assertEqual(had, [], f"{to} was bounced, and has it")
                    continue
                self.assertGreaterEqual(len(taken), 1, f"{to} is told to have it, and has not")
                self.assertLessEqual(len(had), 1 + maybe.count(queue_id), f"{to} has it {len(had)} times")
            if case.kind == "tracked":
                self.assertEqual({len(copy.recipients) for copy in mine}, {1})
            if not case.doubtful:
                self.assertNotIn(queue_id, maybe)
            elif "here" in case.to and stands["here"][0] == "relayed":
                self.assertIn(queue_id, maybe)
            for copy in mine:
                eight_bit = "8BITMIME" in (case.offer if "here" in case.during else OFFER)
                self.assertTrue(is_same(copy.message, letters.sent[n], case.kind, eight_bit), copy.message[-3000:])
        if case.encrypted is not None:
            self.assertEqual({copy.encrypted for copy in copies}, {case.encrypted})
        if case.username:
            logins = {login for smarthost in smarthosts for login in smarthost.logins}
            self.assertLessEqual(logins, {(case.username, PASSWORD, bool(case.certificate))})


    def test_dies_after_a_few_of_many_copies(self):
        """The copies that are left are not each let run against it."""
        dead = lambda session: matrix.HANG if len(session.smarthost.copies) >= 3 else None
        case = matrix.Case("dies", {"banner": dead, "dot": [matrix.RIGHT, matrix.CLOSE]}, kind="tracked",
                           to=tuple(f"r{n}" for n in range(40)), timeouts={"greeting": "1s"})
        smarthost = self.smarthost(script(case))
        relay = self.relay(case, [smarthost])
        letters = Letters(case, relay, 1)
        until("the queue to say that it is down", 8, lambda: (relay.ask("queue", "list") or {}).get("smarthost"))
        self.assertLess(smarthost.connections, NO_STORM)
        smarthost.script = healthy(case)
        letters.reach({word: ("relayed", "^250 ") for word in case.to})
        self.assertEqual(sorted(copy.recipients[0] for copy in smarthost.copies),
                         sorted(letters.address(word, 0) for word in case.to))


class Drains(Base):
    """SIGTERM while the smarthost says nothing: it ends with 0 in time, and what was not taken goes after a start."""

    def drain(self, stage, shutdown, seconds, kind="plain", doubtful=False):
        case = matrix.Case(stage, {stage: matrix.DEAF}, kind=kind, doubtful=doubtful)
        smarthost = self.smarthost(script(case))
        relay = self.relay(case, [smarthost], **{"smtp.timeouts": {"shutdown": shutdown}})
        letters = Letters(case, relay)
        until(f"{stage} to be come to", PATIENCE, lambda: smarthost.met.get(stage))
        self.assertEqual(relay.terminate(seconds), 0)
        if doubtful:
            self.assertIn(MAYBE, relay.told(), "it was cut off after the dot, and is sent again")
        smarthost.script = healthy(case)
        relay.start()
        letters.reach({"here": ("relayed", "^250 ")})
        for n in range(letters.count):
            taken = [copy for copy in smarthost.copies if copy.message_id == message_id(n) and copy.taken]
            self.assertEqual(len(taken), 1)
        self.assertEqual(relay.terminate(20), 0)

    def test_with_nothing_under_way_at_once(self):
        self.drain("banner", "30s", 10)

    def test_at_ehlo_at_once(self):
        self.drain("ehlo", "30s", 10)

    def test_in_an_envelope(self):
        self.drain("mail", "1s", 15)

    def test_in_a_message(self):
        self.drain("body", "1s", 15, kind="large")

    def test_after_the_dot(self):
        self.drain("dot", "1s", 15, doubtful=True)


class Letters:
    """The messages of one case, and how their recipients stand."""

    def __init__(self, case, relay, count=MESSAGES):
        self.case, self.relay, self.settled = case, relay, {}
        self.count = min(count, 20) if case.kind == "large" else count
        self.sent = [letter(case.kind, n) for n in range(self.count)]
        self.ids = []
        with relay.client() as client:
            client.ehlo()
            for n, message in enumerate(self.sent):
                recipients = [self.address(word, n) for word in case.to]
                options = ["SMTPUTF8"] if not all(map(str.isascii, recipients)) else []
                options += ["BODY=8BITMIME"] if not message.isascii() else []
                self.ids.append(submit(client, "news@example.com", recipients, message, options))

    def address(self, word, n):
        return f"{word}.m{n}@example.net"

    def queue(self):
        """What is in the queue, by id."""
        listed = self.relay.ask("queue", "list", "--limit", str(2 * self.count)) or {"messages": []}
        return {message["id"]: message for message in listed["messages"]}

    def history(self, queue_id):
        """What left the queue. It lags behind, so that only what is settled is kept."""
        if queue_id in self.settled:
            return self.settled[queue_id]
        message = self.relay.ask("queue", "show", queue_id)
        if message and {recipient["status"] for recipient in message["recipients"]} <= SETTLED:
            self.settled[queue_id] = message
        return message or {"recipients": []}

    def odd_one(self, stands):
        """The first recipient who does not stand as wanted, by the first word of the address."""
        queue = self.queue()
        for n, queue_id in enumerate(self.ids):
            shown = (queue.get(queue_id) or self.history(queue_id))["recipients"]
            found = {recipient["address"]: recipient for recipient in shown}
            for word, wanted in stands.items():
                recipient = found.get(self.address(word, n))
                if recipient is None or not agrees(recipient, *wanted):
                    odd = f"{queue_id}: {recipient} instead of {wanted}"
                    if recipient and recipient["status"] in SETTLED:
                        raise AssertionError(f"for good: {odd}")
                    return odd

    def reach(self, stands):
        until(lambda: self.odd_one(stands), PATIENCE, lambda: self.odd_one(stands) is None)


def agrees(recipient, status, reply):
    # A smarthost that offers DSN has delivered what another one has relayed.
    same = recipient["status"] == status or (recipient["status"], status) == ("delivered", "relayed")
    return same and re.search(reply, recipient["reply"]) is not None


def script(case):
    context = ground()[1][case.certificate] if case.certificate else None
    offer = case.offer + (("AUTH PLAIN LOGIN",) if case.username else ())
    return Script(case.do, offer, context, case.tls == "implicit" and "connect" not in case.do,
                  4096 if case.kind == "large" else None)


def healthy(case):
    """As it was, without the fault."""
    context = ground()[1]["good"] if case.certificate else None
    offer = OFFER + (("AUTH PLAIN LOGIN",) if case.username else ())
    return Script({}, offer, context, case.tls == "implicit")


for case in matrix.CASES:
    def test(self, case=case):
        self.check(case)
    setattr(Faults, f"test_{case.name}", test)
