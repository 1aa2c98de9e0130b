"""The four programs with which receivers verify what they are sent: the SDKs of Node and Python, and the packages
`standardwebhooks` of npm and PyPI. And a signature of our own, for what must be refused for its time alone."""

import base64
import contextlib
import hashlib
import hmac
import json
import pathlib
import threading

import paths  # noqa: F401, I001
import resend
import scripts
import standardwebhooks
from support import run

SCRIPTS = pathlib.Path(__file__).resolve().parent / "node"
NAMES = ("id", "timestamp", "signature")
GLOBAL = threading.Lock()


@contextlib.contextmanager
def python_sdk(caller):
    """The SDK for Python keeps where it goes in its module."""
    with GLOBAL:
        kept = resend.api_url, resend.api_key
        resend.api_url, resend.api_key = f"http://127.0.0.1:{caller.api}", caller.token
        try:
            yield resend
        finally:
            resend.api_url, resend.api_key = kept


class Node(scripts.Node):
    def __init__(self, folder):
        super().__init__(folder, SCRIPTS)

    def script(self, caller, name, *arguments, **variables):
        return self.run(name, *arguments, base=f"http://127.0.0.1:{caller.api}", key=caller.token, **variables)

    def verified(self, sent):
        """For each of these (body, headers, secret): whether the SDK takes it, whether the package does."""
        given = [{"payload": body.decode(), "secret": secret, **headers} for body, headers, secret in sent]
        ended = run("node", self.folder / "verify.mjs", input=json.dumps(given), env=scripts.environment())
        if ended.returncode:
            raise AssertionError(ended.stderr)
        return [tuple(one) for one in json.loads(ended.stdout)]


def headers_of(request):
    """Those that are verified; both families say the same."""
    svix, standard = ({name: request.headers[f"{family}-{name}"] for name in NAMES} for family in ("svix", "webhook"))
    if svix != standard:
        raise AssertionError(f"{svix} and {standard}")
    return svix


def in_python(body, headers, secret):
    """Whether the SDK takes it, whether the package does."""
    try:
        given = {"payload": body.decode(), "headers": headers, "webhook_secret": secret}
        by_sdk = resend.Webhooks.verify(given) == json.loads(body)
    except ValueError:
        by_sdk = False
    try:
        standard = {f"webhook-{name}": value for name, value in headers.items()}
        by_package = standardwebhooks.Webhook(secret).verify(body, standard) == json.loads(body)
    except standardwebhooks.WebhookVerificationError:
        by_package = False
    return by_sdk, by_package


def sign(body, id, timestamp, secret):
    key = base64.b64decode(secret.removeprefix("whsec_"))
    made = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(made).decode()


def signatures(request):
    return request.headers["svix-signature"].split(" ")


def is_signed(request, secret):
    """One of its signatures is made with this secret."""
    right = sign(request.body, request.id, request.headers["svix-timestamp"], secret)
    return right in signatures(request)
