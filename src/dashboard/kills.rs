//! The kill list: links that are switched off.

use super::error::Error;
use super::form::{Asked, Form, Named};
use super::frame::{Confirm, Frame, Operator, Section, page, page_again};
use super::words::quoted;
use super::{Dashboard, filters};
use crate::kill::KillKind;
use crate::ops::{self, KillView};
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use std::sync::Arc;
use uuid::Uuid;

const LIST: &str = "/dashboard/kill-list";
/// Entries of a page.
const PAGE: usize = 50;

#[derive(Template)]
#[template(path = "kills.html")]
struct List {
    frame: Frame,
    kills: Vec<Row>,
    /// The address of the next page.
    more: Option<String>,
}

struct Row {
    id: Uuid,
    kind: &'static str,
    value: String,
    at: u64,
}

/// What is offered: its name, how it is called, and what it does.
const KINDS: [(&str, &str, &str); 3] = [
    ("message", "A message", "all links of that message; its id is in its page under Emails"),
    ("link", "A destination", "every link that leads to this URL, whoever sent it"),
    ("domain", "A domain", "links to this host and those under it, and all links of the sender domain of this name"),
];

#[derive(Template)]
#[template(path = "kill_new.html")]
struct New {
    frame: Frame,
    kinds: &'static [(&'static str, &'static str, &'static str)],
    kind: String,
    value: String,
    wrong: Option<String>,
}

/// The list, the newest first; `?after=ID` goes on.
pub async fn list(
    State(dashboard): State<Arc<Dashboard>>,
    Operator(signed): Operator,
    Asked(asked): Asked,
) -> Result<Response, Error> {
    let mut all = ops::kill_list(&dashboard.ops);
    if let Ok(after) = Uuid::parse_str(asked.text("after")) {
        all.retain(|kill| kill.id < after);
    }
    let more = (all.len() > PAGE).then(|| format!("{LIST}?after={}", all[PAGE - 1].id));
    let kills = all.into_iter().take(PAGE).map(Row::of).collect();
    page(&List { frame: dashboard.frame(&signed, Section::KillList, "Kill list"), kills, more })
}

/// The form to add something. A page may lead here with `?kind=…&value=…`.
pub async fn new(
    State(dashboard): State<Arc<Dashboard>>,
    Operator(signed): Operator,
    Asked(asked): Asked,
) -> Result<Response, Error> {
    page(&New::of(dashboard.frame(&signed, Section::KillList, "Add to kill list"), &asked))
}

pub async fn add(
    State(dashboard): State<Arc<Dashboard>>,
    Operator(signed): Operator,
    form: Form,
) -> Result<Response, Error> {
    let Some(kind) = kind(form.text("kind")) else {
        return again(&dashboard, &signed, &form, "Say what is to be switched off.".to_owned());
    };
    match ops::kill_add(&dashboard.ops, kind, form.text("value")).await.map_err(Error::from) {
        Ok(kill) => {
            let text = format!("Links of {} {} no longer redirect.", name(kill.kind), quoted(&kill.value, 200));
            Ok(dashboard.done(&signed, LIST, text))
        }
        Err(Error::Refused(why)) => again(&dashboard, &signed, &form, why),
        Err(other) => Err(other),
    }
}

/// Asks before links redirect again.
pub async fn confirm(
    State(dashboard): State<Arc<Dashboard>>,
    Operator(signed): Operator,
    Named(id): Named<Uuid>,
) -> Result<Response, Error> {
    let all = ops::kill_list(&dashboard.ops);
    let kill = all.iter().find(|kill| kill.id == id).ok_or(Error::NotThere)?;
    page(&Confirm {
        frame: dashboard.frame(&signed, Section::KillList, "Remove from the kill list?"),
        consequences: vec![
            format!("Links of {} {} redirect again, at once.", name(kill.kind), quoted(&kill.value, 300)),
            "Clicks on them are recorded again.".to_owned(),
        ],
        action: format!("{LIST}/{id}/delete"),
        button: "Let links redirect",
        back: LIST.to_owned(),
    })
}

pub async fn delete(
    State(dashboard): State<Arc<Dashboard>>,
    Operator(signed): Operator,
    Named(id): Named<Uuid>,
) -> Result<Response, Error> {
    ops::kill_delete(&dashboard.ops, id).await?;
    Ok(dashboard.done(&signed, LIST, "Removed: these links redirect again."))
}

fn again(dashboard: &Dashboard, signed: &super::frame::Signed, form: &Form, why: String) -> Result<Response, Error> {
    let frame = dashboard.frame(signed, Section::KillList, "Add to kill list");
    page_again(&New { wrong: Some(why), ..New::of(frame, form) })
}

fn kind(text: &str) -> Option<KillKind> {
    [KillKind::Message, KillKind::Link, KillKind::Domain].into_iter().find(|kind| name(*kind) == text)
}

fn name(kind: KillKind) -> &'static str {
    match kind {
        KillKind::Message => "message",
        KillKind::Link => "link",
        KillKind::Domain => "domain",
    }
}

impl New {
    fn of(frame: Frame, typed: &Form) -> Self {
        let (kind, value) = (typed.text("kind").to_owned(), typed.given("value").unwrap_or_default().to_owned());
        Self { frame, kinds: &KINDS, kind, value, wrong: None }
    }
}

impl Row {
    fn of(kill: KillView) -> Self {
        Self { id: kill.id, kind: name(kill.kind), value: kill.value, at: kill.created_at }
    }
}
