"""What schemathesis loads for test_schema.py: every second body that it makes up gets words that mean something, since
it would hardly ever come upon a domain name by chance, and all that lies behind one would stay unseen."""

import itertools
import os

import schemathesis

# Which one it is, and names that nobody has yet.
BODIES, NAMES, PATHS = itertools.count(), itertools.count(), itertools.count()
# Webhooks, and what each of them is told. An event of theirs is easily taken for one of an e-mail, which has ids too.
WEBHOOKS, TOLD = (os.environ[name].split(",") for name in ("WEBHOOKS", "TOLD"))
WORDS = {
    "tracking_subdomain": ("links", "Click.mail", "t"), "tls": ("enforced", "OPPORTUNISTIC"), "region": ("eu-west-1",),
    "excluded_recipients": (["ada@example.net", "@example.org"],), "permission": ("sending_access", "full_access"),
}
KILLS = (
    ("message", "01a20be1-7252-70f9-aff9-876b58905e9a"), ("link", "https://example.net/offer"), ("domain", "evil.test"),
)


@schemathesis.hook
def map_body(context, body):
    number = next(BODIES)
    if number % 2 or not isinstance(body, dict):
        return body
    better = {name: values[number % len(values)] for name, values in WORDS.items() if name in body}
    if context.operation.path == "/domains" and isinstance(body.get("name"), str):
        better["name"] = f"made{next(NAMES)}.example.com"
    if context.operation.path == "/kill-list":
        better |= dict(zip(("type", "value"), KILLS[number // 2 % len(KILLS)]))
    return body | better


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    number = next(PATHS)
    if number % 2 or not path_parameters or "event_id" not in path_parameters:
        return path_parameters
    return path_parameters | {"id": WEBHOOKS[number % len(WEBHOOKS)], "event_id": TOLD[number % len(TOLD)]}
