"""The messages that are sent, and whether a copy is still the same."""

import email
import email.policy
import re

HEAD = "From: News <news@example.com>\r\nTo: list@example.net\r\nSubject: Letter {n}\r\n" \
    "Date: Tue, 03 Nov 2026 09:30:00 +0000\r\nMessage-ID: {id}\r\nMIME-Version: 1.0\r\n"
TEXT = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" \
    "Gr\xfc\xdfe aus K\xf6ln, sch\xf6ne = Zeichen\r\n.\r\nund Schlu\xdf \r\n"
BODIES = {
    "plain": "\r\nFirst line\r\n.\r\n..two dots\r\n" + "A line of words. " * 40 + "\r\nLast line\r\n",
    # More than the system's buffers hold, so that the end cannot have been written before the smarthost reads on.
    "large": "\r\n" + ("x" * 997 + "\r\n") * 4500,
    "tracked": "Content-Type: text/html; charset=utf-8\r\n\r\n<html><body>\r\n"
               '<a href="https://shop.example.com/offer?id={n}">Look</a>\r\n</body></html>\r\n',
    "eight-bit": TEXT,
    "eight-bit-parts": "Content-Type: multipart/mixed; boundary=cut\r\n\r\n--cut\r\n" + TEXT + "--cut\r\n"
                       "Content-Type: text/plain\r\n\r\nASCII, and so it stays\r\n--cut--\r\n",
    "eight-bit-signed": 'Content-Type: multipart/signed; protocol="application/pgp-signature"; micalg=pgp-sha256; '
                        "boundary=cut\r\n\r\n--cut\r\n" + TEXT + "--cut\r\nContent-Type: application/pgp-signature"
                        "\r\n\r\n-----BEGIN PGP SIGNATURE-----\r\n\r\nAAAA\r\n"
                        "-----END PGP SIGNATURE-----\r\n--cut--\r\n",
}


def message_id(n):
    return f"<letter.{n}@example.com>"


def letter(kind, n):
    return (HEAD + BODIES[kind]).replace("{n}", str(n)).replace("{id}", message_id(n)).encode()


def is_same(copy, original, kind, eight_bit):
    """True where `copy` is the original with `Received` in front; where it is tracked, or is not to hold octets over
    127, true where it says the same."""
    copy = re.sub(rb"\AReceived:.*\r\n(?:[ \t].*\r\n)*", b"", copy, count=1)
    if kind == "tracked":
        return b"/c/" in copy and b"https://shop.example.com" not in copy
    if eight_bit or original.isascii():
        return copy == original
    return copy.isascii() and said(copy) == said(original)


def said(message):
    parts = email.message_from_bytes(message, policy=email.policy.SMTP).walk()
    return [(part.get_content_type(), part.get_payload(decode=True)) for part in parts]
