//! A plan in the making: from a message and what may be tracked to links, pieces and report.
//!
//! Owns: the order of the steps, and which parts are touched at all. Does not: know HTML, URLs or transfer encodings;
//! the modules beside it do.

use super::html::{self, Found, HtmlError};
use super::link::{Rules, destination};
use super::policy::Wishes;
use super::report::DetailRoom;
use super::splice::{self, Edit, Encoded, Form, Insert, Piece, Splice, Texts, Tokens};
use super::{Limits, LinkOutcome, Note, Pixel, Plan, Policy, Report, SkipReason, Tracking, pixel};
use crate::mime::charset;
use crate::mime::header::line_end_of;
use crate::mime::label::relabel;
use crate::mime::scan::{Part, Transfer, scan};
use crate::mime::transfer::{Decoded, Undecodable, decode_base64, decode_quoted_printable};
use crate::token::{MAX_INDEX, Width, click_len};
use lol_html::AsciiCompatibleEncoding;
use memchr::memmem;
use std::ops::Range;

/// A line may have so many octets without its end (RFC 5322 §2.1.1).
const MAX_LINE: usize = 998;
/// Gmail shows no more of a message.
const GMAIL_CLIPS: usize = 102 << 10;

/// One HTML part in work.
struct Work<'m> {
    part: usize,
    body: Body<'m>,
    encoding: AsciiCompatibleEncoding,
    found: Found,
    edits: Vec<Edit>,
}

/// The text of a part in its charset.
pub(super) enum Body<'m> {
    Identity(&'m [u8]),
    QuotedPrintable(Decoded),
    Base64(Decoded),
}

impl Body<'_> {
    pub fn text(&self) -> &[u8] {
        match self {
            Self::Identity(text) => text,
            Self::QuotedPrintable(decoded) | Self::Base64(decoded) => &decoded.bytes,
        }
    }
}

/// A stretch of a header, and what stands there instead.
type HeaderChange = (Range<usize>, Option<Box<[u8]>>);

/// A plan in the making.
pub(super) struct Draft {
    report: Report,
    pieces: Vec<Piece>,
    width: Width,
    links: Vec<Box<str>>,
}

impl Draft {
    pub fn untouched(message: &[u8], reason: SkipReason) -> Self {
        let mut draft = Self::empty(message);
        draft.report.skipped = Some(reason);
        draft.report.pixel = Pixel::Skipped(reason);
        draft
    }

    fn empty(message: &[u8]) -> Self {
        let report = Report::new(message.len());
        Self { report, pieces: Vec::new(), width: Width::for_message(1, 1), links: Vec::new() }
    }

    pub fn new(message: &[u8], policy: &Policy, wishes: &Wishes, recipients: usize) -> Self {
        let mut draft = Self::empty(message);
        if let Err(reason) = draft.draw(message, policy, wishes, recipients) {
            draft.pieces.clear();
            draft.links.clear();
            let report = &mut draft.report;
            (report.skipped, report.pixel) = (Some(reason), Pixel::Skipped(reason));
            // One reason a message: what was counted up to here is told by it, or no longer matters.
            report.parts_skipped.clear();
            report.notes.clear();
        }
        draft
    }

    /// An error is why the whole message is left alone.
    fn draw(&mut self, message: &[u8], policy: &Policy, wishes: &Wishes, recipients: usize) -> Result<(), SkipReason> {
        if let Some(reason) = wishes.refusal(policy) {
            return Err(reason);
        }
        if recipients > usize::from(MAX_INDEX) + 1 {
            return Err(SkipReason::TooManyRecipients);
        }
        let open = policy.open && !wishes.no_opens;
        let click = policy.click && !wishes.no_clicks;
        let parts = scan(message)?;
        self.report.parts = parts.len() as u32;
        let html = self.html_parts(message, &parts)?;
        let mut works = Vec::with_capacity(html.len());
        let mut failed = SkipReason::NoHtml;
        for part in html {
            match decode(message, &parts[part], &policy.limits) {
                Err(SkipReason::InlinePgp) => return Err(SkipReason::InlinePgp),
                Ok((body, encoding)) => {
                    works.push(Work { part, body, encoding, found: Found::default(), edits: Vec::new() });
                }
                Err(reason) => {
                    failed = reason;
                    self.report.skip_part(reason);
                }
            }
        }
        if !open {
            failed = SkipReason::OpenTrackingOff;
        }
        self.report.pixel = Pixel::Skipped(failed);
        self.search(message, &parts, &mut works, policy, open, click)?;
        if works.is_empty() {
            // Where all that would be shown as HTML had to be left alone, so was the message.
            let beside = [SkipReason::Attachment, SkipReason::EmbeddedMessage, SkipReason::Amp, SkipReason::Pkcs7];
            let reason = self.report.parts_skipped.keys().find(|reason| !beside.contains(reason));
            return reason.map_or(Ok(()), |reason| Err(*reason));
        }
        self.decide(&mut works, policy, wishes, recipients);
        if works.iter().any(|work| !work.edits.is_empty()) {
            self.lay_out(message, &parts, &works, policy, wishes);
        }
        Ok(())
    }

    /// The parts that may be rewritten.
    fn html_parts(&mut self, message: &[u8], parts: &[Part]) -> Result<Vec<usize>, SkipReason> {
        let mut html = Vec::new();
        let mut reasons: Vec<Option<SkipReason>> = Vec::with_capacity(parts.len());
        for part in parts {
            let inherited = part.parent.and_then(|parent| reasons[parent]);
            let reason = inherited.or_else(|| untouchable(part));
            reasons.push(reason);
            match reason {
                Some(reason) if part.parent.is_none() => return Err(reason),
                // Of the many attachments only those count that would have been rewritten.
                Some(SkipReason::Attachment) if part.media() != "text/html" => {}
                // To the sender, what is signed, encrypted or a report is one thing.
                Some(SkipReason::SignedPart | SkipReason::EncryptedPart | SkipReason::Report)
                    if inherited.is_some() => {}
                Some(reason) => self.report.skip_part(reason),
                None if part.media() == "text/html" && has_no_room(message, part) => {}
                None if part.media() == "text/html" => html.push(reasons.len() - 1),
                None if part.media().starts_with("text/") && has_pgp(message, part) => {
                    return Err(SkipReason::InlinePgp);
                }
                None => {}
            }
        }
        Ok(html)
    }

    /// Looks for links in all parts, and for the pixel's place in the part that is to have it.
    fn search(
        &mut self,
        message: &[u8],
        parts: &[Part],
        works: &mut Vec<Work<'_>>,
        policy: &Policy,
        open: bool,
        click: bool,
    ) -> Result<(), SkipReason> {
        let candidates: Vec<usize> = works.iter().map(|work| work.part).collect();
        let preference = if open { pixel::preference(message, parts, &candidates) } else { Vec::new() };
        let mut target = preference.first().copied();
        let mut room = policy.limits.links();
        let mut broken = Vec::new();
        for work in works.iter_mut() {
            let wanted = target == Some(work.part);
            match html::find(work.body.text(), work.encoding, click.then_some(room), wanted) {
                Ok(found) => {
                    room -= found.sites.len();
                    work.found = found;
                }
                Err(HtmlError::TooManyLinks) => return Err(SkipReason::TooManyLinks),
                Err(HtmlError::Ambiguous) => {
                    self.report.skip_part(SkipReason::AmbiguousHtml);
                    self.report.pixel = Pixel::Skipped(SkipReason::AmbiguousHtml);
                    broken.push(work.part);
                }
            }
        }
        works.retain(|work| broken.binary_search(&work.part).is_err());
        // Where the part of choice has no place for the pixel, the next one may have.
        for choice in preference {
            // In the order of parts, as all lists here are.
            let Ok(place) = works.binary_search_by_key(&choice, |work| work.part) else { continue };
            let work = &mut works[place];
            if target.replace(choice) != Some(choice) {
                work.found.pixel =
                    html::find(work.body.text(), work.encoding, None, true).ok().and_then(|found| found.pixel);
            }
            if work.found.pixel.is_some() {
                self.report.pixel = Pixel::Inserted;
                break;
            }
            self.report.pixel = Pixel::Skipped(SkipReason::NoSafePlace);
        }
        Ok(())
    }

    /// Decides on each link and numbers those that are rewritten.
    fn decide(&mut self, works: &mut [Work<'_>], policy: &Policy, wishes: &Wishes, recipients: usize) {
        let sites = works.iter().map(|work| work.found.sites.len()).sum();
        // The width for all links that were found: never less than what those rewritten need.
        self.width = Width::for_message(recipients, sites);
        let hosts = policy.own_hosts.iter().chain([&policy.host]).collect();
        let rules = Rules { hosts, unsubscribe: &wishes.unsubscribe };
        let prefix = policy.base_url().len() + "/c/".len();
        let mut room = DetailRoom::default();
        for work in works {
            let text = work.body.text();
            for site in &work.found.sites {
                let judged = destination(&text[site.value.clone()], work.encoding.into(), &rules);
                let judged = judged.and_then(|url| match () {
                    () if site.excluded => Err((SkipReason::Excluded, url)),
                    () if site.fragile => Err((SkipReason::UnquotedInComment, url)),
                    () if prefix + click_len(url.len(), self.width) > policy.limits.max_link_length => {
                        Err((SkipReason::TooLong, url))
                    }
                    () => Ok(url),
                });
                match judged {
                    Ok(url) => {
                        let index = self.links.len() as u16;
                        self.report.link(&url, LinkOutcome::Rewritten(index), &mut room);
                        self.links.push(url.into());
                        work.edits.push(Edit { range: site.value.clone(), insert: Insert::Link(index) });
                    }
                    Err((reason, url)) => self.report.link(&url, LinkOutcome::Skipped(reason), &mut room),
                }
            }
            if let Some(at) = work.found.pixel {
                let place = work.edits.partition_point(|edit| edit.range.start < at);
                work.edits.insert(place, Edit { range: at..at, insert: Insert::Pixel });
            }
        }
    }

    /// Turns the edits into pieces.
    fn lay_out(&mut self, message: &[u8], parts: &[Part], works: &[Work<'_>], policy: &Policy, wishes: &Wishes) {
        let base = policy.base_url();
        let texts = Texts { base: &base, width: self.width, links: &self.links };
        let eol = line_end_of(message);
        let mut header: Vec<HeaderChange> = wishes.removed.iter().map(|span| (span.clone(), None)).collect();
        let mut converted = Vec::new();
        for work in works {
            let text = work.body.text();
            let (grown, shrunk) = work
                .edits
                .iter()
                .fold((0, 0), |(grown, shrunk), edit| (grown + texts.length(edit.insert), shrunk + edit.range.len()));
            if text.len() + grown - shrunk > GMAIL_CLIPS {
                self.report.note(Note::GmailClips);
            }
            if matches!(work.body, Body::Identity(_)) && splice::passes(text, &work.edits, &texts, MAX_LINE) {
                converted.push(work.part);
                let label = relabel(message, &parts[work.part], "quoted-printable", eol);
                header.extend(label.into_iter().map(|(range, text)| (range, Some(text))));
            }
        }
        header.sort_by_key(|(range, _)| range.start);
        let mut header = header.into_iter().peekable();
        let mut splice = Splice::default();
        for work in works.iter().filter(|work| !work.edits.is_empty()) {
            let body = parts[work.part].body.clone();
            while let Some((range, text)) = header.next_if(|(range, _)| range.start < body.start) {
                splice.replace(range, text.map(Piece::Literal));
            }
            match &work.body {
                Body::Identity(text) if converted.contains(&work.part) => {
                    let encoded =
                        Encoded { text: (*text).into(), edits: work.edits.clone(), form: Form::QuotedPrintable };
                    splice.replace(body, [Piece::Encoded(Box::new(encoded))]);
                }
                Body::Identity(_) => splice.plain(body.start, &work.edits),
                Body::QuotedPrintable(decoded) => splice.quoted_printable(message, body, decoded, &work.edits),
                Body::Base64(decoded) => splice.base64(message, body, decoded, &work.edits),
            }
        }
        self.pieces = splice.finish(message.len());
        if !converted.is_empty() {
            self.report.note(Note::BecameQuotedPrintable);
        }
        if !policy.signs && wishes.signed_by.iter().any(|domain| domain == policy.domain.as_str()) {
            self.report.note(Note::SignatureBreaks);
        }
        let mut measured = Vec::with_capacity(message.len() + message.len() / 4);
        splice::write(message, &self.pieces, &texts, Tokens::Blank, eol, &mut measured);
        self.report.bytes_out = measured.len() as u64;
    }

    pub fn into_plan(mut self, message: &[u8], tracking: &Tracking, removed: Vec<Range<usize>>) -> Plan {
        if self.pieces.is_empty() {
            self.report.bytes_out -= removed.iter().map(ExactSizeIterator::len).sum::<usize>() as u64;
        }
        let base = match tracking {
            Tracking::Active(policy) => policy.base_url(),
            Tracking::Off(_) => String::new(),
        };
        let Self { report, pieces, width, links } = self;
        Plan { pieces, removed, base, width, links, eol: line_end_of(message), report }
    }
}

/// Why a part, and what is inside it, is never touched.
pub(super) fn untouchable(part: &Part) -> Option<SkipReason> {
    match part.media() {
        "multipart/signed" => Some(SkipReason::SignedPart),
        "multipart/encrypted" => Some(SkipReason::EncryptedPart),
        "multipart/report" => Some(SkipReason::Report),
        "application/pkcs7-mime" | "application/x-pkcs7-mime" => Some(SkipReason::Pkcs7),
        "text/x-amp-html" => Some(SkipReason::Amp),
        media if media.starts_with("message/") => Some(SkipReason::EmbeddedMessage),
        // A type that nobody knows is an attachment (RFC 2183 §2.8).
        _ if part.disposition.as_deref().is_some_and(|d| !matches!(d, "" | "inline")) => Some(SkipReason::Attachment),
        "text/html" if part.contradictory => Some(SkipReason::BrokenStructure),
        _ => None,
    }
}

/// True for an empty body that has no line of its own: the header ends, or the next boundary begins, right there.
fn has_no_room(message: &[u8], part: &Part) -> bool {
    let at_boundary = || part.parent.is_some() && message[part.body.start..].starts_with(b"--");
    part.body.is_empty() && (part.body.start == part.header.end || at_boundary())
}

/// The text of an HTML part and its charset.
pub(super) fn decode<'m>(
    message: &'m [u8],
    part: &Part,
    limits: &Limits,
) -> Result<(Body<'m>, AsciiCompatibleEncoding), SkipReason> {
    let encoded = &message[part.body.clone()];
    // Quoted-printable shrinks to a third at most, soft breaks apart.
    if encoded.len() / 4 > limits.max_html_size {
        return Err(SkipReason::TooLarge);
    }
    let body = match part.transfer {
        Transfer::Identity => Body::Identity(encoded),
        Transfer::QuotedPrintable => {
            decode_quoted_printable(encoded).map(Body::QuotedPrintable).map_err(undecodable)?
        }
        Transfer::Base64 => decode_base64(encoded).map(Body::Base64).map_err(undecodable)?,
        Transfer::Unknown => return Err(SkipReason::UnknownEncoding),
    };
    let text = body.text();
    if text.len() > limits.max_html_size {
        return Err(SkipReason::TooLarge);
    }
    if mentions_pgp(text) {
        return Err(SkipReason::InlinePgp);
    }
    let encoding = charset::of_html(part.content.parameter("charset"), text)?;
    Ok((body, encoding))
}

fn undecodable(_: Undecodable) -> SkipReason {
    SkipReason::Undecodable
}

/// True for text that holds an OpenPGP message in its own armour (RFC 9580 §6.2), also where the whole of it is
/// base64.
fn has_pgp(message: &[u8], part: &Part) -> bool {
    let body = &message[part.body.clone()];
    match part.transfer {
        // "-----BEGIN PGP " at the beginning.
        Transfer::Base64 => body.trim_ascii_start().starts_with(b"LS0tLS1CRUdJTiBQR1Ag"),
        _ => mentions_pgp(body),
    }
}

fn mentions_pgp(text: &[u8]) -> bool {
    memmem::find_iter(text, b"-----BEGIN PGP ").any(|at| {
        let kind = &text[at + 15..];
        kind.starts_with(b"MESSAGE-----") || kind.starts_with(b"SIGNED MESSAGE-----")
    })
}
