//! A list of mailboxes, read strictly (RFC 5322 §3.4), so that no other reader finds an address in it that we do not.
//!
//! Owns: the grammar. Only what all readers agree on passes: no group, no route, no address literal, nothing between
//! local part, `@` and domain, nothing obsolete but the dot in a display name. Does not: say whose the domains are.

use super::encoded_word;
use crate::mail::DomainName;

/// What names a domain in a field of mailboxes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mailboxes {
    /// The addresses as they are written, at least one.
    pub addresses: Vec<String>,
    /// The domain of each.
    pub domains: Vec<DomainName>,
    /// Every other domain behind an `@` that a reader may take for part of an address: in comments and in encoded words.
    pub mentioned: Vec<DomainName>,
}

/// Reads the value of a field, folding and all. `None`: it is no plain list of mailboxes.
pub fn parse(value: &[u8]) -> Option<Mailboxes> {
    let text = unfolded(value)?;
    let mut reader = Reader { rest: &text, quoted: String::new(), specials: false, found: Mailboxes::default() };
    loop {
        reader.mailbox()?;
        match reader.rest.chars().next() {
            None => break,
            Some(',') => reader.skip(1),
            Some(_) => return None,
        }
    }
    if reader.specials {
        let quoted = std::mem::take(&mut reader.quoted);
        reader.mention(&quoted, false)?;
    }
    Some(reader.found)
}

/// What gives a list of mailboxes its structure (RFC 5322 §3.2.3). In an encoded word it means nothing, but to readers who
/// decode first.
const SPECIALS: [char; 11] = ['"', '\\', '(', ')', '<', '>', '[', ']', ',', ':', ';'];

/// Longer than any header that people read.
const MAX_VALUE: usize = 64 << 10;

/// With LF for each line end of folding, which has white space behind it. `None` where it is not UTF-8 (RFC 6532) or
/// holds other controls.
fn unfolded(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= MAX_VALUE)?;
    let text = text.replace("\r\n", "\n");
    if text.split('\n').skip(1).any(|line| !line.starts_with([' ', '\t'])) {
        return None;
    }
    // U+2028 and U+2029 end a line too, as some see it.
    let ends_lines = |c: char| !matches!(c, '\t' | '\n') && (c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'));
    Some(text).filter(|text| !text.contains(ends_lines))
}

struct Reader<'a> {
    rest: &'a str,
    /// All that stands in quotes, decoded. It is no part of an address, unless there are `specials`.
    quoted: String,
    /// An encoded word holds [`SPECIALS`]: who decodes first sees other quotes. Or quotes or a comment are folded: some
    /// readers end them with the line.
    specials: bool,
    found: Mailboxes,
}

impl<'a> Reader<'a> {
    /// `[display-name] "<" addr-spec ">"` or `addr-spec`, with comments and white space around.
    fn mailbox(&mut self) -> Option<()> {
        self.blanks_and_comments()?;
        // The display name so far, as a reader sees it who decodes before reading.
        let mut name = String::new();
        let mut address_for_name = false;
        loop {
            match self.rest.chars().next()? {
                '<' => {
                    self.skip(1);
                    self.address(true)?;
                    self.rest = self.rest.strip_prefix('>')?;
                    break;
                }
                // A name behind an address would be a second name.
                _ if address_for_name => return None,
                '"' => {
                    let inside = self.quoted_string()?;
                    self.specials |= inside.contains('\n');
                    let decoded = self.decoded(&inside)?;
                    self.quoted.push_str(&decoded);
                    self.quoted.push(' ');
                    name.push(' ');
                    // No comment may follow: readers differ in what it then belongs to.
                    self.blanks();
                    if self.rest.starts_with('(') {
                        return None;
                    }
                }
                c if is_atom(c) => {
                    let end = self.rest.find(|c: char| !is_atom(c)).unwrap_or(self.rest.len());
                    if self.rest[end..].starts_with('@') {
                        if !name.is_empty() {
                            return None;
                        }
                        self.address(false)?;
                        self.blanks();
                        // `a@example.com <a@example.com>`, which many programs write for want of a name.
                        if !self.rest.starts_with('<') {
                            break;
                        }
                        address_for_name = true;
                        continue;
                    }
                    let word = &self.rest[..end];
                    if word.contains("=?") {
                        encoded_word::decode(word)?;
                    }
                    name.push_str(word);
                    self.skip(end);
                    // A word ends with white space, or where the next thing can be no word.
                    if self.rest.starts_with('"') {
                        return None;
                    }
                    let before = self.rest.len();
                    self.blanks_and_comments()?;
                    if self.rest.len() < before {
                        name.push(' ');
                    }
                }
                _ => return None,
            }
        }
        let decoded = self.decoded(&name)?;
        self.mention(&decoded, true)?;
        self.blanks_and_comments()
    }

    /// `local-part "@" domain`, with nothing between them.
    fn address(&mut self, in_brackets: bool) -> Option<()> {
        let whole = self.rest;
        let local = if in_brackets && whole.starts_with('"') {
            let inside = self.quoted_string()?;
            // What a quoted local part is good for; everything else is there to mislead.
            inside.chars().all(|c| is_atom(c) || c == ' ').then_some(inside)?
        } else {
            let end = whole.find(|c: char| !is_atom(c))?;
            self.skip(end);
            whole[..end].to_owned()
        };
        // An encoded word is none here, but readers decode it all the same.
        if local.is_empty() || local.contains("=?") {
            return None;
        }
        self.rest = self.rest.strip_prefix('@')?;
        let end = self.rest.find(|c: char| !is_domain(c)).unwrap_or(self.rest.len());
        let domain = domain(&self.rest[..end])?;
        self.skip(end);
        self.found.addresses.push(whole[..whole.len() - self.rest.len()].to_owned());
        self.found.domains.push(domain);
        Some(())
    }

    /// What stands between the quotes, with its quoted pairs resolved.
    fn quoted_string(&mut self) -> Option<String> {
        let mut inside = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        loop {
            match chars.next()? {
                (at, '"') => {
                    self.skip(at + 1);
                    // The next word has to stand apart.
                    return (!self.rest.starts_with(|c: char| is_atom(c) || c == '"')).then_some(inside);
                }
                (_, '\\') => inside.push(chars.next().map(|(_, c)| c).filter(|c| matches!(c, '"' | '\\'))?),
                (_, c) => inside.push(c),
            }
        }
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n']);
    }

    /// Comments without comments and quoted pairs inside.
    fn blanks_and_comments(&mut self) -> Option<()> {
        loop {
            self.blanks();
            let Some(inside) = self.rest.strip_prefix('(') else { return Some(()) };
            let (comment, rest) = inside.split_once(')')?;
            if comment.contains(['(', '\\', '"', '<', '>']) {
                return None;
            }
            self.mention(comment, false)?;
            self.specials |= comment.contains('\n');
            let decoded = self.decoded(comment)?;
            if decoded != comment {
                // Decoded first, this would end the comment, and what is behind it might belong to a domain before it.
                if decoded.contains(['(', ')', '\\']) {
                    return None;
                }
                self.mention(&decoded, false)?;
            }
            self.rest = rest;
            if self.rest.starts_with(is_atom) {
                return None;
            }
        }
    }

    fn decoded(&mut self, text: &str) -> Option<String> {
        let decoded = encoded_word::decode_all(text)?;
        self.specials |= decoded.words.contains(SPECIALS);
        Some(decoded.text)
    }

    /// Notes each domain behind an `@`. `None` where one cannot be told; in a name, `@home` is none.
    fn mention(&mut self, text: &str, in_name: bool) -> Option<()> {
        for (at, _) in text.match_indices('@') {
            let behind = text[at + 1..].trim_start();
            // Some readers skip white space before a dot; three more characters are dots in an IDN (RFC 3490 §3.1).
            if in_name && !behind.contains(['.', '[', '\u{3002}', '\u{ff0e}', '\u{ff61}']) {
                continue;
            }
            let end = behind.find(|c: char| !is_domain(c)).unwrap_or(behind.len());
            self.found.mentioned.push(DomainName::parse(behind[..end].trim_end_matches('.')).ok()?);
        }
        Some(())
    }

    fn skip(&mut self, octets: usize) {
        self.rest = &self.rest[octets..];
    }
}

/// RFC 5322 §3.2.3 and RFC 6532 §3.2; with the dot, which stands in local parts, and in names since ever.
fn is_atom(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c) || (!c.is_ascii() && !c.is_whitespace())
}

fn is_domain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-') || (!c.is_ascii() && !c.is_whitespace())
}

/// A name that needs no interpretation: IDN are as they are shown, not in one of the spellings that are mapped to it.
fn domain(written: &str) -> Option<DomainName> {
    let name = DomainName::parse(written).ok()?;
    let plain = written.is_ascii() || idna::domain_to_unicode(name.as_str()).0 == written.to_lowercase();
    plain.then_some(name)
}

#[cfg(test)]
mod tests;
