//! Nothing that the smarthost, the client or the sender said gets out of its place in a notice.

use super::*;
use crate::mime::transfer::decode_quoted_printable;
use proptest::prelude::*;

#[test]
fn hostile_words_stay_in_their_place() {
    let evil = "550 5.1.1 no\r\nAction: delivered\n\nFinal-Recipient: x\r\r\n--=_\0\u{85}\u{2028}Status: 2.0.0";
    let bob = recipient("bob@example.net", "", Some("rfc822;bob\r\nAction: delivered"));
    let mut envelope = envelope("ann@example.com", vec![bob.clone()]);
    envelope.envid = Some("id\r\n\r\nAction: delivered".into());
    let (_, octets) = compose(&Notice {
        subject: "=?utf-8?q?a=0D=0ABcc:_x?=\r\nBcc: eve@example.org\r\n\r\nbody",
        hostname: "relay.example.com\r\nBcc: eve@example.org",
        smarthost: "mx\r\nBcc: eve@example.org",
        original: b"Message-ID: <1@example.com>\r\n\t<2@example.com>\r\n\r\n",
        ..notice(FAILED, &envelope, &[concerned(&bob, evil)])
    })
    .unwrap();
    let message = parsed(&octets);
    let names: Vec<&str> = message.headers().iter().map(|h| h.name()).collect();
    let want = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"];
    assert_eq!(names, want);
    assert_eq!(message.subject(), Some("Could not be delivered: = ?utf-8?q?a=0D=0ABcc:_x?= Bcc: eve@example.org body"));
    let fields = fields_of(&octets);
    let lines: Vec<&str> =
        fields.lines().filter(|line| line.starts_with("Action") || line.starts_with("Sta")).collect();
    assert_eq!(lines, ["Action: failed", "Status: 5.1.1"]);
    assert_eq!(parts(&octets).len(), 3);
}

#[test]
fn a_boundary_that_stands_in_the_message_is_not_taken() {
    let bob = recipient("bob@example.net", "", None);
    let mut envelope = envelope("ann@example.com", vec![bob.clone()]);
    envelope.ret = Some(Return::Full);
    let all = [concerned(&bob, "550 no")];
    let base = notice(FAILED, &envelope, &all);
    let original =
        format!("Subject: x\r\n\r\n--trackpost=_{0}_0--\r\n\r\n--trackpost=_{0}_1\r\n\r\nmore\r\n", base.dsn_id);
    let (_, octets) = compose(&Notice { original: original.as_bytes(), ..base }).unwrap();
    let parts = parts(&octets);
    assert_eq!(parts.len(), 3);
    assert_eq!(parts[2].2, original.as_bytes());
    assert!(memmem::find(&octets, format!("boundary=\"trackpost=_{}_2\"", base.dsn_id).as_bytes()).is_some());
}

/// Text with more of what does harm than chance would give.
fn words() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "\\PC{0,12}",
        1 => any::<String>(),
        2 => prop::sample::select(vec![
            "\r\n", "\n", "\r", "\0", " ", "\t", "\u{85}", "\u{2028}", "550 5.1.1 ", "451 ", "--", "=_", "=?utf-8?q?x?=",
            "Action: delivered", "\r\n\r\n", "connect: ", ";", "\\x{0D}", "ü", "日本語", "\u{202e}",
        ]).prop_map(str::to_owned),
        1 => ("[a-zü]", 0usize..1200).prop_map(|(c, n)| c.repeat(n)),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        3 => words().prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..80),
        3 => prop::sample::select(vec!["Subject: x\r\n", "\r\n", "Content-Type: multipart/mixed; boundary=\"=_\"\r\n",
            "--=_\r\n", "--=_--\r\n", "Message-ID: <a@b>\r\n"]).prop_map(|text| text.as_bytes().to_vec()),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn line_is_sound(line: &[u8]) -> bool {
    line.len() <= 998 && !line.iter().any(|b| matches!(b, b'\r' | b'\n' | 0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_is_said(
        replies in prop::collection::vec(words(), 1..4),
        subject in words(),
        orcpt in prop::option::of(words()),
        envid in prop::option::of(words()),
        smarthost in words(),
        sender in prop::sample::select(vec!["ann@example.com", "\"ann b\"@example.com", "ännchen@example.com"]),
        to in prop::sample::select(vec!["bob@example.net", "büb@example.net", "\"b  b\"@example.net"]),
        kind in prop::sample::select(vec![FAILED, DELAYED, Kind::Relayed]),
        full in any::<bool>(),
        original in message(),
        time in any::<u64>(),
    ) {
        let bob = recipient(to, "SUCCESS,FAILURE,DELAY", orcpt.as_deref());
        let mut envelope = envelope(sender, vec![bob.clone()]);
        envelope.envid = envid.as_deref().map(Into::into);
        envelope.ret = full.then_some(Return::Full);
        let all: Vec<Concerned<'_>> = replies.iter().map(|reply| Concerned { at: time, ..concerned(&bob, reply) }).collect();
        let notice = Notice { subject: &subject, smarthost: &smarthost, original: &original, ..notice(kind, &envelope, &all) };
        let (to, octets) = compose(&notice).unwrap();
        prop_assert_eq!(compose(&notice), Some((to.clone(), octets.clone())));

        let lines: Vec<&[u8]> = octets.split(|b| *b == b'\n').collect();
        let (last, lines) = lines.split_last().unwrap();
        prop_assert!(last.is_empty());
        for line in lines {
            prop_assert!(line.strip_suffix(b"\r").is_some_and(line_is_sound), "{}", String::from_utf8_lossy(line));
        }
        prop_assert!(to.body == Body::EightBitMime || octets.is_ascii());
        prop_assert_eq!(to.smtputf8, !sender.is_ascii());

        let parts = parts(&octets);
        let message = parsed(&octets);
        let allowed = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "In-Reply-To", "References",
            "MIME-Version", "Content-Type", "Content-Transfer-Encoding"];
        for header in message.headers() {
            prop_assert!(allowed.contains(&header.name()), "{}", header.name());
        }
        let text = text::write(&notice, &all.iter().collect::<Vec<_>>(), original::returned(&notice, to.smtputf8).as_ref());
        prop_assert_eq!(message.body_text(0).unwrap(), &*text);
        prop_assert_eq!(parts.len(), if text.contains(" attached.") { 3 } else { 2 });

        prop_assert_eq!(parts[1].2.is_ascii() || to.smtputf8, true);
        let fields = std::str::from_utf8(parts[1].2).unwrap();
        let groups: Vec<&str> = fields.split("\r\n\r\n").collect();
        prop_assert_eq!(groups.len(), 1 + all.len());
        for (n, group) in groups.iter().enumerate() {
            let names: Vec<&str> = group.lines().filter(|line| !line.starts_with([' ', '\t']))
                .map(|line| line.split_once(": ").unwrap().0).collect();
            let order: &[&str] = if n == 0 {
                &["Original-Envelope-Id", "Reporting-MTA", "X-Trackpost-Queue-Id", "Arrival-Date"]
            } else {
                &["Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code",
                    "Last-Attempt-Date", "Will-Retry-Until"]
            };
            let places: Vec<usize> = names.iter().map(|name| order.iter().position(|o| o == name).unwrap()).collect();
            prop_assert!(places.is_sorted_by(|a, b| a < b), "{:?}", names);
            for line in group.lines() {
                prop_assert!(!line.trim().is_empty() && !line.contains(char::is_control));
            }
        }
        if let Some((media, encoding, raw)) = parts.get(2) {
            if media.starts_with("message/") && !media.ends_with("-headers") {
                // Where the returned message opens parts of its own, mail-parser reads their headers past the end.
                let end = format!("\r\n--trackpost=_{}_0--\r\n", notice.dsn_id);
                prop_assert!(raw.starts_with(&original) && octets.ends_with(&[&original, end.as_bytes()].concat()));
                prop_assert!(encoding == "7bit" || encoding == "8bit");
            } else if encoding != "quoted-printable" {
                prop_assert!(original.starts_with(raw));
            } else {
                let decoded = decode_quoted_printable(raw).unwrap().bytes;
                prop_assert!(original.starts_with(&decoded));
            }
        }
    }
}
