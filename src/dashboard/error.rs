//! What cannot be shown or done, as a page with a sentence.

use super::frame::{Frame, Section, Signed};
use super::{Dashboard, filters, words};
use crate::http::BodyError;
use crate::ops::OpError;
use askama::Template;
use axum::response::{Html, IntoResponse, Response};
use http::StatusCode;

/// Why there is no page. The text is for whoever asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not there, or not for this key.
    NotThere,
    /// There is such a page, but it is not asked so.
    NoSuchMethod,
    /// Nobody is signed in; with where to go on.
    SignIn(String),
    Forbidden(String),
    /// It breaks a rule: to be said beside the form where there is one.
    Refused(String),
    TooMany(String),
    /// Ours: the log, the store, a fault.
    Unavailable(String),
}

impl From<OpError> for Error {
    fn from(error: OpError) -> Self {
        let text = words::sentence(&error.to_string());
        match error {
            OpError::NoSuchDomain
            | OpError::UnknownDomain(_)
            | OpError::UnknownKey(_)
            | OpError::UnknownMessage(_)
            | OpError::BadQueueId(_)
            | OpError::NoSuchWebhook
            | OpError::NoSuchWebhookEvent
            | OpError::NotKilled => Self::NotThere,
            OpError::Log(_) | OpError::Keys(_) | OpError::Fault(_) | OpError::Store(_) | OpError::NoHistory => {
                Self::Unavailable(text)
            }
            _ => Self::Refused(text),
        }
    }
}

impl From<BodyError> for Error {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Busy => Self::TooMany("Too many large forms at once. Try again in a moment.".to_owned()),
            other => Self::Refused(words::sentence(&format!("the {other}"))),
        }
    }
}

impl From<askama::Error> for Error {
    fn from(error: askama::Error) -> Self {
        Self::Unavailable(format!("The page could not be made: {error}."))
    }
}

/// Carried to [`super::Served`], which knows who asks and makes the page.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(self);
        response
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct Page {
    frame: Frame,
    text: String,
    next: &'static str,
}

impl Error {
    fn said(&self) -> (StatusCode, &'static str, String, &'static str) {
        match self {
            Self::NotThere => (
                StatusCode::NOT_FOUND,
                "Not there",
                "There is no such page, or your key does not reach it.".to_owned(),
                "It may have been removed meanwhile: the navigation leads to what is there.",
            ),
            Self::NoSuchMethod => (
                StatusCode::METHOD_NOT_ALLOWED,
                "Not so",
                "This address takes no such request.".to_owned(),
                "The navigation leads to what is there.",
            ),
            Self::SignIn(_) => (StatusCode::UNAUTHORIZED, "Sign in", "You are not signed in.".to_owned(), ""),
            Self::Forbidden(text) => (StatusCode::FORBIDDEN, "Not allowed", text.clone(), ""),
            Self::Refused(text) => (StatusCode::UNPROCESSABLE_ENTITY, "That cannot be done", text.clone(), ""),
            Self::TooMany(text) => (StatusCode::TOO_MANY_REQUESTS, "Too many at once", text.clone(), ""),
            Self::Unavailable(text) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Not now",
                text.clone(),
                "Mail and links go on meanwhile. The server's log says more.",
            ),
        }
    }

    /// The page, within the frame of whoever is signed in.
    pub fn page(&self, dashboard: &Dashboard, signed: Option<&Signed>) -> Response {
        if let Self::SignIn(to) = self {
            return axum::response::Redirect::to(to).into_response();
        }
        let (status, title, text, next) = self.said();
        let frame = match signed {
            Some(signed) => dashboard.frame(signed, Section::None, title),
            None => Frame::of_nobody(title),
        };
        match (Page { frame, text, next }).render() {
            Ok(page) => (status, Html(page)).into_response(),
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "The page could not be made.").into_response(),
        }
    }
}
