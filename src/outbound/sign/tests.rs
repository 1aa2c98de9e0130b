//! Signatures, verified by mail-auth with a record that stands here instead of in DNS.

use super::*;
use crate::domain::SenderDomain;
use crate::keys::{DkimKeys, NewDkimKey};
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_auth::hickory_resolver::config::{ResolverConfig, ResolverOpts};
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator, Parameters, ResolverCache, Txt};
use proptest::prelude::*;
use std::borrow::Borrow;
use std::hash::Hash;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Instant;
use uuid::Uuid;

/// The one record that there is, whatever is asked for.
struct Record(Arc<DomainKey>);

impl ResolverCache<Box<str>, Txt> for Record {
    fn get<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        Some(Txt::DomainKey(Arc::clone(&self.0)))
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {}
}

/// A key for example.com, made once for all tests, with its record.
static KEY: LazyLock<(Arc<Signer>, Record)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("keys")).unwrap();
    let keys = DkimKeys::new(folder.path());
    let domain = DomainName::parse("example.com").unwrap();
    let selector = Selector::parse("trackpost").unwrap();
    let new = NewDkimKey::generate().unwrap();
    keys.keep(&domain, &selector, &new).unwrap();
    let key = keys.open(&domain, &selector, &new.public).unwrap();
    let mut shown = SenderDomain::new(domain.clone(), Uuid::nil(), 0);
    shown.dkim.add(&domain, selector.clone(), new.public, 0).unwrap();
    let record = DomainKey::parse(shown.dkim.newest().unwrap().expected().as_bytes()).unwrap();
    (Arc::new(Signer { domain, selector, key }), Record(Arc::new(record)))
});

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn signed(message: &[u8], changed: bool) -> Result<Vec<u8>, Unsigned> {
    run(sign(&Pool::new(), &KEY.0, message, changed))
}

/// What mail-auth says of each signature.
fn verify(message: &[u8]) -> Vec<String> {
    let asks_nobody = MessageAuthenticator::new(ResolverConfig::default(), ResolverOpts::default()).unwrap();
    let parsed = AuthenticatedMessage::parse(message).unwrap();
    let results = run(asks_nobody.verify_dkim(Parameters::new(&parsed).with_txt_cache(&KEY.1)));
    let word = |result: &DkimResult| match result {
        DkimResult::Pass => "pass".to_owned(),
        other => format!("{other:?}"),
    };
    results.iter().map(|output| word(output.result())).collect()
}

fn header(message: &[u8]) -> String {
    let end = memchr::memmem::find(message, b"\r\n\r\n").unwrap();
    String::from_utf8_lossy(&message[..end]).into_owned()
}

const MESSAGE: &str = "Received: from a\r\nSubject: first\r\nFrom: =?utf-8?q?B?= <a@example.com>\r\nTo:\r\n b@example.net\r\n\
    subject : x\r\nDate: now\r\nX-Other: y\r\n\r\nbody \t x\r\n\r\n";

#[test]
fn what_is_signed() {
    let message = MESSAGE.replace("subject :", "SUBJECT:");
    let out = signed(message.as_bytes(), false).unwrap();
    assert!(out.ends_with(message.as_bytes()));
    let field = header(&out);
    let field = field.split("Received:").next().unwrap();
    for part in ["v=1;", "a=rsa-sha256;", "c=relaxed/relaxed;", "d=example.com;", "s=trackpost;"] {
        assert!(field.contains(part), "{part} {field}");
    }
    assert!(field.contains("h=from:subject:subject:date:to:from;"), "{field}");
    assert!(!field.contains("l=") && !field.contains("x=") && !field.contains("i="), "{field}");
    assert_eq!(verify(&out), ["pass"]);
    // On the way a relay may fold anew, add trace fields and change white space at the ends of lines.
    let moved =
        String::from_utf8(out.clone()).unwrap().replace("Date: now", "date:\tnow ").replace("body \t x", "body x  ");
    assert_eq!(verify(format!("Received: from b\r\n{moved}").as_bytes()), ["pass"]);
    for (from, to) in [
        ("Date: now", "Date: then"),
        ("body", "bodY"),
        ("Subject: first", "Subject: second"),
        ("X-Other: y", "From: c@example.org"),
        ("h=from:subject", "h=from:to:subject"),
    ] {
        let forged = String::from_utf8(out.clone()).unwrap().replace(from, to);
        assert_ne!(verify(forged.as_bytes()), ["pass"], "{to}");
    }
}

#[test]
fn what_is_not_signed() {
    let table: &[(&str, Unsigned)] = &[
        (MESSAGE, Unsigned::Header),
        ("", Unsigned::From),
        ("\r\n", Unsigned::From),
        ("Subject: x\r\n\r\n", Unsigned::From),
        ("From: a@example.com\r\nFrom: b@example.com\r\n\r\n", Unsigned::From),
        ("From: a@example.com\r\nno field\r\nTo: b\r\n\r\n", Unsigned::Header),
        ("From: a@example.com\r\nN\u{e4}me: x\r\n\r\n", Unsigned::Header),
        ("From a Mon\r\nFrom: a@example.com\r\n\r\n", Unsigned::Header),
        (" folded\r\nFrom: a@example.com\r\n\r\n", Unsigned::Header),
        ("From: a@example.com\r\nlast", Unsigned::Header),
    ];
    for (message, want) in table {
        assert_eq!(refusal(message.as_bytes()).as_ref(), Some(want), "{message:?}");
        assert_eq!(signed(message.as_bytes(), true).unwrap_err(), *want, "{message:?}");
    }
    let long = format!("From: a@example.com\r\n{}\r\n", "X: y\r\n".repeat(300_000));
    assert_eq!(refusal(long.as_bytes()), Some(Unsigned::Header));
    for message in
        ["From: a@example.com", "From: a@example.com\r\n", "From: a@example.com\r\n\r\n", "FROM:a\r\n\r\n \r\n"]
    {
        assert_eq!(refusal(message.as_bytes()), None, "{message:?}");
    }
}

#[test]
fn signatures_that_were_there() {
    let own = "DKIM-Signature: v=1; d=Example.COM;\r\n s=x; b=AA\r\n";
    let twice = "dkim-signature: s=y; d = example.com.\r\n";
    let others = "DKIM-Signature: v=1; d=mail.example.com; s=x; b=AA\r\nDKIM-Signature: v=1; d=example.net; b=AA\r\n\
        DKIM-Signature: x\r\n";
    let rest = "From: a@example.com\r\nTo: b@example.net\r\n\r\nx\r\n";
    let message = format!("{own}Received: x\r\n{others}{twice}{rest}");
    assert_eq!(signed(message.as_bytes(), false).unwrap_err(), Unsigned::HasOne);
    let out = signed(message.as_bytes(), true).unwrap();
    assert!(out.ends_with(format!("\r\nReceived: x\r\n{others}{rest}").as_bytes()));
    assert_eq!(verify(&out).iter().filter(|result| *result == "pass").count(), 1);
    let message = format!("{others}{rest}");
    assert!(signed(message.as_bytes(), false).unwrap().ends_with(message.as_bytes()));
}

#[test]
fn fields_that_are_read_differently_are_left_out() {
    let message = "From: a@example.com\r\nTo: a\x0cb\r\nTo: c\r\nCc: a\r\nSubject: a\x0b\r\n\r\nx\x0c \r\n";
    let out = signed(message.as_bytes(), false).unwrap();
    assert!(header(&out).contains("h=from:cc:from;"), "{}", header(&out));
    assert_eq!(verify(&out), ["pass"]);
    assert_eq!(refusal(b"From: a\x0b@example.com\r\n\r\n"), Some(Unsigned::Header));
}

#[test]
fn many_fields_of_a_name() {
    let message = format!("{}From: a@example.com\r\n\r\n", "To: b@example.net\r\n".repeat(5_000));
    let out = signed(message.as_bytes(), false).unwrap();
    assert_eq!(header(&out).split("bh=").next().unwrap().matches(":to").count(), MOST_OF_A_NAME);
    assert_eq!(verify(&out), ["pass"]);
}

#[test]
fn fixtures_verify() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/mail");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let message = std::fs::read(&path).unwrap();
        if path.extension().is_none_or(|end| end != "eml") || refusal(&message).is_some() {
            continue;
        }
        let out = signed(&message, true).unwrap();
        let passed = verify(&out).iter().filter(|result| *result == "pass").count();
        assert_eq!(passed, 1, "{}: {:?}", path.display(), verify(&out));
        count += 1;
    }
    assert!(count >= 100, "only {count}");
}

/// The white space that mail-auth leaves behind a full last line comes with one length of the field in some 75.
#[test]
fn nothing_stands_behind_the_signature() {
    let (signer, _) = &*KEY;
    let mut odd = 0;
    for length in 0..160 {
        let h = vec!["x".repeat(length), "from".to_owned()];
        let mut signature =
            Signature { h, b: vec![7; 256], bh: vec![7; 32], v: 1, t: 1_700_000_000, ..Signature::default() };
        (signature.d, signature.s) = (signer.domain.to_string(), signer.selector.to_string());
        let mut plain = Vec::new();
        signature.write(&mut plain, true);
        odd += usize::from(plain.ends_with(b"\t;\r\n"));
        let mut out = b"y".to_vec();
        write_field(&signature, &mut out);
        assert!(out.ends_with(b"=;\r\n") && out.starts_with(b"yDKIM-Signature: "), "{length}");
        assert!(out.split(|byte| *byte == b'\n').all(|line| line.len() <= 250));
    }
    assert!(odd > 0, "mail-auth has mended it: write_field can go");
}

/// Why `relaxed` is there. mail-auth calls broken what the RFC and other verifiers call right.
#[test]
fn where_mail_auth_departs_from_the_rfc() {
    for body in ["a\r\n \r\n", "\t\r\n"] {
        let message = format!("From: a@example.com\r\n\r\n{body}");
        let out = signed(message.as_bytes(), false).unwrap();
        assert_ne!(verify(&out), ["pass"], "mail-auth has mended {message:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_message_verifies(
        fields in prop::collection::vec(("[A-Za-z][A-Za-z0-9-]{0,12}|Subject|To|Cc|List-Id", "([ -~\t\u{e4}]{0,40}(\r\n[ \t])?){0,4}"), 0..12),
        lines in prop::collection::vec("[ -~\t\u{e4}]{0,90}", 0..12),
    ) {
        // A folded line of blanks alone would be the end of the header to some readers.
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {}x\r\n", value.replace("\r\n", "z\r\n"))).collect();
        let fields = fields.replace("From:", "Form:").replace("from:", "form:").replace("FROM:", "FORM:");
        // mail-auth keeps a last line of blanks, against RFC 6376 §3.4.4.
        let message = format!("{fields}From: a@example.com\r\n\r\n{}end\r\n\r\n", lines.join("\r\n"));
        prop_assume!(refusal(message.as_bytes()).is_none());
        let out = signed(message.as_bytes(), true).unwrap();
        prop_assert_eq!(verify(&out), ["pass"], "{}", message);
    }

    #[test]
    fn any_octets(data in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = refusal(&data);
    }
}
