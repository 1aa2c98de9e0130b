use super::record::{PATIENCE_MS, ROUTINE_MS, pause_ms};
use super::*;
use crate::domain::{NotKnown, SenderDomain, TxtFound};
use uuid::Uuid;

const HOUR: u64 = 3_600_000;

fn selector(text: &str) -> Selector {
    Selector::parse(text).unwrap()
}

fn domain() -> SenderDomain {
    SenderDomain::new(DomainName::parse("example.com").unwrap(), Uuid::nil(), 0)
}

impl SenderDomain {
    fn add_key(&mut self, name: &str, public: &str, now: u64) -> Result<(), DomainRule> {
        self.dkim.add(&self.name, selector(name), public.to_owned(), now)
    }

    /// A look at all keys that finds these TXT records, by selector.
    fn look_for_keys(&mut self, txt: &[(&str, &str)], now: u64) {
        for looked_at in self.dkim.keys.clone() {
            let found = txt.iter().find(|(name, _)| *name == looked_at.selector.as_str());
            let finding = Ok(found
                .map_or(TxtFound::Nothing, |(_, public)| TxtFound::Records(vec![expected_txt(public).into_bytes()])));
            self.dkim_checked(&looked_at, &finding, now);
        }
    }

    /// Selector and state of each key, the newest first; and the selector that signs.
    fn keys_told(&self) -> (Vec<(&str, &'static str)>, Option<&str>) {
        let all = self.dkim.keys().map(|key| (key.selector.as_str(), key.record.status())).collect();
        (all, self.dkim.signing().map(|key| key.selector.as_str()))
    }
}

#[test]
fn a_key_signs_once_its_record_was_seen() {
    let mut d = domain();
    assert_eq!((d.status(), d.keys_told()), ("verified", (vec![], None)));
    assert_eq!(d.dkim.switch(true), Err(DomainRule::NoDkimKey));
    assert_eq!(d.dkim.next_selector().as_str(), "trackpost");
    d.add_key("trackpost", "AAAA", 1).unwrap();
    assert_eq!((d.status(), d.keys_told()), ("not_started", (vec![("trackpost", "not_started")], None)));
    d.look_for_keys(&[("trackpost", "AAAA")], 2);
    assert_eq!((d.keys_told().1, d.dkim_due(3).count()), (None, 0), "nobody asked");
    d.verify(3);
    assert_eq!((d.status(), d.dkim_due(3).next().unwrap().0), ("pending", 3));
    d.look_for_keys(&[], 4);
    let key = d.dkim.newest().unwrap();
    assert_eq!((d.status(), d.keys_told().1, key.looks.next), ("pending", None, Some(4 + pause_ms(0))));
    assert_eq!(key.found.as_deref(), Some("found nothing at trackpost._domainkey.example.com"));
    d.look_for_keys(&[("trackpost", "BBBB")], 5);
    assert_eq!(d.dkim.newest().unwrap().found.as_deref(), Some("found another public key"));
    d.look_for_keys(&[("trackpost", "AAAA")], 6);
    assert_eq!((d.status(), d.keys_told().1), ("verified", Some("trackpost")));
    assert_eq!(d.dkim.newest().unwrap().looks.next, Some(6 + ROUTINE_MS));
    d.dkim.switch(false).unwrap();
    assert_eq!((d.status(), d.keys_told().1, d.dkim_due(7).count()), ("verified", None, 0));
    d.look_for_keys(&[], 7);
    d.dkim.switch(true).unwrap();
    assert_eq!((d.status(), d.keys_told()), ("not_started", (vec![("trackpost", "not_started")], None)));
}

#[test]
fn one_key_takes_over_from_another() {
    let mut d = domain();
    d.add_key("trackpost", "AAAA", 1).unwrap();
    d.verify(1);
    d.look_for_keys(&[("trackpost", "AAAA")], 2);
    assert_eq!(d.dkim.next_selector().as_str(), "trackpost2");
    assert_eq!(d.add_key("trackpost", "BBBB", 3), Err(DomainRule::SelectorInUse(selector("trackpost"))));
    d.add_key("trackpost2", "BBBB", 3).unwrap();
    let both = vec![("trackpost2", "not_started"), ("trackpost", "verified")];
    assert_eq!((d.status(), d.keys_told()), ("not_started", (both, Some("trackpost"))));
    // Once more before it was seen: it is replaced, with its selector.
    assert_eq!(d.dkim.next_selector().as_str(), "trackpost2");
    d.add_key("trackpost2", "CCCC", 4).unwrap();
    d.verify(5);
    d.look_for_keys(&[("trackpost", "AAAA"), ("trackpost2", "BBBB")], 6);
    assert_eq!((d.status(), d.keys_told().1), ("pending", Some("trackpost")));
    d.look_for_keys(&[("trackpost", "AAAA"), ("trackpost2", "CCCC")], 7);
    let both = vec![("trackpost2", "verified"), ("trackpost", "verified")];
    assert_eq!((d.status(), d.keys_told()), ("verified", (both, Some("trackpost2"))));
    // The record of the earlier one goes: that is all.
    d.look_for_keys(&[("trackpost2", "CCCC")], 8);
    d.look_for_keys(&[("trackpost2", "CCCC")], 8 + PATIENCE_MS);
    let both = vec![("trackpost2", "verified"), ("trackpost", "failed")];
    assert_eq!((d.status(), d.keys_told()), ("verified", (both, Some("trackpost2"))));
    // Back to the first selector, with another key.
    assert_eq!(d.dkim.next_selector().as_str(), "trackpost");
    d.add_key("trackpost", "DDDD", 100 * HOUR).unwrap();
    let both = vec![("trackpost", "not_started"), ("trackpost2", "verified")];
    assert_eq!(d.keys_told(), (both, Some("trackpost2")));
    d.verify(100 * HOUR);
    d.look_for_keys(&[("trackpost", "DDDD"), ("trackpost2", "CCCC")], 100 * HOUR);
    assert_eq!(d.keys_told().1, Some("trackpost"));
}

#[test]
fn what_others_rely_on_is_not_thrown_away() {
    let mut d = domain();
    let may = |d: &SenderDomain, name: &str, public: &str, now: u64| {
        d.dkim.may_add(&d.name, &selector(name), public, now).map_err(|rule| rule.to_string())
    };
    assert_eq!(may(&d, "trackpost", "AAAA", 1), Ok(()));
    d.add_key("trackpost", "AAAA", 1).unwrap();
    // Published perhaps, and not looked for yet; then looked for; then given up.
    let refused = may(&d, "trackpost", "BBBB", 2).unwrap_err();
    assert!(refused.contains("trackpost._domainkey.example.com of the key made last is still awaited"), "{refused}");
    assert_eq!(may(&d, "trackpost", "AAAA", 2), Ok(()), "the same again");
    d.verify(3);
    d.look_for_keys(&[], 4);
    assert_eq!(may(&d, "other", "BBBB", 5), Err(refused.clone()));
    d.dkim.switch(false).unwrap();
    assert_eq!(may(&d, "other", "BBBB", 5), Ok(()), "nobody waits while it is off");
    d.dkim.switch(true).unwrap();
    d.verify(5);
    assert_eq!(may(&d, "other", "BBBB", 5), Err(refused));
    d.look_for_keys(&[], 5 + PATIENCE_MS);
    assert_eq!((d.status(), may(&d, "other", "BBBB", 6 + PATIENCE_MS)), ("failed", Ok(())));
    d.verify(100 * HOUR);
    d.look_for_keys(&[("trackpost", "AAAA")], 100 * HOUR);
    assert_eq!(may(&d, "trackpost2", "BBBB", 100 * HOUR), Ok(()));
    d.add_key("trackpost2", "BBBB", 100 * HOUR).unwrap();
    d.verify(100 * HOUR);
    let both = [("trackpost", "AAAA"), ("trackpost2", "BBBB")];
    d.look_for_keys(&both, 101 * HOUR);
    // trackpost signed until an hour ago.
    let refused = may(&d, "trackpost", "CCCC", 102 * HOUR).unwrap_err();
    assert!(refused.contains("signed with the key of trackpost._domainkey.example.com"), "{refused}");
    assert!(refused.contains("wait until 1970-01-06T05:00:00Z"), "{refused}");
    assert_eq!(may(&d, "third", "CCCC", 102 * HOUR), Ok(()));
    assert_eq!(may(&d, "trackpost", "AAAA", 102 * HOUR), Ok(()), "back to it");
    d.look_for_keys(&both, 124 * HOUR);
    assert_eq!(may(&d, "trackpost", "CCCC", 125 * HOUR), Ok(()));
}

#[test]
fn only_an_earlier_key_is_forgotten() {
    let mut d = domain();
    let forget = |d: &mut SenderDomain, name: &str| d.dkim.forget(&selector(name));
    assert_eq!(forget(&mut d, "trackpost"), Err(DomainRule::NoSuchDkimKey(selector("trackpost"))));
    for (name, public, now) in [("trackpost", "AAAA", 1), ("trackpost2", "BBBB", 2)] {
        d.add_key(name, public, now).unwrap();
        d.verify(now);
        d.look_for_keys(&[("trackpost", "AAAA")], now);
    }
    // The earlier one signs, the newest is to.
    for name in ["trackpost", "trackpost2"] {
        assert_eq!(forget(&mut d, name), Err(DomainRule::DkimKeyInUse(selector(name))));
    }
    d.dkim.switch(false).unwrap();
    assert_eq!(forget(&mut d, "trackpost2"), Err(DomainRule::DkimKeyInUse(selector("trackpost2"))));
    d.dkim.switch(true).unwrap();
    d.verify(3);
    d.look_for_keys(&[("trackpost", "AAAA"), ("trackpost2", "BBBB")], 3);
    forget(&mut d, "trackpost").unwrap();
    assert_eq!(d.keys_told(), (vec![("trackpost2", "verified")], Some("trackpost2")));
    assert_eq!(d.dkim.next_selector().as_str(), "trackpost");
}

#[test]
fn the_earlier_key_signs_again_while_the_newest_is_lost() {
    let mut d = domain();
    for (name, public, now) in [("trackpost", "AAAA", 1), ("trackpost2", "BBBB", 2)] {
        d.add_key(name, public, now).unwrap();
        d.verify(now);
        d.look_for_keys(&[("trackpost", "AAAA"), ("trackpost2", "BBBB")], now);
    }
    d.look_for_keys(&[("trackpost", "AAAA")], HOUR);
    assert_eq!((d.status(), d.keys_told().1), ("pending", Some("trackpost")));
    d.look_for_keys(&[], 2 * HOUR);
    assert_eq!(d.keys_told().1, Some("trackpost2"), "both are lost: the newest, for three days");
    d.look_for_keys(&[], 2 * HOUR + PATIENCE_MS);
    assert_eq!((d.status(), d.keys_told().1), ("failed", None));
    assert_eq!(d.dkim_due(200 * HOUR).count(), 0);
}

#[test]
fn keys_of_others_come_in() {
    let mut d = domain();
    d.add_key("mail", "AAAA", 1).unwrap();
    d.verify(1);
    d.look_for_keys(&[("mail", "AAAA")], 1);
    d.add_key("mail", "AAAA", 2).unwrap();
    assert_eq!(d.keys_told(), (vec![("mail", "verified")], Some("mail")), "the same again is no change");
    d.add_key("s1", "BBBB", 3).unwrap();
    d.add_key("s2", "CCCC", 4).unwrap();
    assert_eq!(d.keys_told().0, [("s2", "not_started"), ("mail", "verified")], "one that nobody saw is dropped");
    // Back to the one that signs.
    d.add_key("mail", "AAAA", 5).unwrap();
    assert_eq!(d.keys_told(), (vec![("mail", "verified")], Some("mail")));
    for n in 0..10 {
        let (name, public) = (format!("k{n}"), format!("A{n}AA"));
        d.add_key(&name, &public, 6 + n).unwrap();
        d.verify(6 + n);
        d.look_for_keys(&[("mail", "AAAA"), (&name, &public)], 6 + n);
        assert_eq!((d.keys_told().1, d.dkim.keys.len() <= MAX_KEYS), (Some(&*name), true));
    }
    let long = format!("{0}.{0}.{0}.{0}", "a".repeat(60));
    assert_eq!(d.add_key(&long, "AAAA", 99), Err(DomainRule::BadSelector(long)));
}

#[test]
fn a_look_at_a_key_that_has_gone_changes_nothing() {
    let mut d = domain();
    d.add_key("trackpost", "AAAA", 1).unwrap();
    d.verify(1);
    let looked_at = d.dkim.newest().unwrap().clone();
    d.add_key("trackpost", "BBBB", 2).unwrap();
    d.verify(2);
    let before = d.clone();
    d.dkim_checked(&looked_at, &Ok(TxtFound::Records(vec![expected_txt("AAAA").into_bytes()])), 3);
    assert_eq!(d, before);
    let looked_at = d.dkim.newest().unwrap().clone();
    d.verify(4);
    d.dkim_checked(&looked_at, &Ok(TxtFound::Nothing), 5);
    let looks = &d.dkim.newest().unwrap().looks;
    assert_eq!((looks.next, looks.asked - looks.answered), (Some(4), 1), "it began before somebody asked");
    d.dkim_checked(&d.dkim.newest().unwrap().clone(), &Err(NotKnown("SERVFAIL".into())), 6);
    assert_eq!((d.status(), d.dkim.newest().unwrap().found.as_deref()), ("pending", Some("not known: SERVFAIL")));
}

#[test]
fn settings_of_before_are_read_and_what_is_stored_comes_back() {
    let mut d = domain();
    let stored = serde_json::to_string(&d).unwrap();
    assert!(!stored.contains("dkim"), "{stored}");
    assert_eq!(serde_json::from_str::<SenderDomain>(&stored).unwrap(), d);
    d.add_key("trackpost", "AAAA", 1).unwrap();
    d.verify(2);
    d.look_for_keys(&[], 3);
    let stored = serde_json::to_string(&d).unwrap();
    assert_eq!(serde_json::from_str::<SenderDomain>(&stored).unwrap(), d);
}

#[test]
fn selectors() {
    for (text, want) in [("a", "a"), ("S1-b", "s1-b"), ("2024.mail", "2024.mail")] {
        assert_eq!(selector(text).as_str(), want);
    }
    for bad in ["", ".", "a.", "a..b", "-a", "a-", "a_b", "a b", "a/b", "ä", &"a".repeat(64), "a\n"] {
        assert!(matches!(Selector::parse(bad), Err(DomainRule::BadSelector(_))), "{bad:?}");
    }
}
