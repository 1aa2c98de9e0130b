//! The pages of one mail, over the real routes.

use super::*;
use crate::dashboard::visit::Visit;
use crate::event::{Class, MachineReason};
use crate::mail::{Address, Status};
use crate::ops::fixture::{Fixture, aside, domain, head, key};
use crate::rewrite::LinkDetail;
use crate::settings::Change;
use crate::store::{self, HitEntry, MessageRow, RecipientRow, Seen, commit_now};
use std::collections::BTreeMap;

fn id() -> QueueId {
    QueueId::new(1_700_000_000_000, [7; 10])
}

const HOSTILE: &str = "<script>alert(1)</script>\"'&\u{202e}";

/// A message to so many, each with so many clicks by a client that names itself so.
fn kept(fixture: &Fixture, recipients: u16, clicks: u32, agent: &str, report: Option<&Report>) {
    let mut head = head(id(), "example.com", HOSTILE);
    head.envelope.recipients =
        (0..recipients).map(|n| Address::parse(&format!("Person{n}@example.net")).unwrap().into()).collect();
    let reply = format!("250 2.0.0 {HOSTILE}");
    let state = RecipientRow { status: Status::Delivered, reply: reply.into(), at: head.accepted_at + 1, delay: None };
    let row = MessageRow {
        head: head.into(),
        recipients: vec![state; usize::from(recipients)],
        report: report.and_then(Report::to_kept),
    };
    let commit = |writes| aside(|| commit_now(&fixture.ops.store.load_full().unwrap(), writes).unwrap());
    let mut writes = Vec::new();
    store::message_writes(&id(), &row, 0, &mut writes);
    for recipient in 0..recipients {
        let entry = |number: u32| HitEntry {
            number,
            kind: crate::event::HitKind::Click { link: 0, url: format!("https://example.com/?{HOSTILE}").into() },
            at: row.head.accepted_at + 10 + u64::from(number),
            count: 1,
            class: if number == 0 { Class::Machine(MachineReason::FastClick) } else { Class::Human },
            address: Some([192, 0, 2, 7].into()),
            agent: agent.into(),
            head: false,
        };
        let mut seen = Seen { entries: (0..clicks).map(entry).collect(), ..Seen::default() };
        seen.tally.hits[3] = clicks + 5;
        store::seen_writes(&id(), recipient, &seen, 0, &mut writes);
        if writes.len() > 5_000 {
            commit(std::mem::take(&mut writes));
        }
    }
    commit(writes);
}

async fn get(fixture: &Fixture, rest: &str) -> String {
    Visit::new(fixture, key(&[])).page(&format!("/dashboard/emails/{}{rest}", id())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_recipients_events_are_all_there() {
    let fixture = Fixture::new();
    kept(&fixture, 1, 60, "Agent", None);
    let first = get(&fixture, "").await;
    assert_eq!(first.matches("<li>\n<time").count(), MANY);
    for text in ["accepted", "delivered", "machine: less than 2 seconds after delivery", "192.0.2.7 · Agent"] {
        assert!(first.contains(text), "{text}: {first}");
    }
    assert!(!first.contains("<script>alert"), "{first}");
    assert!(first.contains("12 more events"), "{first}");
    assert!(first.contains("And 5 more opens and clicks"), "{first}");
    assert!(first.contains("?recipient=Person0%40example.net&#38;events=50"), "{first}");
    let rest = get(&fixture, "?recipient=PERSON0%40example.net&events=50").await;
    assert_eq!(rest.matches("<li>\n<time").count(), 12);
    assert!(rest.contains("From the first event"), "{rest}");
    let none = get(&fixture, "?recipient=nobody%40example.net").await;
    assert!(none.contains("No recipient of this message has that address."), "{none}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_recipients_with_a_hundred_events_each_fit_into_pages() {
    let fixture = Fixture::new();
    // What a client calls itself can be all characters that HTML writes as references.
    kept(&fixture, 1_000, 100, &"&".repeat(512), None);
    let mut address = String::new();
    let mut met = 0;
    for page in 0..3 {
        let page_text = get(&fixture, &address).await;
        assert!(page_text.len() < 200_000, "{} bytes", page_text.len());
        met += page_text.matches("<section class=\"card\">").count();
        let first = page * RECIPIENTS;
        assert!(page_text.contains(&format!("Recipients {} to {} of 1,000", first + 1, first + RECIPIENTS)));
        // Each is named and leads to all that is theirs.
        for place in first..first + RECIPIENTS {
            assert!(page_text.contains(&format!("?recipient=Person{place}%40example.net&#38;events=")), "{place}");
        }
        address = format!("?recipients={}", first + RECIPIENTS);
        assert!(page_text.contains(&address.replace('&', "&#38;")), "{page_text}");
    }
    assert_eq!(met, 3 * RECIPIENTS);
    for far in ["?recipients=65535", "?recipients=99999999999999999999", "?events=65535", "?recipients=-1"] {
        assert!(get(&fixture, far).await.len() < 200_000, "{far}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_says_what_was_done() {
    let fixture = Fixture::new();
    let link = |url: &str, outcome| LinkDetail { url: url.into(), outcome };
    let report = Report {
        skipped: None,
        parts: 2,
        parts_skipped: BTreeMap::new(),
        links_found: 2,
        links_rewritten: 1,
        links_skipped: [(SkipReason::OtherScheme, 1)].into(),
        pixel: Pixel::Inserted,
        bytes_in: 21_182,
        bytes_out: 23_830,
        notes: vec![Note::GmailClips],
        links: vec![
            link(&format!("https://example.com/{HOSTILE}"), LinkOutcome::Rewritten(0)),
            link("mailto:a@example.com", LinkOutcome::Skipped(SkipReason::OtherScheme)),
        ],
        more_links: 3,
    };
    kept(&fixture, 1, 0, "", Some(&report));
    let page = get(&fixture, "/report").await;
    for text in [
        "Tracked: it carries the pixel, and 1 of its 2 links leads over the tracking subdomain.",
        "21,182 bytes in, 23,830 bytes out",
        "Not a web link",
        "Gmail clips it",
        "And 3 more",
        "mailto:a@example.com",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(!page.contains("<script>alert"), "{page}");
}

#[test]
fn every_report_has_a_sentence() {
    let html = crate::rewrite::plan(
        b"Content-Type: text/html\n\n<p>x</p>",
        &crate::rewrite::Tracking::Off(crate::rewrite::OffReason::NotVerified),
        1,
    );
    let base = html.report().clone();
    let skipped = |pixel, rewritten, found, parts: &[SkipReason]| Report {
        skipped: None,
        pixel,
        links_rewritten: rewritten,
        links_found: found,
        parts_skipped: parts.iter().map(|reason| (*reason, 1)).collect(),
        ..base.clone()
    };
    let none = Pixel::Skipped(SkipReason::OpenTrackingOff);
    for (report, queued, want, remedy) in [
        (None, true, "Not tried yet: mail is rewritten when it is first handed to the smarthost.", false),
        (None, false, "No report is kept of this message.", false),
        (Some(base.clone()), false, "Not tracked: the tracking subdomain was not verified.", true),
        (Some(skipped(Pixel::Skipped(SkipReason::NoHtml), 0, 0, &[])), false, "Not tracked: no HTML in it.", true),
        (
            Some(skipped(Pixel::Skipped(SkipReason::NoHtml), 0, 0, &[SkipReason::Charset])),
            false,
            "Not tracked: its character set is unknown, or cannot be searched.",
            true,
        ),
        (
            Some(skipped(Pixel::Inserted, 2, 2, &[])),
            false,
            "Tracked: it carries the pixel, and all of its 2 links lead over the tracking subdomain.",
            false,
        ),
        (
            Some(skipped(none, 1, 3, &[])),
            false,
            "Clicks are tracked, opens are not: 1 of its 3 links leads over the tracking subdomain.",
            true,
        ),
        (
            Some(skipped(Pixel::Inserted, 1, 1, &[])),
            false,
            "Tracked: it carries the pixel, and its one link leads over the tracking subdomain.",
            false,
        ),
        (
            Some(skipped(Pixel::Inserted, 0, 0, &[])),
            false,
            "Tracked: it carries the pixel, and no link leads over the tracking subdomain.",
            false,
        ),
    ] {
        let (sentence, what) = summary(report.as_ref(), queued);
        assert_eq!((sentence.as_str(), what.is_some()), (want, remedy));
    }
    assert_eq!(
        (lower("MIME is"), lower("Its"), lower("A fault"), lower("")),
        ("MIME is".into(), "its".into(), "a fault".into(), String::new())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_of_others_is_not_there() {
    let fixture = Fixture::new();
    kept(&fixture, 1, 0, "", None);
    let (com, org) = (domain("example.com", 0), domain("example.org", 1));
    let changes = vec![Change::Domain(com.clone()), Change::Domain(org.clone())];
    let made = fixture.ops.settings.change(|_| Ok::<_, ops::OpError>((changes, ()))).await;
    made.unwrap();
    let own = Visit::new(&fixture, key(&[&com]));
    let other = Visit::new(&fixture, key(&[&org]));
    for rest in ["", "/report", "/preview", "/preview/content"] {
        let path = format!("/dashboard/emails/{}{rest}", id());
        assert_eq!((own.status(&path).await, other.status(&path).await), (200, 404), "{path}");
    }
    assert_eq!(own.status("/dashboard/emails/not-an-id").await, 404);
    let page = own.page(&format!("/dashboard/emails/{}", id())).await;
    assert!(!page.contains("kill-list") && page.contains(&format!("/dashboard/domains/{}/configuration", com.id)));
    let list = other.page("/dashboard/emails?q=person0%40example.net").await;
    assert!(!list.contains(&id().to_string()), "{list}");
    assert!(own.page("/dashboard/emails?q=person0%40example.net").await.contains(&id().to_string()));
}
