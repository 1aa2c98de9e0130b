"""What a relay may do to a message, worked out without the relay: which links it must rewrite, to which
destinations, what it must leave and why, and whether the message gets a pixel.

HTML is read by html5lib: its tokens in source order, as its tree builder sees them, so that scripts, style sheets
and text areas are what they are in a browser. URLs are judged by urls.py.
Counts and reasons are those of the fixtures (see fixtures.py).
"""

import re
from collections import Counter
from dataclasses import dataclass, field

import html5lib
import webencodings
from html5lib.constants import tokenTypes

import mime
import urls

MAX_LINK = 2000
MAX_LINKS = 5000
MAX_HTML = 8 * 1024 * 1024


@dataclass
class Policy:
    hosts: tuple = ("links.shop.example.com",)
    open: bool = True
    click: bool = True
    on_signed: str = "skip"


@dataclass
class Link:
    """`reason` is None for a link that must be rewritten to `destination`. `optional`: either way is right."""

    destination: str
    reason: str | None
    optional: bool = False


@dataclass
class Plan:
    untouched: str | None = None
    links: list = field(default_factory=list)
    skipped: Counter = field(default_factory=Counter)
    pixel: bool = False
    html: list = field(default_factory=list)

    @property
    def rewritten(self):
        return [link.destination for link in self.links if link.reason is None and not link.optional]


def plan(data, policy):
    """The plan for a message, given as bytes. `Plan.html` has the parts that may change, in order."""
    root = mime.parse(data)
    opens, clicks = asked(root, policy)
    if (opens, clicks) == (False, False):
        return Plan("asked-by-header" if policy.open or policy.click else "disabled")
    reason = whole(root, data, policy)
    if reason:
        return Plan(reason)
    out, parts = Plan(), Counter()
    for leaf in root.leaves():
        reason = leaf_reason(leaf, data)
        if reason is None:
            out.html.append(leaf)
        elif reason != "not-html":
            parts[reason] += 1
    # Parts inside one signed or encrypted container are one thing to the sender.
    for reason in ("signed-part", "encrypted-part"):
        if parts[reason]:
            parts[reason] = 1
    final = [reason for reason in parts if reason not in ("attachment", "embedded-message", "amp")]
    if not out.html and final:
        return Plan(final[0])
    out.skipped += parts
    out.pixel = opens and bool(out.html)
    if clicks:
        unsubscribe = list_unsubscribe(root)
        for leaf in out.html:
            text, charset = html_text(leaf, data)
            out.links += links_of(text, charset, policy, unsubscribe)
        if len(out.links) > MAX_LINKS:
            return Plan("too-many-links")
        out.skipped += Counter(link.reason for link in out.links if link.reason)
    return out


def asked(root, policy):
    """(opens, clicks) after the fields with which a message asks for less."""
    opens, clicks = policy.open, policy.click

    def says(name, *values):
        return any(f.name == name and f.value.lower() in values for f in root.fields)

    if says("x-trackpost-track", "none") or says("x-mailgun-track", "no", "false"):
        return False, False
    if says("x-trackpost-track", "opens") or says("x-pm-tracklinks", "none", "textonly"):
        clicks = False
    if says("x-mailgun-track-clicks", "no", "false") or says("x-mailjet-trackclick", "0"):
        clicks = False
    if says("x-trackpost-track", "clicks") or says("x-pm-trackopens", "false"):
        opens = False
    if says("x-mailgun-track-opens", "no", "false") or says("x-mailjet-trackopen", "0"):
        opens = False
    return opens, clicks


def whole(root, data, policy):
    """Why no part of the message may change, or None."""
    for part in root.walk():
        for limit in ("too-deep", "too-many-parts"):
            if limit in part.defects:
                return limit
        if part.defects and (part is root or part.type.startswith("multipart/")):
            return "broken-structure"
    if root.type == "multipart/report":
        return "report"
    if policy.on_signed == "skip" and from_domain(root) in dkim_domains(root):
        return "dkim-signed"
    for leaf in root.leaves():
        if leaf.type in ("text/plain", "text/html") and leaf.disposition != "attachment":
            try:
                text = mime.decode(data[slice(*leaf.body)], leaf.encoding)
            except mime.Undecodable:
                continue
            if re.search(rb"-----BEGIN PGP (?:SIGNED )?MESSAGE-----", text):
                return "inline-pgp"
    return None


def leaf_reason(leaf, data):
    """Why a part may not change: a reason, "not-html", or None for an HTML body."""
    for part in leaf.ancestors():
        if part.type == "multipart/signed":
            return "signed-part"
        if part.type == "multipart/encrypted":
            return "encrypted-part"
        if part.type == "multipart/report":
            return "report"
    if leaf.type in ("application/pkcs7-mime", "application/x-pkcs7-mime"):
        return "pkcs7"
    if leaf.type in ("message/rfc822", "message/global"):
        return "embedded-message"
    if leaf.type == "text/x-amp-html":
        return "amp"
    if leaf.type != "text/html" or (leaf.header[1] == leaf.body[0] and leaf.header[0] != leaf.header[1]):
        # An HTML part that ends with its header has no body to show; bytes put there would be header.
        return "not-html"
    if leaf.disposition == "attachment":
        return "attachment"
    if leaf.defects:
        return "broken-structure"
    if leaf.encoding not in ("7bit", "8bit", "binary", "quoted-printable", "base64"):
        return "unknown-encoding"
    label = leaf.params.get("charset", "").strip()
    known = webencodings.lookup(label) if label else None
    if label and (known is None or known.name in ("iso-2022-jp", "utf-16le", "utf-16be", "replacement")):
        return "charset"
    try:
        body = mime.decode(data[slice(*leaf.body)], leaf.encoding)
    except mime.Undecodable:
        return "undecodable"
    return "too-large" if len(body) > MAX_HTML else None


def html_text(leaf, data):
    """The text of an HTML part and the name of its charset: the parameter's, else the <meta>'s, else UTF-8."""
    body = mime.decode(data[slice(*leaf.body)], leaf.encoding)
    label = leaf.params.get("charset", "").strip()
    if not label:
        meta = re.search(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([\w.:-]+)", body[:4096], re.I)
        label = meta[1].decode() if meta else "utf-8"
    encoding = webencodings.lookup(label) or webencodings.UTF8
    return encoding.codec_info.decode(body, "replace")[0], encoding.name


def from_domain(root):
    addresses = re.findall(r"@([A-Za-z0-9.-]+)", root.get("from") or "")
    return addresses[-1].lower() if addresses else None


def dkim_domains(root):
    values = [f.value for f in root.fields if f.name == "dkim-signature"]
    return {m.lower() for v in values for m in re.findall(r"(?:^|;)\s*d\s*=\s*([^;\s]+)", v)}


def list_unsubscribe(root):
    values = [f.value for f in root.fields if f.name == "list-unsubscribe"]
    return {re.sub(r"\s", "", url) for v in values for url in re.findall(r"<([^>]*)>", v)}


# --- HTML --------------------------------------------------------------------------------------------


class _Keeping:
    """A tokenizer that keeps a copy of what it hands on. The tree builder changes tokens and sets our state."""

    def __init__(self, inner, kept):
        self.__dict__.update(_inner=inner, _kept=kept)

    def __iter__(self):
        for token in self._inner:
            if token["type"] in (tokenTypes["StartTag"], tokenTypes["EmptyTag"]):
                self._kept.append((token["name"], dict(token["data"])))
            elif token["type"] == tokenTypes["Comment"]:
                self._kept.append(("!", token["data"]))
            yield token

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def __setattr__(self, name, value):
        setattr(self._inner, name, value)


class _Parser(html5lib.HTMLParser):
    def mainLoop(self):
        self.kept = []
        self.tokenizer = _Keeping(self.tokenizer, self.kept)
        super().mainLoop()


def tags(text):
    """Start tags as (name, attributes) and comments as ("!", text), in source order."""
    parser = _Parser(tree=html5lib.getTreeBuilder("etree"))
    parser.parse(text)
    return parser.kept


CONDITIONAL = re.compile(r"\s*\[if\b[^\]]*\]>(.*)<!\[endif\]\s*", re.S | re.I)


def links_of(text, charset, policy, unsubscribe=frozenset(), inside=False):
    """The links of an HTML text in source order, those in conditional comments included."""
    out = []
    for name, attributes in tags(text):
        if name == "!":
            condition = CONDITIONAL.fullmatch(attributes)
            if condition and not inside:
                out += links_of(condition[1], charset, policy, unsubscribe, inside=True)
            continue
        vml = name.startswith("v:")
        if (name not in ("a", "area") and not vml) or "href" not in attributes:
            continue
        reason, destination = urls.judge(attributes["href"], charset)
        if reason is None:
            reason = exclusion(attributes, destination, policy, unsubscribe)
        if vml and reason and not inside:
            continue
        out.append(Link(destination, reason, optional=vml and not inside))
    return out


EXCLUDING = {
    "data-track": "off",
    "ses:no-track": None,
    "clicktracking": "off",
    "data-pm-no-track": None,
    "data-msys-clicktrack": "0",
    "data-msys-unsubscribe": "1",
    "mc:disable-tracking": None,
    "disable-tracking": None,
}


def exclusion(attributes, destination, policy, unsubscribe):
    for name, value in EXCLUDING.items():
        if name in attributes and (value is None or attributes[name].strip().lower() == value):
            return "excluded"
    if urls.host_of(destination) in policy.hosts:
        return "own-host"
    if destination in unsubscribe:
        return "list-unsubscribe"
    if len(f"https://{policy.hosts[0]}/c/") + -(-(36 + len(destination)) * 4 // 3) > MAX_LINK:
        return "too-long"
    return None
