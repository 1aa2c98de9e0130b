//! Which character encoding a text part has, and whether markup in it can be found by its ASCII octets.
//!
//! Owns: labels, the `<meta>` of an HTML document, byte order marks. Does not: convert a body; rewriting happens in
//! the original octets.

use encoding_rs::{Encoding, REPLACEMENT, UTF_8, WINDOWS_1252};
use lol_html::AsciiCompatibleEncoding;
use memchr::memmem;

/// Why a part's characters cannot be told from its octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CharsetError {
    /// UTF-16, ISO-2022-JP, UTF-7 and others whose octets below 0x80 are not ASCII.
    NotAsciiCompatible,
    Unknown,
}

/// Browsers look for a `<meta charset>` in so many octets (WHATWG HTML §13.2.3.2).
const PRESCAN: usize = 1024;

/// The encoding of an HTML document: by the header's `charset`, else by its `<meta>`, else UTF-8 where the octets are
/// that, else windows-1252.
pub fn of_html(label: Option<&[u8]>, html: &[u8]) -> Result<AsciiCompatibleEncoding, CharsetError> {
    if html.starts_with(b"\xff\xfe") || html.starts_with(b"\xfe\xff") {
        return Err(CharsetError::NotAsciiCompatible);
    }
    match label.map(<[u8]>::trim_ascii).filter(|label| !label.is_empty()) {
        Some(label) => by_label(label),
        None => match meta_label(&html[..html.len().min(PRESCAN)]) {
            // The <meta> was read as ASCII, so that a UTF-16 in it is a lie (WHATWG: take it as UTF-8); likewise
            // a label that nobody knows is passed over.
            Some(label) => by_label(label).or(Ok(utf_8())),
            None if std::str::from_utf8(html).is_ok() => Ok(utf_8()),
            None => AsciiCompatibleEncoding::new(WINDOWS_1252).ok_or(CharsetError::Unknown),
        },
    }
}

fn utf_8() -> AsciiCompatibleEncoding {
    AsciiCompatibleEncoding::utf_8()
}

fn by_label(label: &[u8]) -> Result<AsciiCompatibleEncoding, CharsetError> {
    if label.eq_ignore_ascii_case(b"utf-7") || label.eq_ignore_ascii_case(b"unicode-1-1-utf-7") {
        return Err(CharsetError::NotAsciiCompatible);
    }
    // Aliases that mail uses and the web does not.
    let encoding = match label {
        l if l.eq_ignore_ascii_case(b"utf8mb4") => UTF_8,
        l if l.eq_ignore_ascii_case(b"cp932") => encoding_rs::SHIFT_JIS,
        l if l.eq_ignore_ascii_case(b"cp936") => encoding_rs::GBK,
        l => Encoding::for_label(l).ok_or(CharsetError::Unknown)?,
    };
    if encoding == REPLACEMENT {
        return Err(CharsetError::NotAsciiCompatible);
    }
    AsciiCompatibleEncoding::new(encoding).ok_or(CharsetError::NotAsciiCompatible)
}

/// The label in `<meta charset=…>` or in `content="text/html; charset=…"`.
fn meta_label(head: &[u8]) -> Option<&[u8]> {
    let lower = head.to_ascii_lowercase();
    for meta in memmem::find_iter(&lower, b"<meta") {
        let end = memchr::memchr(b'>', &lower[meta..]).map_or(lower.len(), |offset| meta + offset);
        let Some(found) = memmem::find(&lower[meta..end], b"charset") else { continue };
        let rest = head[meta + found + 7..end].trim_ascii_start();
        let Some(rest) = rest.strip_prefix(b"=") else { continue };
        let rest = rest.trim_ascii_start();
        let rest = rest.strip_prefix(b"\"").or(rest.strip_prefix(b"'")).unwrap_or(rest);
        let length = rest.iter().position(|b| matches!(b, b'"' | b'\'' | b';' | b'/') || b.is_ascii_whitespace());
        return Some(&rest[..length.unwrap_or(rest.len())]);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings() {
        use CharsetError::*;
        type Row<'a> = (Option<&'a str>, &'a [u8], Result<&'a str, CharsetError>);
        let table: &[Row] = &[
            (None, b"x", Ok("UTF-8")),
            (None, b"\xe4", Ok("windows-1252")),
            (Some(""), b"<meta charset=koi8-r>", Ok("KOI8-R")),
            (None, b"<META http-equiv=a content='text/html; charset=gb2312'>", Ok("GBK")),
            (None, b"<meta charset=\"utf-16\">", Ok("UTF-8")),
            (Some("iso-8859-1"), b"<meta charset=koi8-r>", Ok("windows-1252")),
            (Some("US-ASCII"), b"", Ok("windows-1252")),
            (Some("Shift_JIS"), b"", Ok("Shift_JIS")),
            (Some("euc-kr"), b"", Ok("EUC-KR")),
            (Some("utf-16le"), b"", Err(NotAsciiCompatible)),
            (Some("iso-2022-jp"), b"", Err(NotAsciiCompatible)),
            (Some("hz-gb-2312"), b"", Err(NotAsciiCompatible)),
            (Some("UTF-7"), b"", Err(NotAsciiCompatible)),
            (Some("x-unheard-of"), b"", Err(Unknown)),
            (Some("utf-8"), b"\xff\xfe<\0", Err(NotAsciiCompatible)),
        ];
        for (label, html, want) in table {
            let got = of_html(label.map(str::as_bytes), html);
            assert_eq!(got.map(|e| <&'static Encoding>::from(e).name()), *want, "{label:?}");
        }
    }
}
