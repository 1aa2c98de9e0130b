"""A mixed population, and what is true of it: who opens and clicks copies, from where, with what agent, and when.

Each actor is a script: steps with a pause before each. A scanner with a browser's agent is given messages of two links
and more, as one link alone can show nothing. Offices are held to some copies a minute; what opens thirty copies within
seconds is a gateway. What is fetched by an image proxy counts as a machine's, though a person may have had it fetched.
"""
import ipaddress, pathlib, random
from collections import namedtuple

# `method` GET or HEAD; `link` None for the pixel; `who` is the name of the copy's recipient.
Step = namedtuple("Step", "pause who link address agent method")
# `group` names the kind of actor, `label` what its hits are, `reason` why they are a machine's.
Script = namedtuple("Script", "start steps group label reason")
Message = namedtuple("Message", "ident links names")

AGENTS = pathlib.Path(__file__).resolve().parents[2] / "fixtures" / "agents"
LINKS = (1, 2, 4, 8, 20)
GATEWAY = range(30, 45)
APPLE = "Mozilla/5.0"


def agents():
    """Mail programs and browsers of people; machines by the kind of hit for which their agent is known."""
    mail, browsers, machines, section = [], [], [], ""
    for line in (AGENTS / "human.txt").read_text().splitlines():
        if line.startswith("#"):
            section = line
        elif line:
            (mail if "Mail programs" in section else browsers).append(line)
    for line in (AGENTS / "machine.tsv").read_text().splitlines():
        if line and not line.startswith("#"):
            machines.append(tuple(line.split("\t", 2)))
    return mail, browsers, machines


class Crowd:
    """Scripts of `hits` hits or a few more, spread over `seconds`, to messages with so many `recipients`."""

    def __init__(self, hits, seconds, recipients, seed=1):
        self.chance, self.seconds = random.Random(seed), seconds
        self.mail, self.browsers, self.machines = agents()
        self.messages, self.fast, self.scripts, self.planned = [], [], [], 0
        self.address, self.office = 0, None
        # In an office few enough open within a minute for it to be one, see src/event/burst.rs.
        self.office_size = 18 if seconds <= 60 else 8 * seconds // 60
        quick = hits // 100
        while self.planned < hits - 2 * quick:
            self.message(recipients)
        for number in range(quick):
            self.quick(number)

    # ---- Who and where

    def own_address(self):
        """One that nobody else has."""
        self.address += 1
        if self.address % 4 == 0:
            return str(ipaddress.ip_address("2001:db8::1") + (self.address << 16))
        return str(ipaddress.ip_address("198.18.0.0") + self.address)

    def google_address(self):
        return str(ipaddress.ip_address("66.249.80.0") + self.chance.randrange(4096))

    def add(self, steps, group, label="human", reason=None, start=None):
        if start is None:
            start = self.chance.uniform(0, max(0.5, self.seconds - sum(step.pause for step in steps)))
        self.scripts.append(Script(start, steps, group, label, reason))
        self.planned += len(steps)
        return start + sum(step.pause for step in steps)

    def message(self, recipients):
        chance, ident = self.chance, f"m{len(self.messages)}"
        message = Message(ident, chance.choice(LINKS), [f"{ident}r{n}" for n in range(recipients)])
        self.messages.append(message)
        for who in message.names:
            after = self.scanned(who, message.links) if chance.random() < 0.2 else None
            self.reader(who, message.links, after)
            if chance.random() < 0.1:
                link = chance.choice([None, chance.randrange(message.links)])
                steps = [Step(0, who, link, self.own_address(), chance.choice(self.browsers), "HEAD")]
                self.add(steps, "HEAD", "machine", "head")
        if recipients >= GATEWAY[-1] and chance.random() < 0.35:
            self.gateway(message)

    # ---- Machines

    def scanned(self, who, links):
        """A scanner, and when it is done."""
        chance, start = self.chance, self.chance.uniform(0, self.seconds / 8)
        if links > 1 and chance.random() < 0.6:
            # From one address or several; the image as well, or not.
            places = [self.own_address() for _ in range(chance.choice([1, 1, 2]))]
            agent, which = chance.choice(self.browsers), list(range(links))
            chance.shuffle(which)
            which = ([None] if chance.random() < 0.5 else []) + which
            pause = chance.uniform(0, 0.6) / len(which)
            steps = [Step(pause, who, link, chance.choice(places), agent, "GET") for link in which]
            return self.add(steps, "unknown scanner", "machine", "burst", start)
        kinds, reason, agent = chance.choice(self.machines)
        which = {"open": [None], "click": list(range(links)), "both": [None, *range(links)]}[kinds]
        which = which[:chance.randint(1, len(which))]
        address = self.own_address()
        steps = [Step(chance.uniform(0, 0.1), who, link, address, agent, "GET") for link in which]
        return self.add(steps, "known agent", "machine", reason, start)

    def gateway(self, message):
        """One address that looks into many copies at once."""
        chance, address, agent = self.chance, self.own_address(), self.chance.choice(self.browsers)
        # Where time is short, it would often meet people, and with their clicks make up all links of a short message.
        opens = 1 if self.seconds < 60 and message.links < 8 else 0.6
        steps = []
        for who in chance.sample(message.names, chance.choice(GATEWAY)):
            link = None if chance.random() < opens else chance.randrange(message.links)
            steps.append(Step(chance.uniform(0, 0.3), who, link, address, agent, "GET"))
        self.add(steps, "gateway", "machine", "many-recipients")

    def proxy(self, who, start, hasty):
        """An image proxy of the recipient's mail provider."""
        chance = self.chance
        google, yahoo = ([agent for _, reason, agent in self.machines if reason == f"{name}-image-proxy"]
                         for name in ("google", "yahoo"))
        address, agent, reason = chance.choice([
            (self.google_address(), chance.choice(google), "google-image-proxy"),
            (self.google_address(), chance.choice(self.browsers), "google-image-proxy"),
            (self.own_address(), chance.choice(yahoo), "yahoo-image-proxy"),
            (self.own_address(), APPLE, "apple-mail-privacy"),
        ])
        steps = [Step(0, who, None, address, agent, "GET")]
        if not hasty and chance.random() < 0.3:
            steps.append(Step(chance.uniform(7, 9), who, None, address, agent, "GET"))
        self.add(steps, reason, "machine", reason, start)

    # ---- People

    def reader(self, who, links, after):
        """The recipient, unless they do not care. `after`: when a scanner has looked at the copy."""
        chance = self.chance
        start = None
        if after is not None:
            # Most come later than what belongs to the scanner; some come while it has hardly gone.
            near = chance.random() < 0.1
            start = after + (chance.uniform(3, 9) if near else chance.uniform(11, max(11.5, self.seconds / 2)))
        kind = chance.choices(["nobody", "person", "office", "proxy"], [10, 50, 15, 25])[0]
        if kind == "nobody":
            return
        group, place, program, browser = "person", self.own_address(), None, chance.choice(self.browsers)
        if kind == "office":
            group, place, program, browser = "office", *self.of_office()
        program = program or chance.choice(self.mail + self.browsers)
        # Where there is little time, not everybody may take it all.
        hasty = self.seconds < 60 and (after is not None or chance.random() < 0.6)
        steps = []
        if kind == "proxy":
            self.proxy(who, start, hasty)
        else:
            steps.append(Step(0, who, None, place, program, "GET"))
            for _ in range(0 if hasty else chance.choice([0, 0, 1, 2 if self.seconds >= 60 else 1])):
                steps.append(Step(chance.uniform(7, 9), who, None, place, program, "GET"))
        for link in chance.sample(range(links), min(links, chance.choice([0, 1] if hasty else [0, 0, 1, 1, 2, 3]))):
            steps.append(Step(chance.uniform(1.5, 4), who, link, place, browser, "GET"))
        if steps:
            self.add(self.repeated(steps), group, start=start)

    def of_office(self):
        """Address, mail program and browser of one that is not full yet."""
        if self.office is None or self.office[1] == 0:
            place = (self.own_address(), self.chance.choice(self.mail), self.chance.choice(self.browsers))
            self.office = [place, self.office_size]
        self.office[1] -= 1
        return self.office[0]

    def repeated(self, steps):
        """Some of the same again at once, as by those who click twice."""
        more = []
        for step in steps:
            more.append(step)
            for _ in range(self.chance.choice([0] * 8 + [1, 2])):
                more.append(step._replace(pause=self.chance.uniform(0.1, 1)))
        return more

    def quick(self, number):
        """Clicks as soon as a message of its own is delivered."""
        chance, ident = self.chance, f"f{number}"
        self.fast.append(Message(ident, 5, [f"{ident}r0"]))
        address, agent = self.own_address(), chance.choice(self.browsers)
        steps = [Step(0, f"{ident}r0", link, address, agent, "GET") for link in chance.sample(range(5), 2)]
        self.add(steps, "fast click", "machine", "fast-click")
