"""What a browser makes of an href: the WHATWG URL standard, as far as links in mail go.

`judge` sorts links into those to rewrite and the reasons to leave one; printable ASCII stays as it is, all else is
written as a browser would request it. Hosts are mapped without the tables of UTS 46: NFKC, lower case, Punycode.
"""

import re
import unicodedata

import webencodings

PLACEHOLDER = re.compile(r"\{\{|\}\}|\{%|\*\||\|\*|%%\w+%%|\$\{|<%|\[\[")


def judge(value, charset="utf-8"):
    """(reason, destination) for an href after character references are decoded; the reason is None for a link."""
    url = re.sub(r"[\t\n\r]", "", value.strip("".join(map(chr, range(0x21)))))
    if PLACEHOLDER.search(url):
        return "placeholder", url
    if url.startswith("#"):
        return "fragment", url
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", url)
    if not scheme:
        return "relative", url
    if scheme[0].lower() not in ("http:", "https:"):
        return "other-scheme", url
    if not re.match(r"https?://[^/\\?#]", url, re.I):
        return "malformed-url", url
    if re.fullmatch(r"[!-~]+", url):
        return None, url
    try:
        return None, request_url(url, charset)
    except ValueError:
        return "malformed-url", url


def host_of(url):
    authority = re.match(r"https?://([^/\\?#]*)", url, re.I)[1].rsplit("@", 1)[-1]
    return re.sub(r":\d*$", "", authority).rstrip(".").lower()


def request_url(url, charset):
    """What a browser requests for an http(s) URL with other than printable ASCII in it. ValueError if nothing."""
    scheme, authority, path, query, fragment = re.fullmatch(
        r"(https?)://([^/\\?#]*)([^?#]*)(\?[^#]*)?(#.*)?", url, re.I | re.S
    ).groups()
    scheme = scheme.lower()
    user, at, host = authority.rpartition("@")
    host, colon, port = host.rpartition(":") if re.search(r":\d*$", host) else (host, "", "")
    port = "" if port == {"http": "80", "https": "443"}[scheme] else port
    out = f"{scheme}://{_escape(user, PATH | set('/:;=@[]^|'), keep=':')}{at}{_ascii_host(host)}{':' + port if port else ''}"
    segments = []
    pieces = re.split(r"[/\\]", path)[1:] if path else [""]
    for i, piece in enumerate(pieces):
        plain, last = re.sub("%2e", ".", piece, flags=re.I), i == len(pieces) - 1
        if plain == "..":
            del segments[-1:]
        elif plain != ".":
            segments.append(_escape(piece, PATH))
        if last and plain in (".", ".."):
            segments.append("")
    out += "/" + "/".join(segments)
    if query is not None:
        out += "?" + "".join(_query(c, charset) for c in query[1:])
    if fragment is not None:
        out += "#" + _escape(fragment[1:], set(' "<>`'))
    return out


PATH = set(' "#<>?`{}^')


def _escape(text, also, keep=""):
    return "".join(
        c
        if "!" <= c <= "~" and (c not in also or c in keep)
        else "".join(f"%{b:02X}" for b in c.encode("utf-8", "replace"))
        for c in text
    )


def _query(c, charset):
    if "!" <= c <= "~":
        return f"%{ord(c):02X}" if c in "\"#<>'" else c
    if charset.startswith("utf-") or c == " ":
        return _escape(c, set())
    codec = webencodings.lookup(charset).codec_info
    try:
        raw = codec.encode(c)[0]
    except UnicodeEncodeError:
        return f"%26%23{ord(c)}%3B"
    return "".join(chr(b) if 0x21 <= b <= 0x7E and chr(b) not in "\"#<>'" else f"%{b:02X}" for b in raw)


def _ascii_host(host):
    host = re.sub(r"(?:%[0-9A-Fa-f]{2})+", lambda m: bytes.fromhex(m[0].replace("%", "")).decode(), host)
    host = (
        unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", host).lower())
        .replace("\u3002", ".")
        .replace("\u00ad", "")
    )
    labels = [l if l.isascii() else "xn--" + l.encode("punycode").decode() for l in host.split(".")]
    host = ".".join(labels)
    if not host or re.search(r"[\x00-\x20\x7f#%/:<>?@\\^|]", host):
        raise ValueError("no host")
    return host
