//! The tab with the DNS records of a domain: what to add, what DNS answers instead, what comes next; and asking for a
//! look at it.

use super::domain::{Badge, Head, MOST_WORDS, Reached, certificate_badge, record_badge, when};
use super::error::Error;
use super::frame::{Frame, Section, page};
use super::words::{away, cut, sentence, time};
use super::{Dashboard, filters};
use crate::clock;
use crate::ops::{self, CertificateView, DomainView, RecordView, Verify};
use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use std::sync::Arc;
use std::time::Duration;

/// How long the answer to a request for a look waits for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Seconds after which the page is looked at again, while the next look at DNS is near and while it is far.
const SOON: u32 = 3;
const LATER: u32 = 30;
/// What is due within so many milliseconds is near.
const NEAR_MS: u64 = 60_000;
/// The same without script, where the whole page is loaded again.
const RELOAD: [(u32, u32); 2] = [(SOON, 5), (LATER, 60)];

#[derive(Template)]
#[template(path = "domain_records.html")]
struct Records {
    frame: Frame,
    head: Head,
    /// There is a tracking subdomain.
    tracks: bool,
    /// What comes next, in sentences.
    next: Vec<String>,
    rows: Vec<Row>,
    /// Whether a CAA record that is needed is there, and why it is.
    caa: Option<(bool, String)>,
    button: &'static str,
    certificate: Option<(Badge, String)>,
    earlier: Vec<Line>,
    earlier_keys: Vec<Line>,
}

/// One record that is to be there.
struct Row {
    line: Line,
    /// What it is for.
    purpose: &'static str,
    /// What DNS answers, in a sentence, and whether that is as it should be.
    answer: String,
    good: bool,
    checked_at: Option<u64>,
    next_check: Option<String>,
}

/// A record in one line.
pub struct Line {
    /// `Tracking`, `TrackingCAA` or `DKIM`.
    pub record: String,
    pub kind: String,
    pub name: String,
    pub value: String,
    pub badge: Badge,
}

/// The tab.
pub async fn show(State(dashboard): State<Arc<Dashboard>>, reached: Reached) -> Result<Response, Error> {
    let view = ops::domain_show(&dashboard.ops, reached.domain.id)?;
    let terms = dashboard.ops.terms.load();
    let (now, by_acme, issuer) = (clock::unix_ms(), terms.by_acme, terms.expected.caa_issuer.as_str());
    let head = Head::of(&view, true, now);
    let frame = dashboard.frame(&reached.signed, Section::Domains, &view.name);
    let reload = RELOAD.iter().find(|(live, _)| head.live == Some(*live)).map(|(_, seconds)| *seconds);
    page(&Records {
        frame: reload.into_iter().fold(frame, Frame::refreshing),
        tracks: view.tracking_subdomain.is_some(),
        next: next(&view, now),
        rows: asked(&view).map(|record| Row::of(record, now)).collect(),
        caa: asked(&view)
            .find(|record| record.record == "TrackingCAA")
            .map(|record| (record.status == "verified", why_caa(record, issuer))),
        button: if all_there(&view) { "Check again" } else { "I've added the records" },
        certificate: (view.certificate.state != "none")
            .then(|| (certificate_badge(&view.certificate), about(&view.certificate, by_acme, now))),
        earlier: earlier(&view, false),
        earlier_keys: earlier(&view, true),
        head,
    })
}

/// Asks for a look at all records, at once and then again and again.
pub async fn verify(State(dashboard): State<Arc<Dashboard>>, reached: Reached) -> Result<Response, Error> {
    let view = ops::domain_verify(&dashboard.ops, reached.domain.id, Verify::Ask, PATIENCE).await?;
    let (path, signed) = (reached.root(), &reached.signed);
    let now = clock::unix_ms();
    let is_due = |record: &RecordView| record.next_check_at.is_some_and(|at| at <= now);
    Ok(match () {
        () if view.records.is_empty() => dashboard.done(signed, &path, "There is no record to look for yet."),
        () if all_there(&view) => dashboard.done(signed, &path, "All records are there."),
        () if asked(&view).filter(|record| record.status != "verified").any(is_due) => {
            dashboard.done(signed, &path, "We are looking: what DNS answers comes up here by itself.")
        }
        () => {
            let missing = asked(&view).filter(|record| record.status != "verified");
            let missing: Vec<_> =
                missing.map(|record| format!("{} {}", record.kind, super::words::cut(&record.name, 100))).collect();
            let text =
                format!("We looked just now. Not there yet: {}. New records can take a while.", missing.join(", "));
            dashboard.done(signed, &path, text)
        }
    })
}

/// Who comes by the address of the form, such as after signing in again, finds the page with the button.
pub async fn lead(reached: Reached) -> Response {
    Redirect::to(&reached.root()).into_response()
}

/// The records that weigh on the domain.
fn asked(view: &DomainView) -> impl Iterator<Item = &RecordView> {
    view.records.iter().filter(|record| !record.earlier)
}

fn all_there(view: &DomainView) -> bool {
    asked(view).all(|record| record.status == "verified")
}

fn is_open(record: &RecordView) -> bool {
    matches!(record.status.as_str(), "pending" | "temporary_failure")
}

/// Seconds after which to look at the page again, where something is expected to change by itself.
pub fn under_way(view: &DomainView, now: u64) -> Option<u32> {
    let is_near = |at: Option<u64>| at.is_some_and(|at| at <= now + NEAR_MS);
    let open = || asked(view).filter(|record| is_open(record));
    let orders = view.certificate.state == "ordering";
    // All records are there, but a browser would not take the links yet.
    let waits = view.tracking_subdomain.is_some()
        && view.active_tracking_subdomain != view.tracking_subdomain
        && asked(view).next().is_some()
        && all_there(view);
    let near = open().any(|record| is_near(record.next_check_at))
        || orders && view.certificate.next_try_at.is_none()
        || waits && is_near(view.certificate.next_try_at.or(asked(view).filter_map(|r| r.next_check_at).min()));
    match near {
        true => Some(SOON),
        false => (open().next().is_some() || orders || waits).then_some(LATER),
    }
}

/// What comes next.
fn next(view: &DomainView, now: u64) -> Vec<String> {
    let has = |status: &str| asked(view).any(|record| record.status == status);
    let mut next = Vec::new();
    if has("failed") {
        next.push(
            "A record was not found for 72 hours, so it is no longer looked for. Mend it, then press the button: it is \
             looked for anew."
                .to_owned(),
        );
    }
    if has("not_started") {
        next.push(format!(
            "Add what is not checked yet where the DNS of {} is kept, such as Cloudflare, GoDaddy or a name server of \
             your own. Then press the button: we look at once, and go on looking for 72 hours.",
            view.name
        ));
    }
    if has("temporary_failure") {
        next.push(
            "A record that was there is gone: put it back. What relies on it goes on for 72 hours meanwhile."
                .to_owned(),
        );
    }
    if let Some(at) = asked(view).filter(|record| is_open(record)).filter_map(|record| record.next_check_at).min() {
        let look = match at <= now {
            true => "We are looking at DNS at this moment".to_owned(),
            false => format!("We look at DNS again by ourselves {}", when(at, now)),
        };
        next.push(format!(
            "{look}, for 72 hours in all. A change in DNS is seen everywhere after minutes, at times only after hours."
        ));
    }
    if next.is_empty() && asked(view).next().is_some() {
        next.push(
            match view.certificate.state.as_str() {
                "ordering" => {
                    "All records are there. The certificate is being ordered: this page shows when it is there."
                }
                _ => "All records are there: keep them. We look every hour whether they still are.",
            }
            .to_owned(),
        );
    }
    next
}

/// A certificate, in sentences.
pub fn about(certificate: &CertificateView, by_acme: bool, now: u64) -> String {
    let why = certificate.message.as_ref().map(|why| sentence(&cut(why, MOST_WORDS)));
    let until = |at| format!("Valid until {} UTC ({}).", time(at), away(at, now));
    let again = match certificate.next_try_at {
        Some(at) if at <= now => "It is tried again at this moment.".to_owned(),
        Some(at) => format!("It is tried again {}.", when(at, now)),
        None => "It is not tried again by itself: mend that, then have the records checked again.".to_owned(),
    };
    match (certificate.state.as_str(), certificate.valid_until, why) {
        ("external", ..) => {
            "Whoever runs the proxy in front of this relay sees to the certificate of this host.".to_owned()
        }
        ("ordering", ..) => "It is being ordered. This takes seconds, at most minutes.".to_owned(),
        ("valid", Some(end), None) if by_acme => format!("{} It is renewed by itself before that.", until(end)),
        ("valid", Some(end), None) => until(end),
        ("valid", Some(end), Some(why)) => format!("{} The last renewal failed: {why} {again}", until(end)),
        ("failed", _, Some(why)) => format!("The last order failed: {why} {again}"),
        ("waiting", ..) if by_acme => "It is ordered by itself once the records are there.".to_owned(),
        ("waiting", ..) => "The operator of this relay has yet to put a certificate for this host in place.".to_owned(),
        _ => "Links are plain HTTP here, so none is needed.".to_owned(),
    }
}

/// The records of earlier subdomains, or those of earlier keys.
pub fn earlier(view: &DomainView, keys: bool) -> Vec<Line> {
    view.records.iter().filter(|record| record.earlier && (record.record == "DKIM") == keys).map(Line::of).collect()
}

impl Line {
    fn of(record: &RecordView) -> Self {
        let badge = match record.by_operator {
            true => Badge::new("Verified by the operator's word", "good"),
            false => record_badge(&record.status),
        };
        Self {
            record: record.record.clone(),
            kind: record.kind.clone(),
            name: record.name.clone(),
            value: record.value.clone(),
            badge,
        }
    }
}

/// Why the customer is asked for a record that has nothing to do with tracking.
fn why_caa(record: &RecordView, issuer: &str) -> String {
    let named = match record.status.as_str() {
        "verified" => format!("and {issuer} is among them. Keep the CAA record below"),
        _ => format!("and {issuer} is not among them. Add the CAA record below to the others"),
    };
    format!(
        "CAA records at {} say which authorities may issue certificates, {named}, so that the certificate for your \
         tracking subdomain can be issued.",
        record.name
    )
}

impl Row {
    fn of(record: &RecordView, now: u64) -> Self {
        let purpose = match record.record.as_str() {
            "TrackingCAA" => "lets the certificate be issued",
            "DKIM" => "the key that mail is signed with",
            _ => "makes the subdomain lead here",
        };
        let good = record.status == "verified" && record.found.is_none();
        let answer = match &record.found {
            Some(found) if record.by_operator => {
                format!("The operator of this relay vouched for it. DNS says: {}.", cut(found, MOST_WORDS))
            }
            None if record.by_operator => "The operator of this relay vouched for it, whatever DNS says.".to_owned(),
            Some(found) => sentence(&cut(found, MOST_WORDS)),
            None if good => "This record, as it should be.".to_owned(),
            None if record.status == "not_started" || record.checked_at.is_none() => "Not looked at yet.".to_owned(),
            None => "Nothing that would be of use.".to_owned(),
        };
        let open = is_open(record) || record.status == "verified" && !record.by_operator;
        let next_check = record.next_check_at.filter(|_| open).map(|at| match at <= now {
            true => "at this moment".to_owned(),
            false => away(at, now),
        });
        Self {
            line: Line::of(record),
            purpose,
            answer,
            good,
            checked_at: record.checked_at.filter(|_| record.status != "not_started"),
            next_check,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000_000;

    fn record(kind: &str, status: &str, next_check_at: Option<u64>) -> RecordView {
        RecordView {
            record: kind.into(),
            name: "links.example.com".into(),
            kind: "CNAME".into(),
            value: "track.example.net".into(),
            status: status.into(),
            found: None,
            by_operator: false,
            earlier: false,
            checked_at: Some(NOW - 1),
            next_check_at,
        }
    }

    fn view(records: Vec<RecordView>, certificate: &str, used: bool) -> DomainView {
        let certificate = CertificateView { state: certificate.into(), ..CertificateView::default() };
        let fields = serde_json::json!({
            "id": "", "name": "example.com", "status": "", "open_tracking": true, "click_tracking": true,
            "tracking_subdomain": "links", "active_tracking_subdomain": used.then_some("links"), "records": records,
            "tracking": "", "certificate": certificate, "certificates": [], "excluded_recipients": [],
            "region": "us-east-1", "created_at": 0, "next_change_at": null,
        });
        serde_json::from_value(fields).unwrap()
    }

    #[test]
    fn a_page_is_live_while_something_is_under_way() {
        let (near, far) = (Some(NOW + 5_000), Some(NOW + 3_600_000));
        let earlier = RecordView { earlier: true, ..record("Tracking", "pending", near) };
        for (records, certificate, used, live) in [
            (vec![], "none", false, None),
            (vec![record("Tracking", "not_started", None)], "waiting", false, None),
            (vec![record("Tracking", "failed", None)], "waiting", false, None),
            (vec![record("Tracking", "pending", near)], "waiting", false, Some(SOON)),
            (vec![record("Tracking", "pending", Some(NOW - 9))], "waiting", false, Some(SOON)),
            (vec![record("Tracking", "pending", far)], "waiting", false, Some(LATER)),
            (vec![record("Tracking", "temporary_failure", far)], "valid", true, Some(LATER)),
            (vec![record("Tracking", "verified", far)], "ordering", false, Some(SOON)),
            (vec![record("Tracking", "verified", near)], "external", false, Some(SOON)),
            (vec![record("Tracking", "verified", far)], "failed", false, Some(LATER)),
            (vec![record("Tracking", "verified", far)], "valid", true, None),
            (vec![record("Tracking", "verified", far), earlier], "valid", true, None),
        ] {
            let text = format!("{records:?} {certificate}");
            assert_eq!(under_way(&view(records, certificate, used), NOW), live, "{text}");
        }
    }

    #[test]
    fn what_comes_next_is_said_for_each_state() {
        let said = |status, certificate| {
            next(&view(vec![record("Tracking", status, Some(NOW + 120_000))], certificate, false), NOW).concat()
        };
        for (status, certificate, text) in [
            ("not_started", "waiting", "Add what is not checked yet"),
            ("pending", "waiting", "again by ourselves in 2 minutes (1970-01-12 13:48 UTC)"),
            ("temporary_failure", "valid", "put it back"),
            ("failed", "waiting", "no longer looked for"),
            ("verified", "ordering", "is being ordered"),
            ("verified", "valid", "keep them"),
        ] {
            assert!(said(status, certificate).contains(text), "{status}: {}", said(status, certificate));
        }
        assert!(next(&view(vec![], "none", false), NOW).is_empty());
    }

    #[test]
    fn rows_say_what_dns_answers() {
        let answer = |record: RecordView| Row::of(&record, NOW).answer;
        assert_eq!(answer(record("Tracking", "not_started", None)), "Not looked at yet.");
        assert_eq!(answer(record("Tracking", "verified", None)), "This record, as it should be.");
        let found = Some("found nothing at links.example.com".to_owned());
        let missing = RecordView { found, ..record("Tracking", "pending", None) };
        assert_eq!(answer(missing), "Found nothing at links.example.com.");
        let why = why_caa(&record("TrackingCAA", "pending", None), "ca.example.net");
        assert!(why.contains("ca.example.net is not among them"), "{why}");
        let why = why_caa(&record("TrackingCAA", "verified", None), "ca.example.net");
        assert!(why.contains("ca.example.net is among them. Keep"), "{why}");
        let vouched = RecordView { by_operator: true, ..record("Tracking", "verified", Some(NOW + 1)) };
        assert_eq!(Line::of(&vouched).badge.text, "Verified by the operator's word");
    }

    #[test]
    fn certificates_in_sentences() {
        let certificate = |state: &str, message: Option<&str>, next_try_at| CertificateView {
            state: state.into(),
            message: message.map(Into::into),
            valid_until: (state == "valid").then_some(NOW + 86_400_000),
            next_try_at,
            host: None,
        };
        for (certificate, by_acme, text) in [
            (certificate("valid", None, None), true, "Valid until 1970-01-13 13:46 UTC (in 1 day). It is renewed"),
            (
                certificate("valid", Some("no"), Some(NOW + 60_000)),
                true,
                "The last renewal failed: No. It is tried again in 1 minute",
            ),
            (certificate("failed", Some("rejectedIdentifier"), None), true, "not tried again by itself"),
            (certificate("waiting", None, None), true, "once the records are there"),
            (certificate("waiting", None, None), false, "operator"),
            (certificate("none", None, None), true, "plain HTTP"),
        ] {
            let said = about(&certificate, by_acme, NOW);
            assert!(said.contains(text), "{said}");
        }
    }
}
