//! What all pages of one domain have: that it is there for whoever asks, its head, the words for how it stands; and the
//! tab with its configuration. Its records are [`super::records`]', the form is [`super::configure`]'s.

use super::domains::LIST;
use super::error::Error;
use super::frame::{Frame, Section, Signed, page};
use super::records::{self, Line, under_way};
use super::words::{away, cut, sentence, time};
use super::{Dashboard, filters};
use crate::clock;
use crate::domain::SenderDomain;
use crate::ops::{self, CertificateView, DomainView};
use askama::Template;
use axum::extract::{FromRequestParts, Path, State};
use axum::response::Response;
use http::request::Parts;
use std::sync::Arc;
use uuid::Uuid;

/// A domain that is there for whoever asks. Those of others are not, nor is what is no id at all.
pub struct Reached {
    pub signed: Signed,
    /// As it was when the request came.
    pub domain: SenderDomain,
}

impl FromRequestParts<Arc<Dashboard>> for Reached {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, dashboard: &Arc<Dashboard>) -> Result<Self, Error> {
        let signed = Signed::from_request_parts(parts, dashboard).await?;
        let Path(id) = Path::<Uuid>::from_request_parts(parts, dashboard).await.map_err(|_| Error::NotThere)?;
        let settings = dashboard.ops.settings.snapshot();
        let domain = settings.domain(id).filter(|domain| signed.key.reaches(domain)).cloned();
        Ok(Self { signed, domain: domain.ok_or(Error::NotThere)? })
    }
}

impl Reached {
    /// The address of its pages.
    pub fn root(&self) -> String {
        format!("{LIST}/{}", self.domain.id)
    }
}

/// A word in a colour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Badge {
    pub text: String,
    /// `good`, `warn`, `bad` or nothing.
    pub kind: &'static str,
}

impl Badge {
    pub fn new(text: impl Into<String>, kind: &'static str) -> Self {
        Self { text: text.into(), kind }
    }
}

/// How a domain stands, by its records. One that needs none says so: it is verified, but there is nothing to be seen.
pub fn badge_of(view: &DomainView) -> Badge {
    match view.status.as_str() {
        "verified" if view.records.is_empty() => Badge::new("No records yet", ""),
        "partially_verified" => Badge::new("Partly verified", "warn"),
        status => record_badge(status),
    }
}

/// The same for one record.
pub fn record_badge(status: &str) -> Badge {
    match status {
        "verified" => Badge::new("Verified", "good"),
        "pending" => Badge::new("Pending", "warn"),
        "temporary_failure" => Badge::new("Temporary failure", "warn"),
        "failed" => Badge::new("Failed", "bad"),
        _ => Badge::new("Not checked yet", ""),
    }
}

/// How a certificate stands.
pub fn certificate_badge(certificate: &CertificateView) -> Badge {
    match (certificate.state.as_str(), certificate.valid_until) {
        ("external", _) => Badge::new("By a proxy", ""),
        ("waiting", _) => Badge::new("Waiting", ""),
        ("ordering", _) => Badge::new("Being ordered", "warn"),
        ("valid", Some(until)) => {
            let kind = if certificate.message.is_some() { "warn" } else { "good" };
            Badge::new(format!("Until {}", time(until).split(' ').next().unwrap_or_default()), kind)
        }
        ("failed", _) => Badge::new("Failed", "bad"),
        _ => Badge::new("None needed", ""),
    }
}

/// What is tracked now, and what is to be mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracking {
    pub on: bool,
    /// `Opens and clicks`, or `Off`.
    pub what: String,
    pub why: Option<String>,
    /// All of it.
    pub text: String,
}

impl Tracking {
    pub fn of(view: &DomainView) -> Self {
        let text = cut(&view.tracking, MOST_WORDS);
        let off = |why: Option<&str>, text| Self { on: false, what: "Off".into(), why: why.map(sentence), text };
        if text == "off" {
            return off(None, "Its mail is not tracked: open and click tracking are off.".to_owned());
        }
        if let Some(why) = text.strip_prefix("off: ") {
            let back = match why {
                "switched off for this domain" => format!("; trackpost tracking on {} brings it back", view.name),
                _ => String::new(),
            };
            return off(Some(why), format!("Its mail is not tracked now: {why}{back}."));
        }
        let (what, by) = text.split_once(", by ").unwrap_or((&text, ""));
        let why = by.split_once("; ").map(|(_, why)| sentence(why));
        let all = format!("Its mail is tracked: {text}.");
        Self { on: true, what: sentence(what).trim_end_matches('.').to_owned(), why, text: all }
    }
}

/// Characters of a text that others wrote, such as a CA.
pub const MOST_WORDS: usize = 500;

/// The host of these labels.
pub fn host_of(labels: &str, domain: &str) -> String {
    format!("{labels}.{domain}")
}

/// How far away a time is, and the time, where it is not at hand.
pub fn when(at: u64, now: u64) -> String {
    match at.abs_diff(now) < 60_000 {
        true => away(at, now),
        false => format!("{} ({} UTC)", away(at, now), time(at)),
    }
}

/// What the two tabs of a domain begin with.
pub struct Head {
    pub id: String,
    pub name: String,
    pub badge: Badge,
    pub tracking: Tracking,
    pub signing: String,
    /// The tab with the records is shown.
    pub records: bool,
    /// Seconds after which to look again.
    pub live: Option<u32>,
}

impl Head {
    pub fn of(view: &DomainView, records: bool, now: u64) -> Self {
        let signing = match view.signing.as_str() {
            "off" => "Mail is not signed here: DKIM is off.".to_owned(),
            text => match text.strip_prefix("off: ") {
                Some(why) => format!("Mail is not signed now: {}.", cut(why, MOST_WORDS)),
                None => format!("Mail is signed with DKIM, {}.", cut(text.trim_start_matches("with "), MOST_WORDS)),
            },
        };
        Self {
            id: view.id.clone(),
            name: view.name.clone(),
            badge: badge_of(view),
            tracking: Tracking::of(view),
            signing,
            records,
            live: under_way(view, now),
        }
    }
}

#[derive(Template)]
#[template(path = "domain_configuration.html")]
struct Configuration {
    frame: Frame,
    head: Head,
    /// The tracking host asked for, and the one in use where that is another one.
    host: Option<String>,
    in_use: Option<String>,
    open: bool,
    click: bool,
    /// When the subdomain can be changed again.
    next_change: Option<String>,
    /// The records of earlier subdomains.
    earlier: Vec<Line>,
    excluded: Vec<String>,
    more_excluded: usize,
    dkim: bool,
    certificates: Vec<Certificate>,
    region: String,
    created_at: u64,
}

/// The certificate of one host.
struct Certificate {
    host: String,
    badge: Badge,
    text: String,
}

/// Excluded recipients that are shown.
const SHOWN: usize = 20;

/// The tab with the configuration.
pub async fn configuration(State(dashboard): State<Arc<Dashboard>>, reached: Reached) -> Result<Response, Error> {
    let view = ops::domain_show(&dashboard.ops, reached.domain.id)?;
    let (now, by_acme) = (clock::unix_ms(), dashboard.ops.terms.load().by_acme);
    let head = Head::of(&view, false, now);
    let (asked, used) = (view.tracking_subdomain.as_deref(), view.active_tracking_subdomain.as_deref());
    let certificates = view.certificates.iter().filter(|certificate| certificate.state != "none");
    let certificates = certificates.map(|certificate| Certificate {
        host: certificate.host.clone().unwrap_or_default(),
        badge: certificate_badge(certificate),
        text: records::about(certificate, by_acme, now),
    });
    page(&Configuration {
        frame: dashboard.frame(&reached.signed, Section::Domains, &view.name),
        head,
        host: asked.map(|labels| host_of(labels, &view.name)),
        in_use: used.filter(|_| used != asked).map(|labels| host_of(labels, &view.name)),
        open: view.open_tracking,
        click: view.click_tracking,
        next_change: view.next_change_at.filter(|_| asked.is_some()).map(|at| when(at, now)),
        earlier: records::earlier(&view, false),
        more_excluded: view.excluded_recipients.len().saturating_sub(SHOWN),
        dkim: view.dkim,
        certificates: certificates.collect(),
        region: view.region,
        created_at: view.created_at,
        excluded: view.excluded_recipients.into_iter().take(SHOWN).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracking(text: &str) -> Tracking {
        Tracking::of(&view(text))
    }

    fn view(tracking: &str) -> DomainView {
        let fields = serde_json::json!({
            "id": "", "name": "example.com", "status": "verified", "open_tracking": true, "click_tracking": true,
            "tracking_subdomain": null, "active_tracking_subdomain": null, "records": [], "tracking": tracking,
            "certificate": CertificateView::default(), "certificates": [], "excluded_recipients": [],
            "region": "us-east-1", "created_at": 0, "next_change_at": null,
        });
        serde_json::from_value(fields).unwrap()
    }

    #[test]
    fn what_is_tracked_and_why_not() {
        let some = |text: &str| Some(text.to_owned());
        for (text, on, what, why) in [
            ("off", false, "Off", None),
            ("off: no tracking subdomain", false, "Off", some("No tracking subdomain.")),
            ("opens and clicks, by links.example.com", true, "Opens and clicks", None),
            (
                "opens, by a.example.com for now; b.example.com is not verified",
                true,
                "Opens",
                some("b.example.com is not verified."),
            ),
        ] {
            let got = tracking(text);
            assert_eq!((got.on, got.what.as_str(), got.why), (on, what, why), "{text}");
            assert!(got.text.ends_with('.') && !got.text.ends_with(".."), "{}", got.text);
        }
        let panic = tracking("off: switched off for this domain").text;
        assert!(panic.contains("trackpost tracking on example.com"), "{panic}");
    }

    #[test]
    fn a_domain_without_records_does_not_look_verified() {
        let mut domain = view("off");
        assert_eq!(badge_of(&domain).kind, "");
        domain.status = "partially_verified".into();
        assert_eq!(badge_of(&domain), Badge::new("Partly verified", "warn"));
        domain.status = "failed".into();
        assert_eq!(badge_of(&domain).kind, "bad");
    }

    #[test]
    fn certificates_in_a_word() {
        let day = 86_400_000;
        let valid = CertificateView { state: "valid".into(), valid_until: Some(31 * day), ..Default::default() };
        assert_eq!(certificate_badge(&valid), Badge::new("Until 1970-02-01", "good"));
        let failing = CertificateView { message: Some("no".into()), ..valid };
        assert_eq!(certificate_badge(&failing).kind, "warn");
    }
}
