//! What callers send: bodies, ids in paths, and the page of a list. Every fault is named with its field.

use super::error::{ApiError, Kind};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use bytes::Bytes;
use http::request::Parts;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::IntoParams;
use uuid::Uuid;

/// A body that is a JSON object; none at all stands for an empty one. The content type is not looked at: SDKs leave it
/// out, or send it with nothing. Unknown fields are ignored.
pub struct Fields(Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let unreadable = |e: String| ApiError::new(Kind::Unreadable, format!("The request body cannot be read: {e}."));
        let body = Bytes::from_request(request, state).await.map_err(|e| unreadable(e.to_string()))?;
        if body.trim_ascii().is_empty() {
            return Ok(Self(Map::new()));
        }
        match serde_json::from_slice(&body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(ApiError::validation("The request body must be a JSON object.")),
            Err(e) => Err(ApiError::new(Kind::Unreadable, format!("The request body is not valid JSON: {e}."))),
        }
    }
}

impl Fields {
    /// A field that must be there.
    pub fn required(&self, field: &str) -> Result<String, ApiError> {
        let missing = || ApiError::new(Kind::MissingField, format!("Missing `{field}` field."));
        self.text(field)?.filter(|text| !text.is_empty()).ok_or_else(missing)
    }

    /// Absent and null are one.
    pub fn text(&self, field: &str) -> Result<Option<String>, ApiError> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(wrong(field, "a string")),
        }
    }

    pub fn flag(&self, field: &str) -> Result<Option<bool>, ApiError> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(wrong(field, "true or false")),
        }
    }

    pub fn texts(&self, field: &str) -> Result<Option<Vec<String>>, ApiError> {
        let all = match self.0.get(field) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(all)) => all,
            Some(_) => return Err(wrong(field, "a list of strings")),
        };
        let texts = all.iter().map(|value| value.as_str().map(str::to_owned)).collect::<Option<_>>();
        texts.map(Some).ok_or_else(|| wrong(field, "a list of strings"))
    }

    /// A field that cannot be taken away: null is not the same as absent.
    pub fn text_not_null(&self, field: &str, null: &str) -> Result<Option<String>, ApiError> {
        match self.0.get(field) {
            Some(Value::Null) => Err(ApiError::validation(null)),
            _ => self.text(field),
        }
    }

    /// One of some words, in any case of letters. What it says is not kept.
    pub fn word(&self, field: &str, words: &[&str]) -> Result<(), ApiError> {
        let Some(text) = self.text(field)? else { return Ok(()) };
        match words.iter().any(|word| word.eq_ignore_ascii_case(&text)) {
            true => Ok(()),
            false => Err(wrong(field, &format!("one of {}", words.join(", ")))),
        }
    }

    /// An object, what ever is in it.
    pub fn object(&self, field: &str) -> Result<Option<Self>, ApiError> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Self(fields.clone()))),
            Some(_) => Err(wrong(field, "an object")),
        }
    }
}

fn wrong(field: &str, wanted: &str) -> ApiError {
    ApiError::validation(format!("The `{field}` field must be {wanted}."))
}

/// The id in a path.
pub struct Id(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let bad = || ApiError::new(Kind::InvalidParameter, "The id must be a valid UUID.");
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| bad())?;
        uuid(&text).map(Self).ok_or_else(bad)
    }
}

/// With its hyphens, in any case of letters.
pub fn uuid(text: &str) -> Option<Uuid> {
    Uuid::parse_str(text).ok().filter(|_| text.len() == 36)
}

/// Which part of a list, the newest first.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Entries at most, 1 to 100.
    #[param(value_type = Option<u8>, minimum = 1, maximum = 100)]
    limit: Option<String>,
    /// The id after which to go on; not with `before`.
    #[param(value_type = Option<Uuid>)]
    after: Option<String>,
    /// The id before which to end; not with `after`.
    #[param(value_type = Option<Uuid>)]
    before: Option<String>,
}

/// Which part of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub limit: Option<usize>,
    pub after: Option<Uuid>,
    pub before: Option<Uuid>,
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<PageQuery>::from_request_parts(parts, state).await;
        let Query(query) = query.map_err(|_| ApiError::validation("The query string cannot be read."))?;
        let limit = match query.limit.as_deref() {
            None => None,
            Some(text) => match text.parse::<usize>() {
                Ok(limit @ 1..=100) => Some(limit),
                _ => return Err(ApiError::validation("The `limit` parameter must be between 1 and 100.")),
            },
        };
        let cursor = |name: &str, text: Option<String>| match text {
            None => Ok(None),
            Some(text) => uuid(&text).map(Some).ok_or_else(|| {
                ApiError::new(Kind::InvalidParameter, format!("The `{name}` parameter must be a valid UUID."))
            }),
        };
        let page = Self { limit, after: cursor("after", query.after)?, before: cursor("before", query.before)? };
        if page.after.is_some() && page.before.is_some() {
            return Err(ApiError::validation("Use either `after` or `before`, not both."));
        }
        Ok(page)
    }
}

impl Page {
    /// The page of a list that is sorted by `id`, the newest first; and whether more follows in its direction. Ids
    /// are in order of time, so a page can begin at an entry that has gone meanwhile.
    pub fn of<T>(self, mut all: Vec<T>, id: impl Fn(&T) -> Uuid) -> (Vec<T>, bool) {
        let limit = self.limit.unwrap_or(usize::MAX);
        if let Some(before) = self.before {
            all.retain(|entry| id(entry) > before);
            let more = all.len() > limit;
            return (all.split_off(all.len().saturating_sub(limit)), more);
        }
        if let Some(after) = self.after {
            all.retain(|entry| id(entry) < after);
        }
        let more = all.len() > limit;
        all.truncate(limit);
        (all, more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let all = || vec![5u128, 4, 3, 2, 1];
        let page = |limit, after: Option<u128>, before: Option<u128>| {
            let page = Page { limit, after: after.map(Uuid::from_u128), before: before.map(Uuid::from_u128) };
            page.of(all(), |n| Uuid::from_u128(*n))
        };
        assert_eq!(page(None, None, None), (all(), false));
        assert_eq!(page(Some(2), None, None), (vec![5, 4], true));
        assert_eq!(page(Some(2), Some(4), None), (vec![3, 2], true));
        assert_eq!(page(Some(2), Some(2), None), (vec![1], false));
        assert_eq!(page(Some(2), Some(1), None), (vec![], false));
        assert_eq!(page(Some(2), None, Some(2)), (vec![4, 3], true));
        assert_eq!(page(Some(2), None, Some(3)), (vec![5, 4], false));
        assert_eq!(page(None, None, Some(5)), (vec![], false));
        // One that has gone.
        assert_eq!(page(Some(1), Some(9), None), (vec![5], true));
    }
}
