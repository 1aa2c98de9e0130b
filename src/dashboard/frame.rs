//! What is around every page: navigation, who is signed in, notices, warnings that concern all mail.

use super::error::Error;
use super::session::{Notice, SessionId};
use super::{Dashboard, Visitor, assets, filters, sign_in};
use crate::settings::ApiKey;
use askama::Template;
use axum::extract::FromRequestParts;
use axum::response::{Html, IntoResponse, Redirect, Response};
use http::StatusCode;
use http::request::Parts;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Somebody who is signed in. Extracted by every page; who is not is led to sign in, and back.
#[derive(Clone)]
pub struct Signed {
    pub id: SessionId,
    /// What forms carry.
    pub csrf: String,
    pub key: ApiKey,
    /// A page keeps itself fresh: nobody has clicked, and what is to be said waits for somebody.
    pub by_itself: bool,
}

/// Somebody whose key is tied to no domain: the operator. To others these pages are not there.
pub struct Operator(pub Signed);

impl Signed {
    pub fn is_operator(&self) -> bool {
        self.key.domains.is_empty()
    }
}

impl<S: Sync> FromRequestParts<S> for Signed {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let signed = parts.extensions.get::<Visitor>().and_then(|visitor| visitor.signed.clone());
        signed.ok_or_else(|| Error::SignIn(sign_in::before(&parts.uri)))
    }
}

impl<S: Sync> FromRequestParts<S> for Operator {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let signed = Signed::from_request_parts(parts, state).await?;
        if signed.is_operator() { Ok(Self(signed)) } else { Err(Error::NotThere) }
    }
}

/// Where in the navigation a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Overview,
    Domains,
    Emails,
    Metrics,
    Webhooks,
    ApiKeys,
    Queue,
    KillList,
    None,
}

/// An entry of the navigation.
pub struct Entry {
    pub name: &'static str,
    pub path: &'static str,
    pub here: bool,
}

/// In the order of the navigation; whether it is the operator's alone.
const SECTIONS: [(Section, &str, &str, bool); 8] = [
    (Section::Overview, "Overview", "/dashboard", false),
    (Section::Domains, "Domains", "/dashboard/domains", false),
    (Section::Emails, "Emails", "/dashboard/emails", false),
    (Section::Metrics, "Metrics", "/dashboard/metrics", false),
    (Section::Webhooks, "Webhooks", "/dashboard/webhooks", false),
    (Section::ApiKeys, "API keys", "/dashboard/api-keys", true),
    (Section::Queue, "Queue", "/dashboard/queue", true),
    (Section::KillList, "Kill list", "/dashboard/kill-list", true),
];

/// What every template is given as `frame`.
pub struct Frame {
    pub title: String,
    /// Empty where nobody is signed in.
    pub navigation: Vec<Entry>,
    pub csrf: String,
    /// The name of the key.
    pub who: String,
    pub operator: bool,
    pub notice: Option<Notice>,
    /// What keeps all mail from being delivered or tracked.
    pub alarms: Vec<&'static str>,
    /// Seconds after which the page is loaded again where there is no script: something is under way.
    pub refresh: Option<u32>,
    /// Where a Postfix on this machine sends its mail, as its main.cf has it; for the operator.
    pub relayhost: Option<String>,
    pub style: &'static str,
    pub script: &'static str,
}

impl Frame {
    /// For whoever is not signed in.
    pub fn of_nobody(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            navigation: Vec::new(),
            csrf: String::new(),
            who: String::new(),
            operator: false,
            notice: None,
            alarms: Vec::new(),
            refresh: None,
            relayhost: None,
            style: assets::style(),
            script: assets::script(),
        }
    }

    /// The page is loaded again after so many seconds, where there is no script that does it better.
    pub fn refreshing(self, seconds: u32) -> Self {
        Self { refresh: Some(seconds), ..self }
    }
}

impl Dashboard {
    /// The frame of a page. Takes what was to be said on it.
    pub fn frame(&self, signed: &Signed, section: Section, title: &str) -> Frame {
        let operator = signed.is_operator();
        let shown = SECTIONS.iter().filter(|(.., operators)| operator || !operators);
        let entry = |(one, name, path, _): &(Section, &'static str, &'static str, bool)| Entry {
            name,
            path,
            here: *one == section,
        };
        let settings = self.ops.settings.snapshot();
        let mut alarms = Vec::new();
        if settings.tracking_off {
            alarms.push("Tracking is switched off for all mail: trackpost tracking on brings it back.");
        }
        if operator && settings.queue_held {
            alarms.push("The queue is held: no mail is delivered until it is released.");
        }
        Frame {
            navigation: shown.map(entry).collect(),
            csrf: signed.csrf.clone(),
            who: signed.key.name.clone(),
            operator,
            notice: if signed.by_itself { None } else { self.sessions.told(&signed.id) },
            alarms,
            relayhost: self.setup.smtp.filter(|_| operator).map(relayhost),
            ..Frame::of_nobody(title)
        }
    }

    /// Leads to a page that begins with this sentence: how a form that was done is answered.
    pub fn done(&self, signed: &Signed, path: &str, text: impl Into<String>) -> Response {
        self.sessions.tell(&signed.id, Notice { text: text.into(), bad: false });
        Redirect::to(path).into_response()
    }

    /// The same where something was not done.
    pub fn not_done(&self, signed: &Signed, path: &str, text: impl Into<String>) -> Response {
        self.sessions.tell(&signed.id, Notice { text: text.into(), bad: true });
        Redirect::to(path).into_response()
    }
}

/// `[127.0.0.1]:2525`. What listens on all addresses listens on that of the machine itself.
fn relayhost(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("[{ip}]:{}", address.port())
}

/// Asks before something is done that takes something away.
#[derive(Template)]
#[template(path = "confirm.html")]
pub struct Confirm {
    /// Its title is the question.
    pub frame: Frame,
    /// What follows, in sentences.
    pub consequences: Vec<String>,
    /// Where the form goes.
    pub action: String,
    pub button: &'static str,
    pub back: String,
}

/// A page.
pub fn page(template: &impl Template) -> Result<Response, Error> {
    Ok(Html(template.render()?).into_response())
}

/// A form once more, with what is wrong in it.
pub fn page_again(template: &impl Template) -> Result<Response, Error> {
    Ok((StatusCode::UNPROCESSABLE_ENTITY, Html(template.render()?)).into_response())
}
