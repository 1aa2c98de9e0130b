//! The style, the script and the icon: files of the program, kept by browsers until they change.

use super::error::Error;
use super::form::Named;
use axum::response::{IntoResponse, Response};
use http::header;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/script.js");
const ICON: &str = include_str!("assets/icon.svg");

/// Addresses change with what is in the files.
static ADDRESSES: LazyLock<(String, String)> = LazyLock::new(|| {
    let address = |name: &str, text: &str| {
        let digest = Sha256::digest(text.as_bytes());
        format!("/dashboard/assets/{name}?{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3])
    };
    (address("style.css", STYLE), address("script.js", SCRIPT))
});

/// The address of the style.
pub fn style() -> &'static str {
    &ADDRESSES.0
}

/// The address of the script.
pub fn script() -> &'static str {
    &ADDRESSES.1
}

/// One of the files. They are open to all, since the page for signing in needs them.
pub async fn get(Named(name): Named<String>) -> Result<Response, Error> {
    let (kind, text) = match name.as_str() {
        "style.css" => ("text/css; charset=utf-8", STYLE),
        "script.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "icon.svg" => ("image/svg+xml", ICON),
        _ => return Err(Error::NotThere),
    };
    Ok(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=604800")], text).into_response())
}
