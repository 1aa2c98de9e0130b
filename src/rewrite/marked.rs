//! What a person is shown of a message: one HTML part as text, with its links and what became of each; or its plain text.
//!
//! Owns: which part that is, and how a link of it is told from the [`Report`]. The report says what was done when the
//! message was sent, which today's settings could not. It keeps the details of some links only: others are judged anew,
//! by the rules that hold for all. Does not: make the HTML harmless. It is as its sender wrote it.

use super::draft::{decode, untouchable};
use super::link::{Rules, destination};
use super::policy::Wishes;
use super::report::MAX_URL;
use super::{Limits, LinkOutcome, Report, SkipReason, html, read_header};
use crate::mail::DomainName;
use crate::mime::scan::{Part, Transfer, scan};
use crate::mime::transfer::{decode_base64, decode_quoted_printable};
use encoding_rs::{Encoding, UTF_8};
use lol_html::AsciiCompatibleEncoding;
use std::ops::Range;

/// One part of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// HTML parts that there are to choose from.
    pub html_parts: usize,
    pub shown: Shown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    Html(MarkedHtml),
    /// A message without HTML: its text.
    Text(String),
    /// There is neither.
    Nothing,
    /// It cannot be shown: why rewriting leaves the like alone.
    Not(SkipReason),
}

/// An HTML document with its links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedHtml {
    pub text: String,
    /// In order. `None` where readers could see different elements, so that they cannot be told.
    pub links: Option<Vec<MarkedLink>>,
}

/// One link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedLink {
    /// The value of its `href` in the document, without quotes.
    pub value: Range<usize>,
    /// The destination, or the value as it stood.
    pub url: String,
    pub mark: Mark,
}

/// What became of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Tracked,
    Left(SkipReason),
    /// Links of this message were not looked at: clicks were not to be tracked.
    Off,
    /// Nothing is known of it: the message was not tried yet, or no report was kept.
    Unknown,
}

/// The HTML part number `nth` of those that are no attachments, from 0; the text of a message that has none. `hosts`: the
/// tracking hosts of the sender domain. Documents over `most` octets are [`SkipReason::TooLarge`].
pub fn marked(message: &[u8], report: Option<&Report>, hosts: &[&DomainName], nth: usize, most: usize) -> Marked {
    let parts = match scan(message) {
        Ok(parts) => parts,
        Err(broken) => return Marked { html_parts: 0, shown: Shown::Not(broken.into()) },
    };
    let reasons = reasons(&parts);
    let is_shown = |media: &str, place: usize| parts[place].media() == media && shows(reasons[place]);
    let html: Vec<usize> = (0..parts.len()).filter(|place| is_shown("text/html", *place)).collect();
    let shown = match html.get(nth) {
        Some(place) => {
            let left = report.and_then(|report| report.skipped).or(reasons[*place]);
            html_part(message, &parts[*place], report, left, hosts, most)
        }
        None if html.is_empty() => {
            let text = (0..parts.len()).find(|place| is_shown("text/plain", *place));
            text.map_or(Shown::Nothing, |place| text_part(message, &parts[place], most))
        }
        None => Shown::Nothing,
    };
    Marked { html_parts: html.len(), shown }
}

/// Why each part, and what is inside it, is never touched.
fn reasons(parts: &[Part]) -> Vec<Option<SkipReason>> {
    let mut reasons: Vec<Option<SkipReason>> = Vec::with_capacity(parts.len());
    for part in parts {
        let inherited = part.parent.and_then(|parent| reasons[parent]);
        reasons.push(inherited.or_else(|| untouchable(part)));
    }
    reasons
}

/// What is signed is read as mail all the same; an attachment is not.
fn shows(reason: Option<SkipReason>) -> bool {
    matches!(reason, None | Some(SkipReason::SignedPart | SkipReason::Report | SkipReason::BrokenStructure))
}

fn html_part(
    message: &[u8],
    part: &Part,
    report: Option<&Report>,
    left: Option<SkipReason>,
    hosts: &[&DomainName],
    most: usize,
) -> Shown {
    let limits = Limits { max_html_size: most, ..Limits::default() };
    let (body, encoding) = match decode(message, part, &limits) {
        Ok(decoded) => decoded,
        Err(reason) => return Shown::Not(reason),
    };
    let (text, _) = <&Encoding>::from(encoding).decode_without_bom_handling(body.text());
    let text = text.into_owned();
    if text.len() > most {
        return Shown::Not(SkipReason::TooLarge);
    }
    let utf_8 = AsciiCompatibleEncoding::utf_8();
    let Ok(found) = html::find(text.as_bytes(), utf_8, Some(limits.max_links), false) else {
        return Shown::Html(MarkedHtml { text, links: None });
    };
    let wishes = read_header(message);
    let judge = Judge { report, left, hosts, wishes: &wishes };
    let links = found.sites.iter().map(|site| judge.link(&text, site)).collect();
    Shown::Html(MarkedHtml { text, links: Some(links) })
}

/// What links are told by.
struct Judge<'a> {
    report: Option<&'a Report>,
    /// Why the whole part was left alone.
    left: Option<SkipReason>,
    hosts: &'a [&'a DomainName],
    wishes: &'a Wishes,
}

impl Judge<'_> {
    fn link(&self, text: &str, site: &html::Site) -> MarkedLink {
        let rules = Rules { hosts: self.hosts.to_vec(), unsubscribe: &self.wishes.unsubscribe };
        let judged = destination(&text.as_bytes()[site.value.clone()], UTF_8, &rules);
        let judged = judged.and_then(|url| match () {
            () if site.excluded => Err((SkipReason::Excluded, url)),
            () if site.fragile => Err((SkipReason::UnquotedInComment, url)),
            () => Ok(url),
        });
        let (url, reason) = match judged {
            Ok(url) => (url, None),
            Err((reason, url)) => (url, Some(reason)),
        };
        let mark = self.mark(&url, reason);
        MarkedLink { value: site.value.clone(), url, mark }
    }

    /// `reason`: what speaks against rewriting it, by the rules that hold for all.
    fn mark(&self, url: &str, reason: Option<SkipReason>) -> Mark {
        let Some(report) = self.report else { return self.left.map_or(Mark::Unknown, Mark::Left) };
        if let Some(left) = self.left {
            return Mark::Left(left);
        }
        if report.links_found == 0 {
            // Here is one, so rewriting had not looked for any.
            return Mark::Off;
        }
        let cut = &url[..url.floor_char_boundary(MAX_URL)];
        let mut detail = report.links.iter().filter(|link| *link.url == *cut).map(|link| link.outcome);
        // One that the sender excludes can stand beside another with the same destination.
        let outcome = match reason {
            Some(reason) => detail.clone().find(|outcome| *outcome == LinkOutcome::Skipped(reason)).or(detail.next()),
            None => detail.clone().find(|outcome| matches!(outcome, LinkOutcome::Rewritten(_))).or(detail.next()),
        };
        match (outcome, reason) {
            (Some(LinkOutcome::Rewritten(_)), _) => Mark::Tracked,
            (Some(LinkOutcome::Skipped(reason)), _) | (None, Some(reason)) => Mark::Left(reason),
            (None, None) if report.more_links > 0 && report.links_rewritten > 0 => Mark::Tracked,
            (None, None) => Mark::Unknown,
        }
    }
}

fn text_part(message: &[u8], part: &Part, most: usize) -> Shown {
    let encoded = &message[part.body.clone()];
    if encoded.len() / 4 > most {
        return Shown::Not(SkipReason::TooLarge);
    }
    let decoded = match part.transfer {
        Transfer::Identity => Ok(encoded.to_vec()),
        Transfer::QuotedPrintable => decode_quoted_printable(encoded).map(|decoded| decoded.bytes),
        Transfer::Base64 => decode_base64(encoded).map(|decoded| decoded.bytes),
        Transfer::Unknown => return Shown::Not(SkipReason::UnknownEncoding),
    };
    let Ok(bytes) = decoded else { return Shown::Not(SkipReason::Undecodable) };
    let label = part.content.parameter("charset").and_then(Encoding::for_label);
    let (text, ..) = label.unwrap_or(UTF_8).decode(&bytes);
    match text.len() > most {
        true => Shown::Not(SkipReason::TooLarge),
        false => Shown::Text(text.into_owned()),
    }
}

#[cfg(test)]
mod tests;
