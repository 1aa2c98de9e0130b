"""Random From headers: none that a tied key may send is read by another program as another domain.

    python3 from_headers.py EXAMPLE [COUNT] [SEED]

EXAMPLE is the example `from_headers`, which says of each message what a key must be tied to, and what mail-parser reads.
The other judges are Python's: its parser of today (email.policy.default), and the one before it, which many programs
still use (email.utils.getaddresses, strict and not where there are both), with the header as it is and decoded first.
Prints what was read differently, with the seed, and exits 1.
"""

import collections
import email
import email.header
import email.policy
import email.utils
import inspect
import json
import multiprocessing
import random
import re
import subprocess
import sys
import warnings

OWN, VICTIM = "own.test", "victim.test"
BATCH = 2_000
# What a generator of such headers has to come to, or it shows nothing.
ACCEPTED, FOOLED = 0.05, 0.05

WORDS = ["Ann", "Example", "Inc.", "J.", "O'Neill", "Jörg", "山田", "via", "&", "=?utf-8?q?J=C3=B6rg?=",
         "=?utf-8?b?SsO2cmc=?=", "=?utf-8?q?=2C?=", "=?utf-8?q?=28?=", "=?utf-8?q?=29?=", "=?utf-8?q?=3C?=",
         "=?utf-8?q?=22?=", "=?utf-8?q?a=40home?=", "=?iso-8859-1?q?=E9?=", "=?ISO-2022-JP?B?GyRCRnxLXBsoQg==?="]
QUOTED = ["Ann", "Ann, of Example", f"ceo@{VICTIM}", f"<ceo@{VICTIM}>", f"x, ceo@{VICTIM}", "\\\"", "\\\\", "(", ")", ":",
          "=?utf-8?q?J=C3=B6rg?=", "=?utf-8?q?=22=2C_?=", ";", "@", f"=?utf-8?q?ceo=40{VICTIM}?="]
COMMENTS = ["Sales", "a, b", "x:y;", "of Example", "=?utf-8?q?J=C3=B6rg?=", "Jörg", f"b@{OWN}", "'", "=?utf-8?q?=29?=",
            f"ceo@{VICTIM}"]
LOCALS = ["a", "a.b", "a+b", "jörg", "o'neill", "a=b", "\"a b\"", "\"a\"", f"ceo%{VICTIM}", "=?utf-8?q?a?="]
PIECES = ["\"", "(", ")", "<", ">", "@", ",", ";", ":", "\\", " ", "\t", "\r\n ", "\r\n\t", ".", "[", "]", "=", "?", "%", "!",
          "=?", "?=", "=?utf-8?q?", "=40", "=22=2C", "=?utf-8?q?=28?=", "=?utf-8?q?(?=", "=?utf-8?q?)?=", "a", OWN, VICTIM,
          f"a@{OWN}", f"<a@{OWN}>", f"ceo@{VICTIM}", f"<ceo@{VICTIM}>", f"@{VICTIM}", f".{VICTIM}", "(x)", "\"\"", "\\\"",
          "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u00a0", "\u3000", "\uff20", "é", "\r\n \r\n ", f"g: a@{OWN};",
          f"\"a@{OWN}\"", f"=?utf-8?q?ceo=40{VICTIM}?=", f"=?utf-7?q?ceo+AEA-{VICTIM}?=", f"@{VICTIM}:", "\x7f", "\x1b"]
LINES = ["Subject: x", "Subject:", "To: b@example.net", " folded", "\tfolded", " ", "\t", "no field", f"From ceo@{VICTIM}",
         f"From\x0b: ceo@{VICTIM}", f"From : ceo@{VICTIM}", f"From\t: ceo@{VICTIM}", f"from: ceo@{VICTIM}",
         f"Subject: x\x0bFrom: ceo@{VICTIM}", f"Subject: x\x0cFrom: ceo@{VICTIM}", f"X: y\x1eFrom: ceo@{VICTIM}",
         f"X: y\x85From: ceo@{VICTIM}", f"X: y\u2028From: ceo@{VICTIM}", f": ceo@{VICTIM}", f"Sender: a@{OWN}",
         f">From: ceo@{VICTIM}", "-- x", "X: \"", "X: (", f"X\u00a0From: ceo@{VICTIM}", f"\u00a0From: ceo@{VICTIM}"]


def mailbox(dice):
    """One that is as it should be, mostly."""
    address = f"{dice.choice(LOCALS)}@{OWN if dice.random() < 0.97 else VICTIM}"
    space = lambda: dice.choice(["", " ", " ", " ", "\r\n ", "\t"])  # noqa: E731
    comment = lambda: f"{space()}({dice.choice(COMMENTS)}){space()}" if dice.random() < 0.15 else ""  # noqa: E731
    kind = dice.random()
    if kind < 0.2:
        return f"{comment()}{address}{comment()}"
    if kind < 0.25:
        return f"{address} <{address}>"
    if kind < 0.6:
        name = " ".join(dice.choice(WORDS) for _ in range(dice.randint(1, 4)))
    else:
        name = "".join(dice.choice(QUOTED) for _ in range(dice.randint(1, 3)))
        name = f'"{name}"'
        if dice.random() < 0.2:
            name += f" {dice.choice(WORDS)}"
    return f"{comment()}{name}{comment()}{space()}<{address}>{comment()}"


def value(dice):
    kind = dice.random()
    if kind < 0.15:
        return "".join(dice.choice(PIECES) for _ in range(dice.randint(1, 9)))
    text = ", ".join(mailbox(dice) for _ in range(dice.choice([1, 1, 1, 1, 2, 3])))
    for _ in range(dice.choice([0, 0, 0, 1, 1, 2, 3])):
        at = dice.randint(0, len(text))
        what = dice.random()
        if what < 0.6:
            text = text[:at] + dice.choice(PIECES) + text[at:]
        elif what < 0.8:
            text = text[:at] + text[at + dice.randint(1, 3):]
        else:
            start, end = sorted((at, dice.randint(0, len(text))))
            text = text[:at] + text[start:end] + text[at:]
    return text


def message(dice):
    lines = [f"From: {value(dice)}"]
    for _ in range(dice.choice([0, 0, 0, 0, 1, 2])):
        lines.insert(dice.randint(0, len(lines)), dice.choice(LINES))
    return ("\r\n".join(lines) + "\r\n\r\nx\r\n").replace("\0", "").encode()


def readings(text):
    """What each judge of Python's reads: its name, and the addresses."""
    today = email.message_from_bytes(text, policy=email.policy.default)
    try:
        yield "email.policy.default", [one.addr_spec for field in today.get_all("From", []) for one in field.addresses]
    except Exception:
        # Some headers are too much for it: it reads nothing then.
        pass
    fields = [str(field) for field in email.message_from_bytes(text).get_all("From", [])]
    decoded = []
    for field in fields:
        try:
            decoded.append(str(email.header.make_header(email.header.decode_header(field))))
        except Exception:
            pass
    strictness = [{}]
    if "strict" in inspect.signature(email.utils.getaddresses).parameters:
        strictness = [{"strict": True}, {"strict": False}]
    for options in strictness:
        for how, given in (("", fields), (" of what was decoded", decoded)):
            found = [address for field in given for _, address in email.utils.getaddresses([field], **options)]
            yield f"getaddresses{options or ''}{how}", found
            yield f"parseaddr{options or ''}{how}", [email.utils.parseaddr(field, **options)[1] for field in given]


def others(addresses):
    """Those of another domain: as far as it is one, and one without a dot is none."""
    domain = lambda one: re.match(r"[\w.-]*", one.rpartition("@")[2].strip(" <")).group().lower()  # noqa: E731
    return [one for one in addresses if "@" in one and domain(one) != OWN and "." in domain(one)]


def judge(text, answer):
    """The judges that read another domain, with what they read."""
    found = {name: others(addresses) for name, addresses in readings(text)}
    found["mail-parser"] = others(answer["mail_parser"])
    return {name: addresses for name, addresses in found.items() if addresses}


def run(job):
    """A batch: how many there were of each kind, and what was read differently."""
    example, seed, count = job
    warnings.simplefilter("ignore")
    dice = random.Random(seed)
    texts = [message(dice) for _ in range(count)]
    ran = subprocess.run([example], input=b"".join(text + b"\0" for text in texts), stdout=subprocess.PIPE, check=True)
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    if len(answers) != count:
        raise AssertionError(f"{len(answers)} answers to {count} messages")
    counts, faults = collections.Counter(headers=count), []
    for text, answer in zip(texts, answers):
        accepted = answer["domains"] is not None and set(answer["domains"]) == {OWN}
        fooled = judge(text, answer)
        counts["accepted" if accepted else "refused"] += 1
        counts["refused, and a judge reads another domain"] += bool(fooled and not accepted)
        if fooled and accepted:
            faults.append(f"{text!r}: {fooled}")
    return counts, faults


def main(arguments):
    example, count = arguments[0], int(arguments[1]) if len(arguments) > 1 else 200_000
    seed = int(arguments[2]) if len(arguments) > 2 else random.SystemRandom().randrange(1 << 32)
    jobs = [(example, f"{seed}/{at}", min(BATCH, count - at)) for at in range(0, count, BATCH)]
    counts, faults = collections.Counter(), []
    with multiprocessing.Pool() as pool:
        for more, wrong in pool.imap_unordered(run, jobs):
            counts.update(more)
            faults += wrong
    for fault in faults[:20]:
        print(fault)
    print(f"{dict(counts)}, {len(faults)} read differently, seed {seed}")
    few = counts["accepted"] < ACCEPTED * count or counts["refused, and a judge reads another domain"] < FOOLED * count
    if few:
        print("too few of a kind: this shows nothing")
    return 1 if faults or few else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
