"""The relay's REST API as a program without an SDK uses it: urllib, JSON, one function a call."""

import dataclasses
import json
import urllib.error
import urllib.request

TIMEOUT = 30


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int
    headers: object
    body: object


def call(server, method, path, body=None):
    """An answer, whatever its status. A body that is no JSON is a fault in every case."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{server.api}{path}", data, method=method)
    request.add_header("Authorization", f"Bearer {server.token}")
    if data is not None:
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as got:
            return Answer(got.status, got.headers, json.load(got))
    except urllib.error.HTTPError as refused:
        with refused:
            return Answer(refused.code, refused.headers, json.loads(refused.read()))


def done(server, status, *arguments):
    """The body of an answer that must have this status."""
    answer = call(server, *arguments)
    if answer.status != status:
        raise AssertionError(f"{arguments}: {answer.status} {answer.body}")
    return answer.body


def create(server, name, subdomain="links", **fields):
    """A domain with both kinds of tracking."""
    asked = {"name": name, "open_tracking": True, "click_tracking": True} | fields
    return done(server, 201, "POST", "/domains", asked | ({"tracking_subdomain": subdomain} if subdomain else {}))


def fetch(server, domain):
    return done(server, 200, "GET", f"/domains/{domain['id']}")


def update(server, domain, **fields):
    return done(server, 200, "PATCH", f"/domains/{domain['id']}", fields)


def verify(server, domain):
    """Starts a check. What was found is there when DNS was not slow: then the answer waits for it."""
    done(server, 200, "POST", f"/domains/{domain['id']}/verify")
    return fetch(server, domain)


def remove(server, domain):
    return done(server, 200, "DELETE", f"/domains/{domain['id']}")


def record(domain, host=None, kind="Tracking"):
    """The one record of a kind, of a host where there are several; None where there is none."""
    found = [one for one in domain["records"] if one["record"] == kind and host in (None, one["name"])]
    if len(found) > 1:
        raise AssertionError(f"several: {found}")
    return found[0] if found else None


def status(domain, host=None, kind="Tracking"):
    found = record(domain, host, kind)
    return found and found["status"]
