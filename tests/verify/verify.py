"""Says whether a message that the relay sent is the original with nothing changed but what may change.

    verify.py ORIGINAL SENT --host links.shop.example.com [--resolve http://127.0.0.1:8080] [--clicks-off] ...

prints one JSON object; its `violations` is empty and the exit code 0 when all is well. Needs Python 3.11 and html5lib,
and uses no code of the relay: mime.py finds the parts, `email` finds them again, plan.py works out what should happen.

Allowed in the header: `Received` fields put before all others, `X-Trackpost-*` taken away, and with `signed` a
`DKIM-Signature` of the From domain put in for those that were there. In an HTML part: other values of the hrefs
that should be rewritten, and one pixel. In its encoding: changed lines only where a value changed, and 7bit or 8bit
become quoted-printable where a line would pass 998 octets; with `downgraded`, any 8bit part may become so.
Tokens are read, not authenticated: that they verify is seen with `--resolve`, which follows every one of them.
"""

import argparse
import base64
import email
import http.client
import json
import re
import sys
import urllib.parse
from dataclasses import dataclass

import webencodings

import dom
import mime
import plan as planning
import urls
from plan import Policy

MAX_LINE = 998
MAX_QP_LINE = 76


def verify(original, sent, policy=Policy(), signed=False, downgraded=False):
    """The report, as a dict: `changed`, `untouched` (the reason why nothing may be), `links`, `pixel`, `violations`."""
    check = _Check(policy, [], [])
    plan = planning.plan(original, policy)
    original, sent = check.header(original, sent, signed)
    old, new = mime.parse(original), mime.parse(sent)
    # The plan's parts are found again, since taking fields away moved them.
    places = [_path(p) for p in plan.html]
    allowed = [p for p in old.leaves() if _path(p) in places]
    check.parts(original, sent, old, new, allowed, plan, downgraded)
    check.outcome(plan)
    check.second_reader(original, sent)
    return {
        "changed": original != sent,
        "untouched": plan.untouched,
        "skipped": dict(plan.skipped),
        "links": check.links,
        "pixel": check.pixel,
        "violations": check.violations,
    }


@dataclass
class _Check:
    policy: Policy
    links: list
    violations: list
    pixel: dict | None = None

    def fault(self, kind, detail):
        self.violations.append({"kind": kind, "detail": str(detail)[:300]})

    # --- header ----------------------------------------------------------------------------------

    def header(self, original, sent, signed):
        """Both messages without what may differ in their headers; what else differs shows later."""
        old, old_rest = _cut_header(original)
        new, new_rest = _cut_header(sent)
        own = [f for f in old if not f.name.startswith("x-trackpost-")]
        if signed:
            domain = planning.from_domain(mime.parse(original))
            d = re.compile(rf"(?:^|;)\s*d\s*=\s*{re.escape(domain or '?')}\s*(?:;|$)", re.I)
            rest = [[f for f in fields if f.name != "dkim-signature" or not d.search(f.value)] for fields in (own, new)]
            if len(new) - len(rest[1]) > 1:
                self.fault("dkim", "more than one signature of the From domain")
            own, new = rest
        # An original may begin with Received fields of its own: only what stands before all of it was put there.
        added = max(len(new) - len(own), 0)
        while added and new[0].name == "received" and [f.raw for f in new] != [f.raw for f in own]:
            new, added = new[1:], added - 1
        for f in new:
            if f.name.startswith("x-trackpost-"):
                self.fault("header", f"{f.name} was not removed")
        return b"".join(f.raw for f in own) + old_rest, b"".join(f.raw for f in new) + new_rest

    # --- parts -----------------------------------------------------------------------------------

    def parts(self, original, sent, old, new, allowed, plan, downgraded):
        if original == sent:
            return
        before, after = old.leaves(), new.leaves()
        if [_path(p) for p in before] != [_path(p) for p in after]:
            self.fault("structure", f"{len(before)} parts became {len(after)}")
            return
        at_old = at_new = 0
        for one, two in zip(before, after):
            gap_old, gap_new = original[at_old : one.body[0]], sent[at_new : two.body[0]]
            recoded = False
            if gap_old != gap_new:
                recoded = self.recoded(original, sent, one, two, at_old, at_new)
                if not recoded:
                    self.fault(
                        "outside", f"bytes before the body of part {_path(one)} differ: {_first(gap_old, gap_new)}"
                    )
            body_old, body_new = original[slice(*one.body)], sent[slice(*two.body)]
            if body_old != body_new or recoded:
                if one in allowed and plan.untouched is None:
                    self.html(one, two, body_old, body_new, recoded, downgraded)
                elif not (recoded and downgraded and self.same_decoded(one, two, body_old, body_new)):
                    reason = plan.untouched or planning.leaf_reason(one, original)
                    self.fault(
                        "protected", f"part {_path(one)} ({one.type}) changed: {reason}, {_first(body_old, body_new)}"
                    )
            at_old, at_new = one.body[1], two.body[1]
        if original[at_old:] != sent[at_new:]:
            self.fault("outside", f"the end differs: {_first(original[at_old:], sent[at_new:])}")

    def recoded(self, original, sent, one, two, at_old, at_new):
        """Whether the bytes before two bodies differ in the part's own Content-Transfer-Encoding alone."""
        if one.encoding not in ("7bit", "8bit", "binary") or two.encoding != "quoted-printable":
            return False

        def rest(data, part, at):
            kept = [f.raw for f in part.fields if f.name != "content-transfer-encoding"]
            return data[at : part.header[0]], kept, data[part.header[1] : part.body[0]]

        return rest(original, one, min(at_old, one.header[0])) == rest(sent, two, min(at_new, two.header[0]))

    def same_decoded(self, one, two, old, new):
        self.quoted(old, new, recoded=True)
        return self.decoded(one, old) == self.decoded(two, new) is not None

    def decoded(self, part, body):
        try:
            return mime.decode(body, part.encoding)
        except mime.Undecodable as error:
            self.fault("undecodable", f"part {_path(part)}: {error}")
            return None

    # --- one HTML part ---------------------------------------------------------------------------

    def html(self, one, two, body_old, body_new, recoded, downgraded):
        old, new = self.decoded(one, body_old), self.decoded(two, body_new)
        if old is None or new is None:
            return
        charset = planning.html_text(one, b"\0" * one.body[0] + body_old)[1]
        changes = self.align(old, new, charset)
        if changes is None:
            return
        self.encoding(two.encoding, body_old, body_new, old, changes, recoded)
        if recoded and not downgraded and all(len(line) <= MAX_LINE for line in new.split(b"\r\n")):
            self.fault("recoded", f"part {_path(one)} became quoted-printable without need")
        codec = webencodings.lookup(charset).codec_info
        self.dom(codec.decode(old, "replace")[0], codec.decode(new, "replace")[0])

    def align(self, old, new, charset):
        """Walks both texts from one tracking URL to the next. Changes as (start, end) in `old`, or None."""
        at_old = at_new = 0
        changes = []
        for match in self.urls().finditer(new):
            start = match.start()
            if start < at_new:
                continue
            if (
                match["open"]
                and (tag := new.rfind(b"<", at_new, start)) >= 0
                and not self.same(old, new, at_old, at_new, start)
            ):
                end = new.find(b">", start) + 1
                if not self.same(old, new, at_old, at_new, tag):
                    return self.misaligned(old, new, at_old, at_new)
                at_old += tag - at_new
                at_new = end
                changes.append((at_old, at_old))
                self.one_pixel(new[tag:end], match, old, at_old)
                continue
            if not self.same(old, new, at_old, at_new, start):
                return self.misaligned(old, new, at_old, at_new)
            place = at_old + start - at_new
            if old.startswith(match[0], place) and old[place + len(match[0]) :][:1] == new[match.end() :][:1]:
                continue
            quote = new[:start].rstrip(b" \t\r\n\f")[-1:]
            stop = re.compile(re.escape(quote) if quote in (b'"', b"'") else rb"[ \t\r\n\f>]").search(old, place)
            stop_new = re.compile(re.escape(quote) if quote in (b'"', b"'") else rb"[ \t\r\n\f>]").search(
                new, match.end()
            )
            if not stop or not stop_new or new[match.end() : stop_new.start()].strip(b" \t\r\n\f"):
                self.fault("value", f"the value of {match[0]!r} does not end with its token")
                return None
            end = stop.start()
            at_new = match.end()
            # White space inside the quotes after the URL may have been kept.
            kept = new[at_new : stop_new.start()]
            if kept and old[place:end].endswith(kept):
                end -= len(kept)
            self.one_link(old[place:end], match, charset)
            changes.append((place, end))
            at_old = end
        if old[at_old:] != new[at_new:]:
            return self.misaligned(old, new, at_old, at_new)
        return changes

    def urls(self):
        hosts = b"|".join(re.escape(h.encode()) for h in self.policy.hosts)
        return re.compile(
            rb"https?://(?:" + hosts + rb")(?::\d+)?/(?:c/(?P<click>[A-Za-z0-9_-]+)|o/(?P<open>[A-Za-z0-9_-]+)\.gif)"
        )

    def same(self, old, new, at_old, at_new, until):
        return old[at_old : at_old + until - at_new] == new[at_new:until]

    def misaligned(self, old, new, at_old, at_new):
        self.fault("html-bytes", _first(old[at_old:], new[at_new:]))
        return None

    def one_link(self, value, match, charset):
        codec = webencodings.lookup(charset).codec_info
        text = codec.decode(value, "replace")[0]
        # Read back in the other quotes, or an unquoted value would end early.
        quote = "'" if '"' in text else '"'
        attributes = dict(planning.tags(f"<a href={quote}{text}{quote}>")[0][1])
        reason, want = urls.judge(attributes.get("href", ""), charset)
        token = read_token(match["click"], click=True)
        if token is None:
            self.fault("token", f"unreadable: {match[0][:120]!r}")
            return
        self.links.append(token | {"url": match[0].decode()})
        if reason:
            self.fault("destination", f"{want!r} is no link to rewrite: {reason}")
        elif token["destination"] != want:
            self.fault("destination", f"{token['destination']!r} instead of {want!r}")

    def one_pixel(self, tag, match, old, at):
        token = read_token(match["open"], click=False)
        if token is None:
            self.fault("token", f"unreadable: {match[0]!r}")
            return
        if self.pixel:
            self.fault("pixel", "more than one")
        self.pixel = token | {"url": match[0].decode()}
        found = planning.tags(tag.decode("latin-1"))
        name, attributes = found[0] if len(found) == 1 else ("", {})
        style = attributes.get("style", "").replace(" ", "").lower()
        if name != "img" or (attributes.get("width"), attributes.get("height"), attributes.get("alt")) != (
            "1",
            "1",
            "",
        ):
            self.fault("pixel", f"{tag!r} is not a 1 by 1 image with an empty alt")
        if "display:none" in style or "hidden" in attributes or "visibility:hidden" in style:
            self.fault("pixel", f"{tag!r} would not be fetched")
        closing = dom.closing(old)
        bodies = [at for name, at in closing if name == b"body"]
        ends = [at for name, at in closing if name == b"html"]
        place = bodies[-1] if bodies else ends[-1] if ends else None
        if place is not None and old[min(place, at) : max(place, at)].strip():
            self.fault("pixel", f"stands at {at}, not before the closing tag at {place}")

    # --- encodings -------------------------------------------------------------------------------

    def encoding(self, encoding, old, new, decoded, changes, recoded):
        if encoding == "quoted-printable":
            self.quoted(old, new, recoded)
            if not recoded:
                self.untouched_lines(old, new, changes)
        elif encoding == "base64":
            self.base64(old, new, changes)
        else:
            before = set(old.split(b"\r\n"))
            for line in new.split(b"\r\n"):
                if len(line) > MAX_LINE and line not in before:
                    self.fault("line", f"{len(line)} octets: {line[:60]!r}")

    def quoted(self, old, new, recoded):
        before = set() if recoded else set(old.split(b"\r\n"))
        for line in new.split(b"\r\n"):
            if line in before:
                continue
            if len(line) > MAX_QP_LINE and not (
                not recoded and any(len(o) > MAX_QP_LINE and len(o) >= len(line) for o in before)
            ):
                self.fault("qp", f"a line of {len(line)}: {line[:80]!r}")
            if re.search(rb"[^\t\x20-\x7e]|[ \t]$", line) and not any(
                re.search(rb"[^\t\x20-\x7e]|[ \t]$", o) for o in before
            ):
                self.fault("qp", f"bytes that quoted-printable does not have: {line[:80]!r}")

    def untouched_lines(self, old, new, changes):
        """Encoded lines in which nothing changed must be there still, in their order."""
        at, runs, run = 0, [], []
        for line in old.split(b"\r\n"):
            size = len(mime.decode(line + b"\r\n", "quoted-printable"))
            if any(start <= at + size and end >= at for start, end in changes):
                runs.append(run)
                run = []
            else:
                run.append(line)
            at += size
        runs.append(run)
        rest, position = new.split(b"\r\n"), 0
        for run in filter(None, runs):
            while position < len(rest) and rest[position : position + len(run)] != run:
                position += 1
            if position >= len(rest):
                self.fault("qp", f"an untouched line changed, of {len(run)} from {run[0][:76]!r} on")
                return
            position += len(run)

    def base64(self, old, new, changes):
        widths = {len(line) for line in old.split(b"\r\n")}
        if any(len(line) > max(*widths, MAX_QP_LINE) for line in new.split(b"\r\n")):
            self.fault("base64", "lines longer than they were")
        first = changes[0][0] // 3 * 4 if changes else 0
        if _packed(old)[:first] != _packed(new)[:first]:
            self.fault("base64", "differs before the first change")
        lines = old.split(b"\r\n")
        kept = 0
        for i, line in enumerate(lines):
            kept += len(line.strip())
            if kept > first:
                break
            now = new.split(b"\r\n")[i] if i <= new.count(b"\r\n") else b""
            # What was added behind the whole text may fill its last line.
            if now != line and not (kept == first and i + 1 == len(lines) and now.startswith(line)):
                self.fault("base64", f"line {i} before the first change differs")
                break

    # --- what a browser and a second parser see --------------------------------------------------

    def dom(self, old, new):
        before, after = dom.tree(old), dom.tree(new)
        seen = 0
        pixel = self.pixel["url"] if self.pixel else None
        cleaned = []
        for item in after:
            if item[0] == "tag" and item[1] == "img" and pixel and item[2].get("src") == pixel:
                seen += 1
            else:
                cleaned.append(item)
        if pixel and pixel in new and seen != 1:
            self.fault("dom", f"the pixel is {seen} times an element")
        before, after = dom.joined(before), dom.joined(cleaned)
        if len(before) != len(after) and pixel:
            after = dom.without_wrappers(after, before)
        ours = self.urls()
        for a, b in zip(before, after):
            if a == b:
                continue
            if a[0] == b[0] == "tag" and a[1] == b[1]:
                a_rest, b_rest = ({k: v for k, v in x[2].items() if k != "href"} for x in (a, b))
                if a_rest == b_rest and ours.fullmatch(b[2].get("href", "").strip().encode()):
                    continue
            if a[0] == b[0] == "comment" and self.comments_alike(a[1], b[1]):
                continue
            self.fault("dom", f"{a!r} became {b!r}")
            return
        if len(before) != len(after):
            self.fault("dom", f"{len(before)} nodes became {len(after)}")

    def comments_alike(self, old, new):
        return bool(planning.CONDITIONAL.fullmatch(old)) and self.urls().sub(b"", new.encode()) != new.encode()

    def outcome(self, plan):
        want = plan.rewritten
        optional = {link.destination for link in plan.links if link.optional}
        got = [link["destination"] for link in self.links]
        if [d for d in got if d not in optional] != [d for d in want if d not in optional]:
            missing = [d for d in want if got.count(d) < want.count(d)]
            extra = [d for d in got if got.count(d) > want.count(d)]
            self.fault("coverage", f"not rewritten: {missing[:5]}; rewritten: {extra[:5]}; of {len(want)} {len(got)}")
        if plan.pixel != (self.pixel is not None):
            self.fault("pixel", "missing" if plan.pixel else "none was to be")
        if len({(link["message"], link["recipient"]) for link in self.links + [self.pixel] * bool(self.pixel)}) > 1:
            self.fault("token", "tokens of several messages or recipients in one copy")
        indexes = [link["index"] for link in self.links]
        if any(a >= b for a, b in zip(indexes, indexes[1:])):
            self.fault("token", f"link indexes do not rise: {indexes[:20]}")

    def second_reader(self, original, sent):
        """`email` must find the same parts in both, with the same content but for HTML."""
        one, two = (list(email.message_from_bytes(m).walk()) for m in (original, sent))
        if [p.get_content_type() for p in one] != [p.get_content_type() for p in two]:
            self.fault("email", "other parts")
            return
        for a, b in zip(one, two):
            # `email` does not see every boundary that may stand there; then it takes the inside for one body.
            if a.get_content_maintype() == "multipart" or a.is_multipart() or a.get_content_type() == "text/html":
                continue
            if a.get_payload(decode=True) != b.get_payload(decode=True):
                self.fault("email", f"a {a.get_content_type()} part decodes to something else")


def read_token(token, click):
    """The parts of a token (base64url of version, key, message id, recipient, link, destination, MAC), or None."""
    try:
        raw = base64.b64decode(token + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return None
    if len(raw) < 18 + 1 + 16 or raw[0] != 1:
        return None
    message, rest = raw[2:18], raw[18:-16]
    recipient, rest = _index(rest)
    out = {"key": raw[1], "message": message.hex(), "recipient": recipient}
    if click:
        out["index"], rest = _index(rest)
        if not re.fullmatch(rb"[!-~]+", rest):
            return None
        out["destination"] = rest.decode()
    elif rest:
        return None
    return None if None in out.values() else out


def _index(raw):
    if raw[:1] >= b"\x80":
        return (int.from_bytes(raw[:2], "big") & 0x7FFF if len(raw) > 1 else None), raw[2:]
    return (raw[0] if raw else None), raw[1:]


def resolve(report, base):
    """Follows each link of a report at a running tracking host: 302 with the destination; the pixel is a GIF."""
    server = urllib.parse.urlsplit(base)
    for link in report["links"] + [report["pixel"]] * bool(report["pixel"]):
        url = urllib.parse.urlsplit(link["url"])
        connection = http.client.HTTPConnection(server.hostname, server.port, timeout=10)
        connection.request("GET", url.path, headers={"Host": url.netloc})
        answer = connection.getresponse()
        body = answer.read()
        want = link.get("destination")
        ok = (
            answer.status == 302 and answer.getheader("Location") == want
            if want
            else answer.status == 200 and body[:3] == b"GIF"
        )
        if not ok:
            detail = f"{link['url'][:120]}: {answer.status} {answer.getheader('Location')}"
            report["violations"].append({"kind": "resolve", "detail": detail})
        connection.close()


# --- small things ------------------------------------------------------------------------------------


def _cut_header(data):
    root = mime.parse(data[: data.find(b"\r\n\r\n") + 4]) if b"\r\n\r\n" in data else mime.parse(data)
    return root.fields, data[root.header[1] :]


def _path(part):
    """Indexes from the root to a part."""
    path = []
    while part.parent is not None:
        path.append(next(i for i, p in enumerate(part.parent.children) if p is part))
        part = part.parent
    return tuple(reversed(path))


def _packed(body):
    return body.replace(b"\r\n", b"")


def _first(a, b):
    at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    return f"at {at}: {a[max(at - 10, 0) : at + 50]!r} became {b[max(at - 10, 0) : at + 50]!r}"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("original")
    parser.add_argument("sent")
    parser.add_argument("--host", action="append", required=True, help="tracking host; the one in use first")
    parser.add_argument("--resolve", metavar="URL", help="follow every link at a server running there")
    parser.add_argument("--opens-off", action="store_true")
    parser.add_argument("--clicks-off", action="store_true")
    parser.add_argument("--on-signed", choices=("skip", "rewrite"), default="skip")
    parser.add_argument("--signed", action="store_true", help="the relay signs with DKIM")
    parser.add_argument("--downgraded", action="store_true", help="the next hop has no 8BITMIME")
    options = parser.parse_args(arguments)
    policy = Policy(tuple(options.host), not options.opens_off, not options.clicks_off, options.on_signed)
    with open(options.original, "rb") as one, open(options.sent, "rb") as two:
        report = verify(one.read(), two.read(), policy, options.signed, options.downgraded)
    if options.resolve:
        resolve(report, options.resolve)
    json.dump(report, sys.stdout, indent=2)
    print()
    return 1 if report["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
