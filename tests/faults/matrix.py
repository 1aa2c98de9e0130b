"""What a smarthost may do wrong, and what is then right for every recipient: data, and no judgement.

A case says what the smarthost does at first (`do` and what it offers), how each recipient then stands (`during`, or
`down` where no session comes about at all), and how they end once the smarthost has come to its senses (`after`).
Recipients are told apart by the first word of their address: here.m3@example.net is `here` of the third message.
"""

import dataclasses

from smarthost import CLOSE, DEAF, HANG, OFFER, RESET, RIGHT, Drip, Flood, Pause

LATER, FULL, GONE = "450 4.2.1 Busy, come again", "452 4.5.3 Too many of you", "550 5.1.1 Nobody of that name"
SHUTS = "421 4.3.2 Shutting down"
BY_WORD = {"later": LATER, "full": FULL, "gone": GONE}
MIXED = ("gone", "here", "later", "full")
PLAIN = tuple(word for word in OFFER if word != "PIPELINING")
FLOOD = 100_000_000


def by_word(session):
    """RCPT is answered by the first word of the address."""
    return BY_WORD.get(session.recipient.partition(".")[0])


def too_large(limit):
    def mail(session):
        declared = int(session.sender.upper().partition(" SIZE=")[2].split(" ")[0] or 0)
        return "552 5.3.4 Message too large for us" if declared > limit else None
    return mail


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    do: dict = dataclasses.field(default_factory=dict)
    offer: tuple = OFFER
    # The relay's setting, and the smarthost's certificate, if it has one.
    tls: str = "none"
    certificate: str | None = None
    username: str | None = None
    timeouts: dict = dataclasses.field(default_factory=dict)
    to: tuple = ("here",)
    # Word: status and a pattern of the reply. Where `after` is silent, what is not bounced is relayed.
    during: dict = dataclasses.field(default_factory=dict)
    after: dict = dataclasses.field(default_factory=dict)
    # A pattern of why no session comes about.
    down: str | None = None
    refuses: bool = False
    # It broke off after the dot: twice is allowed, where the log says so.
    doubtful: bool = False
    # A second smarthost, without fault, is there.
    fallback: bool = False
    kind: str = "plain"
    # What the copies that are taken went over; None: no matter.
    encrypted: bool | None = None


def down(name, stage, steps, why, **more):
    return Case(name, {stage: steps} if stage else {}, down=why, **more)


def deferred(name, stage, steps, why, **more):
    return Case(name, {stage: steps}, during={"here": ("deferred", why)}, **more)


def bounced(name, stage, steps, why, **more):
    return Case(name, {stage: steps}, during={"here": ("bounced", why)}, **more)


def taken(name, do, **more):
    return Case(name, do, during={"here": ("relayed", "^250 ")}, **more)


def stages():
    """The same fault at every stage. Stage, its time-out, and how it is reported."""
    for stage, limit in (("banner", "greeting"), ("ehlo", "ehlo")):
        yield lambda name, steps, why, at=stage, **more: down(f"{name}_{at}", at, steps, why, **more), limit
    for stage in ("mail", "rcpt", "data"):
        yield lambda name, steps, why, at=stage, **more: deferred(f"{name}_{at}", at, steps, why, **more), stage
    yield lambda name, steps, why, **more: deferred(f"{name}_dot", "dot", steps, why, doubtful=True, **more), "dot"


def everywhere():
    for at, limit in stages():
        short = {"timeouts": {limit: "1s"}}
        yield at("silent_at", HANG, "no answer within 1s", **short)
        yield at("half_a_reply_at", [b"2", HANG], "no answer within 1s", **short)
        yield at("a_byte_a_second_at", Drip("250 2.0.0 Ok", 1), "no answer within 1s", **short)
        yield at("closes_at", CLOSE, "closed by the smarthost")
        yield at("resets_at", RESET, "(?i)reset|broken pipe|closed by the smarthost")
        yield at("no_reply_at", "hello", "no SMTP reply")
        yield at("an_endless_line_at", [b"250 ", Flood(b"x", FLOOD)], "over 64 KiB")
        yield at("endless_lines_at", [Flood(b"250-more\r\n", FLOOD)], "over 100 lines")
        yield at("two_codes_at", "250-Ok\n550 no", "differing|code")
    yield down("shuts_at_banner", "banner", [SHUTS, CLOSE], SHUTS)
    yield down("shuts_at_ehlo", "ehlo", [SHUTS, CLOSE], SHUTS)
    for stage in ("mail", "rcpt", "data", "dot"):
        # An answer, though an unkind one: there is no doubt whether the message was taken.
        yield deferred(f"shuts_at_{stage}", stage, [SHUTS, CLOSE], SHUTS)
        yield deferred(f"shuts_at_{stage}_step_by_step", stage, [SHUTS, CLOSE], SHUTS, offer=PLAIN)
    yield down("wrong_code_at_banner", "banner", "250 hello", "unexpected reply: 250")
    yield down("wrong_code_at_ehlo", "ehlo", "354 Go on", "unexpected reply: 354")
    yield deferred("wrong_code_at_mail", "mail", "354 Go on", "unexpected reply: 354")
    yield deferred("wrong_code_at_mail_step_by_step", "mail", "354 Go on", "unexpected reply: 354", offer=PLAIN)
    yield deferred("wrong_code_at_rcpt", "rcpt", "354 Go on", "unexpected reply: 354")
    yield deferred("wrong_code_at_data", "data", "250 2.0.0 Ok", "unexpected reply: 250")
    yield deferred("wrong_code_at_data_step_by_step", "data", "250 2.0.0 Ok", "unexpected reply: 250", offer=PLAIN)
    yield deferred("wrong_code_at_dot", "dot", "354 Go on", "unexpected reply: 354", doubtful=True)
    yield down("refuses_the_connection", None, None, "refused", refuses=True)
    yield down("refuses_all_mail", "banner", ["554 5.3.2 No mail here", CLOSE], "554 5.3.2 No mail here")


def in_the_body():
    yield deferred("deaf_in_the_body", "body", DEAF, "no answer within 1s", timeouts={"block": "1s"}, kind="large")
    yield deferred("closes_in_the_body", "body", CLOSE, "", kind="large")
    yield deferred("resets_in_the_body", "body", RESET, "", kind="large")
    yield deferred("shuts_in_the_body", "body", [SHUTS, CLOSE], "", kind="large")


def early():
    """Replies that nobody asked for yet."""
    yield down("early_at_banner", "banner", "220 mx.example.net\n250 early", "unasked")
    yield deferred("early_at_mail", "mail", "250 2.1.0 Ok\n250 2.1.5 early", "unasked", offer=PLAIN)
    yield deferred("early_at_rcpt", "rcpt", "250 2.1.5 Ok\n354 early", "unasked", offer=PLAIN)
    yield deferred("early_at_data", "data", "354 Go on\n250 2.0.0 Ok: early", "unasked")
    # The early 250 is no reply to the message, which is refused in the end.
    yield Case("early_in_the_body", {"body": ["250 2.0.0 Ok: early", Pause(1)], "dot": "554 5.6.0 Not that one"},
               during={"here": ("deferred", "unasked")}, kind="large")
    yield taken("a_reply_too_many", {"dot": [RIGHT, "250 2.0.0 Ok: again"]})
    # The refusal comes in the place of the next recipient's reply, who must not be taken for refused.
    yield Case("early_and_then_a_refusal", {"mail": "250 2.1.0 Ok\n250 2.1.0 Ok", "rcpt": by_word},
               to=("gone", "here"), during={"here": ("deferred", "unexpected reply"), "gone": ("deferred", "unexpected reply")})


def refusals():
    latin = "550 5.1.1 Empf\xe4nger unbekannt\r\n".encode("latin-1")
    torn = Drip("550-5.1.1 Nobody\n550-5.1.1 of that\n550 5.1.1 name", 0.002)
    for stage in ("mail", "rcpt", "data", "dot"):
        yield bounced(f"refused_in_latin_1_at_{stage}", stage, latin, "^550 5.1.1 Empf.nger unbekannt$")
        yield bounced(f"refused_byte_by_byte_at_{stage}", stage, torn, "^550 5.1.1 Nobody of that name$")
        yield deferred(f"put_off_in_latin_1_at_{stage}", stage, latin.replace(b"550 5", b"450 4"),
                       "^450 4.1.1 Empf.nger unbekannt$")
    yield bounced("a_code_of_its_own", "rcpt", "571 5.7.1 Blocked", "5.7.1 Blocked")


def recipients():
    settled = {"gone": ("bounced", GONE), "later": ("deferred", LATER), "full": ("deferred", FULL)}
    last = {"gone": ("bounced", GONE)}
    here = {
        "taken": (None, ("relayed", "^250 2.0.0 Ok: taken")),
        "put_off": ("451 4.3.0 Not now", ("deferred", "451 4.3.0 Not now")),
        "refused": ("554 5.7.1 Not that one", ("bounced", "554 5.7.1 Not that one")),
        "shuts": ([SHUTS, CLOSE], ("deferred", SHUTS)),
        "resets": (RESET, ("deferred", "(?i)reset|broken pipe|closed by the smarthost")),
    }
    for name, (dot, stands) in here.items():
        do = {"rcpt": by_word} | ({"dot": dot} if dot else {})
        after = last | ({"here": stands} if stands[0] == "bounced" else {})
        for how, more in {"": {}, "_step_by_step": {"offer": PLAIN}, "_own_copies": {"kind": "tracked"}}.items():
            yield Case(f"mixed_and_{name}{how}", do, to=MIXED, during=settled | {"here": stands}, after=after,
                       doubtful=name == "resets", **more)
    yield Case("mixed_and_silent_at_data", {"rcpt": by_word, "data": HANG}, timeouts={"data": "1s"}, to=MIXED,
               during=settled | {"here": ("deferred", "no answer within 1s")}, after=last)
    for how, offer in {"": OFFER, "_step_by_step": PLAIN}.items():
        do = {"rcpt": by_word, "data": "354 Go on", "dot": "250 2.0.0 Ok: for whom"}
        yield Case(f"a_message_for_nobody{how}", do, offer=offer, to=("later", "gone"), after=last,
                   during={"later": ("deferred", LATER), "gone": ("bounced", GONE)})


def abilities():
    without = {word: tuple(o for o in OFFER if not o.startswith(word)) for word in ("8BITMIME", "SMTPUTF8", "SIZE")}
    slow = Drip(RIGHT, 0.002)
    yield taken("step_by_step", {}, offer=PLAIN)
    yield taken("nothing_offered", {}, offer=())
    yield taken("helo_alone", {"ehlo": "502 5.5.1 What?"}, offer=())
    yield taken("byte_by_byte", dict.fromkeys(("banner", "ehlo", "mail", "rcpt", "data", "dot"), slow))
    yield taken("many_lines", {
        "banner": "220-mx\n220-welcomes\n220 you", "mail": "250-2.1.0 Ok\n250 2.1.0 so far", "rcpt": "250-Ok\n250 Ok",
        "data": "354-Go\n354 on", "dot": "250-2.0.0 Ok\n250 2.0.0 taken"})
    yield taken("latin_1", {stage: text.encode("latin-1") for stage, text in {
        "banner": "220 mx.example.net gr\xfc\xdft\r\n", "mail": "250 2.1.0 sch\xf6n\r\n", "rcpt": "250 sch\xf6n\r\n",
        "data": "354 schie\xdf los\r\n", "dot": "250 2.0.0 \xfcbernommen\r\n"}.items()})
    yield taken("line_feeds_alone", {"banner": b"220 mx\n", "mail": b"250 Ok\n", "dot": b"250 Ok\n"})
    yield taken("hangs_up_after_each", {"dot": [RIGHT, CLOSE]})
    yield taken("shuts_after_each", {"dot": [RIGHT, SHUTS, CLOSE]})
    yield bounced("too_large", "mail", too_large(500), "^55[24] 5.3.4 ", offer=(*without["SIZE"], "SIZE 500"))
    yield taken("eight_bit", {}, kind="eight-bit")
    yield taken("no_8bitmime", {}, kind="eight-bit", offer=without["8BITMIME"])
    yield taken("no_8bitmime_parts", {}, kind="eight-bit-parts", offer=without["8BITMIME"])
    yield Case("no_8bitmime_signed", offer=without["8BITMIME"], kind="eight-bit-signed",
               during={"here": ("bounced", "5.6.3")})
    yield Case("smtputf8", to=("h\xe9re",), during={"h\xe9re": ("relayed", "^250 ")})
    yield Case("no_smtputf8", to=("h\xe9re",), during={"h\xe9re": ("bounced", "5.6.7")}, offer=without["SMTPUTF8"])


def encryption():
    short, user = {"timeouts": {"connect": "1s", "ehlo": "1s"}}, {"username": "relay"}
    certificates = {
        "expired": "(?i)expired", "wrong-name": "(?i)name|not valid for", "unknown-ca": "(?i)unknown ?issuer"}
    failing = {"closes": CLOSE, "resets": RESET, "garbles": b"\x15\x03\x01 no TLS at all\r\n" * 20, "silent": HANG}
    injected = "220 2.0.0 Go ahead\n250-injected.example.net\n250 AUTH PLAIN LOGIN"
    for mode in ("required", "implicit"):
        both = {"tls": mode, "certificate": "good"} | user
        yield taken(f"{mode}_good", {}, encrypted=True, **both)
        for kind, why in certificates.items():
            yield down(f"{mode}_{kind.replace('-', '_')}", None, None, why, **both | {"certificate": kind})
        for name, steps in failing.items():
            yield down(f"{mode}_handshake_{name}", "handshake", steps, "", encrypted=True, **both, **short)
    yield down("implicit_against_plaintext", "connect", ["220 mx.example.net", HANG], "", tls="implicit",
               certificate="good", encrypted=True, **user)
    starttls = {"tls": "required", "certificate": "good", "encrypted": True} | user
    yield down("starttls_missing", "ehlo", "250-mx.example.net\n250-AUTH PLAIN LOGIN\n250 SIZE 0",
               "does not offer STARTTLS", **starttls)
    yield down("starttls_refused", "starttls", "454 4.7.0 No TLS now", "454 4.7.0 No TLS now", **starttls)
    yield down("starttls_silent", "starttls", HANG, "no answer within 1s", **starttls, **short)
    yield down("starttls_injected", "starttls", injected, "plaintext after the reply", **starttls)
    yield down("starttls_injected_and_silent", "starttls", [injected, HANG], "plaintext after the reply", **starttls)
    some = {"tls": "opportunistic", "certificate": "good"}
    yield down("opportunistic_injected", "starttls", injected, "plaintext after the reply", **some)
    for kind in certificates:
        yield taken(f"opportunistic_{kind.replace('-', '_')}", {}, encrypted=True, **some | {"certificate": kind})
    for name, steps in failing.items():
        yield taken(f"opportunistic_handshake_{name}", {"handshake": steps}, encrypted=False, **some, **short)
    yield taken("opportunistic_not_offered", {}, tls="opportunistic", encrypted=False)
    yield taken("opportunistic_refused", {"starttls": "454 4.7.0 No TLS now"}, encrypted=False, **some)


def authentication():
    user = {"username": "relay"}
    for words in ("535 5.7.8 Wrong password", "454 4.7.0 Cannot look it up"):
        yield down(f"auth_answered_{words[:3]}", "auth", words, words, **user)
    yield down("auth_silent", "auth", HANG, "no answer within 1s", timeouts={"ehlo": "1s"}, **user)
    yield down("auth_closes", "auth", CLOSE, "", **user)
    yield down("auth_garbles", "auth", "hello", "no SMTP reply", **user)
    yield down("auth_not_offered", "ehlo", "250-mx.example.net\n250 SIZE 0", "AUTH", **user)
    yield down("auth_by_other_means", "ehlo", "250-mx.example.net\n250 AUTH CRAM-MD5", "AUTH", **user)
    for mechanism in ("PLAIN", "LOGIN"):
        yield taken(f"auth_{mechanism.lower()}", {"ehlo": f"250-mx.example.net\n250 AUTH {mechanism}"}, **user)


def detours():
    second = {"fallback": True}
    yield taken("detour_when_refused", {}, refuses=True, **second)
    yield taken("detour_when_silent", {"banner": HANG}, timeouts={"greeting": "1s"}, **second)
    yield taken("detour_when_shut", {"banner": [SHUTS, CLOSE]}, **second)
    yield taken("detour_when_hello_is_refused", {"ehlo": "550 5.7.1 Not you", "helo": "550 5.7.1 Not you"}, **second)
    yield taken("detour_when_auth_fails", {"auth": "535 5.7.8 Wrong password"}, username="relay", **second)
    yield taken("detour_when_expired", {}, tls="required", certificate="expired", **second)


CASES = [case for part in (everywhere, in_the_body, early, refusals, recipients, abilities, encryption,
                           authentication, detours) for case in part()]
