"""Tests of the checker: that it passes what is right, and names each of the damages that are planted here.

`python3 -m unittest` in this folder. What is right is made by `send`, a plain splicer for the simple messages among the
fixtures; it is no model of the relay.
"""

import base64
import http.server
import re
import threading
import unittest

import webencodings

import fixtures
import mime
import plan
import urls
import verify

HOST = "https://links.shop.example.com"


def token(index, destination=b"", recipient=0, message=b"\x11" * 16):
    numbers = bytes([recipient]) + (
        b"" if index is None else bytes([index]) if index < 128 else (index | 0x8000).to_bytes(2, "big")
    )
    raw = b"\x01\x07" + message + numbers + destination + b"\xee" * 16
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def send(original, policy=plan.Policy()):
    """The message as a relay should send it: every quoted href replaced, the pixel put in, `Received` in front."""
    todo = plan.plan(original, policy)
    wanted, index, out, at = list(todo.rewritten), 0, b"", 0
    for part in todo.html:
        body = original[slice(*part.body)]
        text = mime.decode(body, part.encoding)
        charset = plan.html_text(part, original)[1]
        edits = []
        for match in re.finditer(rb"\bhref=(\"|')(.*?)\1", text, re.I | re.S):
            quoted = webencodings.lookup(charset).codec_info.decode(match[0][5:])[0]
            value = plan.tags(f"<a href={quoted}>")[0][1]["href"]
            if index < len(wanted) and urls.judge(value, charset)[1] == wanted[index]:
                edits.append((*match.span(2), HOST.encode() + b"/c/" + token(index, wanted[index].encode())))
                index += 1
        if todo.pixel and part is todo.html[-1]:
            place = text.lower().rfind(b"</body>")
            image = b'<img src="%s/o/%s.gif" width="1" height="1" alt="">' % (HOST.encode(), token(None))
            edits.append((place, place, image) if place >= 0 else (len(text), len(text), image))
        out += original[at : part.body[0]] + splice(body, part.encoding, edits)
        at = part.body[1]
    return b"Received: from a by b; Tue, 03 Nov 2026 09:30:01 +0000\r\n" + out + original[at:]


def splice(body, encoding, edits):
    if encoding == "base64":
        text = mime.decode(body, encoding)
        width = len(body.split(b"\r\n")[0])
        for start, end, value in reversed(edits):
            text = text[:start] + value + text[end:]
        packed = base64.b64encode(text)
        return b"\r\n".join(packed[i : i + width] for i in range(0, len(packed), width)) + b"\r\n" * body.endswith(
            b"\r\n"
        )
    if encoding != "quoted-printable":
        for start, end, value in reversed(edits):
            body = body[:start] + value + body[end:]
        return body
    # Every decoded byte's place in the encoded text.
    places = [m.start() for m in re.finditer(rb"=\r\n|=[0-9A-F]{2}|.", body, re.S) if m[0] != b"=\r\n"]
    places.append(len(body))
    for start, end, value in reversed(edits):
        pieces = re.findall(rb"(?:=3D|[^=]){1,24}", value.replace(b"=", b"=3D"))
        soft = b"=\r\n" + b"=\r\n".join(pieces) + b"=\r\n"
        body = body[: places[start]] + soft + body[places[end] :]
    return body


def kinds(original, sent, policy=plan.Policy(), **options):
    return [v["kind"] for v in verify.verify(original, sent, policy, **options)["violations"]]


class Passes(unittest.TestCase):
    def test_the_tomls_say_what_the_checker_reads(self):
        self.assertGreaterEqual(len(fixtures.names()), 34)
        for name in fixtures.names():
            self.assertEqual(fixtures.disagreements(name), [], name)

    def test_fixtures_are_fit_for_smtp(self):
        for name in fixtures.names():
            data = fixtures.load(name)[0]
            self.assertEqual(data.count(b"\n"), data.count(b"\r\n"), name)
            self.assertEqual(data.count(b"\r"), data.count(b"\r\n"), name)
            self.assertTrue(data.endswith(b"\r\n"), name)

    def test_what_is_right_passes(self):
        for name in (
            "newsletter",
            "minimal",
            "receipt",
            "base64",
            "base64-other-lines",
            "two-html-parts",
            "forwarded",
            "related-images",
            "outlook-conditional",
            "eightbit",
            "charset-windows-1252",
            "charset-gbk",
            "charset-koi8-r",
            "no-end-tags",
            "preamble-epilogue",
            "odd-boundaries",
            "amp",
            "excluded-links",
            "own-host",
            "schemes",
            "invitation",
            "entities",
        ):
            with self.subTest(name):
                data = fixtures.load(name)[0]
                report = fixtures.check_sent(name, send(data))
                self.assertEqual(report["violations"], [])
                self.assertTrue(report["changed"])

    def test_untouched_passes_where_nothing_may_change(self):
        for name in fixtures.names():
            data, policy, expect, _ = fixtures.load(name)
            if not expect["rewritten"] and not expect["pixel"]:
                sent = (
                    re.sub(rb"(?im)^x-trackpost-[^:]*:.*\r\n(?:[ \t].*\r\n)*", b"", data, count=1)
                    if name.startswith("track-")
                    else data
                )
                self.assertEqual(fixtures.check_sent(name, b"Received: by b\r\n" + sent)["violations"], [], name)

    def test_signed_by_the_relay(self):
        data, policy, _, _ = fixtures.load("dkim-own-domain-rewrite")
        sent = send(data, policy)
        self.assertEqual(kinds(data, sent, policy), [])
        at = sent.index(b"DKIM-Signature")
        end = sent.index(b"\r\nMIME-Version", at) + 2
        resigned = b"DKIM-Signature: v=1; d=shop.example.com; b=AA==\r\n" + sent[:at] + sent[end:]
        self.assertEqual(kinds(data, resigned, policy, signed=True), [])
        self.assertIn("outside", kinds(data, resigned, policy))

    def test_downgraded_for_a_hop_without_8bitmime(self):
        data = fixtures.load("charset-unlabelled")[0]
        sent = send(data)
        changed = quoted_whole(sent).replace(b"8bit", b"quoted-printable", 1)
        self.assertEqual(kinds(data, changed, downgraded=True), [])
        self.assertIn("recoded", kinds(data, changed))

    def test_quoted_printable_where_a_line_would_be_too_long(self):
        for name, field in (("long-line", b"7bit"), ("long-line-no-field", None)):
            data = fixtures.load(name)[0]
            sent = quoted_whole(send(data))
            if field:
                sent = sent.replace(field, b"quoted-printable", 1)
            else:
                sent = sent.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n", 1)
            self.assertEqual(fixtures.check_sent(name, sent)["violations"], [])

    def test_every_link_is_followed(self):
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                clicked = self.path.startswith("/c/")
                self.send_response(302 if clicked else 200)
                if clicked:
                    self.send_header(
                        "Location", verify.read_token(self.path[3:].encode(), True)["destination"] + self.server.spoiled
                    )
                self.end_headers()
                self.wfile.write(b"" if clicked else b"GIF89a")

            def log_message(self, *_):
                pass

        data = fixtures.load("newsletter")[0]
        with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            for server.spoiled, faults in (("", 0), ("x", 21)):
                report = verify.verify(data, send(data))
                verify.resolve(report, f"http://127.0.0.1:{server.server_port}")
                self.assertEqual([v["kind"] for v in report["violations"]], ["resolve"] * faults)
            server.shutdown()


def quoted_whole(sent):
    """A message of one part with its body in quoted-printable; the field is the caller's."""
    head, blank, body = sent.partition(b"\r\n\r\n")
    body = re.sub(rb"[^\r\n !-<>-~]", lambda m: b"=%02X" % m[0][0], body)
    lines = (re.findall(rb"(?:=[0-9A-F]{2}|[^=]){1,24}", line) or [b""] for line in body.split(b"\r\n"))
    return head + blank + b"\r\n".join(b"=\r\n".join(pieces) for pieces in lines)


def replace(old, new, count=1):
    def change(sent):
        assert old in sent, old
        return sent.replace(old, new, count)

    return change


def edit_html(change):
    """Changes the decoded HTML of newsletter's HTML part and encodes all of it again."""

    def apply(sent):
        part = next(p for p in mime.parse(sent).leaves() if p.type == "text/html")
        text = change(mime.decode(sent[slice(*part.body)], "quoted-printable"))
        quoted = re.sub(rb"[^\r\n !-<>-~]", lambda m: b"=%02X" % m[0][0], text)
        lines = (re.findall(rb"(?:=[0-9A-F]{2}|[^=]){1,24}", line) or [b""] for line in quoted.split(b"\r\n"))
        return sent[: part.body[0]] + b"\r\n".join(b"=\r\n".join(pieces) for pieces in lines) + sent[part.body[1] :]

    return apply


def retoken(change):
    """Changes the raw bytes of the second link's token in `minimal`-like messages."""

    def apply(sent):
        match = list(re.finditer(rb"/c/([\w-]+)", sent))[0]
        raw = base64.urlsafe_b64decode(match[1] + b"=" * (-len(match[1]) % 4))
        return sent[: match.start(1)] + base64.urlsafe_b64encode(change(raw)).rstrip(b"=") + sent[match.end(1) :]

    return apply


class Damage(unittest.TestCase):
    """(fixture, what is done to a right message, the kind of violation that must be reported)"""

    TABLE = [
        ("newsletter", replace(b"Subject: =?utf-8", b"Subject: =?UTF-8"), "outside"),
        ("newsletter", replace(b"\r\nMIME-Version", b"\r\nX-Relay: 1\r\nMIME-Version"), "outside"),
        ("newsletter", replace(b"List-ID: The", b"List-ID:  The"), "outside"),
        ("newsletter", replace(b"Reply-To: Example Shop <hello@shop.example.com>\r\n", b""), "outside"),
        ("newsletter", replace(b"Dear Ada,", b"Dear Eve,"), "protected"),
        ("newsletter", replace(b"\r\n--=_letter_5c1e09b4a7d2--\r\n", b"\r\n--=_letter_5c1e09b4a7d2-- \r\n"), "outside"),
        ("newsletter", replace(b"\r\n--=_letter_5c1e09b4a7d2--\r\n", b"\r\n"), "outside"),
        ("newsletter", lambda s: s + b"\r\n", "outside"),
        ("newsletter", replace(b"long&nbsp;evenings", b"long&nbsp; evenings"), "html-bytes"),
        ("newsletter", replace(b"<!DOCTYPE html", b"<!doctype html"), "html-bytes"),
        ("newsletter", edit_html(lambda t: t.replace(b"Read the recipe", b"Read  the recipe")), "html-bytes"),
        ("newsletter", edit_html(lambda t: t), "qp"),
        ("newsletter", edit_html(lambda t: t.replace(b'width="1"', b'width="100"')), "pixel"),
        ("newsletter", edit_html(lambda t: t.replace(b'height="1"', b'height="1" style="display: none"')), "pixel"),
        (
            "newsletter",
            edit_html(lambda t: re.sub(rb"(<img src=\"[^\"]*/o/[^>]*>)(.*?)(</body>)", rb"\2\3", t)),
            "pixel",
        ),
        ("newsletter", edit_html(lambda t: re.sub(rb"(<img src=\"[^\"]*/o/[^>]*>)", rb"\1\1", t)), "pixel"),
        ("newsletter", edit_html(lambda t: re.sub(rb"(<img src=\"[^\"]*/o/[^>]*>)(</body>)", rb"\2\1", t)), "pixel"),
        ("newsletter", replace(b"<a href=3D", b"<a  href=3D"), "html-bytes"),
        ("newsletter", lambda s: s[: s.index(b"<h1")] + s[s.index(b"<h1") :].replace(b"=\r\n", b"", 1), "qp"),
        (
            "outlook-conditional",
            lambda s: re.sub(rb"(<img src=\"[^\"]*/o/[^>]*>)", b"", s).replace(
                b"<!-- a", re.search(rb"<img src=\"[^\"]*/o/[^>]*>", s)[0] + b"<!-- a"
            ),
            "pixel",
        ),
        (
            "outlook-conditional",
            lambda s: re.sub(rb"(<img src=\"[^\"]*/o/[^>]*>)", b"", s).replace(
                b" a comment", re.search(rb"<img src=\"[^\"]*/o/[^>]*>", s)[0] + b" a comment"
            ),
            "dom",
        ),
        (
            "outlook-conditional",
            replace(
                b"https://shop.example.com/in-a-comment",
                HOST.encode() + b"/c/" + token(9, b"https://shop.example.com/in-a-comment"),
            ),
            "coverage",
        ),
        ("minimal", retoken(lambda raw: raw.replace(b"shop.example", b"shop.axample")), "destination"),
        ("minimal", retoken(lambda raw: b"\x02" + raw[1:]), "token"),
        ("minimal", retoken(lambda raw: raw[:2] + b"\x22" * 16 + raw[18:]), "token"),
        ("minimal", retoken(lambda raw: raw[:18] + b"\x05" + raw[19:]), "token"),
        ("minimal", replace(b'">come in', b'&amp;x">come in'), "value"),
        ("invitation", retoken(lambda raw: raw[:19] + b"\x05" + raw[20:]), "token"),
        ("entities", retoken(lambda raw: raw.replace(b"a=1&b", b"a=1&amp;b")), "destination"),
        ("base64", lambda s: re.sub(rb"(?m)^(.{60})(.{16})\r\n(.{60})", rb"\1\r\n\2\3\r\n", s, count=1), "base64"),
        ("base64", lambda s: s[:-6] + b"!" + s[-5:], "undecodable"),
        ("eightbit", lambda s: s.replace("Où".encode(), b"O\xf9"), "html-bytes"),
        ("eightbit", replace(b"\r\n<img", b"<img"), "html-bytes"),
        ("forwarded", replace(b"X-Trackpost-Track: none\r\n", b""), "protected"),
        (
            "forwarded",
            replace(
                b"https://shop.example.com/in-part",
                HOST.encode() + b"/c/" + token(3, b"https://shop.example.com/in-part"),
            ),
            "protected",
        ),
        (
            "amp",
            replace(
                b"https://shop.example.com/amp", HOST.encode() + b"/c/" + token(3, b"https://shop.example.com/amp")
            ),
            "protected",
        ),
        ("preamble-epilogue", replace(b"This is a multi-part", b"This is  a multi-part"), "outside"),
        (
            "preamble-epilogue",
            replace(b"https://shop.example.com/epilogue", b"https://shop.example.com/epilogues"),
            "outside",
        ),
        (
            "excluded-links",
            replace(
                b'https://shop.example.com/1"', HOST.encode() + b"/c/" + token(90, b"https://shop.example.com/1") + b'"'
            ),
            "coverage",
        ),
        ("related-images", replace(b"iVBOR", b"iVBOS"), "protected"),
    ]

    def test_each_is_found(self):
        for row, (name, damage, kind) in enumerate(self.TABLE):
            with self.subTest(row=row, fixture=name, kind=kind):
                data = fixtures.load(name)[0]
                right = send(data)
                damaged = damage(right)
                self.assertNotEqual(damaged, right)
                self.assertIn(kind, kinds(data, damaged))

    def test_a_message_that_may_not_change(self):
        for name in (
            "signed-smime",
            "signed-pgp",
            "inline-pgp",
            "delivery-report",
            "missing-closing-boundary",
            "dkim-own-domain",
            "track-none",
        ):
            data, policy, _, _ = fixtures.load(name)
            target = b"https://shop.example.com/in-part"
            sent = data.replace(target, HOST.encode() + b"/c/" + token(0, target)).replace(
                b"X-Trackpost-Track: none\r\n", b""
            )
            found = kinds(data, sent, policy)
            self.assertTrue({"protected", "outside"} & set(found), (name, found))

    def test_left_alone_without_reason(self):
        data = fixtures.load("newsletter")[0]
        self.assertEqual(kinds(data, data), ["coverage", "pixel"])

    def test_an_own_field_that_stays(self):
        data = fixtures.load("track-none")[0]
        self.assertIn("header", kinds(data, data))

    def test_a_long_line(self):
        data, policy, _, _ = fixtures.load("long-line")
        self.assertIn("line", kinds(data, send(data), policy))


class Reading(unittest.TestCase):
    def test_destinations(self):
        for value, charset, want in [
            ("https://a.example/x", "utf-8", (None, "https://a.example/x")),
            (" HTTPS://A.example/%7e ", "utf-8", (None, "HTTPS://A.example/%7e")),
            ("https://ä.example:443/ü/../ö?ß#é", "utf-8", (None, "https://xn--4ca.example/%C3%B6?%C3%9F#%C3%A9")),
            ("http://a.example/é/.", "utf-8", (None, "http://a.example/%C3%A9/")),
            ("https://a.example?é", "iso-8859-2", (None, "https://a.example/?%E9")),
            ("https://a.example/?я", "windows-1252", (None, "https://a.example/?%26%231103%3B")),
            ("https://é b.example/", "utf-8", ("malformed-url", "https://é b.example/")),
            ("//a.example", "utf-8", ("relative", "//a.example")),
            ("java\nscript:x", "utf-8", ("other-scheme", "javascript:x")),
            ("http:/a", "utf-8", ("malformed-url", "http:/a")),
        ]:
            self.assertEqual(urls.judge(value, charset), want)

    def test_tokens(self):
        wide = b"\x01\x07" + b"\x11" * 16 + b"\x83\xe7" + b"\x93\x87" + b"http://a" + b"\0" * 16
        found = verify.read_token(base64.urlsafe_b64encode(wide).rstrip(b"="), click=True)
        self.assertEqual((found["recipient"], found["index"], found["destination"]), (999, 4999, "http://a"))
        self.assertIsNone(verify.read_token(b"AQ", click=True))
        self.assertIsNone(verify.read_token(token(None) + b"!", click=False))

    def test_parameters(self):
        for value, want in [
            ("a/b; c=d", ("a/b", {"c": "d"})),
            ('A/B (x; c=no) ; C="d;\\"e" ; f=g(h)', ("a/b", {"c": 'd;"e', "f": "g"})),
            ("a/b; c*0=x; c*1=y; d*=utf-8'en'%41z", ("a/b", {"c": "xy", "d": "Az"})),
        ]:
            self.assertEqual(mime.parameters(value), want)

    def test_parts(self):
        data = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b \r\nX: y\r\n\r\ntwo\r\n--bb\r\n--b--\r\nend"
        root = mime.parse(data)
        self.assertEqual([data[slice(*p.body)] for p in root.leaves()], [b"one", b"two\r\n--bb"])
        self.assertEqual(mime.parse(data[:-10]).defects, ["no closing boundary"])


if __name__ == "__main__":
    unittest.main()
