//! API keys: the list, and the forms that make, rename and delete one. A token is shown once, on the page that answers
//! its making.

use super::error::Error;
use super::form::{Asked, Form, Named};
use super::frame::{Confirm, Frame, Operator, Section, Signed, page, page_again};
use super::here::Here;
use super::webhooks::names;
use super::words::{cut, sentence};
use super::{Dashboard, filters, sign_in};
use crate::ops::{self, NewKey, OpError};
use crate::settings::{ApiKey, Permission};
use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use std::sync::Arc;
use uuid::Uuid;

const LIST: &str = "/dashboard/api-keys";
/// Entries of a page.
const PAGE: usize = 50;
/// With more domains than these, their names are typed and not chosen.
const MOST_BOXES: usize = 50;

#[derive(Template)]
#[template(path = "keys.html")]
struct List {
    frame: Frame,
    keys: Vec<Row>,
    /// The address of the next page.
    more: Option<String>,
}

struct Row {
    id: Uuid,
    name: String,
    full: bool,
    domains: String,
    created_at: u64,
    last_used_at: Option<u64>,
    /// The one that is signed in.
    mine: bool,
}

#[derive(Template)]
#[template(path = "key_new.html")]
struct New {
    frame: Frame,
    name: String,
    permission: String,
    /// Names of domains to choose from, and whether they are chosen; empty where they are to be typed.
    boxes: Vec<(String, bool)>,
    /// As typed.
    domains: String,
    /// There are sender domains at all.
    any: bool,
    wrong: Wrong,
}

/// What is wrong, by the field beside which it is said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wrong {
    name: Option<String>,
    permission: Option<String>,
    domains: Option<String>,
}

#[derive(Template)]
#[template(path = "key_made.html")]
struct Made {
    frame: Frame,
    name: String,
    token: String,
    full: bool,
    domains: String,
    here: String,
}

#[derive(Template)]
#[template(path = "key_rename.html")]
struct Rename {
    frame: Frame,
    id: Uuid,
    name: String,
    wrong: Option<String>,
}

/// The list, the newest first; `?after=ID` goes on.
pub async fn list(
    State(dashboard): State<Arc<Dashboard>>,
    Operator(signed): Operator,
    Asked(asked): Asked,
) -> Result<Response, Error> {
    let settings = dashboard.ops.settings.snapshot();
    let after = Uuid::parse_str(asked.text("after")).ok();
    let found = settings.api_keys.values().rev().filter(|key| after.is_none_or(|after| key.id < after));
    let mut keys: Vec<_> = found.take(PAGE + 1).map(|key| Row::of(key, &signed)).collect();
    let is_more = keys.len() > PAGE;
    keys.truncate(PAGE);
    let more = keys.last().filter(|_| is_more).map(|last| format!("{LIST}?after={}", last.id));
    page(&List { frame: dashboard.frame(&signed, Section::ApiKeys, "API keys"), keys, more })
}

/// The form for another one.
pub async fn new(
    State(dashboard): State<Arc<Dashboard>>,
    Operator(signed): Operator,
    Asked(asked): Asked,
) -> Result<Response, Error> {
    page(&New::of(&dashboard, &signed, &asked))
}

/// Makes a key and answers with its token: there is no other page that has it.
pub async fn add(
    State(dashboard): State<Arc<Dashboard>>,
    Operator(signed): Operator,
    Here(here): Here,
    form: Form,
) -> Result<Response, Error> {
    let again = |wrong| page_again(&New { wrong, ..New::of(&dashboard, &signed, &form) });
    let Some(permission) = permission(form.text("permission")) else {
        return again(Wrong { permission: Some("Say what the key may do.".to_owned()), ..Wrong::default() });
    };
    let new = NewKey { name: form.text("name").to_owned(), permission, domains: typed_domains(&form) };
    let made = match ops::key_create(&dashboard.ops, new).await {
        Ok(made) => made,
        Err(e) => return again(Wrong::of(e)?),
    };
    let settings = dashboard.ops.settings.snapshot();
    let key = made.id.parse().ok().and_then(|id: Uuid| settings.api_keys.get(&id));
    tracing::info!(key = made.id, by = %signed.key.id, "API key made");
    page(&Made {
        frame: dashboard.frame(&signed, Section::ApiKeys, "API key created"),
        name: form.text("name").to_owned(),
        token: made.token,
        full: permission == Permission::FullAccess,
        domains: key.map(|key| names(&key.domains)).unwrap_or_default(),
        here,
    })
}

/// The form for another name.
pub async fn rename(
    State(dashboard): State<Arc<Dashboard>>,
    Operator(signed): Operator,
    Named(id): Named<Uuid>,
) -> Result<Response, Error> {
    let name = key(&dashboard, id)?.name;
    page(&Rename { frame: dashboard.frame(&signed, Section::ApiKeys, "Rename API key"), id, name, wrong: None })
}

pub async fn renamed(
    State(dashboard): State<Arc<Dashboard>>,
    Operator(signed): Operator,
    Named(id): Named<Uuid>,
    form: Form,
) -> Result<Response, Error> {
    let name = form.text("name").to_owned();
    match ops::key_rename(&dashboard.ops, id, name.clone()).await {
        Ok(()) => Ok(dashboard.done(&signed, LIST, format!("The key is called {} now.", cut(&name, 50)))),
        Err(e @ OpError::BadKeyName) => page_again(&Rename {
            frame: dashboard.frame(&signed, Section::ApiKeys, "Rename API key"),
            id,
            name: form.given("name").unwrap_or_default().to_owned(),
            wrong: Some(sentence(&e.to_string())),
        }),
        Err(e) => Err(e.into()),
    }
}

/// Asks before a key is good for nothing any more.
pub async fn confirm(
    State(dashboard): State<Arc<Dashboard>>,
    Operator(signed): Operator,
    Named(id): Named<Uuid>,
) -> Result<Response, Error> {
    let settings = dashboard.ops.settings.snapshot();
    let key = settings.api_keys.get(&id).ok_or(Error::NotThere)?;
    let is_last = signs_in_as_operator(key)
        && !settings.api_keys.values().any(|other| other.id != id && signs_in_as_operator(other));
    page(&Confirm {
        frame: dashboard.frame(&signed, Section::ApiKeys, "Delete this API key?"),
        consequences: consequences(key, id == signed.key.id, is_last),
        action: format!("{LIST}/{id}/delete"),
        button: "Delete API key",
        back: LIST.to_owned(),
    })
}

pub async fn delete(
    State(dashboard): State<Arc<Dashboard>>,
    Operator(signed): Operator,
    Named(id): Named<Uuid>,
) -> Result<Response, Error> {
    let gone = ops::key_delete(&dashboard.ops, id).await?;
    tracing::info!(key = %id, by = %signed.key.id, "API key deleted");
    if id == signed.key.id {
        return Ok(Redirect::to(sign_in::PATH).into_response());
    }
    Ok(dashboard.done(&signed, LIST, format!("Deleted: the key {} is good for nothing any more.", cut(&gone.name, 50))))
}

fn key(dashboard: &Dashboard, id: Uuid) -> Result<ApiKey, Error> {
    dashboard.ops.settings.snapshot().api_keys.get(&id).cloned().ok_or(Error::NotThere)
}

fn signs_in_as_operator(key: &ApiKey) -> bool {
    key.permission == Permission::FullAccess && key.domains.is_empty()
}

fn consequences(key: &ApiKey, mine: bool, is_last: bool) -> Vec<String> {
    let name = cut(&key.name, 50);
    let mut all = vec![format!("Applications that send mail with {name} are refused from now on.")];
    if key.permission == Permission::FullAccess {
        all.push(
            "Requests to the API with it are refused as well, and whoever is signed in here with it is signed out."
                .into(),
        );
    }
    all.push(
        "Mail that was sent with it goes on its way, and domains and webhooks that were made with it stay.".into(),
    );
    if mine {
        all.push("It is the key that you are signed in with: you will be signed out.".into());
    }
    if is_last {
        let text = "No other key signs in as the operator: have the machine at hand that runs the relay, where \
                    trackpost key create --name dashboard makes one.";
        all.push(text.into());
    }
    all
}

fn permission(text: &str) -> Option<Permission> {
    match text {
        "full_access" => Some(Permission::FullAccess),
        "sending_access" => Some(Permission::SendingAccess),
        _ => None,
    }
}

/// Names as boxes bring them, one each, or as they are typed, with commas or spaces between.
fn typed_domains(form: &Form) -> Vec<String> {
    let apart = |text: &str| text.split([',', ' ', '\t', ';']).map(str::trim).map(str::to_owned).collect::<Vec<_>>();
    form.all("domains").flat_map(apart).filter(|name| !name.is_empty()).collect()
}

impl New {
    fn of(dashboard: &Dashboard, signed: &Signed, typed: &Form) -> Self {
        let settings = dashboard.ops.settings.snapshot();
        let chosen = typed_domains(typed);
        let boxes = match settings.domains.len() {
            ..=MOST_BOXES => {
                let names = settings.domains.keys().map(|name| crate::domain::unicode(name.as_str()));
                names.map(|name| (name.clone(), chosen.contains(&name))).collect()
            }
            _ => Vec::new(),
        };
        Self {
            frame: dashboard.frame(signed, Section::ApiKeys, "Create API key"),
            name: typed.given("name").unwrap_or_default().to_owned(),
            permission: typed.text("permission").to_owned(),
            boxes,
            domains: chosen.join(", "),
            any: !settings.domains.is_empty(),
            wrong: Wrong::default(),
        }
    }
}

impl Wrong {
    /// What breaks a rule is said beside its field; all else is no fault of the form.
    fn of(error: OpError) -> Result<Self, Error> {
        let text = Some(sentence(&error.to_string()));
        match error {
            OpError::BadKeyName => Ok(Self { name: text, ..Self::default() }),
            OpError::UnknownDomain(_) | OpError::BadName(..) => Ok(Self { domains: text, ..Self::default() }),
            other => Err(other.into()),
        }
    }
}

impl Row {
    fn of(key: &ApiKey, signed: &Signed) -> Self {
        Self {
            id: key.id,
            name: key.name.clone(),
            full: key.permission == Permission::FullAccess,
            domains: names(&key.domains),
            created_at: key.created_at,
            last_used_at: key.last_used_at,
            mine: key.id == signed.key.id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::DomainName;

    #[test]
    fn domains_are_chosen_or_typed() {
        let domains = |text: &str| typed_domains(&Form::read(text.as_bytes()));
        assert_eq!(domains("domains=a.example.com&domains=b.example.com"), ["a.example.com", "b.example.com"]);
        assert_eq!(
            domains("domains=+a.example.com,b.example.com%3B++c.example.com%09,"),
            ["a.example.com", "b.example.com", "c.example.com"]
        );
        assert!(domains("domains=&name=x").is_empty());
    }

    #[test]
    fn faults_stand_beside_their_fields() {
        assert!(Wrong::of(OpError::BadKeyName).unwrap().name.is_some());
        let unknown = OpError::UnknownDomain(DomainName::parse("example.org").unwrap());
        assert_eq!(Wrong::of(unknown).unwrap().domains.as_deref(), Some("There is no sender domain example.org."));
        assert!(matches!(Wrong::of(OpError::Fault("x".into())), Err(Error::Unavailable(_))));
    }

    #[test]
    fn what_follows_from_deleting() {
        let key = |permission| ApiKey::new(Uuid::nil(), "shop".into(), "re_a", permission, Vec::new(), 0);
        let (full, sending) = (key(Permission::FullAccess), key(Permission::SendingAccess));
        let said = |key: &ApiKey, mine, is_last| consequences(key, mine, is_last).join("\n");
        assert!(!said(&sending, false, false).contains("API") && said(&full, false, false).contains("API"));
        let both = said(&full, true, true);
        assert!(both.contains("you will be signed out") && both.contains("trackpost key create --name dashboard"));
        assert!(!said(&full, false, false).contains("you will be"));
        assert!(signs_in_as_operator(&full) && !signs_in_as_operator(&sending));
    }
}
