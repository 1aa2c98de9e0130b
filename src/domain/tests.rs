//! Stories of domains, and a model that random stories are held against.

use super::record::PATIENCE_MS;
use super::*;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const HTTP: Demand = Demand::Nothing;

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn domain() -> SenderDomain {
    SenderDomain::new(name("example.com"), Uuid::nil(), 0)
}

fn expected() -> Expected {
    Expected { cname_target: name("track.relay.example.net"), caa_issuer: name("ca.example.net") }
}

fn found(cname: Result<CnameFound, NotKnown>) -> Finding {
    Finding { cname, caa: None, browser: Browser::NotAsked }
}

fn right() -> Finding {
    found(Ok(CnameFound::Target))
}

fn gone() -> Finding {
    found(Ok(CnameFound::Nothing))
}

fn silent() -> Finding {
    found(Err(NotKnown("SERVFAIL".into())))
}

fn denying(at: &str) -> CaaSet {
    let property = CaaProperty { critical: false, tag: "issue".into(), value: b"other.example".to_vec() };
    CaaSet { name: at.to_owned(), at_target: at.ends_with("example.net"), properties: vec![property] }
}

impl SenderDomain {
    fn look(&mut self, labels: &str, finding: &Finding, now: u64) {
        let looked_at = self.by_labels(labels).unwrap().clone();
        self.checked(&looked_at, finding, &expected(), HTTP, now);
    }

    fn active(&self) -> Option<&str> {
        self.active_subdomain(HTTP).map(|s| s.labels.as_str())
    }

    fn states(&self) -> Vec<(&str, &'static str)> {
        self.subdomains.iter().map(|s| (s.labels.as_str(), s.cname.status())).collect()
    }
}

#[test]
fn nothing_is_verified_before_somebody_asks() {
    let mut d = domain();
    assert_eq!((d.status(), d.active()), ("verified", None));
    d.set_subdomain("links", 0).unwrap();
    d.look("links", &right(), 1);
    assert_eq!((d.status(), d.active()), ("not_started", None));
    assert_eq!(d.due(HTTP, false, 1).count(), 0);
    d.verify(2);
    assert_eq!(d.status(), "pending");
    assert_eq!(d.due(HTTP, false, 2).next().unwrap().0, 2);
    d.look("links", &gone(), 3);
    assert_eq!((d.status(), d.subdomains[0].looks.next), ("pending", Some(3 + 5_000)));
    assert_eq!(d.subdomains[0].looks.cname_found.as_deref(), Some("found nothing at links.example.com"));
    d.look("links", &right(), 4);
    assert_eq!((d.status(), d.active()), ("verified", Some("links")));
    assert_eq!(d.subdomains[0].looks.next, Some(4 + ROUTINE_MS));
}

#[test]
fn a_changed_subdomain_is_used_once_it_is_verified() {
    let mut d = domain();
    d.set_subdomain("links", 0).unwrap();
    d.verify(0);
    d.look("links", &right(), 1);
    d.set_subdomain("LINKS", 2).unwrap();
    d.set_subdomain("click.mail", 3).unwrap();
    assert_eq!((d.status(), d.active()), ("not_started", Some("links")));
    for too_soon in [3, 3 + 23 * HOUR + 59 * MINUTE] {
        let before = d.clone();
        assert_eq!(d.set_subdomain("third", too_soon), Err(DomainRule::ChangedLately { next: 3 + 24 * HOUR }));
        assert_eq!(d, before);
    }
    d.set_subdomain("third", 3 + 24 * HOUR).unwrap();
    // The one in between was never verified and is gone; the first stays.
    assert_eq!(d.states(), [("links", "verified"), ("third", "not_started")]);
    d.verify(25 * HOUR);
    d.look("third", &right(), 25 * HOUR);
    assert_eq!(d.active(), Some("third"));
    // The earlier one vanishes: it says so itself, and that is all.
    d.look("links", &gone(), 26 * HOUR);
    d.look("links", &gone(), 26 * HOUR + PATIENCE_MS);
    assert_eq!(d.states(), [("links", "failed"), ("third", "verified")]);
    assert_eq!((d.status(), d.active()), ("verified", Some("third")));
    // Back to it: a change that takes effect once its record is there again.
    d.set_subdomain("links", 100 * HOUR).unwrap();
    assert_eq!((d.status(), d.active()), ("not_started", Some("third")));
    d.verify(100 * HOUR);
    d.look("links", &right(), 101 * HOUR);
    assert_eq!(d.active(), Some("links"));
    assert_eq!(d.states(), [("links", "verified"), ("third", "verified")]);
}

#[test]
fn back_to_the_one_that_is_still_in_use() {
    let mut d = domain();
    d.set_subdomain("links", 0).unwrap();
    d.verify(0);
    d.look("links", &right(), 1);
    d.set_subdomain("other", 2).unwrap();
    d.set_subdomain("links", 2 + 24 * HOUR).unwrap();
    assert_eq!((d.status(), d.active(), d.states()), ("verified", Some("links"), vec![("links", "verified")]));
}

#[test]
fn a_lost_record_has_72_hours() {
    let mut d = domain();
    d.set_subdomain("links", 0).unwrap();
    d.verify(0);
    d.look("links", &right(), 0);
    d.look("links", &silent(), HOUR);
    assert_eq!((d.status(), d.active()), ("verified", Some("links")));
    assert_eq!(d.subdomains[0].looks.next, Some(HOUR + 15_000), "not known is asked again soon");
    d.look("links", &gone(), 2 * HOUR);
    assert_eq!((d.states()[0].1, d.active()), ("temporary_failure", Some("links")));
    d.look("links", &gone(), 2 * HOUR + PATIENCE_MS - 1);
    assert_eq!(d.active(), Some("links"));
    d.look("links", &silent(), 2 * HOUR + PATIENCE_MS);
    assert_eq!(d.states()[0].1, "temporary_failure", "nobody said that it is not there");
    let end = 2 * HOUR + PATIENCE_MS + 1;
    d.look("links", &gone(), end);
    assert_eq!((d.status(), d.active(), d.subdomains[0].looks.next), ("failed", None, None));
    d.verify(end + 1);
    assert_eq!((d.status(), d.active()), ("pending", None));
    d.look("links", &right(), end + 2);
    assert_eq!((d.status(), d.active()), ("verified", Some("links")));
}

#[test]
fn a_look_that_somebody_asked_for_during_another_is_still_to_come() {
    let mut d = domain();
    d.set_subdomain("links", 0).unwrap();
    let before_anybody_asked = d.subdomains[0].clone();
    d.verify(0);
    let before = d.clone();
    d.checked(&before_anybody_asked, &silent(), &expected(), HTTP, 0);
    assert_eq!(d, before, "it looked for less");
    let looked_at = d.subdomains[0].clone();
    d.verify(10);
    // It counts, however often somebody asks; and the next one is due all the same.
    d.checked(&looked_at, &right(), &expected(), HTTP, 9);
    assert_eq!((d.status(), d.due(HTTP, false, 11).next().unwrap().0), ("verified", 10));
    assert_ne!(d.subdomains[0].looks.asked, d.subdomains[0].looks.answered);
    d.look("links", &gone(), 10);
    assert_eq!(d.states()[0].1, "temporary_failure");
}

#[test]
fn an_operators_word_that_is_taken_back_gives_way_to_what_was_used_before() {
    let mut d = domain();
    d.set_subdomain("links", 0).unwrap();
    d.verify(0);
    d.look("links", &right(), 1);
    d.set_subdomain("go", 2).unwrap();
    d.verify_by_operator(3).unwrap();
    d.verify_by_operator(4).unwrap();
    assert_eq!(d.active(), Some("go"));
    d.leave_to_dns();
    assert_eq!((d.status(), d.active()), ("not_started", Some("links")));
}

#[test]
fn what_is_kept_of_a_removed_domain() {
    let mut first = domain();
    first.set_subdomain("never", 0).unwrap();
    assert_eq!(first.clone().removed([], 1), None, "no link leads anywhere");
    first.verify(0);
    first.look("never", &right(), 1);
    first.set_subdomain("other", 2).unwrap();
    let first = first.removed([], 3).unwrap();
    assert_eq!(first.subdomains.iter().map(|s| &*s.labels).collect::<Vec<_>>(), ["never"]);
    // It comes back, and the day after its last change is not over.
    let mut again = SenderDomain::new(name("example.com"), Uuid::from_u128(1), 4);
    again.comes_back(&first);
    again.set_subdomain("third", 5).unwrap();
    assert_eq!(again.set_subdomain("fourth", 6), Err(DomainRule::ChangedLately { next: 2 + 24 * HOUR }));
    again.verify(7);
    again.look("third", &right(), 7);
    let both = again.removed([&first], 8).unwrap();
    assert_eq!(both.subdomains.iter().map(|s| &*s.labels).collect::<Vec<_>>(), ["third", "never"]);
    assert_eq!(both.removed_at, Some(8));
}

#[test]
fn a_change_that_lies_ahead_was_made_with_a_wrong_clock() {
    let mut d = domain();
    d.set_subdomain("a", 0).unwrap();
    d.set_subdomain("b", 400 * 24 * HOUR).unwrap();
    assert_eq!(d.next_change(5), None);
    d.set_subdomain("c", 5).unwrap();
    assert_eq!(d.next_change(6), Some(5 + 24 * HOUR));
}

#[test]
fn the_operators_word_counts_until_it_is_taken_back() {
    let mut d = domain();
    assert_eq!(d.verify_by_operator(0), Err(DomainRule::NoSubdomain));
    d.set_subdomain("links", 0).unwrap();
    d.verify_by_operator(1).unwrap();
    d.verify(2);
    d.look("links", &gone(), 3);
    assert_eq!((d.status(), d.active(), d.states()[0].1), ("verified", Some("links"), "pending"));
    assert!(d.active_subdomain(Demand::Answer).is_some() && d.active_subdomain(Demand::Certificate).is_none());
    d.leave_to_dns();
    assert_eq!((d.status(), d.active()), ("pending", None));
}

#[test]
fn a_browser_must_take_the_links() {
    let mut d = domain();
    let at = |d: &mut SenderDomain, browser, now| {
        let finding = Finding { browser, ..right() };
        let looked_at = d.subdomains[0].clone();
        d.checked(&looked_at, &finding, &expected(), Demand::Answer, now);
    };
    d.set_subdomain("links", 0).unwrap();
    d.verify(0);
    at(&mut d, Browser::Refuses("connection refused".into()), 1);
    assert_eq!((d.status(), d.active_subdomain(Demand::Answer), d.in_use.as_deref()), ("verified", None, None));
    assert!(d.subdomains[0].looks.next.unwrap() < MINUTE, "asked again soon");
    at(&mut d, Browser::Accepts, 2);
    assert!(d.active_subdomain(Demand::Answer).is_some());
    at(&mut d, Browser::Refuses("502".into()), 3);
    at(&mut d, Browser::Refuses("502".into()), 2 + PATIENCE_MS);
    assert!(d.active_subdomain(Demand::Answer).is_some(), "it has three days");
    at(&mut d, Browser::Refuses("502".into()), 3 + PATIENCE_MS);
    assert!(d.active_subdomain(Demand::Answer).is_none());
    at(&mut d, Browser::Accepts, 4 + PATIENCE_MS);
    assert!(d.active_subdomain(Demand::Answer).is_some());
}

#[test]
fn a_caa_record_is_shown_when_one_is_needed_and_stays() {
    let mut d = domain();
    let with = |set: Option<CaaSet>| Finding { caa: Some(Ok(set)), ..right() };
    d.set_subdomain("links", 0).unwrap();
    assert_eq!(d.due(HTTP, true, 0).next().unwrap().0, 0, "looked at before anybody asks");
    d.look("links", &with(Some(denying("example.com"))), 1);
    assert_eq!(d.due(HTTP, true, 1).count(), 0);
    let caa = d.subdomains[0].caa.clone().unwrap();
    assert_eq!((caa.name.as_str(), caa.record), ("example.com", Record::NotStarted));
    assert_eq!(d.subdomains[0].looks.cname_found, None, "nobody asked");
    d.verify(2);
    d.look("links", &with(Some(denying("example.com"))), 3);
    assert_eq!((d.status(), d.active()), ("partially_verified", None));
    d.look("links", &Finding { caa: Some(Err(NotKnown("time-out".into()))), ..right() }, 4);
    assert_eq!(d.status(), "partially_verified");
    d.look("links", &with(None), 5);
    assert_eq!((d.status(), d.active()), ("verified", Some("links")));
    assert!(d.subdomains[0].caa.is_some(), "it stays listed");
    // A set at the target of the CNAME is the operator's affair.
    d.look("links", &with(Some(denying("track.relay.example.net"))), 6);
    assert_eq!((d.status(), d.active()), ("verified", Some("links")));
    // One that comes later takes nothing away for 72 hours.
    d.look("links", &with(Some(denying("links.example.com"))), 7);
    let caa = d.subdomains[0].caa.clone().unwrap();
    assert_eq!((caa.name.as_str(), caa.record), ("links.example.com", Record::TemporaryFailure { since: 7 }));
    assert_eq!(d.active(), Some("links"));
    d.look("links", &with(Some(denying("links.example.com"))), 7 + PATIENCE_MS);
    assert_eq!((d.status(), d.active()), ("failed", None));
}

#[test]
fn refused() {
    let mut d = domain();
    assert_eq!(d.set_subdomain("", 0), Err(DomainRule::SubdomainRemoved));
    let long = "a".repeat(64);
    for bad in [
        ".",
        "a..b",
        ".a",
        "a.",
        "a\u{3002}",
        "-a",
        "a b",
        "a_b",
        "a/b",
        "a@b",
        "a:1",
        "a\r\nb",
        "a\0b",
        "*",
        "😀",
        "a🐟",
        "exa%6dple",
        "😀.b.",
        &long,
        "192.0.2.1\n",
    ] {
        assert!(matches!(d.set_subdomain(bad, 0), Err(DomainRule::BadSubdomain(..))), "{bad:?}");
    }
    for whole in ["links.example.com", "example.com", "LINKS.Example.COM"] {
        assert!(matches!(d.set_subdomain(whole, 0), Err(DomainRule::WholeHost(_))), "{whole:?}");
    }
    assert_eq!(d, domain());
}

#[test]
fn what_an_earlier_version_stored_is_read() {
    let stored = r#"{"id":"00000000-0000-0000-0000-000000000000","name":"example.com","created_at":0,
        "open_tracking":true,"click_tracking":false,"asked":"links","in_use":"links","subdomains":[
        {"labels":"links","host":"links.example.com","verified":{"by_operator":{"at":7}}},
        {"labels":"new","host":"new.example.com","verified":"no"}]}"#;
    let d: SenderDomain = serde_json::from_str(stored).unwrap();
    assert_eq!((d.active(), d.status()), (Some("links"), "verified"));
    assert_eq!(d.subdomains.iter().map(|s| s.proven).collect::<Vec<_>>(), [true, false]);
    let again: SenderDomain = serde_json::from_str(&serde_json::to_string(&d).unwrap()).unwrap();
    assert_eq!(again, d);
}
