//! Encoded words (RFC 2047), read strictly: to see what a reader makes of a header, not to show it.
//!
//! Owns: one encoded word to text. Does not: guess. What another program might decode otherwise is `None` here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use encoding_rs::{Encoding, REPLACEMENT};

/// The text of `word` from `=?` to `?=`; `None` where it is no encoded word, or one that readers could take differently:
/// an unknown charset (UTF-7 among them), octets that are none of its charset, base64 with anything else inside.
pub fn decode(word: &str) -> Option<String> {
    let inside = word.strip_prefix("=?")?.strip_suffix("?=")?;
    let mut parts = inside.split('?');
    let (charset, encoding, text) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    // RFC 2231 §5: a language may stand behind the charset.
    let charset = charset.split_once('*').map_or(charset, |(charset, _)| charset);
    let charset = Encoding::for_label_no_replacement(charset.as_bytes()).filter(|found| *found != REPLACEMENT)?;
    let octets = match encoding {
        "q" | "Q" => quoted(text)?,
        "b" | "B" => STANDARD.decode(text).ok()?,
        _ => return None,
    };
    let text = charset.decode_without_bom_handling_and_without_replacement(&octets)?;
    Some(text.into_owned())
}

/// RFC 2047 §4.2.
fn quoted(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'_' => b' ',
            b'=' => {
                let (high, low) = (char::from(rest.next()?).to_digit(16)?, char::from(rest.next()?).to_digit(16)?);
                u8::try_from(high * 16 + low).ok()?
            }
            _ => byte,
        });
    }
    Some(out)
}

/// A text after decoding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    pub text: String,
    /// What stood in encoded words alone.
    pub words: String,
}

/// `text` with its encoded words decoded, and what stands between two of them left out if it is white space (RFC 2047
/// §6.2). `None` where something looks like an encoded word and cannot be decoded.
pub fn decode_all(text: &str) -> Option<Decoded> {
    let (mut out, mut words, mut rest, mut after_word) = (String::new(), String::new(), text, false);
    while let Some(at) = rest.find("=?") {
        let (before, word) = rest.split_at(at);
        if !(after_word && before.trim_matches([' ', '\t', '\n']).is_empty()) {
            out.push_str(before);
        }
        // `=?charset?encoding?text?=`: the text may begin with `=`.
        let end = word.match_indices('?').nth(3)?.0 + 2;
        let decoded = decode(word.get(..end)?)?;
        out.push_str(&decoded);
        words.push_str(&decoded);
        rest = &word[end..];
        after_word = true;
    }
    out.push_str(rest);
    Some(Decoded { text: out, words })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (word, want) in [
            ("=?utf-8?q?J=C3=B6?=", Some("Jö")),
            ("=?UTF-8?B?SsO2?=", Some("Jö")),
            ("=?iso-8859-1*de?Q?Gr=FC=dfe_an?=", Some("Grüße an")),
            ("=?ISO-2022-JP?B?GyRCRnxLXBsoQg==?=", Some("日本")),
            ("=?utf-8?q??=", Some("")),
            ("=?utf-7?q?+AEA-?=", None),
            ("=?utf-8?q?=FF?=", None),
            ("=?utf-8?q?a=4?=", None),
            ("=?utf-8?b?SsO2!?=", None),
            ("=?utf-8?x?a?=", None),
            ("=?nobody?q?a?=", None),
            ("=?utf-8?q?a b?=", None),
            ("=?utf-8?q?a?b?=", None),
            ("=?utf-8?q?a", None),
            ("a", None),
        ] {
            assert_eq!(decode(word).as_deref(), want, "{word}");
        }
    }

    #[test]
    fn texts() {
        for (text, want) in [
            ("plain = text?", Some("plain = text?")),
            ("=?utf-8?q?ceo=40?= \t=?utf-8?q?b?= c", Some("ceo@b c")),
            ("a =?utf-8?q?=3D=3F?= b", Some("a =? b")),
            ("a =?utf-8?q?b", None),
            ("=?utf-8?q?b?c", None),
            ("=?", None),
        ] {
            assert_eq!(decode_all(text).map(|decoded| decoded.text).as_deref(), want, "{text}");
        }
        assert_eq!(decode_all("a =?utf-8?q?b?= =?utf-8?q?c?= d").unwrap().words, "bc");
    }
}
