//! What a form brings, and that it comes from a page of ours.
//!
//! Every form but that for signing in carries a token of the session. A form of a session that has ended, or that another
//! has taken the place of, is not thrown away: what was typed is shown again once somebody is signed in, and can be sent.

use super::error::Error;
use super::frame::Signed;
use super::{Dashboard, Visitor, sign_in};
use axum::extract::{FromRequestParts, Path};
use axum::response::{IntoResponse, Response};
use http::header::{HOST, ORIGIN};
use http::request::Parts;
use serde::de::DeserializeOwned;
use subtle::ConstantTimeEq;
use url::Url;
use url::form_urlencoded;

/// The fields of a form, or of a query, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form(Vec<(String, String)>);

/// The field with the token.
pub const CSRF: &str = "csrf";
/// Fields of one form.
const MOST_FIELDS: usize = 200;

impl Form {
    /// Reads `a=b&c=d`.
    pub fn read(text: &[u8]) -> Self {
        Self(form_urlencoded::parse(text).take(MOST_FIELDS).map(|(n, v)| (n.into_owned(), v.into_owned())).collect())
    }

    /// The first value of a field, without white space around it; empty where there is none.
    pub fn text(&self, name: &str) -> &str {
        self.given(name).unwrap_or_default().trim()
    }

    /// The first value of a field as it was typed.
    pub fn given(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// All values of a field, of which there can be several, such as check boxes.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Whether a check box is checked.
    pub fn has(&self, name: &str) -> bool {
        self.given(name).is_some()
    }

    /// The fields that somebody has typed.
    pub fn typed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter(|(name, _)| name != CSRF).map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The same as one value, for [`Form::read`].
    pub fn as_text(&self) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(self.typed()).finish()
    }
}

impl<S: Sync> FromRequestParts<S> for Form {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// The query of a page.
pub struct Asked(pub Form);

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Ok(Self(Form::read(parts.uri.query().unwrap_or_default().as_bytes())))
    }
}

/// What stands in the path: an id, or several. What is none is not there, as is what has none of this id.
pub struct Named<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(named)| Self(named)).map_err(|_| Error::NotThere)
    }
}

/// Lets a form through that a page of this session has sent; else what to answer instead.
pub fn check(dashboard: &Dashboard, visitor: &Visitor, head: &Parts, form: Form) -> Result<Form, Box<Response>> {
    if !is_from_here(head, visitor) {
        let foreign = Error::Forbidden("This form came from another site, so it was not taken.".to_owned());
        return Err(Box::new(foreign.into_response()));
    }
    let path = head.uri.path();
    if path == sign_in::PATH {
        return Ok(form);
    }
    match &visitor.signed {
        None => Err(Box::new(sign_in::keep(path, &form))),
        Some(signed) if !carries(signed, &form) => Err(Box::new(sign_in::again(dashboard, signed, path, &form))),
        Some(_) => Ok(form),
    }
}

fn carries(signed: &Signed, form: &Form) -> bool {
    let given = form.given(CSRF).unwrap_or_default();
    given.as_bytes().ct_eq(signed.csrf.as_bytes()).into()
}

/// Browsers say where a form comes from; what says nothing is no browser, and has to know the token.
fn is_from_here(head: &Parts, visitor: &Visitor) -> bool {
    let headers = &head.headers;
    if headers.get("sec-fetch-site").is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none")) {
        return false;
    }
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let Some(origin) = origin.to_str().ok().and_then(|text| Url::parse(text).ok()) else { return false };
    let is_host = origin.host_str().is_some_and(|host| host.eq_ignore_ascii_case(visitor.client.trusted_host()));
    // A proxy listens on a port of its own, and need not say on which.
    is_host && (visitor.client.from_proxy || origin.port() == port(head, origin.scheme()))
}

/// The port that a request names, where it is not the scheme's own.
fn port(head: &Parts, scheme: &str) -> Option<u16> {
    let host = match head.uri.authority() {
        Some(authority) => authority.as_str(),
        None => head.headers.get(HOST)?.to_str().ok()?,
    };
    Url::parse(&format!("{scheme}://{host}")).ok()?.port()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let form = Form::read(b"csrf=x&name=+a%20b+&event=1&event=2&empty=&u=%E2%80%AE%ff");
        assert_eq!((form.text("name"), form.given("name")), ("a b", Some(" a b ")));
        assert_eq!(form.all("event").collect::<Vec<_>>(), ["1", "2"]);
        assert!(form.has("empty") && !form.has("none"));
        assert_eq!((form.text("none"), form.given("u")), ("", Some("\u{202e}\u{fffd}")));
        let typed = Form::read(form.as_text().as_bytes());
        assert!(!typed.has(CSRF));
        assert_eq!(typed.typed().collect::<Vec<_>>(), form.typed().collect::<Vec<_>>());
        assert_eq!(Form::read("a=1&".repeat(1_000).as_bytes()).typed().count(), MOST_FIELDS);
    }
}
