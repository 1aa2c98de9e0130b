//! From the octets of an `href` to the destination that a token carries, or the reason why the link is left alone.
//!
//! Owns: reading a value as a browser does (WHATWG HTML and URL), and the rules about links. Does not: find links
//! ([`super::html`]) or write them.

use super::report::SkipReason;
use crate::mail::DomainName;
use crate::token::acceptable_destination;
use encoding_rs::Encoding;
use std::borrow::Cow;

/// The rules that hold for all links of one message.
pub(super) struct Rules<'a> {
    /// All tracking hosts of the domain.
    pub hosts: Vec<&'a DomainName>,
    /// URLs that stand in List-Unsubscribe.
    pub unsubscribe: &'a [String],
}

/// What a value says: the destination of a link to rewrite, or why it is left alone, with the value for the report.
pub(super) fn destination(
    value: &[u8],
    encoding: &'static Encoding,
    rules: &Rules<'_>,
) -> Result<String, (SkipReason, String)> {
    let (text, malformed) = encoding.decode_without_bom_handling(value);
    let text = clean(&htmlize::unescape_attribute(text));
    if let Some(reason) = refusal(&text, rules) {
        return Err((reason, text));
    }
    if malformed {
        return Err((SkipReason::MalformedUrl, text));
    }
    let url = requested(text, encoding).map_err(|text| (SkipReason::MalformedUrl, text))?;
    if host(&url).is_some_and(|host| rules.hosts.iter().any(|own| own.as_str() == host)) {
        return Err((SkipReason::OwnHost, url));
    }
    Ok(url)
}

/// The destination that the tokens of links to `url` carry, whatever the message; nothing where no link to it is ever
/// rewritten.
pub fn destination_of(url: &str) -> Option<String> {
    let text = clean(url);
    if is_web(&text) { requested(text, encoding_rs::UTF_8).ok() } else { None }
}

/// What a browser asks for; the text itself where that is nothing.
fn requested(text: String, encoding: &'static Encoding) -> Result<String, String> {
    if acceptable_destination(text.as_bytes()) {
        return Ok(text);
    }
    // Neither is a browser's request the value as written: it is the serialised URL.
    let encode: &dyn Fn(&str) -> Cow<'_, [u8]> = &|query| encoding.encode(query).0;
    match url::Url::options().encoding_override(Some(encode)).parse(&text) {
        Ok(url) if acceptable_destination(url.as_str().as_bytes()) => Ok(url.into()),
        _ => Err(text),
    }
}

/// `http://` or `https://` and something behind it.
fn is_web(text: &str) -> bool {
    let Some(scheme) = scheme(text) else { return false };
    let web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    web && matches!(text.as_bytes()[scheme.len() + 1..],
        [b'/', b'/', first, ..] if !matches!(first, b'/' | b'\\' | b'?' | b'#'))
}

/// WHATWG URL §4.4: C0 controls and spaces around a URL go, and tabs and line ends inside it.
fn clean(text: &str) -> String {
    text.trim_matches(|c: char| c <= ' ').chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).collect()
}

fn refusal(text: &str, rules: &Rules<'_>) -> Option<SkipReason> {
    if text.starts_with('#') {
        return Some(SkipReason::Fragment);
    }
    if has_placeholder(text) {
        return Some(SkipReason::Placeholder);
    }
    let Some(scheme) = scheme(text) else { return Some(SkipReason::Relative) };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Some(SkipReason::OtherScheme);
    }
    if !is_web(text) {
        return Some(SkipReason::MalformedUrl);
    }
    rules.unsubscribe.iter().any(|url| url == text).then_some(SkipReason::ListUnsubscribe)
}

/// RFC 3986 §3.1.
fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let mut bytes = scheme.bytes();
    let first = bytes.next()?.is_ascii_alphabetic();
    (first && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))).then_some(scheme)
}

/// Marks between which a mailing program further on would put something: rewritten, it would never find them.
const PLACEHOLDERS: &[(&str, &str)] = &[
    ("{{", "}}"),
    ("{%", "%}"),
    ("${", "}"),
    ("#{", "}"),
    ("{$", "}"),
    ("<%", "%>"),
    ("[[", "]]"),
    ("<<", ">>"),
    ("*|", "|*"),
    ("%7b%7b", "%7d%7d"),
    ("%7B%7B", "%7D%7D"),
    ("%recipient", "%"),
];

fn has_placeholder(text: &str) -> bool {
    // Every mark holds one of these; most URLs hold none.
    if !text.bytes().any(|b| matches!(b, b'{' | b'<' | b'[' | b'|' | b'%')) {
        return false;
    }
    let between =
        |(open, close): &(&str, &str)| text.find(open).is_some_and(|at| text[at + open.len()..].contains(close));
    PLACEHOLDERS.iter().any(between) || percent_word(text) || bracket_word(text)
}

/// `%%unsubscribe%%`; a URL that is right has a hexadecimal number behind every `%`.
fn percent_word(text: &str) -> bool {
    let mut rest = text;
    while let Some((_, tail)) = rest.split_once("%%") {
        let word = tail.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ' | '=' | ':')));
        match word {
            Some(end) if end > 0 && tail[end..].starts_with("%%") => return true,
            _ => rest = tail,
        }
    }
    false
}

/// A host or whole URL that is one word in brackets: `https://[UNSUBSCRIBE]`, `[LINK]`. An IPv6 address has colons.
fn bracket_word(text: &str) -> bool {
    let place = text.find("://").map_or(text, |at| &text[at + 3..]);
    let Some((word, _)) = place.strip_prefix(['[', '{']).and_then(|rest| rest.split_once([']', '}'])) else {
        return false;
    };
    !word.is_empty() && !word.contains(':')
}

/// The host of an absolute http URL, in lower case, without user, port and final dot.
fn host(url: &str) -> Option<String> {
    let rest = &url[url.find("://")? + 3..];
    let authority = &rest[..rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len())];
    if authority.contains('%') {
        return url::Url::parse(url).ok()?.host_str().map(|h| h.trim_end_matches('.').to_owned());
    }
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    Some(host.trim_end_matches('.').to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use SkipReason::*;
    use encoding_rs::{SHIFT_JIS, UTF_8, WINDOWS_1252};

    #[test]
    fn destinations() {
        let own = DomainName::parse("links.example.com").unwrap();
        let unsubscribe = ["https://example.com/u?a=1&b=2".to_owned()];
        let rules = Rules { hosts: vec![&own], unsubscribe: &unsubscribe };
        let table: &[(&str, Result<&str, SkipReason>)] = &[
            ("http://example.com", Ok("http://example.com")),
            ("HTTPS://Example.COM/A%2f?b#c", Ok("HTTPS://Example.COM/A%2f?b#c")),
            (" \r\n https://example.com/\r\n  ", Ok("https://example.com/")),
            ("https://exa\nmple.com/a\tb", Ok("https://example.com/ab")),
            ("https://example.com/?a=1&amp;b=2&amp;amp;", Ok("https://example.com/?a=1&b=2&amp;")),
            ("https://example.com/?a=1&copy=2&copy;=3", Ok("https://example.com/?a=1&copy=2%C2%A9=3")),
            ("https&#58;//example&#x2e;com/", Ok("https://example.com/")),
            ("https://example.com/a b?c d#e f", Ok("https://example.com/a%20b?c%20d#e%20f")),
            ("https://bücher.example/ü?ü#ü", Ok("https://xn--bcher-kva.example/%C3%BC?%C3%BC#%C3%BC")),
            ("https://example.com/{a}?q={\"b\":[1]}", Ok("https://example.com/{a}?q={\"b\":[1]}")),
            ("https://example.com/100%25%25", Ok("https://example.com/100%25%25")),
            ("https://[::1]/x", Ok("https://[::1]/x")),
            ("https://user:pw@example.com:8443/", Ok("https://user:pw@example.com:8443/")),
            ("", Err(Relative)),
            ("#top", Err(Fragment)),
            ("/a", Err(Relative)),
            ("//example.com/a", Err(Relative)),
            ("www.example.com", Err(Relative)),
            ("a/b:c", Err(Relative)),
            ("mailto:a@example.com", Err(OtherScheme)),
            ("javascript:alert(1)", Err(OtherScheme)),
            ("Tel:1", Err(OtherScheme)),
            ("https:x", Err(MalformedUrl)),
            ("http:\\\\x", Err(MalformedUrl)),
            ("http:///x", Err(MalformedUrl)),
            ("https://", Err(MalformedUrl)),
            ("https://?a", Err(MalformedUrl)),
            ("{{ unsubscribe }}", Err(Placeholder)),
            ("https://example.com/{{name}}", Err(Placeholder)),
            ("https://example.com/?a=*|ID|*", Err(Placeholder)),
            ("https://example.com/%%id%%", Err(Placeholder)),
            ("https://${host}/", Err(Placeholder)),
            ("https://example.com/&lt;%= id %&gt;", Err(Placeholder)),
            ("https://[LINK]/", Err(Placeholder)),
            ("[[unsubscribe]]", Err(Placeholder)),
            ("https://links.example.com/c/x", Err(OwnHost)),
            ("https://u@LINKS.example.com.:444?x", Err(OwnHost)),
            ("https://links%2Eexample.com/x", Err(OwnHost)),
            ("https://links.example.com.evil.test/", Ok("https://links.example.com.evil.test/")),
            ("https://example.com/u?a=1&amp;b=2", Err(ListUnsubscribe)),
            ("https://exa mple.com/", Err(MalformedUrl)),
        ];
        for (value, want) in table {
            let got = destination(value.as_bytes(), UTF_8, &rules).map_err(|(reason, _)| reason);
            assert_eq!(got.as_deref().map_err(|e| *e), want.map_err(|e| e), "{value:?}");
        }
    }

    #[test]
    fn the_query_is_in_the_documents_charset() {
        let rules = Rules { hosts: Vec::new(), unsubscribe: &[] };
        let got = destination(b"http://example.com/\xfc?\xfc#\xfc", WINDOWS_1252, &rules);
        assert_eq!(got.unwrap(), "http://example.com/%C3%BC?%FC#%C3%BC");
        // The second octet of this character is a backslash.
        let got = destination(b"http://example.com/?\x83\x5c", SHIFT_JIS, &rules);
        assert_eq!(got.unwrap(), "http://example.com/?%83\\");
        assert_eq!(destination(b"http://example.com/\xff", UTF_8, &rules).unwrap_err().0, MalformedUrl);
    }
}
