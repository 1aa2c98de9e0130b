//! Endpoints that are told of events: the list, and the forms that make, change and remove one. What one was told is
//! shown by [`super::webhook`].

use super::error::Error;
use super::form::{Asked, Form, Named};
use super::frame::{Confirm, Frame, Section, Signed, page, page_again};
use super::here::Here;
use super::words::{quoted, sentence, time};
use super::{Dashboard, filters};
use crate::clock;
use crate::event::payload::EVENT_NAMES;
use crate::ops::{self, NewWebhook, OpError, WebhookUpdate};
use crate::settings::{Tie, Webhook};
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use std::sync::Arc;
use uuid::Uuid;

pub const LIST: &str = "/dashboard/webhooks";
/// Entries of a page.
const PAGE: usize = 50;

/// The events that are sent, and what each tells. The other names are known to clients, and nothing ever comes of them.
const OFFERED: [(&str, &str); 10] = [
    ("email.sent", "the relay accepted a message; one for each recipient, as all events of mail"),
    ("email.delivered", "the smarthost took it"),
    ("email.delivery_delayed", "the smarthost put it off; it is tried again"),
    ("email.bounced", "the smarthost refused it, or it was given up"),
    ("email.failed", "it was taken out of the queue by hand"),
    ("email.opened", "it was opened, by a person or a machine: the event says which"),
    ("email.clicked", "a link was followed, by a person or a machine: the event says which"),
    ("domain.created", "a sender domain was added"),
    ("domain.updated", "its settings changed, or what DNS says of its records"),
    ("domain.deleted", "it was removed"),
];

#[derive(Template)]
#[template(path = "webhooks.html")]
struct List {
    frame: Frame,
    webhooks: Vec<Row>,
    /// The address of the next page.
    more: Option<String>,
    /// Where the API is.
    here: String,
}

struct Row {
    id: Uuid,
    endpoint: String,
    events: Vec<String>,
    domains: String,
    state: Shown,
    created_at: u64,
}

/// The state of an endpoint in words.
pub struct Shown {
    /// The class of its badge.
    pub class: &'static str,
    pub name: &'static str,
    pub why: Option<String>,
}

#[derive(Template)]
#[template(path = "webhook_form.html")]
struct Editor {
    frame: Frame,
    /// Where the form goes, and what its button says.
    action: String,
    button: &'static str,
    back: String,
    endpoint: String,
    events: Vec<EventBox>,
    enabled: bool,
    /// Names of the domains that it is, or would be, told of; empty: of all.
    domains: String,
    wrong: Wrong,
}

struct EventBox {
    name: &'static str,
    text: &'static str,
    checked: bool,
}

/// What is wrong, by the field beside which it is said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wrong {
    endpoint: Option<String>,
    events: Option<String>,
    all: Option<String>,
}

/// The list, the newest first; `?after=ID` goes on.
pub async fn list(
    State(dashboard): State<Arc<Dashboard>>,
    signed: Signed,
    Here(here): Here,
    Asked(asked): Asked,
) -> Result<Response, Error> {
    let settings = dashboard.ops.settings.snapshot();
    let after = Uuid::parse_str(asked.text("after")).ok();
    let own = settings.webhooks.values().rev().filter(|webhook| signed.key.reaches_webhook(webhook));
    let mut webhooks: Vec<_> =
        own.filter(|webhook| after.is_none_or(|after| webhook.id < after)).take(PAGE + 1).map(Row::of).collect();
    let is_more = webhooks.len() > PAGE;
    webhooks.truncate(PAGE);
    let more = webhooks.last().filter(|_| is_more).map(|last| format!("{LIST}?after={}", last.id));
    page(&List { frame: dashboard.frame(&signed, Section::Webhooks, "Webhooks"), webhooks, more, here })
}

/// The form for another one.
pub async fn new(State(dashboard): State<Arc<Dashboard>>, signed: Signed) -> Result<Response, Error> {
    page(&Editor { enabled: true, ..Editor::of_new(&dashboard, &signed, &Form::default()) })
}

pub async fn add(State(dashboard): State<Arc<Dashboard>>, signed: Signed, form: Form) -> Result<Response, Error> {
    let (endpoint, events, enabled) = typed(&form);
    match ops::webhook_create(&dashboard.ops, &signed.key, NewWebhook { endpoint, events, enabled }).await {
        Ok(made) => {
            let text = "Webhook added. Its receiver checks requests with the signing secret, which is on this page.";
            Ok(dashboard.done(&signed, &format!("{LIST}/{}", made.id), text))
        }
        Err(e) => {
            let wrong = Wrong::of(e, &form)?;
            page_again(&Editor { wrong, ..Editor::of_new(&dashboard, &signed, &form) })
        }
    }
}

/// The form with what there is.
pub async fn edit(
    State(dashboard): State<Arc<Dashboard>>,
    signed: Signed,
    Named(id): Named<Uuid>,
) -> Result<Response, Error> {
    let webhook = own(&dashboard, &signed, id)?;
    page(&Editor {
        endpoint: webhook.endpoint.clone(),
        events: boxes(&webhook.events, &[]),
        enabled: webhook.enabled,
        ..Editor::of(&dashboard, &signed, &webhook, &Form::default())
    })
}

pub async fn update(
    State(dashboard): State<Arc<Dashboard>>,
    signed: Signed,
    Named(id): Named<Uuid>,
    form: Form,
) -> Result<Response, Error> {
    let webhook = own(&dashboard, &signed, id)?;
    let (endpoint, events, enabled) = typed(&form);
    let update = WebhookUpdate { endpoint: Some(endpoint), events: Some(events), enabled: Some(enabled) };
    match ops::webhook_update(&dashboard.ops, &signed.key, id, update).await {
        Ok(()) => {
            Ok(dashboard.done(&signed, &format!("{LIST}/{id}"), "Saved. It counts for what happens from now on."))
        }
        Err(e) => {
            let wrong = Wrong::of(e, &form)?;
            page_again(&Editor { wrong, ..Editor::of(&dashboard, &signed, &webhook, &form) })
        }
    }
}

/// Asks before requests are signed with another secret.
pub async fn confirm_rotate(
    State(dashboard): State<Arc<Dashboard>>,
    signed: Signed,
    Named(id): Named<Uuid>,
) -> Result<Response, Error> {
    let webhook = own(&dashboard, &signed, id)?;
    let mut consequences = vec![
        format!("Requests to {} are signed with a new secret, at once.", quoted(&webhook.endpoint, 300)),
        "For 24 hours they are signed with the present one as well: give the receiver the new one within that time."
            .to_owned(),
    ];
    if let Some(until) = earlier_until(&webhook) {
        let text =
            format!("The secret before the present one, good until {} (UTC) else, is good no more.", time(until));
        consequences.push(text);
    }
    page(&Confirm {
        frame: dashboard.frame(&signed, Section::Webhooks, "Make a new signing secret?"),
        consequences,
        action: format!("{LIST}/{id}/rotate"),
        button: "Make a new secret",
        back: format!("{LIST}/{id}"),
    })
}

pub async fn rotate(
    State(dashboard): State<Arc<Dashboard>>,
    signed: Signed,
    Named(id): Named<Uuid>,
) -> Result<Response, Error> {
    ops::webhook_rotate(&dashboard.ops, &signed.key, id).await?;
    let text = "There is a new signing secret. The one before stays good for 24 hours.";
    Ok(dashboard.done(&signed, &format!("{LIST}/{id}"), text))
}

/// Asks before an endpoint is told nothing any more.
pub async fn confirm_delete(
    State(dashboard): State<Arc<Dashboard>>,
    signed: Signed,
    Named(id): Named<Uuid>,
) -> Result<Response, Error> {
    let webhook = own(&dashboard, &signed, id)?;
    page(&Confirm {
        frame: dashboard.frame(&signed, Section::Webhooks, "Delete this webhook?"),
        consequences: vec![
            format!("{} is told nothing any more.", quoted(&webhook.endpoint, 300)),
            "Events that still wait for it are not sent, and what it was told is forgotten, with every attempt."
                .to_owned(),
            "To stop it for a while only, edit it and take the mark off Enabled.".to_owned(),
        ],
        action: format!("{LIST}/{id}/delete"),
        button: "Delete webhook",
        back: format!("{LIST}/{id}"),
    })
}

pub async fn delete(
    State(dashboard): State<Arc<Dashboard>>,
    signed: Signed,
    Named(id): Named<Uuid>,
) -> Result<Response, Error> {
    let webhook = own(&dashboard, &signed, id)?;
    ops::webhook_delete(&dashboard.ops, &signed.key, id).await?;
    Ok(dashboard.done(&signed, LIST, format!("Deleted: {} is told nothing any more.", quoted(&webhook.endpoint, 200))))
}

/// The endpoint of this id, where the key reaches it.
pub fn own(dashboard: &Dashboard, signed: &Signed, id: Uuid) -> Result<Webhook, Error> {
    let settings = dashboard.ops.settings.snapshot();
    let webhook = settings.webhooks.get(&id).filter(|webhook| signed.key.reaches_webhook(webhook));
    webhook.cloned().ok_or(Error::NotThere)
}

/// Until when the secret before the last rotation is good, where it is.
pub fn earlier_until(webhook: &Webhook) -> Option<u64> {
    webhook.earlier.as_ref().map(|earlier| earlier.until).filter(|until| clock::unix_ms() < *until)
}

/// Names of domains for reading: the first few of them, and how many more.
pub fn names(domains: &[Tie]) -> String {
    const SHOWN: usize = 5;
    let shown = domains.iter().take(SHOWN).map(|tie| crate::domain::unicode(tie.name.as_str()));
    let shown = shown.collect::<Vec<_>>().join(", ");
    match domains.len() {
        0..=SHOWN => shown,
        all => format!("{shown} and {} more", all - SHOWN),
    }
}

fn typed(form: &Form) -> (String, Vec<String>, bool) {
    let events = form.all("events[]").map(str::to_owned).collect();
    (form.text("endpoint").to_owned(), events, form.has("enabled"))
}

/// A box for each event that is sent, and for others that are `chosen` all the same, or were so `before`.
fn boxes(chosen: &[String], before: &[String]) -> Vec<EventBox> {
    let has = |all: &[String], name: &str| all.iter().any(|one| one == name);
    let offered = OFFERED.into_iter();
    let others = EVENT_NAMES.into_iter().filter(|name| has(chosen, name) || has(before, name));
    let others = others.filter(|name| OFFERED.iter().all(|(offered, _)| offered != name));
    let others = others.map(|name| (name, "never sent by this relay"));
    offered.chain(others).map(|(name, text)| EventBox { name, text, checked: has(chosen, name) }).collect()
}

impl Editor {
    fn of_new(dashboard: &Dashboard, signed: &Signed, form: &Form) -> Self {
        let (_, events, enabled) = typed(form);
        Self {
            frame: dashboard.frame(signed, Section::Webhooks, "Add webhook"),
            action: format!("{LIST}/new"),
            button: "Add webhook",
            back: LIST.to_owned(),
            endpoint: form.given("endpoint").unwrap_or_default().to_owned(),
            events: boxes(&events, &[]),
            enabled,
            domains: names(&signed.key.domains),
            wrong: Wrong::default(),
        }
    }

    fn of(dashboard: &Dashboard, signed: &Signed, webhook: &Webhook, form: &Form) -> Self {
        let (_, events, _) = typed(form);
        Self {
            frame: dashboard.frame(signed, Section::Webhooks, "Edit webhook"),
            action: format!("{LIST}/{}/edit", webhook.id),
            button: "Save",
            back: format!("{LIST}/{}", webhook.id),
            events: boxes(&events, &webhook.events),
            domains: names(&webhook.domains),
            ..Self::of_new(dashboard, signed, form)
        }
    }
}

impl Wrong {
    /// What breaks a rule is said beside its field; all else is no fault of the form.
    fn of(error: OpError, form: &Form) -> Result<Self, Error> {
        let text = Some(sentence(&error.to_string()));
        match error {
            OpError::BadEndpoint(..) if form.text("endpoint").is_empty() => Ok(Self {
                endpoint: Some("Give the address that events are to be posted to.".into()),
                ..Self::default()
            }),
            OpError::BadEndpoint(..) | OpError::ClosedPort { .. } => Ok(Self { endpoint: text, ..Self::default() }),
            OpError::NoEventNames => Ok(Self { events: Some("Mark at least one event.".into()), ..Self::default() }),
            OpError::UnknownEventName(_) => Ok(Self { events: text, ..Self::default() }),
            OpError::TooManyWebhooks(_) => Ok(Self { all: text, ..Self::default() }),
            other => Err(other.into()),
        }
    }
}

impl Shown {
    pub fn of(webhook: &Webhook) -> Self {
        match (webhook.enabled, &webhook.disabled_because, webhook.failing_since) {
            (true, _, None) => Self { class: "good", name: "enabled", why: None },
            (true, _, Some(since)) => {
                let why = format!("Every attempt since {} (UTC) has failed.", time(since));
                Self { class: "warn", name: "failing", why: Some(why) }
            }
            (false, Some(because), _) => {
                let at = webhook.disabled_at.map(|at| format!(" on {} (UTC)", time(at))).unwrap_or_default();
                Self { class: "bad", name: "disabled", why: Some(format!("The relay stopped it{at}: {because}.")) }
            }
            (false, None, _) => Self { class: "", name: "disabled", why: None },
        }
    }
}

impl Row {
    fn of(webhook: &Webhook) -> Self {
        Self {
            id: webhook.id,
            endpoint: webhook.endpoint.clone(),
            events: webhook.events.clone(),
            domains: names(&webhook.domains),
            state: Shown::of(webhook),
            created_at: webhook.created_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::SigningSecret;
    use crate::mail::DomainName;

    fn strings(all: &[&str]) -> Vec<String> {
        all.iter().map(|one| (*one).to_owned()).collect()
    }

    #[test]
    fn events_that_are_never_sent_are_offered_only_where_somebody_has_them() {
        assert!(OFFERED.iter().all(|(name, _)| EVENT_NAMES.contains(name)));
        assert!(boxes(&[], &[]).iter().all(|event| !event.checked));
        let all = boxes(&strings(&["email.sent", "contact.created", "email.nonsense"]), &strings(&["email.received"]));
        let more: Vec<_> = all[OFFERED.len()..].iter().map(|event| (event.name, event.checked)).collect();
        assert_eq!(more, [("email.received", false), ("contact.created", true)]);
        let checked: Vec<_> = all.iter().filter(|event| event.checked).map(|event| event.name).collect();
        assert_eq!(checked, ["email.sent", "contact.created"]);
    }

    #[test]
    fn faults_stand_beside_their_fields() {
        let (empty, typed) = (Form::default(), Form::read(b"endpoint=ftp://example.com"));
        let bad = || OpError::BadEndpoint("ftp://example.com".into(), "does not begin with https://");
        let at = |wrong: Result<Wrong, Error>| {
            let Wrong { endpoint, events, all } = wrong.unwrap();
            [endpoint, events, all].map(|text| text.unwrap_or_default())
        };
        let texts = at(Wrong::of(bad(), &typed));
        assert_eq!(texts[0], "The endpoint \"ftp://example.com\" does not begin with https://.");
        assert_eq!(at(Wrong::of(bad(), &empty))[0], "Give the address that events are to be posted to.");
        assert_eq!(at(Wrong::of(OpError::NoEventNames, &typed))[1], "Mark at least one event.");
        assert!(at(Wrong::of(OpError::TooManyWebhooks(ops::Full::All(500)), &typed))[2].contains("remove one"));
        assert_eq!(Wrong::of(OpError::NoSuchWebhook, &typed), Err(Error::NotThere));
    }

    #[test]
    fn states_and_domains_in_words() {
        let secret = SigningSecret::new([1; 24]);
        let url = "https://example.com/".to_owned();
        let mut webhook = Webhook::new(Uuid::nil(), url, strings(&["email.sent"]), secret, Vec::new(), 0);
        let shown = |webhook: &Webhook| {
            let Shown { class, name, why } = Shown::of(webhook);
            (class, name, why.unwrap_or_default())
        };
        assert_eq!(shown(&webhook), ("good", "enabled", String::new()));
        webhook.failing_since = Some(60_000);
        let since = "Every attempt since 1970-01-01 00:01 (UTC) has failed.";
        assert_eq!(shown(&webhook), ("warn", "failing", since.to_owned()));
        (webhook.enabled, webhook.disabled_because) = (false, Some("it answered 410 Gone".into()));
        assert_eq!(shown(&webhook), ("bad", "disabled", "The relay stopped it: it answered 410 Gone.".to_owned()));
        webhook.disabled_because = None;
        assert_eq!(shown(&webhook), ("", "disabled", String::new()));

        let tie = |n: u8| Tie { id: Uuid::nil(), name: DomainName::parse(&format!("{n}.example.com")).unwrap() };
        let ties: Vec<_> = (1..=7).map(tie).collect();
        assert_eq!((names(&[]), names(&ties[..2])), (String::new(), "1.example.com, 2.example.com".to_owned()));
        assert!(names(&ties).ends_with("5.example.com and 2 more"));
    }
}
