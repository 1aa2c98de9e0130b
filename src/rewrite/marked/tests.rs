//! Whole messages through [`plan`], and what [`marked`] makes of their reports.

use super::*;
use crate::rewrite::{OnSigned, Policy, Scheme, Tracking, plan};

const MOST: usize = 10_000;

fn host() -> DomainName {
    DomainName::parse("links.example.com").unwrap()
}

fn tracking(click: bool) -> Tracking {
    Tracking::Active(Policy {
        domain: DomainName::parse("example.com").unwrap(),
        open: true,
        click,
        scheme: Scheme::Https,
        host: host(),
        port: 0,
        own_hosts: Vec::new(),
        on_signed: OnSigned::Skip,
        signs: false,
        limits: Limits::default(),
    })
}

/// What is left of a link for a comparison.
fn short(shown: Shown) -> Vec<(String, Mark)> {
    let Shown::Html(html) = shown else { panic!("{shown:?}") };
    let links = html.links.unwrap();
    for link in &links {
        assert!(html.text.get(link.value.clone()).is_some(), "{link:?}");
    }
    links.into_iter().map(|link| (link.url, link.mark)).collect()
}

fn html(body: &str) -> String {
    format!("From: a@example.com\nList-Unsubscribe: <https://example.com/u>\nContent-Type: text/html\n\n{body}\n")
}

#[test]
fn links_have_the_marks_that_the_report_gives_them() {
    let body = "<p><a href=\"https://example.com/a?b=1&amp;c=2\">1</a><a href='mailto:a@example.com'>2</a>\
                <a href=https://example.com/u>3</a><a href=https://example.com/x data-track=off>4</a>\
                <a href=https://example.com/x>5</a><a href=https://links.example.com/c/1>6</a>";
    let message = html(body);
    let want = |tracked: Mark| {
        vec![
            ("https://example.com/a?b=1&c=2".to_owned(), tracked),
            ("mailto:a@example.com".to_owned(), Mark::Left(SkipReason::OtherScheme)),
            ("https://example.com/u".to_owned(), Mark::Left(SkipReason::ListUnsubscribe)),
            ("https://example.com/x".to_owned(), Mark::Left(SkipReason::Excluded)),
            ("https://example.com/x".to_owned(), tracked),
            ("https://links.example.com/c/1".to_owned(), Mark::Left(SkipReason::OwnHost)),
        ]
    };
    let report = plan(message.as_bytes(), &tracking(true), 1).report().clone();
    let host = host();
    let shown = |report: Option<&Report>| marked(message.as_bytes(), report, &[&host], 0, MOST).shown;
    assert_eq!(short(shown(Some(&report))), want(Mark::Tracked));
    // Where the details had no room, the rules tell.
    let without = Report { links: Vec::new(), more_links: 6, ..report };
    assert_eq!(short(shown(Some(&without))), want(Mark::Tracked));
    assert!(short(shown(None)).iter().all(|(_, mark)| *mark == Mark::Unknown));
    let off = plan(message.as_bytes(), &tracking(false), 1).report().clone();
    assert!(short(shown(Some(&off))).iter().all(|(_, mark)| *mark == Mark::Off));
    let skipped = Report { skipped: Some(SkipReason::NotVerified), ..off };
    assert!(short(shown(Some(&skipped))).iter().all(|(_, mark)| *mark == Mark::Left(SkipReason::NotVerified)));
}

#[test]
fn parts_are_chosen_and_decoded() {
    let part = |kind: &str, body: &str| format!("--b\nContent-Type: {kind}\n\n{body}\n");
    let wrap = |kind: &str, parts: String| format!("Content-Type: multipart/{kind}; boundary=b\n\n{parts}--b--\n");
    let two = wrap(
        "mixed",
        part("text/plain", "plain")
            + &part("text/html; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable", "Gr=FC=DFe")
            + &part("text/html\nContent-Disposition: attachment", "not this")
            + &part("text/html\nContent-Transfer-Encoding: base64", "PGI+Mg=="),
    );
    let shown = |message: &str, nth| marked(message.as_bytes(), None, &[], nth, MOST);
    let text = |shown: Shown| match shown {
        Shown::Html(html) => html.text,
        other => panic!("{other:?}"),
    };
    assert_eq!(shown(&two, 0).html_parts, 2);
    assert_eq!(text(shown(&two, 0).shown), "Grüße");
    assert_eq!(text(shown(&two, 1).shown), "<b>2");
    assert_eq!(shown(&two, 2).shown, Shown::Nothing);
    let plain = "Content-Type: text/plain; charset=utf-16le\nContent-Transfer-Encoding: base64\n\naABpAA==\n";
    assert_eq!(shown(plain, 0), Marked { html_parts: 0, shown: Shown::Text("hi".into()) });
    assert_eq!(shown("Subject: x\n\nfour\n", 0).shown, Shown::Text("four\n".into()));
    assert_eq!(shown("Content-Type: image/gif\n\nGIF", 0).shown, Shown::Nothing);
    // What is signed is read, and its links were left alone.
    let signed = wrap("signed", part("text/html", "<a href=https://example.com/>x</a>"));
    assert_eq!(
        short(shown(&signed, 0).shown),
        [("https://example.com/".to_owned(), Mark::Left(SkipReason::SignedPart))]
    );
    for (message, why) in [
        (html(&"x".repeat(MOST + 1)), SkipReason::TooLarge),
        (html("x").replace("text/html", "text/html; charset=utf-7"), SkipReason::Charset),
        ("Content-Type: text/html\nContent-Transfer-Encoding: base64\n\n!".to_owned(), SkipReason::Undecodable),
        ("Content-Type: multipart/mixed\n\n".to_owned(), SkipReason::BrokenStructure),
        (format!("\n{}", "x".repeat(MOST + 1)), SkipReason::TooLarge),
    ] {
        assert_eq!(shown(&message, 0).shown, Shown::Not(why), "{why}");
    }
}

#[test]
fn what_readers_see_differently_has_no_links() {
    let shown = marked(html("<select><xmp><a href=https://example.com/>").as_bytes(), None, &[], 0, MOST).shown;
    assert!(matches!(shown, Shown::Html(MarkedHtml { links: None, .. })), "{shown:?}");
}
