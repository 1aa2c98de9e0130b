"""A byte-level MIME parser for the checker: where each header field, part and boundary lies in a message.

It shares nothing with the relay or with Python's `email`, so that one reader's mistake does not hide another's. It
splits on CRLF alone, reads delimiters exactly as RFC 2046 section 5.1.1 writes them, and notes every departure in
`Part.defects` instead of repairing it. It does not decode header words and does not look into `message/*`.
"""

import base64
import re
from dataclasses import dataclass, field

MAX_DEPTH = 100
MAX_PARTS = 10_000


class Undecodable(ValueError):
    """A body that its transfer encoding does not allow."""


@dataclass
class Field:
    """One header field: `raw` with its folds and final CRLF, `name` in lower case, `value` unfolded."""

    name: str
    raw: bytes
    value: str


@dataclass(eq=False)
class Part:
    """`header` and `body` are (start, end) offsets in the message; the blank line lies between them."""

    header: tuple
    body: tuple
    fields: list
    type: str = "text/plain"
    params: dict = field(default_factory=dict)
    encoding: str = "7bit"
    disposition: str = ""
    children: list = field(default_factory=list)
    defects: list = field(default_factory=list)
    parent: object = None

    def walk(self):
        stack = [self]
        while stack:
            part = stack.pop()
            yield part
            stack.extend(reversed(part.children))

    def leaves(self):
        return [p for p in self.walk() if not p.children]

    def ancestors(self):
        part = self.parent
        while part is not None:
            yield part
            part = part.parent

    def get(self, name):
        """The first field of that name, unfolded, or None."""
        return next((f.value for f in self.fields if f.name == name), None)


def parse(data):
    """The tree of a whole message. Never raises: see `defects` of each part."""
    root = _part(data, 0, len(data))
    queue, count = [(root, 0)], 1
    while queue:
        part, depth = queue.pop()
        if not part.type.startswith("multipart/"):
            continue
        if depth >= MAX_DEPTH:
            root.defects.append("too-deep")
            continue
        for start, end in _split(data, part):
            child = _part(data, start, end, digest=part.type == "multipart/digest")
            child.parent = part
            part.children.append(child)
            queue.append((child, depth + 1))
            count += 1
        if count > MAX_PARTS:
            root.defects.append("too-many-parts")
            break
    return root


def header_fields(block):
    """The fields of a header block (no blank line); a line that is neither field nor fold is given the name ''."""
    fields = []
    for line in re.findall(rb"[^\r\n]*(?:\r\n|$)", block):
        if not line:
            continue
        if line[:1] in b" \t" and fields:
            fields[-1] += line
        else:
            fields.append(line)
    return [_field(raw) for raw in fields]


def decode(body, encoding):
    """The bytes that a transfer-encoded body stands for. Raises `Undecodable`."""
    if encoding in ("7bit", "8bit", "binary"):
        return body
    if encoding == "quoted-printable":
        return _unquote(body)
    if encoding == "base64":
        packed = body.replace(b"\r\n", b"").replace(b" ", b"").replace(b"\t", b"")
        if len(packed) % 4 or not re.fullmatch(rb"[A-Za-z0-9+/]*={0,2}", packed):
            raise Undecodable("not base64")
        return base64.b64decode(packed)
    raise Undecodable(f"unknown encoding {encoding}")


def _unquote(body):
    out = []
    for line in body.split(b"\r\n"):
        line = line.rstrip(b" \t")
        soft = line.endswith(b"=")
        if soft:
            line = line[:-1]
        if re.search(rb"=(?![0-9A-Fa-f]{2})", line):
            raise Undecodable("an equals sign that escapes nothing")
        out.append(re.sub(rb"=([0-9A-Fa-f]{2})", lambda m: bytes([int(m[1], 16)]), line))
        out.append(b"" if soft else b"\r\n")
    return b"".join(out[:-1])


def parameters(value):
    """`a/b; c=d` as ('a/b', {'c': 'd'}), comments dropped, RFC 2231 pieces joined; the first of equals wins."""
    tokens = re.findall(r'"(?:\\.|[^"\\])*"|[^";]+|;|"', _uncomment(value))
    pieces, current = [], ""
    for token in tokens:
        if token == ";":
            pieces.append(current)
            current = ""
        else:
            current += token
    pieces.append(current)
    params, split = {}, {}
    for piece in pieces[1:]:
        name, equals, text = piece.partition("=")
        name, text = name.strip().lower(), text.strip()
        if not equals or not name:
            continue
        if len(text) > 1 and text[0] == text[-1] == '"':
            text = re.sub(r"\\(.)", r"\1", text[1:-1])
        match = re.fullmatch(r"([^*]+)\*(?:(\d+)\*?)?", name)
        if match:
            base, index = match[1], int(match[2] or 0)
            if name.endswith("*"):
                text = re.sub(r"^[^']*'[^']*'", "", text) if index == 0 else text
                text = re.sub(r"%([0-9A-Fa-f]{2})", lambda m: chr(int(m[1], 16)), text)
            split.setdefault(base, {}).setdefault(index, text)
        else:
            params.setdefault(name, text)
    for base, pieces_of in split.items():
        params[base] = "".join(pieces_of[i] for i in sorted(pieces_of))
    return pieces[0].strip().lower(), params


def _uncomment(value):
    out, depth, quoted, i = [], 0, False, 0
    while i < len(value):
        c = value[i]
        if c == "\\" and (quoted or depth):
            out.append(value[i : i + 2] if not depth else "")
            i += 2
            continue
        if c == '"' and not depth:
            quoted = not quoted
        if c == "(" and not quoted:
            depth += 1
        elif c == ")" and not quoted and depth:
            depth -= 1
        elif not depth:
            out.append(c)
        i += 1
    return "".join(out)


def _field(raw):
    text = raw.decode("latin-1")
    name, colon, value = text.partition(":")
    if not colon or not re.fullmatch(r"[!-9;-~]+[ \t]*", name):
        return Field("", raw, "")
    return Field(name.strip().lower(), raw, re.sub(r"\r\n(?=[ \t])", "", value).strip())


def _part(data, start, end, digest=False):
    if data[start : start + 2] == b"\r\n":
        header, body = (start, start), (start + 2, end)
    else:
        blank = data.find(b"\r\n\r\n", start, end)
        header = (start, end) if blank < 0 else (start, blank + 2)
        body = (end, end) if blank < 0 else (blank + 4, end)
    part = Part(header, body, header_fields(data[header[0] : header[1]]))
    part.type = "message/rfc822" if digest else "text/plain"
    for name in ("content-type", "content-transfer-encoding", "content-disposition"):
        if len({f.value.lower() for f in part.fields if f.name == name}) > 1:
            part.defects.append(f"several {name} fields")
    if any(not f.name for f in part.fields):
        part.defects.append("a line in the header that is no field")
    content_type = part.get("content-type")
    if content_type is not None:
        kind, part.params = parameters(content_type)
        if re.fullmatch(r"[^/\s]+/[^/\s]+", kind):
            part.type = kind
        else:
            part.defects.append("unreadable content-type")
    part.encoding = _uncomment(part.get("content-transfer-encoding") or "7bit").strip().lower() or "7bit"
    part.disposition = parameters(part.get("content-disposition") or "")[0]
    return part


def _split(data, part):
    """The spans of the parts inside a multipart; notes what is broken."""
    boundary = part.params.get("boundary", "").rstrip().encode("latin-1", "replace")
    if not boundary:
        part.defects.append("no boundary")
        return []
    if part.encoding not in ("7bit", "8bit", "binary"):
        part.defects.append("an encoded multipart")
    start, end = part.body
    delimiter = re.compile(rb"(?:(?<=\r\n)|\A)--" + re.escape(boundary) + rb"(--)?[ \t]*(?:\r\n|\Z)")
    spans, opened, closed = [], None, False
    # The two bytes before belong to the look-behind: the CRLF of the blank line ends the line before a delimiter.
    base = max(start - 2, 0)
    for match in delimiter.finditer(data[base:end]):
        at, after = base + match.start(), base + match.end()
        if at < start:
            continue
        if opened is not None:
            spans.append((opened, max(at - 2, opened)))
        opened = after
        if match[1]:
            closed = True
            break
    if not closed:
        part.defects.append("no closing boundary")
        if opened is not None:
            spans.append((opened, end))
    if not spans:
        part.defects.append("no parts")
    return spans
