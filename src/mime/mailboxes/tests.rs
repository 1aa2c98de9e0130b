use super::*;
use proptest::prelude::*;

/// The domains that a value names, or why not.
fn named(value: &str) -> Option<Vec<String>> {
    let found = parse(value.as_bytes())?;
    Some(found.domains.iter().chain(&found.mentioned).map(ToString::to_string).collect())
}

#[test]
fn what_mail_programs_write_is_read() {
    for value in [
        "a@own.test",
        " a@own.test ",
        "<a@own.test>",
        "Ann <a@own.test>",
        "Ann<a@own.test>",
        "Ann Example\t<a.b+tag@own.test>",
        "John Q. Public <a@own.test>",
        "Dr. O'Neill-Smith & Sons! <a@own.test>",
        "\"Ann, of Example\" <a@own.test>",
        "\"Ann\"<a@own.test>",
        "\"Ann \\\"the\\\" Example \\\\\" <a@own.test>",
        "\"Ann\" Example <a@own.test>",
        "Ann \"the\" Example <a@own.test>",
        "\"\" <a@own.test>",
        "\"ann@customer.example via Shop\" <a@own.test>",
        "'Ann' via Shop <a@own.test>",
        "=?UTF-8?Q?J=C3=B6rg_M=C3=BCller?= <a@own.test>",
        "=?UTF-8?Q?Example_Inc.?= <a@own.test>",
        "=?utf-8?B?SsO2cmc=?= =?utf-8?B?IE3DvGxsZXI=?= <a@own.test>",
        "=?utf-8?Q?J=C3=B6rg?=\r\n =?utf-8?Q?_M=C3=BCller?=\r\n <a@own.test>",
        "=?ISO-2022-JP?B?GyRCRnxLXBsoQg==?= <a@own.test>",
        "=?iso-8859-1?Q?Andr=E9?= Dupont <a@own.test>",
        "=?UTF-8?Q?Alles_=40home?= <a@own.test>",
        "=?UTF-8?Q?Sales=2C_Ltd=2E?= <a@own.test>",
        "\"=?UTF-8?Q?J=C3=B6rg?=\" <a@own.test>",
        "J\u{f6}rg M\u{fc}ller <a@own.test>",
        "\"J\u{f6}rg\" <a@own.test>",
        "\u{5c71}\u{7530} <\u{5c71}@own.test>",
        "(Sales) Ann <a@own.test>",
        "Ann (Sales) <a@own.test>",
        "Ann <a@own.test> (Sales)",
        "a@own.test (Ann Example)",
        "a@own.test (=?UTF-8?Q?J=C3=B6rg?=)",
        "a@own.test (=?UTF-8?Q?J=C3=B6rg?=\r\n =?UTF-8?Q?_M=C3=BCller?=)",
        "\"Ann\r\n Example\" <a@own.test>",
        "Ann\r\n <a@own.test>",
        "Ann <a@own.test>,\r\n\tBob <b@own.test>",
        "a@own.test, b@own.test,\"C\" <c@own.test>",
        "a@own.test <a@own.test>",
        "Ann <\"john doe\"@own.test>",
        "Ann <a..b.@own.test>",
    ] {
        let domains = named(value).unwrap_or_else(|| panic!("not read: {value:?}"));
        assert!(domains.iter().all(|domain| domain == "own.test"), "{value}: {domains:?}");
    }
    assert_eq!(named("x <a@b\u{fc}cher.test>").unwrap(), ["xn--bcher-kva.test"]);
    assert_eq!(named("x <a@XN--Bcher-kva.Test>").unwrap(), ["xn--bcher-kva.test"]);
    assert_eq!(
        parse(b"A <a@own.test>, \"b\" <\"b c\"@own.test>").unwrap().addresses,
        ["a@own.test", "\"b c\"@own.test"]
    );
}

#[test]
fn every_domain_is_found() {
    for (value, want) in [
        ("a@own.test, ceo@victim.test", &["own.test", "victim.test"][..]),
        ("ceo@victim.test <a@own.test>", &["victim.test", "own.test"]),
        ("a@own.test (ceo@victim.test)", &["own.test", "victim.test"]),
        ("a@own.test (=?utf-8?q?ceo=40victim.test?=)", &["own.test", "victim.test"]),
        ("=?utf-8?q?ceo=40victim=2Etest=2C?= <a@own.test>", &["own.test", "victim.test"]),
        ("=?utf-8?q?ceo=40?= =?utf-8?q?victim=2Etest?= <a@own.test>", &["own.test", "victim.test"]),
        ("=?utf-8?q?ceo=40?= victim.test <a@own.test>", &["own.test", "victim.test"]),
        ("\"=?utf-8?q?=22=2C_ceo=40victim.test=2C_=22?=\" <a@own.test>", &["own.test", "victim.test"]),
        ("\"ceo@victim.test\" =?utf-8?q?=28?= <a@own.test>", &["own.test", "victim.test"]),
        ("\"x, \r\n ceo@victim.test\" <a@own.test>", &["own.test", "victim.test"]),
        ("\"ceo@victim.test\" (a\r\n b) <a@own.test>", &[]),
        ("\"ceo@victim.test\" <a@own.test> (a\r\n b)", &["own.test", "victim.test"]),
        ("\"ceo@victim.test via\" =?utf-8?q?J=C3=B6?= <a@own.test>", &["own.test"]),
        ("=?utf-8?q?(?= <a@own.test>, =?utf-8?q?)?= <ceo@victim.test>", &[]),
    ] {
        let found = named(value);
        assert_eq!(found.unwrap_or_default(), want, "{value}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_not_read() {
    for value in [
        "",
        " ",
        "nobody",
        "a@own.test,",
        ",a@own.test",
        "a@own.test; b@own.test",
        "a@own.test b@own.test",
        "ceo@victim.test\"a@own.test\"(x)",
        "\"a@own.test\" (x), ceo@victim.test",
        "\"Ann\" (x) <a@own.test>",
        "\"Ann\"b <a@own.test>",
        "a\"Ann\" <a@own.test>",
        "\"a b\"@own.test",
        "\"ceo@victim.test\"@own.test",
        "Ann <\"ceo@victim.test\"@own.test>",
        "Ann <\"<ceo@victim.test>\"@own.test>",
        "g: a@own.test;",
        "g: \"a@own.test\" (x), ceo@victim.test;",
        "ceo@own.test(x).victim.test",
        "ceo@own.test (x).victim.test",
        "ceo@own.test .victim.test",
        "ceo(x)@own.test",
        "ceo @own.test",
        "ceo@ own.test",
        "Ann < a@own.test>",
        "Ann <a@own.test >",
        "Ann <a@own.test>x",
        "Ann <a@own.test> b",
        "Ann <a@own.test> <b@own.test>",
        "Ann <a@own.test",
        "<>",
        "Ann <>",
        "<@relay.test:a@own.test>",
        "Ann <a@own.test.>",
        "Ann <a@.own.test>",
        "Ann <a@own..test>",
        "Ann <a@[192.0.2.1]>",
        "Ann <a@own>",
        "Ann <@own.test>",
        "Ann <a@b@own.test>",
        "a@own.test@victim.test",
        "Ann <a@own.test%victim>",
        "Ann <a@\u{ff4f}wn.test>",
        "Ann <a@own\u{3002}test>",
        "Ann <=?utf-8?q?ceo=40victim.test?=@own.test>",
        "=?utf-8?q?ceo=40victim.test?=@own.test",
        "=?utf-7?q?ceo+AEA-victim.test?= <a@own.test>",
        "=?utf-8?q?Ann <a@own.test>",
        "x=?utf-8?q?Ann?= <a@own.test>",
        "=?utf-8?q?ceo=40victim?= .test <a@own.test>",
        "=?utf-8?q?ceo=40=5B192=2E0=2E2=2E1=5D?= <a@own.test>",
        "=?utf-8?q?Ann_Example, Inc?= <a@own.test>",
        "Ann (a (b)) <a@own.test>",
        "Ann (a\\) <a@own.test>",
        "Ann (a@home) <a@own.test>",
        "Ann (x <a@own.test>",
        "a@own.test (=?utf-8?q?=29=2Evictim=2Etest?=)",
        "a@own.test (b@.own.test)",
        "Ann \"x <a@own.test>",
        "Ann @ home <a@own.test>",
        "Ann <a@own.test>\x0b",
        "Ann\r<a@own.test>",
        "Ann\n<a@own.test>",
        "Ann\u{2028}<a@own.test>",
        "Ann\0<a@own.test>",
        "Ann, Example <a@own.test>",
    ] {
        assert_eq!(named(value), None, "{value:?}");
    }
    assert_eq!(parse(b"Ann\xff <a@own.test>"), None);
    assert_eq!(parse("a@own.test,".repeat(10_000).as_bytes()), None);
}

fn piece() -> impl Strategy<Value = String> {
    let words = "\" ( ) < > @ , ; : \\ a . [ ] % ? \u{e9} own.test victim.test a@own.test <a@own.test> ceo@victim.test \
                 =?utf-8?q? ?= =40 =22 =?utf-8?q?x?=";
    let fixed: Vec<_> = words.split(' ').chain([" ", "\t", "\r\n "]).collect();
    prop_oneof![6 => proptest::sample::select(fixed).prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)]
}

proptest! {
    #[test]
    fn nothing_makes_it_panic_and_all_addresses_are_its_own(pieces in prop::collection::vec(piece(), 0..14)) {
        let value = pieces.concat();
        if let Some(found) = parse(value.as_bytes()) {
            prop_assert!(!found.addresses.is_empty());
            prop_assert_eq!(found.addresses.len(), found.domains.len());
            for (address, domain) in found.addresses.iter().zip(&found.domains) {
                let written = DomainName::parse(address.rsplit_once('@').unwrap().1);
                prop_assert_eq!(written.as_ref(), Ok(domain));
            }
            // Behind an at sign outside quotes there is nothing that was not found.
            if !value.contains(['"', '=']) {
                prop_assert_eq!(value.matches('@').count(), found.domains.len() + found.mentioned.len());
            }
        }
    }

    #[test]
    fn octets_of_any_kind(value in prop::collection::vec(any::<u8>(), 0..60)) {
        parse(&value);
    }
}
