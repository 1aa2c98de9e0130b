//! What is found, and how far one call looks for it.

use super::*;
use crate::ops::fixture::{Fixture, aside, domain, head, key};
use crate::settings::Change;

fn id(n: u64) -> QueueId {
    QueueId::new(1_700_000_000_000 + n * 1_000, [7; 10])
}

fn kept(fixture: &Fixture, count: u64, of: impl Fn(u64) -> (&'static str, String)) {
    fixture.keep((0..count).map(|n| {
        let (domain, subject) = of(n);
        (id(n), head(id(n), domain, &subject))
    }));
}

fn ids(looked: &Looked) -> Vec<QueueId> {
    looked.emails.iter().map(|email| email.message.id.parse().unwrap()).collect()
}

fn page(limit: usize) -> Range {
    Range { limit, ..Range::default() }
}

#[test]
fn pages_go_there_and_back() {
    let fixture = Fixture::new();
    kept(&fixture, 12, |n| ("example.com", format!("number {n}")));
    let look = |range| emails_where(&fixture.ops, &Wanted::default(), range).unwrap();
    let first = look(page(5));
    assert_eq!((ids(&first), first.stopped), ((7..12).rev().map(id).collect(), Some(id(7))));
    let second = look(Range { after: first.stopped, ..page(5) });
    assert_eq!((ids(&second), second.stopped), ((2..7).rev().map(id).collect(), Some(id(2))));
    let last = look(Range { after: second.stopped, ..page(5) });
    assert_eq!((ids(&last), last.stopped), (vec![id(1), id(0)], None));
    let back = look(Range { before: Some(id(1)), ..page(5) });
    assert_eq!((ids(&back), back.stopped), ((2..7).rev().map(id).collect(), Some(id(6))));
    let top = look(Range { before: Some(id(9)), ..page(5) });
    assert_eq!((ids(&top), top.stopped), (vec![id(11), id(10)], None));
}

#[test]
fn subjects_tags_and_times() {
    let fixture = Fixture::new();
    let mut tagged = head(id(3), "example.com", "Spring SALE: Grüße");
    tagged.tags = vec![("Campaign".into(), "spring".into())];
    fixture.keep([(id(3), tagged)]);
    kept(&fixture, 3, |n| ("example.com", format!("Receipt {n}")));
    let look = |wanted: Wanted| ids(&emails_where(&fixture.ops, &wanted, page(9)).unwrap());
    let subject = |subject: &str| look(Wanted { subject: subject.to_owned(), ..Wanted::default() });
    assert_eq!((subject("sale"), subject("GRÜSSE").len(), subject("GRÜßE")), (vec![id(3)], 0, vec![id(3)]));
    assert_eq!(subject("receipt"), [id(2), id(1), id(0)]);
    let tag = |name: &str, value: Option<&str>| {
        look(Wanted { tag: Some((name.to_owned(), value.map(str::to_owned))), ..Wanted::default() })
    };
    assert_eq!((tag("campaign", None), tag("campaign", Some("Spring"))), (vec![id(3)], vec![id(3)]));
    assert!(tag("campaign", Some("autumn")).is_empty() && tag("spring", None).is_empty());
    let (from, until) = (id(1).unix_ms(), id(3).unix_ms());
    assert_eq!(look(Wanted { from, until: Some(until), ..Wanted::default() }), [id(2), id(1)]);
}

#[test]
fn one_call_looks_at_so_many_and_says_where_to_go_on() {
    let fixture = Fixture::new();
    let count = LOOKS as u64 + 10;
    kept(&fixture, count, |n| ("example.com", (if n == 3 { "needle" } else { "hay" }).to_owned()));
    let wanted = Wanted { subject: "needle".into(), ..Wanted::default() };
    let mut after = None;
    let mut calls = Vec::new();
    loop {
        let looked = emails_where(&fixture.ops, &wanted, Range { after, ..page(50) }).unwrap();
        calls.push((looked.emails.len(), looked.stopped));
        after = looked.stopped;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(calls, [(0, Some(id(10))), (1, None)]);
}

#[tokio::test]
async fn a_tied_key_sees_its_own_mail_alone() {
    let fixture = Fixture::new();
    kept(&fixture, 30, |n| (["example.com", "example.org", "example.net"][(n % 3) as usize], format!("number {n}")));
    // Added when some mail had been sent under that name already.
    let (com, org) = (domain("example.com", id(10).unix_ms()), domain("example.org", 0));
    let changes = vec![Change::Domain(com.clone()), Change::Domain(org.clone())];
    let made = fixture.ops.settings.change(|_| Ok::<_, OpError>((changes, ()))).await;
    made.unwrap();
    let settings = fixture.ops.settings.snapshot();
    let look = |key: &ApiKey, limit| {
        let wanted = Wanted { domains: domains_of(&settings, key), ..Wanted::default() };
        let looked = emails_where(&fixture.ops, &wanted, page(limit)).unwrap();
        (ids(&looked), looked.stopped)
    };
    let of = |rest: u64, from: u64| (from..30).filter(move |n| n % 3 == rest).map(id);
    assert_eq!(look(&key(&[&com]), 50), (of(0, 10).rev().collect(), None));
    let mut both: Vec<_> = of(0, 10).chain(of(1, 0)).collect();
    both.sort_unstable();
    both.reverse();
    assert_eq!(look(&key(&[&com, &org]), 50), (both.clone(), None));
    assert_eq!(look(&key(&[&com, &org]), 4), (both[..4].to_vec(), Some(both[3])));
    assert_eq!(look(&key(&[]), 50).0.len(), 30);
    // Its domain is gone: it sees nothing, and not everything.
    assert_eq!(look(&key(&[&domain("gone.example", 5)]), 50), (Vec::new(), None));

    let with = |text: &str, key: &ApiKey| {
        emails_with(&fixture.ops, text, None, domains_of(&settings, key), 50).map(|looked| ids(&looked)).unwrap()
    };
    assert_eq!(with("ADA@example.net", &key(&[&org])), of(1, 0).rev().collect::<Vec<_>>());
    assert_eq!(with(&id(5).to_string(), &key(&[])), [id(5)]);
    assert_eq!(with(&id(5).to_string(), &key(&[&com])), []);
    assert_eq!(with(&format!("{}@example.com", id(12)), &key(&[&com])), [id(12)]);
    assert_eq!(with(&format!("<{}@example.com>", id(9)), &key(&[&com])), []);
    assert_eq!(with("grace@example.net", &key(&[])), []);
}

#[test]
fn names_are_found_page_by_page() {
    let fixture = Fixture::new();
    kept(&fixture, 7, |_| ("example.com", "x".to_owned()));
    let look = |after| emails_with(&fixture.ops, "ada@example.net", after, None, 3).unwrap();
    let first = look(None);
    assert_eq!((ids(&first), first.stopped), (vec![id(6), id(5), id(4)], Some(id(4))));
    let last = look(Some(id(3)));
    assert_eq!((ids(&last), last.stopped), (vec![id(2), id(1), id(0)], None));
    assert!(matches!(emails_with(&fixture.ops, "  ", None, None, 3), Err(OpError::NothingToSearch)));
}

#[test]
fn mail_that_the_history_does_not_have_yet_is_found() {
    let fixture = Fixture::new();
    kept(&fixture, 3, |_| ("example.com", "old".to_owned()));
    let new = id(100);
    let young = std::sync::Arc::new(head(new, "example.com", "brand new"));
    let message = crate::spool::Entry::Message { id: new, head: young.clone(), body: Vec::new() };
    aside(|| fixture.ops.log.append(message).wait().unwrap());
    fixture.ops.queue.insert(new, young, None);
    let look = |subject: &str| {
        let wanted = Wanted { subject: subject.to_owned(), ..Wanted::default() };
        ids(&emails_where(&fixture.ops, &wanted, page(9)).unwrap())
    };
    assert_eq!((look("").len(), look("brand"), look("old").len()), (4, vec![new], 3));
    fixture.ops.store.store(None);
    assert_eq!(look("brand"), [new]);
    let none = emails_where(&fixture.ops, &Wanted { subject: "old".into(), ..Wanted::default() }, page(9));
    assert!(matches!(none, Err(OpError::NoHistory)));
}

#[tokio::test]
async fn a_key_of_several_domains_reads_their_mail_alone() {
    let fixture = Fixture::new();
    // One message of each of its domains, the oldest of all, behind more than one call looks at.
    let mine = ["one.example", "two.example", "three.example"];
    kept(&fixture, LOOKS as u64 + 20, |n| (if n < 6 { mine[(n % 3) as usize] } else { "example.com" }, "x".to_owned()));
    let domains = mine.map(|name| domain(name, 0));
    let key = key(&domains.iter().collect::<Vec<_>>());
    let changes = domains.iter().cloned().map(Change::Domain).collect();
    let made = fixture.ops.settings.change(|_| Ok::<_, OpError>((changes, ()))).await;
    made.unwrap();
    let settings = fixture.ops.settings.snapshot();
    let own = domains_of(&settings, &key);
    let looked = std::cell::Cell::new(0);
    let list = |range| {
        let found = emails::email_list(&fixture.ops, range, own.as_deref(), |_| {
            looked.set(looked.get() + 1);
            true
        });
        let (emails, more) = found.unwrap();
        let ids: Vec<QueueId> = emails.iter().map(|email| email.message.id.parse().unwrap()).collect();
        (ids, more)
    };
    assert_eq!(list(page(4)), ((2..6).rev().map(id).collect(), true));
    assert_eq!(list(Range { after: Some(id(2)), ..page(4) }), (vec![id(1), id(0)], false));
    assert_eq!(list(Range { before: Some(id(0)), ..page(4) }), ((1..5).rev().map(id).collect(), true));
    assert_eq!(list(Range { before: Some(id(3)), ..page(4) }), (vec![id(5), id(4)], false));
    assert!(looked.get() < 40, "{} messages were read", looked.get());
    let wanted = Wanted { domains: own.clone(), ..Wanted::default() };
    let found = emails_where(&fixture.ops, &wanted, page(50)).unwrap();
    assert_eq!((ids(&found), found.stopped), ((0..6).rev().map(id).collect(), None));
}

#[test]
fn many_domains_are_merged_in_order() {
    let fixture = Fixture::new();
    let names: Vec<&'static str> = (0..40).map(|n| &*format!("d{n}.example").leak()).collect();
    kept(&fixture, 900, |n| (names[(n * n % 40) as usize], "x".to_owned()));
    let store = fixture.ops.store.load_full().unwrap();
    let all: Vec<_> = names.iter().map(|name| Among { domain: (*name).to_owned(), since: 0 }).collect();
    for backwards in [true, false] {
        let span = Span { after: Some(id(800)), before: Some(id(99)), backwards };
        let mut walk = Walk::new(&store, Some(&all), span).unwrap();
        let found: Vec<_> = std::iter::from_fn(|| walk.step().unwrap()).collect();
        let mut want: Vec<_> = (100..800).map(id).collect();
        if backwards {
            want.reverse();
        }
        assert_eq!(found, want);
    }
}
