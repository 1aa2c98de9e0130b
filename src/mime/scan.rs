//! The structure of a message as byte spans: header blocks, bodies, and what contains what (RFC 2046 §5.1).
//!
//! Owns: boundaries and the tree of parts. Does not: decode a body, look into `message/*`, or guess where the
//! structure is broken. A message of which two readers could see different trees is reported as [`Broken`].
//!
//! One pass, iterative, memchr-based: the cost is linear in the message, whatever its depth, since depth and number of
//! parts are bounded.

use super::header::{Field, Parameterized, fields, line_end, next_line, token};
use memchr::memmem;
use std::ops::Range;

/// Nesting of multiparts beyond this is not followed.
pub const MAX_DEPTH: usize = 100;
/// Parts beyond this are not counted.
pub const MAX_PARTS: usize = 10_000;
/// Octets of one header block; header fields beyond them are not read.
pub const MAX_HEADER: usize = 1 << 20;

/// Why a message has no structure that all readers would see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A header block over [`MAX_HEADER`].
    HeaderTooLong,
    /// A multipart whose closing boundary is missing, or comes after that of its parent.
    NoClosingBoundary,
    /// A multipart without a usable `boundary` parameter (RFC 2046 §5.1.1).
    NoBoundary,
    /// A header of a multipart that readers see differently, such as one with two Content-Types.
    Contradiction,
    /// A multipart whose delimiters could as well be those of one around it.
    SharedBoundary,
    /// A multipart with a transfer encoding other than 7bit, 8bit or binary (RFC 2045 §6.4).
    EncodedMultipart,
    TooDeep,
    TooManyParts,
}

/// Content-Transfer-Encoding (RFC 2045 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// 7bit, 8bit, binary, or none given: the body is what it says.
    Identity,
    QuotedPrintable,
    Base64,
    Unknown,
}

/// One part; the message itself is the first.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its header fields, without the empty line behind them.
    pub header: Range<usize>,
    /// Without the line end that belongs to the next boundary. Of a multipart: preamble to epilogue.
    pub body: Range<usize>,
    /// Index of the multipart that it stands in. Always smaller than its own.
    pub parent: Option<usize>,
    /// Content-Type; `value` is never empty: `text/plain` by default, `message/rfc822` in a digest.
    pub content: Parameterized,
    pub transfer: Transfer,
    /// Where the value of Content-Transfer-Encoding stands; more than one where the field stands twice.
    pub transfer_values: Vec<Range<usize>>,
    /// Content-Disposition's type in lower case.
    pub disposition: Option<String>,
    pub content_id: Option<Range<usize>>,
    /// Fields that should stand once stand twice and differ, or there is a line that is no field, with which the header
    /// ends for some: readers disagree about what counts.
    pub contradictory: bool,
}

impl Part {
    pub fn is_multipart(&self) -> bool {
        self.content.value.starts_with("multipart/")
    }

    /// The media type in lower case: `text/html`.
    pub fn media(&self) -> &str {
        &self.content.value
    }
}

/// Where the header block that begins at `start` ends: before the empty line, before a line for which `stop` is
/// true, or at the end of input; and where the body begins. `None` past [`MAX_HEADER`].
pub fn header_block(
    message: &[u8],
    start: usize,
    mut stop: impl FnMut(&[u8]) -> bool,
) -> Option<(Range<usize>, usize)> {
    let mut at = start;
    while at < message.len() {
        match &message[at..] {
            [b'\n', ..] => return Some((start..at, at + 1)),
            [b'\r', b'\n', ..] => return Some((start..at, at + 2)),
            rest @ [b'-', b'-', ..] if stop(rest) => return Some((start..at, at)),
            _ => {}
        }
        at = next_line(message, at, message.len());
        if at - start > MAX_HEADER {
            return None;
        }
    }
    Some((start..at, at))
}

/// An open multipart.
struct Open {
    part: usize,
    boundary: Box<[u8]>,
    /// The part whose end is the next delimiter: the last child, none in the preamble.
    child: Option<usize>,
}

enum Delimiter {
    Open,
    Close,
}

/// Finds all parts. In the order of their headers; `parts[0]` is the message.
pub fn scan(message: &[u8]) -> Result<Vec<Part>, Broken> {
    let (header, body) = header_block(message, 0, |_| false).ok_or(Broken::HeaderTooLong)?;
    let mut parts = vec![read_part(message, header, body, None, "text/plain")];
    let mut stack: Vec<Open> = Vec::new();
    open(message, &parts, 0, &mut stack)?;
    let dashes = memmem::Finder::new(b"\n--");
    let mut at = body;
    while !stack.is_empty() {
        let at_line_start = at == 0 || message[at - 1] == b'\n';
        let line = if at_line_start && message[at..].starts_with(b"--") {
            at
        } else {
            match dashes.find(&message[at.saturating_sub(1)..]) {
                Some(offset) => at.saturating_sub(1) + offset + 1,
                None => return Err(Broken::NoClosingBoundary),
            }
        };
        let next = next_line(message, line, message.len());
        // A search from `at` would find the same dashes again; from behind them it cannot.
        at = (line + 2).max(at);
        let Some((level, delimiter)) = matching(&message[line..next], &stack) else { continue };
        if level + 1 != stack.len() {
            return Err(Broken::NoClosingBoundary);
        }
        let top = &mut stack[level];
        if let Some(child) = top.child.take() {
            let body = &mut parts[child].body;
            body.end = (line - line_end(&message[..line])).max(body.start);
        }
        match delimiter {
            Delimiter::Close => {
                let closed = top.part;
                stack.pop();
                parts[closed].body.end = message.len();
                at = next;
            }
            Delimiter::Open => {
                if parts.len() >= MAX_PARTS {
                    return Err(Broken::TooManyParts);
                }
                let (header, body) = header_block(message, next, |rest| {
                    matching(&rest[..next_line(rest, 0, rest.len())], &stack).is_some()
                })
                .ok_or(Broken::HeaderTooLong)?;
                let parent = stack[level].part;
                let default = if parts[parent].media() == "multipart/digest" { "message/rfc822" } else { "text/plain" };
                let index = parts.len();
                parts.push(read_part(message, header, body, Some(parent), default));
                stack[level].child = Some(index);
                at = body;
                open(message, &parts, index, &mut stack)?;
            }
        }
    }
    Ok(parts)
}

/// Pushes part `index` on the stack if it is a multipart.
fn open(message: &[u8], parts: &[Part], index: usize, stack: &mut Vec<Open>) -> Result<(), Broken> {
    let part = &parts[index];
    if !part.is_multipart() {
        return Ok(());
    }
    if part.contradictory || part.content.ambiguous {
        return Err(Broken::Contradiction);
    }
    if part.transfer != Transfer::Identity {
        return Err(Broken::EncodedMultipart);
    }
    if stack.len() >= MAX_DEPTH {
        return Err(Broken::TooDeep);
    }
    let boundary = part.content.parameter("boundary").unwrap_or_default().trim_ascii_end();
    if boundary.is_empty() || boundary.len() > 200 || part.body.start > message.len() {
        return Err(Broken::NoBoundary);
    }
    // `--x--` closes x, and opens a part of `x--`.
    let collide = |a: &[u8], b: &[u8]| a.strip_prefix(b).is_some_and(|rest| matches!(rest, b"" | b"--"));
    if stack.iter().any(|outer| collide(boundary, &outer.boundary) || collide(&outer.boundary, boundary)) {
        return Err(Broken::SharedBoundary);
    }
    stack.push(Open { part: index, boundary: boundary.into(), child: None });
    Ok(())
}

/// Which open multipart `line` delimits. The whole line must match but for white space at its end (RFC 2046 §5.1.1),
/// so that a boundary may be the beginning of another.
fn matching(line: &[u8], stack: &[Open]) -> Option<(usize, Delimiter)> {
    let line = line.strip_prefix(b"--")?.trim_ascii_end();
    stack.iter().enumerate().rev().find_map(|(level, open)| {
        let rest = line.strip_prefix(&*open.boundary)?;
        match rest {
            b"" => Some((level, Delimiter::Open)),
            b"--" => Some((level, Delimiter::Close)),
            _ => None,
        }
    })
}

fn read_part(message: &[u8], header: Range<usize>, body: usize, parent: Option<usize>, default: &str) -> Part {
    let mut part = Part {
        header: header.clone(),
        body: body..message.len(),
        parent,
        content: Parameterized::default(),
        transfer: Transfer::Identity,
        transfer_values: Vec::new(),
        disposition: None,
        content_id: None,
        contradictory: false,
    };
    let mut content: Option<Field> = None;
    let mut disposition: Option<Field> = None;
    let mut covered = 0;
    for field in fields(message, header.clone()) {
        covered += field.span.len();
        // "Content-" costs one comparison for the many fields that matter to nobody here.
        let name = &message[field.name.clone()];
        if name.len() < 10 || !name[..8].eq_ignore_ascii_case(b"content-") {
            continue;
        }
        if field.is(message, "Content-Type") {
            part.contradictory |= differs(message, content.as_ref(), &field);
            content = Some(field);
        } else if field.is(message, "Content-Transfer-Encoding") {
            let transfer = match token(&message[field.value.clone()]).as_str() {
                "7bit" | "8bit" | "binary" | "" => Transfer::Identity,
                "quoted-printable" => Transfer::QuotedPrintable,
                "base64" => Transfer::Base64,
                _ => Transfer::Unknown,
            };
            part.contradictory |= !part.transfer_values.is_empty() && transfer != part.transfer;
            part.transfer = transfer;
            part.transfer_values.push(field.value);
        } else if field.is(message, "Content-Disposition") {
            part.contradictory |= differs(message, disposition.as_ref(), &field);
            disposition = Some(field);
        } else if field.is(message, "Content-ID") {
            part.content_id = Some(field.value);
        }
    }
    part.contradictory |= covered < header.len();
    if let Some(field) = content {
        part.content = Parameterized::parse(&message[field.value]);
    }
    if part.content.value.is_empty() {
        part.content.value = default.to_owned();
    }
    part.disposition = disposition.map(|field| Parameterized::parse(&message[field.value]).value);
    part
}

fn differs(message: &[u8], earlier: Option<&Field>, field: &Field) -> bool {
    earlier.is_some_and(|e| message[e.value.clone()].trim_ascii() != message[field.value.clone()].trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `media@parent=body` of every part.
    fn shape(message: &str) -> Result<Vec<String>, Broken> {
        let parts = scan(message.as_bytes())?;
        let show = |p: &Part| {
            let body = if p.is_multipart() { "" } else { &message[p.body.clone()] };
            format!("{}@{}={}", p.media(), p.parent.map_or(-1, |i| i as i32), body)
        };
        Ok(parts.iter().map(show).collect())
    }

    #[test]
    fn structures() {
        let table: &[(&str, &[&str])] = &[
            ("", &["text/plain@-1="]),
            ("A: b", &["text/plain@-1="]),
            ("A: b\r\n\r\nbody\r\n", &["text/plain@-1=body\r\n"]),
            ("\nbody", &["text/plain@-1=body"]),
            ("Content-Type: text/html\n\n--x", &["text/html@-1=--x"]),
            (
                "Content-Type: multipart/mixed; boundary=b\r\n\r\npre\r\n--b\r\n\r\none\r\n\r\n--b \t\r\n\
                 Content-Type: text/html\r\n\r\ntwo\r\n--b--\r\nepilogue\r\n--b\r\nnot a part",
                &["multipart/mixed@-1=", "text/plain@0=one\r\n", "text/html@0=two"],
            ),
            // The boundary of the inner one begins with that of the outer one; LF alone; no line end at the end.
            (
                "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/alternative; boundary=b1\n\n\
                 --b1\n\nx\n--bx\n----b1\n--b1--\n--b\n\ny\n--b--",
                &["multipart/mixed@-1=", "multipart/alternative@0=", "text/plain@1=x\n--bx\n----b1", "text/plain@0=y"],
            ),
            // Parts without header, without body, without the empty line.
            (
                "Content-Type: multipart/mixed; boundary=b\n\n--b\n\n--b\nA: b\n--b\nContent-Type: text/html\n\n\n--b--\n",
                &["multipart/mixed@-1=", "text/plain@0=", "text/plain@0=", "text/html@0="],
            ),
            (
                "Content-Type: multipart/digest; boundary=b\n\n--b\n\nFrom: x\n\n--b--",
                &["multipart/digest@-1=", "message/rfc822@0=From: x\n"],
            ),
        ];
        for (message, want) in table {
            assert_eq!(shape(message).unwrap(), *want, "{message}");
        }
    }

    #[test]
    fn broken() {
        let deep: String =
            (0..200).map(|i| format!("Content-Type: multipart/mixed; boundary=b{i}\n\n--b{i}\n")).collect();
        let nested = |outer: &str, inner: &str| {
            format!(
                "Content-Type: multipart/mixed; boundary={outer}\n\n--{outer}\n\
                 Content-Type: multipart/alternative; boundary={inner}\n\n\
                 --{inner}\n\nx\n--{inner}--\n\n--{outer}\n\ny\n--{outer}--\n"
            )
        };
        let many = format!("Content-Type: multipart/mixed; boundary=b\n\n{}--b--", "--b\n\n".repeat(20_000));
        let table = [
            ("Content-Type: multipart/mixed\n\n", Broken::NoBoundary),
            ("Content-Type: multipart/mixed; boundary=\n\n", Broken::NoBoundary),
            ("Content-Type: multipart/mixed; boundary=b\n\n--b\n\nx", Broken::NoClosingBoundary),
            ("Content-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n--b--y", Broken::NoClosingBoundary),
            ("Content-Type: multipart/mixed; boundary=b; boundary=c\n\n--b--", Broken::Contradiction),
            ("Content-Type: text/html\nContent-Type: multipart/mixed; boundary=b\n\n--b--", Broken::Contradiction),
            ("no field\nContent-Type: multipart/mixed; boundary=b\n\n--b--", Broken::Contradiction),
            ("Content-Type: multipart/mixed; boundary=\"b\" c\n\n--b--", Broken::Contradiction),
            (
                "Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: base64\n\n",
                Broken::EncodedMultipart,
            ),
            (
                "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\n--a--",
                Broken::NoClosingBoundary,
            ),
            // Seen from a mail program for the Macintosh, and from a worm.
            (&nested("b", "b"), Broken::SharedBoundary),
            (&nested("b", "b--"), Broken::SharedBoundary),
            (&nested("b--", "b"), Broken::SharedBoundary),
            (&deep, Broken::TooDeep),
            (&many, Broken::TooManyParts),
        ];
        for (message, want) in table {
            assert_eq!(shape(message), Err(want), "{}", &message[..message.len().min(200)]);
        }
        assert_eq!(scan(&vec![b'a'; 2 << 20]).err(), Some(Broken::HeaderTooLong));
    }

    proptest! {
        #[test]
        fn spans_lie_inside(data in proptest::collection::vec(prop_oneof![
            Just(b"\r\n".to_vec()), Just(b"\n--b\n".to_vec()), Just(b"--b--\n".to_vec()), Just(b"\n\n".to_vec()),
            Just(b"Content-Type: multipart/mixed; boundary=b\n".to_vec()), proptest::collection::vec(any::<u8>(), 0..9),
        ], 0..30)) {
            let message = data.concat();
            if let Ok(parts) = scan(&message) {
                for (index, part) in parts.iter().enumerate() {
                    prop_assert!(part.header.start <= part.header.end && part.header.end <= part.body.start);
                    prop_assert!(part.body.start <= part.body.end && part.body.end <= message.len());
                    prop_assert!(part.parent.is_none_or(|p| p < index));
                }
            }
        }

        /// What mail-parser sees in well-formed nested messages, this sees too.
        #[test]
        fn agrees_with_mail_parser(tree in tree(), crlf in any::<bool>()) {
            let eol = if crlf { "\r\n" } else { "\n" };
            let mut message = format!("From: a@example.com{eol}");
            write_tree(&tree, &mut message, eol, &mut 0);
            let ours = scan(message.as_bytes()).unwrap();
            let theirs = mail_parser::MessageParser::new().parse(message.as_bytes()).unwrap();
            let leaves = |p: &&Part| !p.is_multipart();
            let ours: Vec<_> = ours.iter().filter(leaves).map(|p| p.body.clone()).collect();
            let theirs: Vec<_> = theirs.parts.iter()
                .filter(|p| !matches!(p.body, mail_parser::PartType::Multipart(_)))
                .map(|p| p.offset_body as usize..p.offset_end as usize).collect();
            prop_assert_eq!(ours, theirs, "{}", message);
        }
    }

    #[derive(Clone, Debug)]
    enum Tree {
        Leaf(String),
        Multi(Vec<Tree>),
    }

    fn tree() -> impl Strategy<Value = Tree> {
        let leaf = "[a-z<>= -]{1,20}".prop_map(Tree::Leaf);
        leaf.prop_recursive(4, 20, 4, |inner| proptest::collection::vec(inner, 1..4).prop_map(Tree::Multi))
    }

    fn write_tree(tree: &Tree, out: &mut String, eol: &str, count: &mut u32) {
        match tree {
            Tree::Leaf(text) => out.push_str(&format!("Content-Type: text/html{eol}{eol}{text}{eol}last{eol}")),
            Tree::Multi(children) => {
                *count += 1;
                let boundary = format!("=_{count}_x");
                out.push_str(&format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"{eol}{eol}"));
                for child in children {
                    out.push_str(&format!("--{boundary}{eol}"));
                    write_tree(child, out, eol, count);
                }
                out.push_str(&format!("--{boundary}--{eol}"));
            }
        }
    }
}
