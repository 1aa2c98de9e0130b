"""What every answer of the API is held against: the contract's shapes, whole and closed, so that a field too many is
seen as well as one too few.

`answer` here is anything with `status`, `headers` (names in lower case) and `body` (bytes). Each function raises
AssertionError, or gives what it has read. Which types single SDKs need is in strict.py.
"""

import json
import re
from datetime import datetime

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
LABELS = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*\Z")
REGIONS = {"us-east-1", "eu-west-1", "sa-east-1", "ap-northeast-1"}
DOMAIN_STATUS = {"not_started", "pending", "verified", "failed", "partially_verified", "partially_failed"}
RECORD_STATUS = {"not_started", "pending", "verified", "failed", "temporary_failure"}
RECORD_TYPES = {"Tracking": "CNAME", "TrackingCAA": "CAA", "DKIM": "TXT"}
# The names that all SDKs know, with the status of each.
ERRORS = {
    "validation_error": {400, 422}, "missing_required_field": {422}, "invalid_parameter": {422},
    "invalid_region": {422}, "invalid_access": {422}, "missing_api_key": {401}, "restricted_api_key": {401},
    "invalid_api_key": {403}, "not_found": {404}, "method_not_allowed": {405}, "rate_limit_exceeded": {429},
    "application_error": {500}, "internal_server_error": {500},
}
EVENTS = {"bounced", "canceled", "clicked", "complained", "delivered", "delivery_delayed", "failed", "opened", "queued",
          "scheduled", "sent"}
BOOLEAN, STRING, LIST, OBJECT = bool, str, list, dict


def ask(condition, *what):
    if not condition:
        raise AssertionError(" ".join(map(str, what)))


def fields(value, required, optional=()):
    """An object of just these fields, each of its type; a type of None stands for null, and null is nothing else."""
    ask(isinstance(value, dict), "no object:", value)
    optional = dict(optional)
    missing, more = required.keys() - value.keys(), value.keys() - required.keys() - optional.keys()
    ask(not missing, "missing", sorted(missing), "in", value)
    ask(not more, "unexpected", sorted(more), "in", value)
    for name, read in value.items():
        types = (required | optional)[name]
        types = types if isinstance(types, tuple) else (types,)
        ask(any(read is None if kind is None else type(read) is kind for kind in types), f"{name} is {read!r}")
    return value


def read(answer, status, error=None):
    """The object of an answer with this status; `error` is the name that it must have where it is one."""
    shown = f"{answer.status} {answer.body[:400]!r}"
    ask(answer.status == status, f"expected {status} {error or ''}, got", shown)
    kind = answer.headers.get("content-type", "")
    ask(kind.split(";")[0] == "application/json", f"content-type {kind!r}:", shown)
    limits(answer)
    value = json.loads(answer.body)
    ask(isinstance(value, dict) and value, "no object:", shown)
    if status < 400:
        ask(not {"statusCode", "error"} & value.keys(), "SDKs would take it for an error:", shown)
        return value
    fields(value, {"statusCode": int, "message": STRING, "name": STRING})
    ask(value["statusCode"] == status, "statusCode differs:", shown)
    ask(status in ERRORS.get(value["name"], ()), "no such error:", shown)
    ask(error is None or value["name"] == error, f"expected {error}:", shown)
    ask(value["message"].strip(), "no message:", shown)
    return value


def limits(answer):
    """The headers of the rate limit are on every answer, as plain numbers."""
    limit, remaining, reset = (number(answer, f"ratelimit-{name}") for name in ("limit", "remaining", "reset"))
    policy = re.fullmatch(r"(\d+);w=(\d+)", answer.headers.get("ratelimit-policy", ""))
    ask(policy and int(policy[1]) == limit, "ratelimit-policy", answer.headers.get("ratelimit-policy"))
    ask(limit > 0 and 0 <= remaining <= limit and reset <= int(policy[2]), "rate limit", limit, remaining, reset)
    ask((answer.status == 429) == ("retry-after" in answer.headers), "retry-after with", answer.status)
    if answer.status == 429:
        ask(remaining == 0 and number(answer, "retry-after") > 0, "retry-after", answer.headers["retry-after"])


def number(answer, name):
    text = answer.headers.get(name, "")
    ask(re.fullmatch(r"\d{1,9}", text), f"{name} is {text!r}")
    return int(text)


def domain(value, records=True, created=False):
    """A domain as GET has it; as POST has it, or as an item of a list."""
    required = {
        "id": STRING, "name": STRING, "created_at": STRING, "status": STRING, "open_tracking": BOOLEAN,
        "click_tracking": BOOLEAN, "capabilities": OBJECT, "region": STRING,
    }
    optional = {
        "tracking_subdomain": STRING, "active_tracking_subdomain": STRING, "tracking": STRING, "certificate": OBJECT,
        "certificates": LIST,
        "excluded_recipients": LIST, "dkim": BOOLEAN, "object": STRING,
    }
    if records:
        required |= {"records": LIST, "object": STRING}
    if created:
        required |= {"createdAt": STRING}
    fields(value, required, optional)
    ask(UUID.match(value["id"]), "id", value["id"])
    ask(value.get("object", "domain") == "domain", "object", value)
    ask(value["status"] in DOMAIN_STATUS, "status", value)
    ask(value["region"] in REGIONS, "region", value)
    ask(value["capabilities"] == {"sending": "enabled", "receiving": "disabled"}, "capabilities", value)
    ask(value.get("createdAt", value["created_at"]) == value["created_at"], "createdAt", value)
    moment(value["created_at"])
    for name in ("tracking_subdomain", "active_tracking_subdomain"):
        ask(LABELS.match(value.get(name, "links")), name, value)
    for one in value.get("records", ()):
        record(one)
    return value


def record(value):
    required = {name: STRING for name in ("record", "name", "type", "value", "ttl", "status")}
    fields(value, required, {"found": STRING, "next_check_at": STRING, "by_operator": BOOLEAN, "earlier": BOOLEAN})
    ask(value["ttl"] == "Auto", "ttl", value)
    ask(value["status"] in RECORD_STATUS, "status", value)
    ask(RECORD_TYPES.get(value["record"]) == value["type"], "type", value)
    if "next_check_at" in value:
        moment(value["next_check_at"])
    return value


def tracking(value, subdomain):
    """The Tracking record of a domain for this subdomain."""
    name = f"{subdomain}.{value['name']}"
    (found,) = [one for one in value["records"] if one["record"] == "Tracking" and one["name"] == name]
    return found


def listing(value, item):
    fields(value, {"object": STRING, "has_more": BOOLEAN, "data": LIST})
    ask(value["object"] == "list", "object", value)
    for one in value["data"]:
        item(one)
    return value["data"]


def item(value):
    """A domain within a list."""
    return domain(value, records=False)


def reference(value, id, kind="domain"):
    fields(value, {"object": STRING, "id": STRING})
    ask(value == {"object": kind, "id": id}, f"expected {id}, got", value)


def removed(value, id, kind="domain"):
    """A domain says besides what becomes of its links."""
    more = {"message": STRING} if kind == "domain" else {}
    fields(value, {"object": STRING, "id": STRING, "deleted": BOOLEAN} | more)
    ask(value["deleted"] is True and value["id"] == id and value["object"] == kind, f"expected {id}, got", value)
    return value


def new_key(value):
    fields(value, {"id": STRING, "token": STRING})
    ask(UUID.match(value["id"]) and len(value["token"]) >= 20, "key", value)
    return value


def key(value):
    """A key within a list: never its token."""
    required = {"id": STRING, "name": STRING, "created_at": STRING, "last_used_at": (STRING, None)}
    fields(value, required, {"permission": STRING, "domains": LIST})
    ask(UUID.match(value["id"]), "id", value)
    for name in ("created_at", "last_used_at"):
        if value[name]:
            moment(value[name])
    return value


def email(value, whole=True):
    """An e-mail as GET has it, or as an item of a list."""
    texts = (LIST, None)
    required = {"id": STRING, "message_id": STRING, "from": STRING, "to": LIST, "cc": texts, "bcc": texts,
                "reply_to": texts, "subject": STRING, "created_at": STRING, "last_event": STRING,
                "scheduled_at": (None,)}
    if whole:
        required |= {"object": STRING, "html": (STRING, None), "text": (STRING, None)}
        fields(value, required, {"recipients": LIST, "report": (OBJECT, None), "tags": (LIST, OBJECT)})
        ask(value["object"] == "email", "object", value)
    else:
        fields(value, required)
    ask(UUID.match(value["id"]), "id", value)
    ask(value["last_event"] in EVENTS, "last_event", value)
    ask(value["to"] and all(type(one) is str for one in value["to"]), "to", value)
    moment(value["created_at"])
    return value


def message(value):
    """An e-mail within a list."""
    return email(value, whole=False)


def moment(text):
    """A time that every SDK parses: ISO 8601 with its offset."""
    ask(datetime.fromisoformat(text).tzinfo is not None, "no offset:", text)
