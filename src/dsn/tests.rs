//! Notices as a whole: golden texts, who wants what, what is returned. Every notice is read back with mail-parser.

mod hostile;

use super::*;
use crate::mail::Return;
use crate::mime::scan::scan;
use mail_parser::{Message, MessageParser, MimeHeaders};

const ACCEPTED: u64 = 1_795_392_000_000;
const HOUR: u64 = 3_600_000;
const FAILED: Kind = Kind::Failed;
const DELAYED: Kind = Kind::Delayed { until: ACCEPTED + 120 * HOUR };
const ORIGINAL: &[u8] = b"Received: from client.example.com ([127.0.0.1])\r\n\tby relay.example.com\r\n\
    From: Ann <ann@example.com>\r\nTo: bob@example.net\r\nSubject: Minutes\r\n\
    Message-ID: <1@example.com>\r\n\r\nHello Bob,\r\n--=_report\r\n";

fn notify(text: &str) -> Notify {
    Notify {
        given: !text.is_empty(),
        success: text.contains("SUCCESS"),
        failure: text.contains("FAILURE"),
        delay: text.contains("DELAY"),
    }
}

fn recipient(address: &str, wishes: &str, orcpt: Option<&str>) -> Recipient {
    Recipient { address: Address::parse(address).unwrap(), notify: notify(wishes), orcpt: orcpt.map(Into::into) }
}

fn envelope(sender: &str, recipients: Vec<Recipient>) -> Envelope {
    Envelope {
        sender: Address::parse(sender).ok(),
        recipients,
        body: Body::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
    }
}

fn concerned<'a>(recipient: &'a Recipient, reply: &'a str) -> Concerned<'a> {
    Concerned { recipient, reply, at: ACCEPTED + HOUR, attempts: 3 }
}

fn notice<'a>(kind: Kind, envelope: &'a Envelope, concerned: &'a [Concerned<'a>]) -> Notice<'a> {
    Notice {
        kind,
        id: QueueId::new(ACCEPTED, [1; 10]),
        dsn_id: QueueId::new(ACCEPTED + HOUR, [2; 10]),
        hostname: "relay.example.com",
        smarthost: "mx.example.org:25",
        envelope,
        arrived_at: ACCEPTED,
        now: ACCEPTED + HOUR,
        concerned,
        subject: "Minutes",
        original: ORIGINAL,
    }
}

/// A notice of `kind` about one recipient who wants every notice.
fn about_bob(kind: Kind, reply: &str, change: impl FnOnce(&mut Envelope)) -> (Envelope, Vec<u8>) {
    let bob = recipient("bob@example.net", "SUCCESS,FAILURE,DELAY", None);
    let mut envelope = envelope("ann@example.com", vec![bob.clone()]);
    change(&mut envelope);
    compose(&notice(kind, &envelope, &[concerned(&bob, reply)])).unwrap()
}

fn parsed(octets: &[u8]) -> Message<'_> {
    MessageParser::new().parse(octets).unwrap()
}

/// Media type, transfer encoding and raw octets of the parts of the report.
fn parts(octets: &[u8]) -> Vec<(String, String, &[u8])> {
    let scanned = scan(octets).unwrap();
    assert_eq!(scanned[0].media(), "multipart/report");
    let message = parsed(octets);
    assert_eq!(message.content_type().unwrap().attribute("report-type"), Some("delivery-status"));
    let report = message.part(0).unwrap().sub_parts().unwrap();
    let read = report.iter().map(|id| message.part(*id).unwrap()).map(|part| {
        let content = part.content_type().unwrap();
        let media = format!("{}/{}", content.ctype(), content.subtype().unwrap());
        let raw = &octets[part.raw_body_offset() as usize..part.raw_end_offset() as usize];
        (media, part.content_transfer_encoding().unwrap_or_default().to_owned(), raw)
    });
    read.collect()
}

fn fields_of(octets: &[u8]) -> String {
    String::from_utf8(parts(octets)[1].2.to_vec()).unwrap()
}

fn text_of(octets: &[u8]) -> String {
    parsed(octets).body_text(0).unwrap().into_owned()
}

#[test]
fn a_failure_word_by_word() {
    let bob = recipient("bob@example.net", "", Some("rfc822;Bob@Example.NET"));
    let carol = recipient("carol@example.net", "FAILURE", None);
    let dan = recipient("dan@example.org", "SUCCESS,FAILURE", None);
    let eve = recipient("eve@example.org", "NEVER", None);
    let mut envelope = envelope("ann@example.com", vec![bob.clone(), carol.clone(), dan.clone(), eve.clone()]);
    envelope.envid = Some("QQ314159 + 1".into());
    let refused = concerned(&eve, "550 5.1.1 No such user");
    let all = [
        concerned(&bob, "550-5.1.1 The email account that you tried to reach does not exist, please check it"),
        concerned(&carol, "452 4.2.2 Mailbox full"),
        Concerned { attempts: 1, ..concerned(&dan, "connect: 127.0.0.1:25: Connection refused") },
        refused,
    ];
    let (to, octets) = compose(&notice(FAILED, &envelope, &all)).unwrap();
    assert_eq!(String::from_utf8(octets).unwrap(), GOLDEN_FAILURE.replace('\n', "\r\n"));
    let never = Notify { given: true, ..Notify::default() };
    let want = Envelope {
        sender: None,
        recipients: vec![Recipient { address: Address::parse("ann@example.com").unwrap(), notify: never, orcpt: None }],
        body: Body::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
    };
    assert_eq!(to, want);
    assert_eq!(compose(&notice(FAILED, &envelope, &[refused])), None);
    assert_eq!(compose(&notice(FAILED, &envelope, &[])), None);
}

const GOLDEN_FAILURE: &str = r#"From: "Mail Delivery System" <MAILER-DAEMON@relay.example.com>
To: <ann@example.com>
Subject: Could not be delivered: Minutes
Date: Mon, 23 Nov 2026 01:00:00 +0000
Message-ID: <01a205ea-be80-7202-8202-020202020202@relay.example.com>
Auto-Submitted: auto-replied
In-Reply-To: <1@example.com>
References: <1@example.com>
MIME-Version: 1.0
Content-Type: multipart/report; report-type="delivery-status";
 boundary="trackpost=_01a205ea-be80-7202-8202-020202020202_0"


--trackpost=_01a205ea-be80-7202-8202-020202020202_0
Content-Type: text/plain; charset="utf-8"
Content-Transfer-Encoding: 7bit

Your message could not be delivered to the 3 recipients named below. It
will not be tried again.

  Subject: Minutes
  Accepted: Monday, 23 November 2026 at 00:00 UTC

<bob@example.net>
  Refused by mx.example.org, which said:
    550-5.1.1 The email account that you tried to reach does not exist,
    please check it
  Check the address for mistakes, and send the message again to the
  right one. If it is right, ask the recipient in another way: the
  mailbox may be gone.

<carol@example.net>
  Given up after 3 attempts. The last answer of mx.example.org was:
    452 4.2.2 Mailbox full
  The mailbox is full. Ask the recipient to make room, then send the
  message again.

<dan@example.org>
  Given up after 1 attempt. This went wrong the last time:
    connect: 127.0.0.1:25: Connection refused
  The address may well be right: the message was not taken in time. Send
  it again later. If that fails too, show this notice to your
  postmaster.

This notice says nothing about recipients whom it does not name.
The header of your message is attached.
This notice was made automatically, and nobody reads answers to it.

For your postmaster: queue id 01a205b3-d000-7101-8101-010101010101 on
relay.example.com.

--trackpost=_01a205ea-be80-7202-8202-020202020202_0
Content-Type: message/delivery-status
Content-Transfer-Encoding: 7bit

Original-Envelope-Id: QQ314159 + 1
Reporting-MTA: dns; relay.example.com
X-Trackpost-Queue-Id: 01a205b3-d000-7101-8101-010101010101
Arrival-Date: Mon, 23 Nov 2026 00:00:00 +0000

Original-Recipient: rfc822; Bob@Example.NET
Final-Recipient: rfc822; bob@example.net
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.example.org
Diagnostic-Code: smtp; 550-5.1.1 The email account that you tried to reach
 does not exist, please check it
Last-Attempt-Date: Mon, 23 Nov 2026 01:00:00 +0000

Final-Recipient: rfc822; carol@example.net
Action: failed
Status: 4.2.2
Remote-MTA: dns; mx.example.org
Diagnostic-Code: smtp; 452 4.2.2 Mailbox full
Last-Attempt-Date: Mon, 23 Nov 2026 01:00:00 +0000

Final-Recipient: rfc822; dan@example.org
Action: failed
Status: 4.4.1
Diagnostic-Code: X-Trackpost; connect: 127.0.0.1:25: Connection refused
Last-Attempt-Date: Mon, 23 Nov 2026 01:00:00 +0000

--trackpost=_01a205ea-be80-7202-8202-020202020202_0
Content-Type: text/rfc822-headers
Content-Transfer-Encoding: 7bit

Received: from client.example.com ([127.0.0.1])
	by relay.example.com
From: Ann <ann@example.com>
To: bob@example.net
Subject: Minutes
Message-ID: <1@example.com>

--trackpost=_01a205ea-be80-7202-8202-020202020202_0--
"#;

#[test]
fn a_delay() {
    let (_, octets) = about_bob(DELAYED, "450 4.2.1 greylisted, come back later", |_| {});
    let text = text_of(&octets);
    assert!(text.starts_with(
        "Your message has not been delivered yet to the recipient named below.\r\n\
         You need not do anything: it will be tried again until Saturday, 28\r\n\
         November 2026 at 00:00 UTC. If that fails, you will get another notice.\r\n\r\n"
    ));
    assert!(text.contains(
        "\r\n<bob@example.net>\r\n  Not taken in 3 attempts so far. The last answer of mx.example.org was:\r\n    \
         450 4.2.1 greylisted, come back later\r\n\r\n"
    ));
    let message = parsed(&octets);
    assert_eq!(message.subject(), Some("Delayed, still being tried: Minutes"));
    assert!(fields_of(&octets).ends_with(
        "\r\n\r\nFinal-Recipient: rfc822; bob@example.net\r\nAction: delayed\r\nStatus: 4.2.1\r\n\
         Remote-MTA: dns; mx.example.org\r\nDiagnostic-Code: smtp; 450 4.2.1 greylisted, come back later\r\n\
         Last-Attempt-Date: Mon, 23 Nov 2026 01:00:00 +0000\r\nWill-Retry-Until: Sat, 28 Nov 2026 00:00:00 +0000\r\n"
    ));

    let bob = recipient("bob@example.net", "DELAY", None);
    let envelope = envelope("ann@example.com", vec![bob.clone()]);
    let (_, octets) = compose(&notice(DELAYED, &envelope, &[concerned(&bob, "")])).unwrap();
    assert!(!text_of(&octets).contains("another notice"));
    assert!(!fields_of(&octets).contains("Diagnostic-Code"));
}

#[test]
fn handed_on() {
    let (_, octets) = about_bob(Kind::Relayed, "250 2.6.0 Ok: queued as 12345", |_| {});
    let text = text_of(&octets);
    assert!(text.starts_with("Your message was handed on to mx.example.org for the recipient named\r\nbelow. "));
    assert!(text.contains("  Taken by mx.example.org:\r\n    250 2.6.0 Ok: queued as 12345\r\n"));
    let fields = fields_of(&octets);
    assert!(fields.contains("\r\nAction: relayed\r\nStatus: 2.0.0\r\n"));
    assert!(!fields.contains("Will-Retry-Until"));
}

#[test]
fn who_wants_what() {
    let table = [
        ("", [true, false, false]),
        ("NEVER", [false, false, false]),
        ("FAILURE", [true, false, false]),
        ("DELAY", [false, true, false]),
        ("SUCCESS", [false, false, true]),
        ("SUCCESS,FAILURE,DELAY", [true, true, true]),
    ];
    for (wishes, want) in table {
        let bob = recipient("bob@example.net", wishes, None);
        assert_eq!([FAILED, DELAYED, Kind::Relayed].map(|kind| is_wanted(kind, &bob)), want, "{wishes}");
    }
}

#[test]
fn no_notice_about_a_notice() {
    let bob = recipient("bob@example.net", "FAILURE", None);
    let mut envelope = envelope("ann@example.com", vec![bob.clone()]);
    let all = [concerned(&bob, "550 no")];
    assert!(compose(&notice(FAILED, &envelope, &all)).is_some());
    envelope.sender = None;
    assert_eq!(compose(&notice(FAILED, &envelope, &all)), None);
}

#[test]
fn what_is_returned() {
    let head = &ORIGINAL[..memmem::find(ORIGINAL, b"\r\n\r\n").unwrap() + 2];
    let long = [ORIGINAL, "x".repeat(999).as_bytes(), b"\r\n"].concat();
    let large = [ORIGINAL, "0123456789\r\n".repeat(100_000).as_bytes()].concat();
    let latin = [&b"Subject: gr\xfc\xdfe\r\n"[..], ORIGINAL].concat();
    let latin_head = &latin[..head.len() + 16];
    let nul = [&b"X: \0\r\n"[..], ORIGINAL].concat();
    let nul_head = [&b"X: =00\r\n"[..], head].concat();
    let headers = Some(Return::Headers);
    let full = Some(Return::Full);
    type Row<'a> = (Kind, Option<Return>, &'a [u8], Option<(&'a str, &'a str, &'a [u8])>);
    let table: &[Row<'_>] = &[
        (FAILED, None, ORIGINAL, Some(("text/rfc822-headers", "7bit", head))),
        (FAILED, headers, ORIGINAL, Some(("text/rfc822-headers", "7bit", head))),
        (FAILED, full, ORIGINAL, Some(("message/rfc822", "7bit", ORIGINAL))),
        (DELAYED, full, ORIGINAL, Some(("text/rfc822-headers", "7bit", head))),
        (Kind::Relayed, full, ORIGINAL, Some(("text/rfc822-headers", "7bit", head))),
        (FAILED, full, &long, Some(("text/rfc822-headers", "7bit", head))),
        (FAILED, full, &large, Some(("text/rfc822-headers", "7bit", head))),
        (FAILED, None, &latin, Some(("text/rfc822-headers", "8bit", latin_head))),
        (FAILED, full, &latin, Some(("message/rfc822", "8bit", &latin))),
        (FAILED, full, &nul, Some(("text/rfc822-headers", "quoted-printable", &nul_head))),
        (FAILED, full, head, Some(("text/rfc822-headers", "7bit", head))),
        (FAILED, full, b"", None),
        (FAILED, None, b"\r\nbody", None),
    ];
    let bob = recipient("bob@example.net", "SUCCESS,FAILURE,DELAY", None);
    let mut envelope = envelope("ann@example.com", vec![bob.clone()]);
    let all = [concerned(&bob, "550 5.1.1 No such user")];
    for (kind, ret, original, want) in table {
        envelope.ret = *ret;
        let (to, octets) = compose(&Notice { original, ..notice(*kind, &envelope, &all) }).unwrap();
        let parts = parts(&octets);
        let got = parts.get(2).map(|(media, encoding, raw)| (&**media, &**encoding, *raw));
        assert_eq!(got, *want, "{kind:?} {ret:?} {}", String::from_utf8_lossy(&original[..original.len().min(80)]));
        assert_eq!(to.body == Body::EightBitMime, !octets.is_ascii());
        let whole = parsed(&octets).content_transfer_encoding().map(str::to_owned);
        assert_eq!(whole.as_deref(), (!octets.is_ascii()).then_some("8bit"));
        let text = text_of(&octets);
        assert_eq!(text.contains("\r\nYour message is attached."), want.is_some_and(|w| w.0 == "message/rfc822"));
        assert_eq!(text.contains("\r\nThe header of your"), want.is_some_and(|w| w.0 != "message/rfc822"));
    }
}

#[test]
fn addresses_beyond_ascii() {
    let original = "Subject: Grüße\r\nTo: grün+x@example.net\r\n\r\nHello\r\n".as_bytes();
    let green = recipient("grün+x@example.net", "", Some("utf-8;gr\\x{FC}n\\x{2B}x@example.net"));
    let bob = recipient("bob@example.net", "", Some("utf-8;bøb@example.net"));
    let all = [concerned(&green, "550 5.1.1 unbekannt: grün"), concerned(&bob, "550 5.1.1 no")];
    // (sender, RET), then the media types, the addresses, and the words.
    let table = [
        (
            "ann@example.com",
            None,
            ["message/delivery-status", "text/rfc822-headers"],
            [
                "Original-Recipient: utf-8; gr\\x{FC}n\\x{2B}x@example.net",
                "Final-Recipient: utf-8; gr\\x{FC}n\\x{2B}x@example.net",
                "Original-Recipient: utf-8; b\\x{F8}b@example.net",
                "Final-Recipient: rfc822; bob@example.net",
                "Diagnostic-Code: smtp; 550 5.1.1 unbekannt: gr?n",
            ],
        ),
        (
            "ännchen@example.com",
            Some(Return::Full),
            ["message/global-delivery-status", "message/global"],
            [
                "Original-Recipient: utf-8; gr\\x{FC}n\\x{2B}x@example.net",
                "Final-Recipient: utf-8; grün+x@example.net",
                "Original-Recipient: utf-8; bøb@example.net",
                "Final-Recipient: rfc822; bob@example.net",
                "Diagnostic-Code: smtp; 550 5.1.1 unbekannt: grün",
            ],
        ),
        (
            "ännchen@example.com",
            None,
            ["message/global-delivery-status", "message/global-headers"],
            ["Final-Recipient: utf-8; grün+x@example.net"; 5],
        ),
    ];
    for (sender, ret, media, fields) in table {
        let mut envelope = envelope(sender, vec![green.clone(), bob.clone()]);
        (envelope.smtputf8, envelope.ret) = (true, ret);
        let (to, octets) = compose(&Notice { original, ..notice(FAILED, &envelope, &all) }).unwrap();
        assert_eq!((to.smtputf8, to.body), (!sender.is_ascii(), Body::EightBitMime));
        let got = parts(&octets);
        assert_eq!([&*got[1].0, &*got[2].0], media);
        assert!(original.starts_with(got[2].2));
        let text = fields_of(&octets);
        for field in fields {
            assert!(text.contains(&format!("\r\n{field}\r\n")), "{field} in {text}");
        }
        let header = octets.split(|b| *b == b'\n').take_while(|line| *line != b"\r").collect::<Vec<_>>().concat();
        assert_eq!(header.is_ascii(), sender.is_ascii());
        assert!(text_of(&octets).contains("\r\n<grün+x@example.net>\r\n  Refused by mx.example.org, which said:\r\n"));
    }
}

#[test]
fn many_recipients_are_counted() {
    let recipients: Vec<Recipient> = (0..120).map(|n| recipient(&format!("u{n}@example.net"), "", None)).collect();
    let envelope = envelope("ann@example.com", recipients.clone());
    let all: Vec<Concerned<'_>> = recipients.iter().map(|r| concerned(r, "550 5.1.1 no")).collect();
    let (_, octets) = compose(&notice(FAILED, &envelope, &all)).unwrap();
    let text = text_of(&octets);
    assert!(text.contains("the 120 recipients named below"));
    assert!(text.contains("<u49@") && !text.contains("<u50@") && text.contains("... and 70 more"));
    assert_eq!(fields_of(&octets).matches("\r\n\r\nFinal-Recipient: ").count(), 120);
}
