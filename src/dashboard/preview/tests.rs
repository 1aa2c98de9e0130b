//! Previews over the real routes: of what is in the log, what is no longer there, and what means no good.

use super::*;
use crate::clock;
use crate::dashboard::visit::Visit;
use crate::ops::fixture::{Fixture, head, key};
use crate::spool::MessageHead;
use crate::store;
use http_body_util::BodyExt;

/// A message in the log and in the history; it was delivered.
fn sent(fixture: &Fixture, body: &str) -> (QueueId, MessageHead) {
    let id = clock::queue_id();
    let head = MessageHead { size: body.len() as u64, ..head(id, "example.com", "Hello") };
    fixture.log(id, &head, body);
    fixture.keep([(id, head.clone())]);
    (id, head)
}

async fn pages(fixture: &Fixture, id: QueueId, query: &str) -> (String, String) {
    let visit = Visit::new(fixture, key(&[]));
    let path = format!("/dashboard/emails/{id}/preview");
    let page = visit.page(&format!("{path}{query}")).await;
    let response = visit.get(&format!("{path}/content{query}")).await;
    let header = |name: &str| response.headers().get(name).unwrap().to_str().unwrap().to_owned();
    let policy = header("content-security-policy");
    for rule in [
        "sandbox;",
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'self'",
    ] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("allow-"), "{policy}");
    assert_eq!(
        (header("x-frame-options"), header("x-content-type-options"), header("cache-control")),
        ("SAMEORIGIN".into(), "nosniff".into(), "no-store".into())
    );
    let content = response.into_body().collect().await.unwrap().to_bytes();
    (page, String::from_utf8(content.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn html_is_shown_with_its_links_and_without_its_tricks() {
    let fixture = Fixture::new();
    let (id, _) = sent(
        &fixture,
        "Content-Type: text/html; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\n\
         <title>x</title><body onload=3Dalert(1)><p>Gr=FC=DFe</p><a href=3D\"https://example.com/\">a</a>\
         <script>alert(2)</script><img src=3D\"https://example.com/pixel.gif\"></body>\n",
    );
    let (page, content) = pages(&fixture, id, "").await;
    assert!(page.contains("<iframe class=\"preview\" sandbox=\"\""), "{page}");
    assert!(page.contains("of which nothing more is known"), "{page}");
    assert!(
        content.contains("<body><p>Grüße</p><a data-mark=\"unknown\" title=\"https://example.com/\">a</a>"),
        "{content}"
    );
    for gone in ["alert", "onload", "pixel.gif", "href"] {
        assert!(!content.contains(gone), "{gone}: {content}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_shown_as_text() {
    let fixture = Fixture::new();
    let (id, _) = sent(&fixture, "Subject: x\n\nHello <b>you</b> </pre><script>alert(1)</script>\n");
    let (page, content) = pages(&fixture, id, "").await;
    assert!(page.contains("It has no HTML: this is its text."), "{page}");
    assert!(content.contains("Hello &#60;b&#62;you&#60;/b&#62; &#60;/pre&#62;"), "{content}");
    let (id, _) = sent(&fixture, "Content-Type: text/html\n\n<select><xmp><script>\"x");
    let (page, content) = pages(&fixture, id, "").await;
    assert!(page.contains("can be read in two ways, so here is its source"), "{page}");
    assert!(content.contains("&#60;select&#62;"), "{content}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_parts_have_addresses() {
    let fixture = Fixture::new();
    let part = |text: &str| format!("--b\nContent-Type: text/html\n\n<p>{text}</p>\n");
    let body = format!("Content-Type: multipart/mixed; boundary=b\n\n{}{}--b--\n", part("one"), part("two"));
    let (id, _) = sent(&fixture, &body);
    let (page, first) = pages(&fixture, id, "").await;
    assert!(page.contains("/preview?part=1\">Part 2"), "{page}");
    let (_, second) = pages(&fixture, id, "?part=1").await;
    assert!(first.contains("<p>one</p>") && !first.contains("two") && second.contains("<p>two</p>"));
    for query in ["?part=2", "?part=65535", "?part=-1", "?part=18446744073709551615"] {
        pages(&fixture, id, query).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said() {
    let fixture = Fixture::new();
    // Kept in the history alone.
    let id = clock::queue_id();
    fixture.keep([(id, head(id, "example.com", "Hello"))]);
    let (page, content) = pages(&fixture, id, "").await;
    assert!(page.contains("The content is not kept.") && !page.contains("<iframe"), "{page}");
    assert!(content.contains("The content is not kept."), "{content}");

    let large = format!("Content-Type: text/html\n\n{}\n", "x".repeat(MOST));
    let (id, _) = sent(&fixture, &large);
    let (page, content) = pages(&fixture, id, "").await;
    assert!(page.contains("too large to preview") && content.len() < 5_000, "{page}");

    let id = clock::queue_id();
    fixture.keep([(id, MessageHead { size: 17 << 20, ..head(id, "example.com", "Hello") })]);
    assert!(pages(&fixture, id, "").await.0.contains("over 16 MB"));

    // Forgotten, with what was said to them alone.
    let (id, mut forgotten) = sent(&fixture, "Content-Type: text/html\n\nDear Ada\n");
    assert!(pages(&fixture, id, "").await.1.contains("Dear Ada"));
    forgotten.envelope.recipients = vec![crate::mail::Address::parse(store::ERASED).unwrap().into()];
    fixture.keep([(id, forgotten)]);
    let (page, content) = pages(&fixture, id, "").await;
    assert!(page.contains("Its recipients were forgotten") && !content.contains("Ada"), "{page}");
}
