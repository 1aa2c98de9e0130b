//! SVG and MathML inside HTML, where the same octets are other markup than outside.
//!
//! Owns: whether such an element is closed so plainly that every reader sees its end at the same place. By the HTML
//! standard much else ends it as well (§13.2.6.5: the end tag of an element around it, a tag that belongs into HTML),
//! and a reader that misses that takes the text of a `<textarea>` behind it for links. What is not plain is refused;
//! it is rare in mail.

use memchr::{memchr, memmem};

/// Start tags that end foreign content wherever they stand (HTML §13.2.6.5), and `font`, which may.
const BREAKS_OUT: [&str; 45] = [
    "b",
    "big",
    "blockquote",
    "body",
    "br",
    "center",
    "code",
    "dd",
    "div",
    "dl",
    "dt",
    "em",
    "embed",
    "font",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "head",
    "hr",
    "i",
    "img",
    "li",
    "listing",
    "menu",
    "meta",
    "nobr",
    "ol",
    "p",
    "pre",
    "ruby",
    "s",
    "small",
    "span",
    "strong",
    "strike",
    "sub",
    "sup",
    "table",
    "tt",
    "u",
    "ul",
    "var",
];
const DEPTH: usize = 100;

/// Where the `svg` or `math` element whose start tag begins at `start` ends; `None` when that is not plain.
pub(super) fn end(html: &[u8], start: usize) -> Option<usize> {
    let mut open: Vec<&[u8]> = Vec::new();
    let mut at = start;
    loop {
        at += memchr(b'<', html.get(at..)?)?;
        let rest = &html[at..];
        if let Some(comment) = rest.strip_prefix(b"<!--") {
            if comment.starts_with(b">") || comment.starts_with(b"->") {
                return None;
            }
            at += 4 + memmem::find(comment, b"-->")? + 3;
        } else if rest.starts_with(b"<![CDATA[") {
            at += memmem::find(rest, b"]]>")? + 3;
        } else if rest.get(1) == Some(&b'/') && rest.get(2).is_some_and(u8::is_ascii_alphabetic) {
            let (name, tag) = tag(&rest[2..])?;
            if !open.pop()?.eq_ignore_ascii_case(name) {
                return None;
            }
            at += 2 + tag.length;
        } else if rest.get(1).is_some_and(u8::is_ascii_alphabetic) {
            let (name, tag) = tag(&rest[1..])?;
            if BREAKS_OUT.iter().any(|b| b.as_bytes().eq_ignore_ascii_case(name)) || open.len() >= DEPTH {
                return None;
            }
            if !tag.closes_itself {
                open.push(name);
            }
            at += 1 + tag.length;
        } else if matches!(rest.get(1), Some(b'!' | b'?' | b'/')) {
            return None;
        } else {
            at += 1;
        }
        if open.is_empty() {
            return Some(at);
        }
    }
}

struct Tag {
    /// From the name to behind `>`.
    length: usize,
    closes_itself: bool,
}

/// The tag whose name `text` begins with. Quotes that do not enclose a whole value are not plain.
fn tag(text: &[u8]) -> Option<(&[u8], Tag)> {
    let end_of_name = text.iter().position(|b| b.is_ascii_whitespace() || matches!(b, b'/' | b'>'))?;
    let mut at = end_of_name;
    // Inside an unquoted value `/` is part of it.
    let mut in_value = false;
    loop {
        match text.get(at)? {
            b'>' => {
                let slash = text[at - 1] == b'/';
                if slash && in_value {
                    return None;
                }
                return Some((&text[..end_of_name], Tag { length: at + 1, closes_itself: slash }));
            }
            b'=' => {
                let value = at + 1 + text[at + 1..].iter().position(|b| !b.is_ascii_whitespace())?;
                match text[value] {
                    quote @ (b'"' | b'\'') => at = value + 1 + memchr(quote, &text[value + 1..])? + 1,
                    b'>' => return None,
                    _ => (at, in_value) = (value, true),
                }
                if in_value {
                    at += 1;
                }
            }
            b'"' | b'\'' | b'<' => return None,
            b if b.is_ascii_whitespace() => (at, in_value) = (at + 1, false),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_ones() {
        for html in [
            "<svg></svg>",
            "<SVG viewBox='0 0 1 1'><path d=\"M0 0 > 1\"/><g><path></path></g></svg >",
            "<svg/>",
            "<svg width = 1 height=2 ><style>a > b { fill: red }</style></svg>",
            "<svg><!-- </svg> --><![CDATA[</svg>]]><text>a < b</text></svg>",
            "<math><mi>x</mi><mo>=</mo></math>",
            "<svg><a href='https://example.com/'><text>x</text></a></svg>",
        ] {
            assert_eq!(end(format!("{html}</div>").as_bytes(), 0), Some(html.len()), "{html}");
        }
    }

    #[test]
    fn what_readers_could_see_differently() {
        for html in [
            "<svg></div><textarea>",
            "<svg><path></svg>",
            "<svg><p></svg>",
            "<svg><foreignObject><div>x</div></foreignObject></svg>",
            "<svg><path d=x/></svg>",
            "<svg",
            "<svg><!-- x",
            "<svg><!--></svg>",
            "<svg><![CDATA[",
            "<svg><?xml version='1.0'?></svg>",
            "<svg a\"b></svg>",
            "<svg a=></svg>",
            "<math></p></math>",
            "<svg><font color=red></font></svg>",
        ] {
            assert_eq!(end(html.as_bytes(), 0), None, "{html}");
        }
    }
}
