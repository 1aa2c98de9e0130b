//! Takes MAIL and RCPT commands apart where smtp-proto does it otherwise than a relay must.
//!
//! It takes the quotes off local parts, refuses `a..b@c` and makes `<>` of `postmaster`: paths are cut out here. It lets
//! broken xtext pass and drops the type of ORCPT: ENVID and ORCPT are decoded here. It wraps sizes past 2^64, takes
//! parameters twice, and knows extensions that we do not offer: such lines end here.

use super::command::CommandError;
use crate::mail::AddressError;

/// A MAIL or RCPT command taken apart.
pub(super) struct Parts<'a> {
    /// Between the angle brackets.
    pub path: &'a str,
    pub envid: Option<&'a str>,
    pub orcpt: Option<&'a str>,
    /// The command with an empty path and without ENVID and ORCPT, CRLF behind it: what smtp-proto is shown.
    pub rest: Vec<u8>,
}

/// `known`: the parameters that the command may carry, each at most once (RFC 5321 §4.1.1.11).
pub(super) fn split<'a>(
    line: &'a [u8],
    not_utf8: impl Fn(AddressError) -> CommandError,
    known: &[&str],
) -> Result<Parts<'a>, CommandError> {
    let line = std::str::from_utf8(line).map_err(|_| not_utf8(AddressError::BadLocalPart))?;
    let open = line.find('<').ok_or(CommandError::Syntax)?;
    let path_len = path_len(&line[open + 1..]).ok_or(CommandError::Syntax)?;
    let (path, behind) = (&line[open + 1..open + 1 + path_len], &line[open + path_len + 2..]);
    if !(behind.is_empty() || behind.starts_with(' ')) {
        return Err(CommandError::Syntax);
    }
    let mut parts = Parts { path, envid: None, orcpt: None, rest: [&line.as_bytes()[..open], b"<>"].concat() };
    let mut seen = 0u32;
    for parameter in behind.split(' ').filter(|p| !p.is_empty()) {
        let (keyword, value) = parameter.split_once('=').map_or((parameter, None), |(k, v)| (k, Some(v)));
        let index = known.iter().position(|k| k.eq_ignore_ascii_case(keyword));
        let index = index.ok_or(CommandError::UnknownParameter)?;
        let plain = parameter.chars().all(|c| c.is_ascii_graphic() || known[index] == "ORCPT" && !c.is_control());
        if !plain || value == Some("") || seen & 1 << index != 0 {
            return Err(CommandError::Syntax);
        }
        seen |= 1 << index;
        match (known[index], value) {
            ("SMTPUTF8", None) => {}
            ("SMTPUTF8", Some(_)) | (_, None) => return Err(CommandError::Syntax),
            ("ENVID", value) => {
                parts.envid = value;
                continue;
            }
            ("ORCPT", value) => {
                parts.orcpt = value;
                continue;
            }
            ("SIZE", Some(digits)) if !digits.bytes().all(|b| b.is_ascii_digit()) => return Err(CommandError::Syntax),
            ("SIZE", Some(digits)) if digits.trim_start_matches('0').len() > 18 => return Err(CommandError::TooLarge),
            _ => {}
        }
        parts.rest.push(b' ');
        parts.rest.extend_from_slice(parameter.as_bytes());
    }
    parts.rest.extend_from_slice(b"\r\n");
    Ok(parts)
}

/// How far the path goes: to the first `>` outside a quoted local part (RFC 5321 §4.1.2).
fn path_len(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// `@a,@b:user@c` is `user@c`: a source route is to be ignored (RFC 5321 §4.1.1.3, appendix C).
pub(super) fn without_route(path: &str) -> &str {
    match path.split_once(':') {
        Some((route, mailbox)) if route.starts_with('@') => mailbox,
        _ => path,
    }
}

/// RFC 3461 §4.4: up to 100 printable characters of US-ASCII, as xtext.
pub(super) fn envid(text: &str) -> Option<Box<str>> {
    let text = xtext(text)?;
    let fits = text.len() <= 100 && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    fits.then(|| text.into())
}

/// RFC 3461 §4.2: an address type and an address in xtext, 500 characters at most.
pub(super) fn orcpt(text: &str) -> Option<Box<str>> {
    let (kind, address) = text.split_once(';')?;
    let kind_fits = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let address = xtext(address)?;
    let fits = kind_fits && text.len() <= 500 && !address.is_empty() && !address.chars().any(char::is_control);
    fits.then(|| format!("{kind};{address}").into())
}

/// Decodes `+XX` (RFC 3461 §4, upper-case hex; lower case is taken as well). `None` for broken escapes.
fn xtext(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'+' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push((high << 4 | low) as u8);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_end_outside_quotes() {
        let table = [
            ("a@b>", Some(3)),
            (">", Some(0)),
            ("a", None),
            ("\"a>b\"@c>", Some(7)),
            ("\"a\\\">b\"@c>", Some(9)),
            ("\"a>", None),
            ("a\\>", Some(2)),
        ];
        for (text, want) in table {
            assert_eq!(path_len(text), want, "{text}");
        }
    }

    #[test]
    fn source_routes_go() {
        let table = [
            ("@a.test:b@c.test", "b@c.test"),
            ("@a.test,@b.test:b@c.test", "b@c.test"),
            ("@a.test:b@[IPv6:::1]", "b@[IPv6:::1]"),
            ("b@[IPv6:::1]", "b@[IPv6:::1]"),
            ("@a.test", "@a.test"),
        ];
        for (path, want) in table {
            assert_eq!(without_route(path), want);
        }
    }

    #[test]
    fn xtext_values() {
        assert_eq!(xtext("a+2Bb+3D").as_deref(), Some("a+b="));
        assert_eq!(xtext("+C3+A9").as_deref(), Some("é"));
        for bad in ["+", "+2", "+G0", "a+2", "+C3"] {
            assert_eq!(xtext(bad), None, "{bad}");
        }
        assert_eq!(envid(&"x".repeat(100)).map(|id| id.len()), Some(100));
        for bad in [&"x".repeat(101)[..], "+00", "+C3+A9"] {
            assert_eq!(envid(bad), None, "{bad}");
        }
        for bad in ["", ";a", "rfc822;", "rfc822", "rf c;a", "rfc822;+00", &format!("rfc822;{}", "x".repeat(500))] {
            assert_eq!(orcpt(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn xtext_is_the_inverse_of_its_encoding(text in "\\PC{0,30}") {
            let encoded: String = text.bytes().map(|b| format!("+{b:02X}")).collect();
            prop_assert_eq!(xtext(&encoded), Some(text));
        }
    }
}
