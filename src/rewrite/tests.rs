//! Whole messages through [`plan`] and [`Plan::copy_for`].

use super::*;
use crate::mail::DomainName;
use crate::mime::transfer::{decode_base64, decode_quoted_printable};
use crate::mime::transfer::{encode_base64, encode_quoted_printable};
use crate::token::{Signer, Token, TokenKey, Verifier};
use memchr::memmem;
use proptest::prelude::*;

fn key() -> TokenKey {
    TokenKey { id: 3, secret: [5; 32] }
}

fn policy() -> Policy {
    Policy {
        domain: DomainName::parse("example.com").unwrap(),
        open: true,
        click: true,
        scheme: Scheme::Https,
        host: DomainName::parse("links.example.com").unwrap(),
        port: 0,
        own_hosts: Vec::new(),
        on_signed: OnSigned::Skip,
        signs: false,
        limits: Limits::default(),
    }
}

fn id() -> QueueId {
    QueueId::from_bytes([9; 16])
}

fn copy(message: &[u8], policy: &Policy, recipients: usize, recipient: u16) -> (Vec<u8>, Report) {
    let plan = plan(message, &Tracking::Active(policy.clone()), recipients);
    let signer = Signer::new(&key()).for_host(&policy.host);
    let mut out = Vec::new();
    plan.copy_for(message, &id(), recipient, Some(&signer), &mut out);
    if plan.is_untouched() {
        assert_eq!(out, message);
    }
    (out, plan.report().clone())
}

/// Puts destinations back in place of our URLs and takes the pixel out; what is left must be the original.
fn undo(html: &[u8], recipient: u16) -> (Vec<u8>, Vec<String>, usize) {
    let verifier = Verifier::new(&[key()]);
    let (mut out, mut urls, mut pixels) = (Vec::new(), Vec::new(), 0);
    let mut rest = html;
    while let Some(at) = memmem::find(rest, b"https://links.example.com/") {
        let url = &rest[at..];
        let path = &url[26..];
        let kind = path[0];
        let length =
            path[2..].iter().position(|b| !(b.is_ascii_alphanumeric() || b"-_".contains(b))).unwrap_or(path.len() - 2);
        let token = &path[2..2 + length];
        if kind == b'c' {
            let Some(Token::Click { id: found, recipient: r, link, url }) = verifier.click("links.example.com", token)
            else {
                panic!("a bad token: {}", String::from_utf8_lossy(token))
            };
            assert_eq!((found, r, usize::from(link)), (id(), recipient, urls.len()));
            out.extend_from_slice(&rest[..at]);
            out.extend_from_slice(format!("@{}", urls.len()).as_bytes());
            urls.push(url);
            rest = &rest[at + 28 + length..];
        } else {
            assert_eq!(verifier.open("links.example.com", token), Some(Token::Open { id: id(), recipient }));
            out.extend_from_slice(rest[..at].strip_suffix(pixel::HEAD).expect("the pixel's tag"));
            let tail = rest[at + 28 + length..].strip_prefix(b".gif").unwrap();
            rest = tail.strip_prefix(pixel::TAIL).expect("the pixel's tag");
            pixels += 1;
        }
    }
    out.extend_from_slice(rest);
    (out, urls, pixels)
}

#[test]
fn a_message_of_one_part() {
    let message = b"From: a@example.com\r\nX-Trackpost-Tag: a=b\r\nContent-Type: text/html\r\n\r\n\
        <body><a href='https://example.org/?a=1&amp;b=2'>x</a></body>\r\n";
    let (out, report) = copy(message, &policy(), 1, 0);
    let (html, urls, pixels) = undo(&out, 0);
    assert_eq!(html, b"From: a@example.com\r\nContent-Type: text/html\r\n\r\n<body><a href='@0'>x</a></body>\r\n");
    assert_eq!((urls, pixels), (vec!["https://example.org/?a=1&b=2".to_owned()], 1));
    assert_eq!((report.bytes_in, report.bytes_out), (message.len() as u64, out.len() as u64));
    assert_eq!((report.pixel, report.links_rewritten, report.skipped), (Pixel::Inserted, 1, None));
}

#[test]
fn left_alone() {
    let html = "<a href=\"https://example.org/\">x</a>";
    let single = |header: &str| format!("From: a@example.com\r\n{header}\r\n\r\n{html}\r\n");
    let multi = |kind: &str, header: &str| {
        format!("Content-Type: multipart/{kind}; boundary=b\r\n\r\n--b\r\n{header}\r\n\r\n{html}\r\n--b--\r\n")
    };
    use SkipReason::*;
    let table = [
        (single("Content-Type: text/html\r\nDKIM-Signature: d=example.com; s=x"), Some(DkimSigned)),
        (single("Content-Type: text/html\r\nX-PM-TrackLinks: None\r\nX-PM-TrackOpens: false"), Some(AskedByHeader)),
        (single("Content-Type: text/html\r\nX-Mailgun-Track: no"), Some(AskedByHeader)),
        (single("Content-Type: text/plain\r\nContent-Type: text/html"), Some(BrokenStructure)),
        (single("Content-Type: text/html\r\nno field"), Some(BrokenStructure)),
        (single("Content-Type: text/html\r\nN\u{e4}me: x"), Some(BrokenStructure)),
        (multi("mixed", "Content-Type: text/html;\r\ncharset=utf-8"), Some(BrokenStructure)),
        (single("Content-Type: message/rfc822"), Some(EmbeddedMessage)),
        (single("Content-Type: application/pkcs7-mime"), Some(Pkcs7)),
        (single("Content-Type: text/html\r\nContent-Disposition: attachment"), Some(Attachment)),
        (multi("signed", "Content-Type: text/html"), Some(SignedPart)),
        (multi("encrypted", "Content-Type: text/html"), Some(EncryptedPart)),
        (multi("report", "Content-Type: text/html"), Some(Report)),
        (multi("mixed", "Content-Type: text/html").replace("--b--", ""), Some(BrokenStructure)),
        (format!("Content-Type: text/html\r\n\r\n{html}-----BEGIN PGP MESSAGE-----"), Some(InlinePgp)),
        (multi("mixed", "Content-Type: text/x-amp-html"), None),
        (multi("mixed", "Content-Type: text/html\r\nContent-Disposition: attachment; filename=a"), None),
        (multi("mixed", "Content-Type: text/html\r\nContent-Transfer-Encoding: x-uuencode"), Some(UnknownEncoding)),
        (multi("mixed", "Content-Type: text/html\r\nContent-Transfer-Encoding: base64"), Some(Undecodable)),
        (multi("mixed", "Content-Type: text/html; charset=utf-16"), Some(Charset)),
        (multi("mixed", "Content-Type: text/html; charset=iso-2022-jp"), Some(Charset)),
        (multi("mixed", "Content-Type: message/rfc822\r\n\r\nContent-Type: text/html"), None),
        (single("Content-Type: text/plain"), None),
    ];
    for (message, reason) in table {
        let (out, report) = copy(message.as_bytes(), &policy(), 1, 0);
        assert_eq!(out, message.as_bytes(), "{message}");
        assert_eq!(report.skipped, reason, "{message}");
    }
    let signs = Policy { signs: true, ..policy() };
    let message = single("Content-Type: text/html\r\nDKIM-Signature: d=example.com");
    assert_eq!(copy(message.as_bytes(), &signs, 1, 0).1.skipped, None);
    let message = single("Content-Type: text/html\r\nDKIM-Signature: d=example.org");
    assert_eq!(copy(message.as_bytes(), &policy(), 1, 0).1.links_rewritten, 1);
}

#[test]
fn switched_off() {
    let message = b"A: b\nX-Trackpost-Track: none\nX-Trackpost-Tag: a\n =b\n\n<a href=http://a.example/>";
    let plan = plan(message, &Tracking::Off(OffReason::SwitchedOff), 5);
    assert!(!plan.copies_differ() && !plan.is_untouched());
    let mut out = b"x".to_vec();
    plan.copy_for(message, &id(), 0, None, &mut out);
    assert_eq!(out, b"xA: b\n\n<a href=http://a.example/>");
    assert_eq!((plan.report().skipped, plan.report().bytes_out), (Some(SkipReason::SwitchedOff), out.len() as u64 - 1));
}

#[test]
fn limits() {
    let html = |body: &str| format!("Content-Type: text/html\n\n{body}");
    let mut small = policy();
    small.limits = Limits { max_link_length: 150, max_links: 2, max_html_size: 200 };
    let (_, report) = copy(html(&"<a href=http://a.example>".repeat(3)).as_bytes(), &small, 1, 0);
    assert_eq!(report.skipped, Some(SkipReason::TooManyLinks));
    let (_, report) = copy(html(&format!("<a href=http://a.example/{}>", "x".repeat(60))).as_bytes(), &small, 1, 0);
    assert_eq!(report.links_skipped[&SkipReason::TooLong], 1);
    let (_, report) = copy(html(&"x".repeat(201)).as_bytes(), &small, 1, 0);
    assert_eq!(report.pixel, Pixel::Skipped(SkipReason::TooLarge));
    let (_, report) = copy(html(&"x".repeat(110_000)).as_bytes(), &policy(), 1, 0);
    assert_eq!(report.notes, [Note::GmailClips, Note::BecameQuotedPrintable]);
}

#[test]
fn a_line_that_would_be_too_long() {
    for (field, want) in [
        ("Content-Transfer-Encoding: 7BIT (x)\r\n", "Content-Transfer-Encoding: quoted-printable\r\n"),
        ("Content-Transfer-Encoding:\r\n 8bit\r\n", "Content-Transfer-Encoding:\r\n quoted-printable\r\n"),
        ("", "Content-Transfer-Encoding: quoted-printable\r\n"),
    ] {
        let body = format!("{}<a href=\"http://a.example/\">\u{fc}</a> \r\nlast=\r\n", "x".repeat(900));
        let message = format!("Content-Type: text/html\r\n{field}\r\n{body}");
        let mut policy = policy();
        policy.open = false;
        let (out, report) = copy(message.as_bytes(), &policy, 1, 0);
        let head = format!("Content-Type: text/html\r\n{want}\r\n");
        let encoded = out.strip_prefix(head.as_bytes()).unwrap();
        let (html, ..) = undo(&decode_quoted_printable(encoded).unwrap().bytes, 0);
        assert_eq!(html, body.replace("http://a.example/", "@0").as_bytes());
        assert_eq!(report.notes, [Note::BecameQuotedPrintable]);
        assert_eq!(report.bytes_out, out.len() as u64);
    }
}

#[test]
fn one_pixel_in_the_last_part_shown() {
    let message = "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: text/html\n\none\n--a\n\
        Content-Type: multipart/alternative; boundary=b\n\n--b\n\nplain\n--b\nContent-Type: text/html\n\ntwo\n--b--\n\
        --a\nContent-Type: text/html\nContent-Disposition: attachment\n\nthree\n--a--\n";
    let (out, _) = copy(message.as_bytes(), &policy(), 1, 0);
    let out = String::from_utf8(out).unwrap();
    assert_eq!(out.matches("<img").count(), 1);
    assert!(out.contains("\ntwo<img"));
    let broken = message.replace("\ntwo\n", "\ntwo<title>\n");
    let (out, report) = copy(broken.as_bytes(), &policy(), 1, 0);
    assert!(String::from_utf8(out).unwrap().contains("\none<img"));
    assert_eq!(report.pixel, Pixel::Inserted);
}

#[test]
fn an_empty_body_has_room_on_a_line_of_its_own() {
    for way in [Way::Identity, Way::QuotedPrintable, Way::Base64] {
        let message = |end: &str| {
            format!(
                "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: text/html\r\n\
                 Content-Transfer-Encoding: {}\r\n{end}--a--\r\n",
                name(way)
            )
        };
        for (end, pixel) in [("", 0), ("\r\n", 0), ("\r\n\r\n", 1), ("\r\n\r\n\r\n", 1)] {
            let message = message(end);
            let (out, report) = copy(message.as_bytes(), &policy(), 1, 0);
            assert_eq!(report.pixel == Pixel::Inserted, pixel == 1, "{end:?}");
            let parts = scan(&out).unwrap();
            assert_eq!(parts.len(), 2);
            let body = &out[parts[1].body.clone()];
            let text = match way {
                Way::Identity => body.to_vec(),
                Way::QuotedPrintable => decode_quoted_printable(body).unwrap().bytes,
                Way::Base64 => decode_base64(body).unwrap().bytes,
            };
            assert_eq!(undo(&text, 0).2, pixel, "{end:?}");
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Identity,
    QuotedPrintable,
    Base64,
}

fn encoded(text: &[u8], way: Way, eol: &str) -> Vec<u8> {
    let mut out = Vec::new();
    match way {
        Way::Identity => out.extend_from_slice(text),
        Way::QuotedPrintable => encode_quoted_printable(text, eol.as_bytes(), &mut out),
        Way::Base64 => encode_base64(text, 0, 76, eol.as_bytes(), &mut out),
    }
    out
}

fn name(way: Way) -> &'static str {
    match way {
        Way::Identity => "8bit",
        Way::QuotedPrintable => "quoted-printable",
        Way::Base64 => "base64",
    }
}

/// HTML with marks in place of links that will be rewritten, those links, and the HTML with them.
fn document() -> impl Strategy<Value = (String, Vec<String>)> {
    let url = "http://[a-z]{1,9}\\.example(/([a-zA-Z0-9=?+-]|%2F){0,90})?";
    let piece = prop_oneof![
        3 => (url, 0..4usize).prop_map(|(url, quote)| {
            let quote = ["\"", "'", "\"", "'"][quote];
            (format!("<a\nhref={quote}@{quote}>=20</a>"), Some(url))
        }),
        1 => "http://[a-z]{1,9}\\.example/[a-z]{1,60}".prop_map(|url| ("<A HREF=@>".to_owned(), Some(url))),
        1 => "https://[a-z]{1,9}\\.example/[a-z]{1,60}"
            .prop_map(|url| ("<!--[if mso]><v:rect href=\"@\"/><![endif]-->".to_owned(), Some(url))),
        1 => Just(("<!-- <a href=\"http://no.example\"> -->".to_owned(), None)),
        1 => Just(("<a href=\"mailto:a\" data-x>".to_owned(), None)),
        4 => "[a-z äß=.\r\t-]{0,90}".prop_map(|text| (text, None)),
        2 => Just(("EOL".to_owned(), None)),
        1 => Just(("</body>".to_owned(), None)),
    ];
    proptest::collection::vec(piece, 0..25).prop_map(|pieces| {
        let urls = pieces.iter().filter_map(|(_, url)| url.clone()).collect();
        (["x".to_owned()].into_iter().chain(pieces.into_iter().map(|(text, _)| text)).collect(), urls)
    })
}

fn fill(html: &str, urls: &[String], eol: &str) -> (String, String) {
    let (mut source, mut marked) = (String::new(), String::new());
    let mut urls = urls.iter().enumerate();
    for piece in html.replace("EOL", eol).split_inclusive('@') {
        match piece.strip_suffix('@') {
            Some(text) => {
                let (index, url) = urls.next().unwrap();
                source.push_str(&format!("{text}{url}"));
                marked.push_str(&format!("{text}@{index}"));
            }
            None => {
                source.push_str(piece);
                marked.push_str(piece);
            }
        }
    }
    (source, marked)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn only_links_and_pixel_change(
        (html, urls) in document(),
        way in prop_oneof![Just(Way::Identity), Just(Way::QuotedPrintable), Just(Way::Base64)],
        charset in prop_oneof![Just("utf-8"), Just("iso-8859-1"), Just("windows-1251"), Just("gbk"), Just("shift_jis")],
        crlf in any::<bool>(),
        recipients in prop_oneof![Just(1usize), Just(300)],
    ) {
        let eol = if crlf { "\r\n" } else { "\n" };
        let (source, marked) = fill(&html, &urls, eol);
        let encoding = encoding_rs::Encoding::for_label(charset.as_bytes()).unwrap();
        let bytes = |text: &str| encoding.encode(text).0.into_owned();
        let head = format!("From: a@example.com{eol}Content-Type: multipart/alternative; boundary=\"=_b\"{eol}{eol}\
            pre{eol}--=_b{eol}{eol}plain http://a.example/{eol}--=_b{eol}Content-Type: text/html; charset={charset}{eol}");
        let field = |name: &str| format!("Content-Transfer-Encoding: {name}{eol}{eol}");
        let tail = format!("{eol}--=_b--{eol}epilogue{eol}");
        let message = [head.as_bytes(), field(name(way)).as_bytes(), &encoded(&bytes(&source), way, eol), tail.as_bytes()].concat();
        let (out, report) = copy(&message, &policy(), recipients, recipients as u16 - 1);
        prop_assert_eq!(report.links_rewritten as usize, urls.len());
        prop_assert_eq!(report.pixel, Pixel::Inserted);
        let body = out.strip_prefix(head.as_bytes()).unwrap().strip_suffix(tail.as_bytes()).unwrap();
        let (way, body) = [way, Way::QuotedPrintable].into_iter()
            .find_map(|way| Some((way, body.strip_prefix(field(name(way)).as_bytes())?))).unwrap();
        for line in body.split(|b| *b == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let limit = if matches!(way, Way::Identity) { 998 } else { 76 };
            prop_assert!(line.len() <= limit);
        }
        let text = match way {
            Way::Identity => body.to_vec(),
            Way::QuotedPrintable => decode_quoted_printable(body).unwrap().bytes,
            Way::Base64 => decode_base64(body).unwrap().bytes,
        };
        let (text, found, pixels) = undo(&text, recipients as u16 - 1);
        prop_assert_eq!(text, bytes(&marked));
        prop_assert_eq!(found, urls);
        prop_assert_eq!(pixels, 1);
    }

    #[test]
    fn nothing_to_rewrite_leaves_identical(text in "[a-z<>=\r\n\"'/&;-]{0,300}", way in 0..3usize) {
        let way = [Way::Identity, Way::QuotedPrintable, Way::Base64][way];
        let body = encoded(text.as_bytes(), way, "\r\n");
        let message = [format!("Content-Type: text/html\r\nContent-Transfer-Encoding: {}\r\n\r\n", name(way)).as_bytes(), &body].concat();
        let mut policy = policy();
        policy.open = false;
        prop_assert_eq!(copy(&message, &policy, 1, 0).0, message);
    }

    #[test]
    fn any_bytes(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz_rewrite(&data);
    }

    #[test]
    fn mutated_messages(places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(), way in 0..3usize) {
        let way = [Way::Identity, Way::QuotedPrintable, Way::Base64][way];
        let html = "<html><body><!--[if mso]><v:rect href='http://a.example'/><![endif]--><p style=\"a\">\u{fc}<a href=\"https://b.example/?a=1&amp;b=2\">x</a>\
            <noscript><a href=http://c.example/></noscript></p></body></html>\r\n";
        let mut message = [
            b"From: a@example.com\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html; charset=utf-8\r\n\
            Content-Transfer-Encoding: ".as_slice(), name(way).as_bytes(), b"\r\n\r\n", &encoded(html.as_bytes(), way, "\r\n"), b"\r\n--b--\r\n"].concat();
        for (place, byte) in places {
            let at = place.index(message.len());
            message[at] = byte;
        }
        fuzz_rewrite(&message);
        message.truncate(cut.index(message.len()));
        fuzz_rewrite(&message);
    }
}

#[test]
fn bombs() {
    let deep: String =
        (0..10_000).map(|i| format!("Content-Type: multipart/mixed; boundary=b{i}\r\n\r\n--b{i}\r\n")).collect();
    fuzz_rewrite(deep.as_bytes());
    fuzz_rewrite(format!("Content-Type: multipart/mixed; boundary=b\n\n{}", "--b\n\n".repeat(1_000_000)).as_bytes());
    fuzz_rewrite(&b"A: b\n".repeat(2_000_000));
    fuzz_rewrite(&[b"Content-Type: text/html\n\n".as_slice(), &b"x".repeat(1_000_000)].concat());
    fuzz_rewrite(&[b"Content-Type: text/html\n\n".as_slice(), &b"<a href=http://a.example>".repeat(20_000)].concat());
    fuzz_rewrite(&[b"Content-Type: text/html\n\n".as_slice(), &b"</p>".repeat(100_000)].concat());
}
