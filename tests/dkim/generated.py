"""Messages that are awkward to sign, each made from a seed: what was made once can be made again by its number.

Every one is from shop.example.com and has a header that all readers take apart alike. All else is odd: long lines,
blanks at the ends of lines and of bodies, no body at all, 8-bit octets anywhere, fields several times, folded in
strange places.
"""

import base64
import quopri
import random

WORDS = ("offer order ship tomorrow caf\u00e9 \u65e5\u672c\u8a9e \u00fc = == =20 . .. -- From \u00a0 <b> &amp; "
         "\x0b \x0c").split(" ")
LINK = '<a href="https://www.example.org/{}?a=1&amp;b=2">x</a>\r\n{}\r\n'
BLANKS = ("", " ", "  ", "\t", " \t ", "\t\t")
SIGNED = ("Reply-To", "Subject", "To", "Cc", "Resent-From", "Resent-To", "References", "List-Id", "List-Unsubscribe",
          "List-Unsubscribe-Post", "In-Reply-To")
# RFC 5322, section 3.6.
ONCE = ("Reply-To", "Subject", "To", "Cc", "References", "In-Reply-To")
OTHERS = ("X-Mailer", "Received", "Comments", "X-A", "Keywords", "Organization", "x-trackpost-tag")


def message(seed):
    dice = random.Random(f"dkim {seed}")
    sender = dice.choice(("News", "=?utf-8?q?N?=", "", "N\u00e9ws"))
    fields = [field(dice, cased(dice, "From"), f"{sender} <n{seed}@shop.example.com>")]
    fields += [field(dice, cased(dice, name), value(dice))
               for name in several(dice, SIGNED, 12) + several(dice, OTHERS, 4)]
    fields.append(field(dice, "Message-ID", f"<{seed}.dkim@shop.example.com>"))
    fields.append(field(dice, "Date", "Tue, 24 Nov 2026 06:00:00 +0000"))
    more, body = dice.choice((plain, html, encoded, multipart, nothing, blanks))(dice)
    fields += more
    dice.shuffle(fields)
    return b"".join(fields) + b"\r\n" + body


def several(dice, names, most):
    """Some of these names, some of them more than once; in most messages not those of which there may be one."""
    chosen = [dice.choice(names) for _ in range(dice.randrange(most))]
    if dice.random() < 0.85:
        chosen = [name for at, name in enumerate(chosen) if name not in ONCE or name not in chosen[:at]]
    return chosen


def cased(dice, name):
    return dice.choice((name, name.lower(), name.upper(), name.title()))


def field(dice, name, text):
    """Folded at some of its spaces; a folded line has more than blanks."""
    words, lines = text.split(" "), [dice.choice(("", " ", "\t", "  "))]
    for word in words:
        lines[-1] += word
        if word and dice.random() < 0.2 and lines[-1].strip():
            lines.append(dice.choice((" ", "\t", "   ", "\t ")))
        else:
            lines[-1] += dice.choice((" ", " ", "  ", "\t"))
    if len(lines) > 1 and not lines[-1].strip():
        lines.pop()
    lines[-1] += dice.choice(BLANKS)
    return (name + ":" + "\r\n".join(lines) + "\r\n").encode("utf-8", "surrogateescape")


def value(dice):
    if dice.random() < 0.05:
        return ""
    words = [dice.choice(WORDS) for _ in range(dice.randrange(1, 12))]
    if dice.random() < 0.1:
        # Octets that are no UTF-8.
        words.append(bytes(dice.randrange(0xa0, 0x100) for _ in range(5)).decode("utf-8", "surrogateescape"))
    if dice.random() < 0.1:
        words.append("x" * dice.randrange(200, 900))
    return " ".join(words)


def line(dice):
    length = dice.choice((0, 0, 1, 5, 12, 12, 12, 300))
    words = (dice.choice(WORDS) + dice.choice((" ", " ", "  ", "\t")) for _ in range(length))
    text = dice.choice(BLANKS) + "".join(words)
    if dice.random() < 0.05:
        text += "y" * dice.randrange(900, 5000)
    return text + dice.choice(BLANKS)


def lines(dice, least=0):
    text = "\r\n".join(line(dice) for _ in range(dice.randrange(least, 15)))
    return text + dice.choice(("", "\r\n", "\r\n\r\n\r\n", "\r\n  \r\n", "\r\n\t\r\n \r\n\r\n", "  "))


def page(dice):
    links = "".join(LINK.format(dice.randrange(10 ** 6), line(dice).replace("<b>", ""))
                    for _ in range(dice.randrange(1, 5)))
    return f"<html><body>\r\n{links}</body></html>" + dice.choice(("", "\r\n", "\r\n\r\n", "\r\n \t\r\n"))


def octets(text):
    return text.encode("utf-8", "surrogateescape")


def plain(dice):
    return [], octets(lines(dice))


def blanks(dice):
    return [], octets("\r\n".join(dice.choice(BLANKS) for _ in range(dice.randrange(1, 6))) + dice.choice(("", "\r\n")))


def nothing(_dice):
    return [], b""


def html(dice):
    return content("text/html", "8bit"), octets(page(dice))


def encoded(dice):
    text = octets(page(dice))
    if dice.random() < 0.5:
        return content("text/html", "base64"), base64.encodebytes(text).replace(b"\n", b"\r\n")
    text = quopri.encodestring(text.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
    return content("text/html", "quoted-printable"), text


def multipart(dice):
    boundary = f"=_{dice.randrange(10 ** 9)}"
    made = [plain, html, encoded]
    parts = b""
    for _ in range(dice.randrange(1, 4)):
        more, body = dice.choice(made)(dice)
        parts += f"--{boundary}\r\n".encode() + b"".join(more) + b"\r\n" + body + b"\r\n"
    end = f"--{boundary}--".encode() + dice.choice((b"", b"\r\n", b"\r\n\r\nepilogue \r\n", b" \r\n\t\r\n"))
    head = [f'Content-Type: multipart/mixed;\r\n\tboundary="{boundary}"\r\n'.encode(), b"MIME-Version: 1.0\r\n"]
    return head, dice.choice((b"", b"preamble  \r\n")) + parts + end


def content(kind, encoding):
    return [f"Content-Type: {kind}; charset=utf-8\r\n".encode(), f"Content-Transfer-Encoding: {encoding}\r\n".encode(),
            *([b"MIME-Version: 1.0\r\n"] if kind != "text/html" else [])]
