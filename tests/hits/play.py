"""The crowd at work on a running relay, and the comparison of what was recorded with what it did."""
import asyncio, time
from collections import Counter, defaultdict

from ground import Client, Hits, newsletter, until, whose
from web import Web

# Identical hits within so many seconds are one record; between the two it may be one or two, and truth is silent.
SAME, OTHER = 4.6, 5.6
FAST = 1.9


class Record:
    """What is to be recorded: a first hit with its repeats."""

    def __init__(self, script, before, after):
        self.group, self.label, self.reason = script.group, script.label, script.reason
        self.before, self.after, self.count = before, after, 1


class Play:
    def __init__(self, server, crowd):
        self.server, self.crowd = server, crowd
        # By recipient, link, address and agent.
        self.truth, self.copies = defaultdict(list), {}
        self.hits, self.unsure, self.faults, self.late = 0, set(), [], 0.0

    def run(self):
        """Sends the messages, and lets everybody act."""
        names = []
        with Client(self.server.relay.smtp, timeout=60) as client:
            for message in self.crowd.messages:
                Hits.put(client, message.names, newsletter(message.ident, message.links))
                names += message.names
        self.copies.update(self.server.copies(names, 600))
        # So that no click is too fast.
        time.sleep(2.2)
        asyncio.run(self.act())

    async def act(self):
        self.web, self.began = Web(self.server.relay.web), time.time()
        fast = {message.names[0]: message for message in self.crowd.fast}
        await asyncio.gather(*(self.play(script, fast.get(script.steps[0].who)) for script in self.crowd.scripts))
        await self.web.close()

    async def play(self, script, fast):
        await asyncio.sleep(max(0, self.began + script.start - time.time()))
        posted = time.time()
        if fast:
            await asyncio.to_thread(self.server.post, fast.ident, fast.links)
            self.copies.update(await asyncio.to_thread(self.server.copies, fast.names, 20))
        for step in script.steps:
            due = time.time() + step.pause
            await asyncio.sleep(step.pause)
            self.late = max(self.late, time.time() - due)
            copy = self.copies[step.who]
            path = copy.pixel if step.link is None else copy.links[step.link]
            status, before, after = await self.web.hit(path, step.address, step.agent, step.method)
            self.hits += 1
            if status != (200 if step.link is None else 302):
                self.faults.append(f"{step}: {status}")
            self.note(script, step, before, after)
            if fast and after - posted > FAST:
                self.unsure.add(step[1:5])

    def note(self, script, step, before, after):
        key = step[1:5]
        records = self.truth[key]
        if records and after - records[-1].before < SAME:
            records[-1].count += 1
            return
        if records and before - records[-1].after < OTHER:
            self.unsure.add(key)
        records.append(Record(script, before, after))

    # ---- What was recorded

    def settled(self, seconds=60):
        """Waits until all is counted, or raises."""
        until(f"{self.hits} hits in the counts (last: {self.server.counted()})",
              lambda: self.server.counted() >= self.hits, seconds, 0.3)

    def compare(self):
        """The table: groups, and what their hits were taken for."""
        seen = defaultdict(list)
        for event in self.server.export():
            seen[(*whose(event), event["address"], event["agent"])].append(event)
        table, wrong_reason, self.seen = defaultdict(Counter), Counter(), seen
        for key in (self.truth.keys() | seen.keys()) - self.unsure:
            wanted, found = self.truth.get(key, []), sorted(seen.get(key, []), key=lambda event: event["at"])
            if len(wanted) != len(found):
                self.faults.append(f"{key}: {len(found)} records of {len(wanted)}")
            for record, event in zip(wanted, found):
                if record.count != event["count"]:
                    self.faults.append(f"{key}: count {event['count']}, not {record.count}")
                if not record.before - 0.05 <= event["at"] / 1000 <= record.after + 0.05:
                    self.faults.append(f"{key}: at {event['at']}, asked at {record.before:.3f}")
                table[record.group][event["class"]] += record.count
                table[record.group]["right"] += record.count * (event["class"] == record.label)
                if event["class"] == record.label == "machine" and event["reason"] != record.reason:
                    wrong_reason[record.group, record.reason, event["reason"]] += record.count
        return table, wrong_reason

    def check_counts(self, messages=True):
        """Counts of all mail, and of each message, beside the truth; the split beside the labels given."""
        self.compare_counts("all mail", self.server.totals(), lambda who: True)
        if messages:
            ids = {row["subject"]: row["id"] for row in self.server.all_of("/emails")}
            for message in self.crowd.messages:
                totals = self.server.totals(f"&email_id={ids[message.ident]}")
                self.compare_counts(message.ident, totals, set(message.names).__contains__)
        return ids if messages else {}

    def compare_counts(self, name, totals, own):
        wanted, opened, clicked = Counter(), set(), set()
        for (who, link, *_), records in self.truth.items():
            if own(who):
                wanted["opened" if link is None else "clicked"] += sum(record.count for record in records)
                (opened if link is None else clicked).add(who)
        wanted["unique_opened"], wanted["unique_clicked"] = len(opened), len(clicked)
        people = {"opened": set(), "clicked": set()}
        for (who, link, *_), events in self.seen.items():
            kind = "opened" if link is None else "clicked"
            for event in events if own(who) else ():
                is_human = event["class"] != "machine"
                wanted[f"{kind}_{'human' if is_human else 'machine'}"] += event["count"]
                if is_human:
                    people[kind].add(who)
        for kind, whose in people.items():
            wanted[f"unique_{kind}_human"] = len(whose)
        for figure in totals:
            if totals[figure] != wanted[figure]:
                self.faults.append(f"{name}: {figure} is {totals[figure]}, not {wanted[figure]}")

    def check_events(self, ident, email):
        """`/emails/ID/events` says the same as the export."""
        rows = [row for row in self.server.all_of(f"/emails/{email}/events") if "class" in row]
        listed = Counter((row["recipient"].partition("@")[0], row.get("link"), row["ip_address"], row["user_agent"],
                          row["class"], row.get("reason"), row["count"]) for row in rows)
        wanted = Counter((event["to"].partition("@")[0], event.get("link"), event["address"], event["agent"],
                          event["class"], event.get("reason"), event["count"])
                         for events in self.seen.values() for event in events if event["email_id"] == email)
        if listed != wanted:
            self.faults.append(f"{ident}: events differ: {list(((listed - wanted) + (wanted - listed)).items())[:3]}")
        return len(rows)


def share_right(table):
    return sum(row["right"] for row in table.values()) / sum(row.total() - row["right"] for row in table.values())


def show(table, wrong_reason):
    lines = [f"{'truth':<20} {'hits':>7} {'human':>7} {'machine':>7} {'unknown':>7} {'right':>9}"]
    for group, row in sorted(table.items()):
        hits = row.total() - row["right"]
        lines.append(f"{group:<20} {hits:>7} {row['human']:>7} {row['machine']:>7} {row['unknown']:>7} "
                     f"{row['right'] / hits:>9.2%}")
    lines.append(f"{'all':<20} {sum(r.total() - r['right'] for r in table.values()):>7} {share_right(table):>33.2%}")
    lines += [f"other reason: {group}, {given} for {wanted}: {count}"
              for (group, wanted, given), count in sorted(wrong_reason.items())]
    return "\n".join(lines)
