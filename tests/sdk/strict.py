"""What the SDKs that are not run here would make of an answer: for each, the types that it parses into, as far as a
wrong one is an exception, or null, or a success taken for an error.

A reader takes one JSON value, and raises Mismatch where the SDK's own would fail. Whether the API is true to its
contract is contract.py's.
"""

import re
from datetime import datetime


class Mismatch(Exception):
    pass


def need(condition, value, wanted):
    if not condition:
        raise Mismatch(f"{value!r} is no {wanted}")


def exactly(kind, wanted):
    def read(value):
        need(type(value) is kind, value, wanted)
    return read


string, integer, boolean = exactly(str, "string"), exactly(int, "integer"), exactly(bool, "boolean")


def anything(value):
    pass


def nullable(reader):
    return lambda value: value is None or reader(value)


def one_of(*words):
    def read(value):
        need(value in words and type(value) is str, value, f"word of {words}")
    return read


def matching(pattern, wanted):
    def read(value):
        need(type(value) is str and re.fullmatch(pattern, value), value, wanted)
    return read


def listed(reader):
    def read(value):
        need(type(value) is list, value, "list")
        for one in value:
            reader(one)
    return read


def fields(required=(), **readers):
    """An object; fields that are not named are ignored, as all eight SDKs do."""
    def read(value):
        need(type(value) is dict, value, "object")
        for name in required:
            need(name in value, value, f"object with {name}")
        for name, reader in readers.items():
            if name in value:
                try:
                    reader(value[name])
                except Mismatch as fault:
                    raise Mismatch(f"{name}: {fault}") from None
    return read


DOMAIN_STATUS = ("pending", "verified", "failed", "not_started", "partially_verified", "partially_failed")
RECORD_STATUS = ("pending", "verified", "failed", "temporary_failure", "not_started")
REGIONS = ("us-east-1", "eu-west-1", "sa-east-1", "ap-northeast-1")
RATE = ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "retry-after")
# The error names of which both .NET's enumeration and PHP's list know.
NAMES = (
    "application_error", "concurrent_idempotent_requests", "daily_quota_exceeded", "internal_server_error",
    "invalid_access", "invalid_api_key", "invalid_attachment", "invalid_from_address", "invalid_idempotency_key",
    "invalid_idempotent_request", "invalid_parameter", "invalid_region", "method_not_allowed", "missing_api_key",
    "missing_required_field", "monthly_quota_exceeded", "not_found", "rate_limit_exceeded", "restricted_api_key",
    "security_error", "validation_error",
)


class Sdk:
    """How an SDK reads a whole answer; `kinds` are the types of successes by name, `error` is that of errors."""

    kinds, error = {}, fields()

    def read(self, answer, value, kind):
        """`value` is the parsed body of an answer; `kind` is what was asked for."""
        self.headers(answer)
        if answer.status >= 400:
            type(self).error(value)
        else:
            self.kinds.get(kind, anything)(value)

    def headers(self, answer):
        need("application/json" in answer.headers.get("content-type", ""), answer.headers, "JSON")


class Rust(Sdk):
    """serde: what is not marked optional must be there, and enumerations are closed, but for error names."""

    by_record = {"SPF": ("MX", "TXT", "CNAME"), "DKIM": ("CNAME", "TXT"), "Receiving MX": ("MX",),
                 "Tracking": ("CNAME",), "TrackingCAA": ("CAA",)}
    capability = one_of("enabled", "disabled")

    def record(value):
        fields(("record", "name", "type", "value", "ttl", "status"), record=one_of(*Rust.by_record), name=string,
               value=string, ttl=string, status=one_of(*RECORD_STATUS), priority=nullable(integer))(value)
        need(value["type"] in Rust.by_record[value["record"]], value["type"], f"type of {value['record']}")

    domain = fields(
        ("id", "name", "status", "created_at", "region", "capabilities"), id=string, name=string, created_at=string,
        status=one_of(*DOMAIN_STATUS), region=one_of(*REGIONS), open_tracking=nullable(boolean),
        click_tracking=nullable(boolean), records=nullable(listed(record)),
        capabilities=fields(("sending", "receiving"), sending=capability, receiving=capability),
    )
    reference = fields(("id",), id=string)
    email = fields(("id", "from", "to", "subject", "created_at", "last_event"), **{
        "id": string, "from": string, "to": listed(string), "subject": string, "created_at": string,
        "last_event": one_of("bounced", "canceled", "clicked", "complained", "delivered", "delivery_delayed", "failed",
                             "opened", "queued", "scheduled", "sent"),
    })
    key = fields(("id", "name", "created_at"), id=string, name=string, created_at=string)

    def listing(item):
        return fields(("data", "has_more"), data=listed(item), has_more=boolean)

    kinds = {
        "domain": domain, "domains": listing(domain), "update": reference, "verify": reference,
        "remove": fields(("id", "deleted"), id=string, deleted=boolean),
        "new key": fields(("id", "token"), id=string, token=string), "keys": listing(key), "email": email,
        "emails": listing(email),
    }
    error = fields(("message", "name", "statusCode"), message=string, name=string, statusCode=integer)


class DotNet(Sdk):
    """System.Text.Json: a field may be absent, but not null where its type is a value; enumerations are closed."""

    guid = matching(r"(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "Guid")

    def date(value):
        string(value)
        try:
            datetime.fromisoformat(value.replace("+00", "+00:00") if value.endswith("+00") else value)
        except ValueError:
            raise Mismatch(f"{value!r} is no DateTime") from None

    record = fields(record=nullable(string), name=nullable(string), value=nullable(string), type=nullable(string),
                    ttl=nullable(string), priority=nullable(integer), status=one_of(*RECORD_STATUS))
    domain = fields(
        id=guid, name=nullable(string), status=one_of(*DOMAIN_STATUS), created_at=date, region=one_of(*REGIONS),
        open_tracking=nullable(boolean), click_tracking=nullable(boolean), tracking_subdomain=nullable(string),
        capabilities=nullable(fields(sending=nullable(string), receiving=nullable(string))),
        records=nullable(listed(record)),
    )
    kinds = {
        "domain": domain, "domains": fields(("data",), data=listed(domain)),
        "new key": fields(("id", "token"), id=guid, token=string), "rename": fields(("id",), id=guid),
        "keys": fields(("data",), data=listed(fields(id=guid, name=nullable(string), created_at=date))),
    }
    error = fields(("statusCode", "name", "message"), statusCode=integer, name=one_of(*NAMES), message=nullable(string))

    def headers(self, answer):
        """Converted without a catch; an answer with anything but integers there is lost."""
        super().headers(answer)
        for name in RATE:
            matching(r"[+-]?\d{1,9}", f"int in {name}")(answer.headers.get(name, "0"))


class Java(Sdk):
    """Jackson: a wrong type gives null or is coerced, in silence, so that each must be right to begin with."""

    record = fields(record=string, name=string, type=string, ttl=string, status=string, value=string, priority=integer)
    domain = fields(("id", "name", "status", "created_at", "region"), id=string, name=string, status=string,
                    created_at=string, region=string, open_tracking=boolean, click_tracking=boolean, object=string,
                    tracking_subdomain=string, records=listed(record), dnsProvider=string)
    reference = fields(("id", "object"), id=string, object=string)
    kinds = {
        "domain": domain, "domains": fields(("data", "object"), data=listed(domain), has_more=boolean, object=string),
        "update": reference, "verify": reference,
        "remove": fields(("id", "object", "deleted"), id=string, object=string, deleted=boolean),
        "new key": fields(("id", "token"), id=string, token=string),
        "keys": fields(("data",), data=listed(fields(("id", "name", "created_at"), id=string, name=string))),
    }
    error = fields(("statusCode", "name", "message"), statusCode=integer, name=string, message=string)


class Go(Sdk):
    """encoding/json: null and absent are the zero value, another type than the field's is an error."""

    text, flag = nullable(string), nullable(boolean)

    def number(value):
        """json.Number takes a number, or a string that is one."""
        matching(r"-?\d+(\.\d+)?|", "json.Number")(value if type(value) is str else str(value))

    record = fields(record=text, name=text, type=text, ttl=text, status=text, value=text, priority=nullable(number))
    domain = fields(
        id=text, object=text, name=text, created_at=text, createdAt=text, status=text, region=text, dnsProvider=text,
        open_tracking=flag, click_tracking=flag, tracking_subdomain=text, records=nullable(listed(record)),
        capabilities=nullable(fields(sending=text, receiving=text)),
    )
    kinds = {
        "domain": domain, "update": domain, "new key": fields(id=text, token=text),
        "rename": fields(object=text, id=text),
        "domains": fields(object=text, data=nullable(listed(domain)), has_more=flag),
        "keys": fields(object=text, has_more=flag,
                       data=nullable(listed(fields(id=text, name=text, created_at=text, last_used_at=text)))),
    }
    error = fields(("message",), message=string, name=string, statusCode=integer)

    def headers(self, answer):
        need(answer.headers.get("content-type", "").startswith("application/json"), answer.headers, "JSON")

    def read(self, answer, value, kind):
        super().read(answer, value, kind)
        if kind == "domain" and answer.status == 201:
            # Its type for this answer alone has another name for it.
            fields(("createdAt",))(value)


class Php(Sdk):
    """Arrays: a success must be an object that is not empty, and with `data` it becomes a collection; of errors it sees
    those whose names it knows."""

    error = fields(("name", "message"), name=one_of(*NAMES), message=string)

    def read(self, answer, value, kind):
        super().read(answer, value, kind)
        need(type(value) is dict and value, value, "object with something in it")
        if answer.status < 400:
            need(("data" in value) == kind.endswith("s"), sorted(value), f"{kind} (a collection has `data`)")
        need("error" not in value, sorted(value), "answer without `error`")


class Ruby(Sdk):
    """`statusCode` in the body alone tells errors from successes."""

    error = fields(("statusCode", "message"), statusCode=integer, message=string)

    def read(self, answer, value, kind):
        super().read(answer, value, kind)
        need(type(value) is dict, value, "object")
        code = value.get("statusCode")
        if answer.status < 400:
            need(code in (None, 200, 201), code, "success")
        else:
            need(code == answer.status, code, f"statusCode of {answer.status}")


SDKS = {"rust": Rust(), "dotnet": DotNet(), "java": Java(), "go": Go(), "php": Php(), "ruby": Ruby()}
