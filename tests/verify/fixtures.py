"""The fixtures of fixtures/mail: what each NAME.toml says, held against the checker's own reading of NAME.eml.

A NAME.toml has the policy (`open`, `click`, `on_signed`, `recipients` of the envelope) for the sender domain
shop.example.com with the tracking host links.shop.example.com, and under `[expect]`:

- `rewritten`: the exact destinations in source order, part after part;
- `skipped`: how many links, and parts with HTML or a message in them, were left, by reason. A signed or encrypted
  container counts once, an attachment only if it is HTML, plain text not at all;
- `pixel`: whether there is one;
- `untouched`: the reason why the whole message leaves as it came, where there is one. Nothing is counted then.

`fixtures.py` checks all of them; `fixtures.py NAME SENT` also checks the file SENT, what the relay made of NAME.eml.
"""

import pathlib
import sys
import tomllib
from collections import Counter

import plan
import verify

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "fixtures" / "mail"


def load(name):
    """(bytes of the message, policy, the [expect] table, recipients)"""
    spec = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    policy = plan.Policy(open=spec["open"], click=spec["click"], on_signed=spec["on_signed"])
    return (FOLDER / f"{name}.eml").read_bytes(), policy, spec["expect"], spec["recipients"]


def names():
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def disagreements(name):
    """Where the toml and the checker's own plan differ, as texts."""
    data, policy, expect, _ = load(name)
    found = plan.plan(data, policy)
    pairs = [
        ("rewritten", expect["rewritten"], found.rewritten),
        ("skipped", Counter(expect["skipped"]), found.skipped),
        ("pixel", expect["pixel"], found.pixel),
        ("untouched", expect.get("untouched"), found.untouched),
    ]
    return [f"{name}: {key}: the toml says {a!r}, the message {b!r}" for key, a, b in pairs if a != b]


def check_sent(name, sent):
    """The checker's report on `sent` (bytes), with what NAME.toml expects."""
    data, policy, expect, _ = load(name)
    report = verify.verify(data, sent, policy)
    if [link["destination"] for link in report["links"]] != expect["rewritten"]:
        report["violations"].append({"kind": "fixture", "detail": "rewritten differs from the toml"})
    if (report["pixel"] is not None) != expect["pixel"]:
        report["violations"].append({"kind": "fixture", "detail": "the pixel differs from the toml"})
    return report


def main(arguments):
    if arguments:
        name, sent = arguments
        faults = check_sent(name, pathlib.Path(sent).read_bytes())["violations"]
    else:
        faults = [fault for name in names() for fault in disagreements(name)]
    for fault in faults:
        print(fault)
    print(f"{len(names())} fixtures, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
