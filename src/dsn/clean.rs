//! What others said, made fit to be repeated: one line, nothing that a reader or a parser takes for the end of one.

use std::net::{IpAddr, SocketAddr};

/// `text` on one line, white space and control characters as single spaces, at most `max` characters.
pub(super) fn one_line(text: &str, max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(4 * max));
    for word in text.split(is_gap).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() > 4 * max {
            break;
        }
    }
    if let Some((end, _)) = line.char_indices().nth(max) {
        line.truncate(end);
    }
    line
}

/// White space and controls; U+2028 and U+2029, which some take for line ends; and the marks that turn the direction
/// of the text around them, with which a line may be made to look like another.
fn is_gap(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A host name as it may stand in a header; characters with no place there are replaced.
pub(super) fn host(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    name.chars().take(255).map(|c| if fits(c) { c } else { '?' }).collect()
}

/// The smarthost as an mta-name of type `dns` (RFC 3464 §2.1.2): its name without the port, or an address literal.
pub(super) fn mta_name(smarthost: &str) -> String {
    let bare = smarthost.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse::<IpAddr>().or_else(|_| smarthost.parse::<SocketAddr>().map(|address| address.ip()));
    match address {
        Ok(IpAddr::V4(address)) => format!("[{address}]"),
        Ok(IpAddr::V6(address)) => format!("[IPv6:{address}]"),
        Err(_) => match smarthost.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host(name),
            _ => host(smarthost),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let table = [
            ("", ""),
            ("a b", "a b"),
            (" a\r\nb: \t c ", "a b: c"),
            ("a\0\u{b}\u{c}\u{1c}\u{85}\u{2028}\u{2029}\u{a0}\u{7f}b", "a b"),
            ("\u{202e}txt.exe\u{202c}", "txt.exe"),
            ("grüße 日本", "grüße 日本"),
        ];
        for (text, want) in table {
            assert_eq!(one_line(text, 100), want, "{text:?}");
        }
        assert_eq!(one_line("grüße", 3), "grü");
        assert_eq!(one_line(&"x y ".repeat(1000), 5), "x y x");
    }

    #[test]
    fn names_of_servers() {
        let table = [
            ("", ""),
            ("mx.example.net", "mx.example.net"),
            ("mx.example.net:587", "mx.example.net"),
            ("127.0.0.1", "[127.0.0.1]"),
            ("127.0.0.1:25", "[127.0.0.1]"),
            ("[127.0.0.1]", "[127.0.0.1]"),
            ("::1", "[IPv6:::1]"),
            ("[::1]:25", "[IPv6:::1]"),
            ("mx\r\nX: y", "mx??X:?y"),
            ("mx (a) <b>;", "mx??a???b??"),
        ];
        for (smarthost, want) in table {
            assert_eq!(mta_name(smarthost), want, "{smarthost:?}");
        }
    }
}
