use super::*;
use proptest::prelude::*;

fn named(header: &str) -> Result<(Vec<String>, Vec<String>), Doubt> {
    let found = originators(format!("{header}\r\n\r\nx\r\n").as_bytes())?;
    let names = |mut domains: Vec<DomainName>| {
        domains.sort();
        domains.dedup();
        domains.iter().map(ToString::to_string).collect()
    };
    Ok((names(found.from), names(found.senders)))
}

#[test]
fn who_a_message_is_from() {
    let own = || vec!["own.test".to_owned()];
    for header in [
        "From: a@own.test",
        "from:a@own.test",
        "Received: x\r\n by y\r\nFROM:\r\n Ann <a@own.test>\r\nSubject: x",
        "Subject:\r\nFrom: \"ceo@victim.test\" <a@own.test>",
        "X-Odd!#$: \r\n x\r\nFrom: a@own.test\r\nTo: undisclosed-recipients:;",
        "From: a@own.test\r\nSubject: From: ceo@victim.test",
        "From: a@own.test\r\nReply-To: ceo@victim.test",
        "From: Ann (Sales) <a@own.test>",
        "From: (Sales) Ann <a@own.test>",
        "From: a@own.test (Ann)",
        "From: a@own.test <a@own.test>",
        "From: Ann <\"john doe\"@own.test>",
        "From: Ann <a..b.@own.test>",
        "From: J\u{f6}rg <j\u{f6}rg@own.test>",
        "From: =?utf-8?Q?J=C3=B6rg?=\r\n =?utf-8?Q?_M=C3=BCller?=\r\n <a@own.test>,\r\n\t\"B, C\" <b@own.test>",
        "From: John Q. Public <a@own.test>",
    ] {
        assert_eq!(named(header), Ok((own(), vec![])), "{header}");
    }
    assert_eq!(named("From: a@own.test\r\nSender: b@sub.own.test"), Ok((own(), vec!["sub.own.test".to_owned()])));
    for name in ["sender", "Resent-From", "Resent-Sender"] {
        assert_eq!(
            named(&format!("{name}: x@victim.test\r\nFrom: a@own.test")),
            Ok((own(), vec!["victim.test".into()]))
        );
    }
    let twice = "Sender: a@own.test\r\nSender: x@victim.test\r\nFrom: a@own.test";
    assert_eq!(named(twice).unwrap().1, ["own.test", "victim.test"]);
    for header in [
        "From: =?utf-8?q?(?= <a@own.test>, =?utf-8?q?)?= <ceo@victim.test>",
        "From: \"a@own.test\" (x), ceo@victim.test",
        "From: ceo@victim.test\"a@own.test\"(x)",
        "From: a@own.test, ceo@victim.test",
    ] {
        assert!(named(header).is_err() || named(header).unwrap().0.contains(&"victim.test".to_owned()), "{header}");
    }
}

#[test]
fn a_header_that_readers_cut_differently() {
    for (header, want) in [
        ("no field\r\nFrom: a@own.test", Doubt::NoField),
        ("From ceo@victim.test Mon Nov 30\r\nFrom: a@own.test", Doubt::NoField),
        ("From: a@own.test\r\nno field", Doubt::NoField),
        ("From: a@own.test\r\n \t\r\nX: y", Doubt::NoField),
        (" \r\nFrom: a@own.test", Doubt::NoField),
        (" x\r\nFrom: a@own.test", Doubt::NoField),
        ("Subject: x\r\n\r\t\r\nFrom: a@own.test", Doubt::Control),
        ("From : a@own.test", Doubt::NoField),
        ("Subject : x\r\nFrom: a@own.test", Doubt::NoField),
        (": x\r\nFrom: a@own.test", Doubt::NoField),
        ("Fr\u{f6}m: x\r\nFrom: a@own.test", Doubt::NoField),
        ("From\x0b: ceo@victim.test\r\nFrom: a@own.test", Doubt::Control),
        ("Subject: x\x0cFrom: ceo@victim.test\r\nFrom: a@own.test", Doubt::Control),
        ("Subject: x", Doubt::NotOneFrom),
        ("From: a@own.test\r\nFrom: a@own.test", Doubt::NotOneFrom),
        ("From: a@own.test\r\nfrom: ceo@victim.test", Doubt::NotOneFrom),
        ("From: g: a@own.test;", Doubt::From),
        ("From:", Doubt::From),
        ("From: a@own.test\r\nSender: g: a@own.test;", Doubt::Sender),
    ] {
        assert_eq!(named(header), Err(want), "{header:?}");
    }
    assert_eq!(originators(b"\r\nFrom: a@own.test\r\n\r\n"), Err(Doubt::NotOneFrom));
    assert_eq!(originators(b""), Err(Doubt::NotOneFrom));
    let filler = "X: y\r\n".repeat(300_000);
    let hidden = format!("From: a@own.test\r\n{filler}From: ceo@victim.test\r\n\r\n");
    assert_eq!(originators(hidden.as_bytes()), Err(Doubt::TooLong));
}

proptest! {
    #[test]
    fn any_octets(header in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = originators(&[b"From: a@own.test\r\n", &header[..], b"\r\n\r\n"].concat());
    }
}
