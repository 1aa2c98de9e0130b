"""What a webhook's body must be, whole and closed, as the contract has each kind of event."""

import re

import paths  # noqa: F401, I001
from contract import BOOLEAN, LIST, OBJECT, REGIONS, STRING, UUID, ask, fields, moment, record

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")
# What it was taken for is ours; all clients let it pass.
VISIT = {"ipAddress": STRING, "timestamp": STRING, "userAgent": STRING, "machine": BOOLEAN, "class": STRING}
# What a kind has besides what all e-mails have.
MORE = {
    "email.sent": {}, "email.delivered": {}, "email.delivery_delayed": {},
    "email.bounced": {"bounce": {"message": STRING, "subType": STRING, "type": STRING, "diagnosticCode": LIST}},
    "email.opened": {"open": VISIT}, "email.clicked": {"click": VISIT | {"link": STRING}},
    "email.failed": {"failed": {"reason": STRING}},
}
BOUNCES = {"Undetermined", "Transient", "Permanent"}
# One client breaks on partially_*, another on temporary_failure.
DOMAIN_STATUS = {"not_started", "pending", "verified", "failed"}


def time(text):
    ask(TIME.match(text), "no ISO 8601 in UTC with milliseconds:", text)
    moment(text)


def event(value):
    """Three keys and no fourth."""
    fields(value, {"type": STRING, "created_at": STRING, "data": OBJECT})
    time(value["created_at"])
    (email if value["type"] in MORE else domain)(value["data"], value["type"])
    return value


def email(data, kind):
    more = MORE[kind]
    required = {"created_at": STRING, "email_id": STRING, "message_id": STRING, "from": STRING, "to": LIST,
                "subject": STRING} | {name: OBJECT for name in more}
    fields(data, required, {"tags": OBJECT})
    time(data["created_at"])
    ask(UUID.match(data["email_id"]), "email_id", data)
    ask(re.fullmatch(r"<[^<>\s]+>", data["message_id"]), "message_id", data)
    ask(len(data["to"]) == 1 and type(data["to"][0]) is str, "to is the recipient of this copy:", data)
    ask(all(type(one) is str for one in data.get("tags", {}).values()), "tags", data)
    for name, shape in more.items():
        fields(data[name], shape, {"reason": STRING} if "class" in shape else {})
        if "timestamp" in shape:
            time(data[name]["timestamp"])
            ask(data[name]["machine"] == (data[name]["class"] == "machine"), "machine", data)
            ask(("reason" in data[name]) == (data[name]["class"] != "human"), "reason", data)
    if kind == "email.bounced":
        ask(data["bounce"]["type"] in BOUNCES, "type", data)
        ask(all(type(one) is str for one in data["bounce"]["diagnosticCode"]), "diagnosticCode", data)


def domain(data, kind):
    ask(kind in ("domain.created", "domain.updated", "domain.deleted"), "no kind of ours:", kind)
    required = {"id": STRING, "name": STRING, "created_at": STRING, "status": STRING, "open_tracking": BOOLEAN,
                "click_tracking": BOOLEAN, "capabilities": OBJECT, "region": STRING, "records": LIST}
    fields(data, required, {"tracking_subdomain": STRING})
    time(data["created_at"])
    ask(UUID.match(data["id"]) and data["region"] in REGIONS, "id or region", data)
    ask(data["status"] in DOMAIN_STATUS, "status", data)
    ask(data["capabilities"] == {"sending": "enabled", "receiving": "disabled"}, "capabilities", data)
    for one in data["records"]:
        record(one)
        ask(one.keys() == {"record", "name", "type", "ttl", "status", "value"}, "record", one)
