//! Signing in with an API key, out again, and what becomes of a form whose session has ended.

use super::error::Error;
use super::form::{Asked, Form};
use super::frame::{Frame, Section, Signed, page};
use super::{Dashboard, ROOT, Served, Visitor, filters};
use crate::clock;
use crate::settings::{KeyLookup, Permission};
use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Redirect, Response};
use http::{StatusCode, Uri, header};
use std::sync::Arc;
use url::form_urlencoded;

pub const PATH: &str = "/dashboard/sign-in";

#[derive(Template, Default)]
#[template(path = "sign_in.html")]
struct SignIn {
    frame: Frame,
    /// Where to go on.
    to: String,
    /// A form that waits, as [`Form::as_text`] has it.
    typed: String,
    wrong: Option<String>,
}

#[derive(Template)]
#[template(path = "typed.html")]
struct Typed {
    frame: Frame,
    to: String,
    fields: Vec<(String, String)>,
}

impl Default for Frame {
    fn default() -> Self {
        Self::of_nobody("Sign in")
    }
}

/// The way to sign in for a page that needs it, and back to it.
pub fn before(uri: &Uri) -> String {
    let to = uri.path_and_query().map_or(ROOT, |path| path.as_str());
    match to {
        ROOT => PATH.to_owned(),
        _ => format!("{PATH}?{}", form_urlencoded::Serializer::new(String::new()).append_pair("to", to).finish()),
    }
}

/// A page of ours, whatever was asked for.
fn safe(to: &str) -> String {
    let path = to.split('?').next().unwrap_or_default();
    // Browsers take `%2e` for a dot, so that two of them lead upwards.
    let dots = path.to_ascii_lowercase().replace("%2e", ".");
    let plain = to.chars().all(|c| c.is_ascii_graphic() && c != '\\') && !path.contains("//") && !dots.contains("..");
    if plain && Served::is_for(path) && path != PATH { to.to_owned() } else { ROOT.to_owned() }
}

/// The page. Who is signed in already goes on.
pub async fn show(Extension(visitor): Extension<Visitor>, Asked(asked): Asked) -> Result<Response, Error> {
    let to = safe(asked.text("to"));
    match visitor.signed {
        Some(_) => Ok(Redirect::to(&to).into_response()),
        None => page(&SignIn { to, ..SignIn::default() }),
    }
}

/// Signs in.
pub async fn submit(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    form: Form,
) -> Result<Response, Error> {
    let (to, typed) = (safe(form.text("to")), form.text("typed").to_owned());
    let again = |status: StatusCode, wrong: &str| {
        let page = SignIn { to: to.clone(), typed: typed.clone(), wrong: Some(wrong.to_owned()), ..SignIn::default() };
        Ok((status, Html(page.render()?)).into_response())
    };
    let settings = dashboard.ops.settings.snapshot();
    let key = match settings.find_api_key(form.text("key")) {
        KeyLookup::Found(key) => key,
        lookup => {
            tracing::info!(client = %visitor.client.address, "a key that is none was given to the dashboard");
            if !dashboard.throttle.takes_wrong(&visitor.client) {
                let wait = "Too many wrong keys came from your address. Wait a minute, then try again.";
                return again(StatusCode::TOO_MANY_REQUESTS, wait);
            }
            return match lookup {
                KeyLookup::Unreadable => again(StatusCode::SERVICE_UNAVAILABLE, "API keys cannot be read now."),
                _ => {
                    again(StatusCode::FORBIDDEN, "There is no such key. It may have been revoked, or not copied whole.")
                }
            };
        }
    };
    if key.permission == Permission::SendingAccess {
        return again(StatusCode::FORBIDDEN, "This key may only send mail. Signing in takes one with full access.");
    }
    if !dashboard.throttle.takes_right(&visitor.client, key.id) {
        let wait = "This key has signed in too often from your address. Wait a minute, then try again.";
        return again(StatusCode::TOO_MANY_REQUESTS, wait);
    }
    let (cookie, id, csrf) = dashboard.sessions.begin(&key, visitor.secure, clock::unix_ms());
    tracing::info!(key = %key.id, client = %visitor.client.address, "signed in to the dashboard");
    let signed = Signed { id, csrf, key, by_itself: false };
    let next = match typed.is_empty() {
        true => Redirect::to(&to).into_response(),
        false => typed_page(&dashboard, &signed, &to, &Form::read(typed.as_bytes()), StatusCode::OK),
    };
    Ok(([(header::SET_COOKIE, cookie)], next).into_response())
}

/// Signs out.
pub async fn out(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    signed: Signed,
) -> Response {
    let cookie = dashboard.sessions.end(&signed.id, visitor.secure);
    ([(header::SET_COOKIE, cookie)], Redirect::to(PATH)).into_response()
}

/// A form came whose session has ended: to sign in, with what was typed.
pub fn keep(path: &str, form: &Form) -> Response {
    let wrong = Some("Your session has ended. Sign in to go on: what you typed is kept.".to_owned());
    let page = SignIn { to: safe(path), typed: form.as_text(), wrong, ..SignIn::default() };
    match page.render() {
        Ok(page) => (StatusCode::FORBIDDEN, Html(page)).into_response(),
        Err(e) => Error::from(e).into_response(),
    }
}

/// A form came from a page that was made before this session began: nothing is done before somebody has seen it.
pub fn again(dashboard: &Dashboard, signed: &Signed, path: &str, form: &Form) -> Response {
    typed_page(dashboard, signed, &safe(path), form, StatusCode::FORBIDDEN)
}

fn typed_page(dashboard: &Dashboard, signed: &Signed, to: &str, form: &Form, status: StatusCode) -> Response {
    let frame = dashboard.frame(signed, Section::None, "What you typed");
    let fields = form.typed().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    match (Typed { frame, to: to.to_owned(), fields }).render() {
        Ok(page) => (status, Html(page)).into_response(),
        Err(e) => Error::from(e).into_response(),
    }
}
