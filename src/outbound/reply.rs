//! The smarthost's replies, from lettre's words into ours.
//!
//! A reply of several lines becomes one line, as lettre gives refusals only in that form. An enhanced status code is
//! taken out of the text when its class agrees with the reply code (RFC 2034 §4); a repetition of it on later lines
//! is dropped.

use crate::mail::{Enhanced, Reply};
use lettre::transport::smtp::{Error, response::Response};
use std::error::Error as _;

/// The reply that lettre parsed, whatever its code.
pub(super) fn from_response(response: &Response) -> Reply {
    let mut lines = response.message();
    let first = lines.next().unwrap_or_default();
    let code = u16::from(response.code());
    let mut reply = from_text(code, first);
    let repeated = &first[..first.len() - reply.text.len()];
    for line in lines {
        let text = reply.text.to_mut();
        text.push(' ');
        text.push_str(line.strip_prefix(repeated).unwrap_or(line));
    }
    reply
}

/// The refusal (4xx or 5xx) that lettre gives as an error; else what went wrong on the connection, in words.
pub(super) fn from_error(error: &Error) -> Result<Reply, String> {
    let text = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    match error.status() {
        Some(code) => Ok(from_text(code.into(), &text)),
        // lettre's parser gives the words of its own grammar.
        None if error.is_response() => {
            Err("the reply cannot be read: its lines have differing codes, or no code".to_owned())
        }
        None => Err(text),
    }
}

fn from_text(code: u16, text: &str) -> Reply {
    match Enhanced::split(code, text) {
        Some((enhanced, rest)) => Reply::with_text(code, enhanced, rest.to_owned()),
        None => Reply::plain(code, text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_and_their_enhanced_codes() {
        let table: &[(&str, Option<Enhanced>, &str)] = &[
            ("250 2.0.0 Ok: queued\r\n", Some(Enhanced(2, 0, 0)), "Ok: queued"),
            ("250-2.0.0 Ok\r\n250 2.0.0 queued\r\n", Some(Enhanced(2, 0, 0)), "Ok queued"),
            ("550-5.7.1 no\r\n550 really\r\n", Some(Enhanced(5, 7, 1)), "no really"),
            ("550 5.1.1\r\n", Some(Enhanced(5, 1, 1)), ""),
            ("550 4.1.1 other class\r\n", None, "4.1.1 other class"),
            ("550 5.1 too short\r\n", None, "5.1 too short"),
            ("550 5.1.1.1 too long\r\n", None, "5.1.1.1 too long"),
            ("550 5.1.1000 too large\r\n", None, "5.1.1000 too large"),
            ("550 5.+1.1 sign\r\n", None, "5.+1.1 sign"),
            ("354 3.0.0 class of no enhanced code\r\n", None, "3.0.0 class of no enhanced code"),
            ("250 \r\n", None, ""),
        ];
        for (wire, enhanced, text) in table {
            let reply = from_response(&wire.parse().unwrap());
            assert_eq!((reply.enhanced, &*reply.text), (*enhanced, *text), "{wire:?}");
            assert_eq!(reply.code.to_string(), wire[..3], "{wire:?}");
        }
    }
}
