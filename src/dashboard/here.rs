//! Where this relay is reached by whoever asks: for the commands that pages show, so that they can be run as they are.

use super::Visitor;
use super::error::Error;
use axum::extract::FromRequestParts;
use http::header::HOST;
use http::request::Parts;

/// `https://relay.example.net`, with the port where it is not the scheme's own. The API is below it, as the dashboard
/// is.
pub struct Here(pub String);

impl<S: Sync> FromRequestParts<S> for Here {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let visitor = parts.extensions.get::<Visitor>();
        let secure = visitor.is_some_and(|visitor| visitor.secure);
        let asked = parts.uri.authority().map(|authority| authority.as_str());
        let asked = asked.or_else(|| parts.headers.get(HOST).and_then(|host| host.to_str().ok())).unwrap_or_default();
        // A proxy passes on which name it was asked for, and is itself asked for another, maybe.
        let named = visitor.map(|visitor| visitor.client.trusted_host()).unwrap_or_default();
        Ok(Self(origin(secure, named, asked)))
    }
}

/// The port is that of `asked`, where that is the same host.
fn origin(secure: bool, named: &str, asked: &str) -> String {
    let scheme = if secure { "https" } else { "http" };
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:[]".contains(c));
    let asked = asked.to_ascii_lowercase();
    match asked.strip_prefix(named) {
        Some(port) if !named.is_empty() && port.starts_with(':') && plain(&asked) => format!("{scheme}://{asked}"),
        _ if !named.is_empty() && plain(named) => format!("{scheme}://{named}"),
        _ => "http://127.0.0.1:8081".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn origins() {
        for (secure, named, asked, origin) in [
            (false, "127.0.0.1", "127.0.0.1:8081", "http://127.0.0.1:8081"),
            (false, "[::1]", "[::1]:8081", "http://[::1]:8081"),
            (true, "relay.example.net", "Relay.example.net", "https://relay.example.net"),
            (true, "relay.example.net", "127.0.0.1:8081", "https://relay.example.net"),
            (true, "relay.example.net", "relay.example.net.evil.test:1", "https://relay.example.net"),
            (false, "relay.example.net", "relay.example.net:1'; rm", "http://relay.example.net"),
            (false, "", "", "http://127.0.0.1:8081"),
        ] {
            assert_eq!(super::origin(secure, named, asked), origin);
        }
    }
}
