//! What became of one message: the report that every message has, for machines (serde) and for people (Display).

use super::policy::OffReason;
use crate::mime::charset::CharsetError;
use crate::mime::scan::Broken;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Why something was left as it was: a message, a part, a link, or a message without a pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SkipReason {
    // Of the sender domain: see `OffReason`.
    NoSender,
    UnknownDomain,
    SwitchedOff,
    Disabled,
    NoSubdomain,
    NotVerified,
    NoCertificate,
    ExcludedRecipient,
    OptedOut,
    // Of a message.
    /// By a header field such as X-Trackpost-Track.
    AskedByHeader,
    /// A DKIM signature of the From domain that would break, made with a key that we do not hold.
    DkimSigned,
    /// A structure that readers could see differently: see `mime::scan::Broken`.
    BrokenStructure,
    TooDeep,
    TooManyParts,
    TooManyLinks,
    /// More than tokens can count.
    TooManyRecipients,
    InlinePgp,
    /// A fault of ours.
    Panicked,
    // Of a part.
    SignedPart,
    EncryptedPart,
    Report,
    Pkcs7,
    EmbeddedMessage,
    Attachment,
    Amp,
    Undecodable,
    UnknownEncoding,
    /// One that is unknown, or not ASCII where it looks like it: UTF-16, ISO-2022-JP.
    Charset,
    TooLarge,
    /// HTML of which two readers could see different elements.
    AmbiguousHtml,
    // Of a link.
    OtherScheme,
    Relative,
    Fragment,
    /// `https:x`, `http:\\x`, `http:///x`, and what no browser could request.
    MalformedUrl,
    Placeholder,
    OwnHost,
    ListUnsubscribe,
    TooLong,
    Excluded,
    /// An unquoted value inside a comment, which our URL could end.
    UnquotedInComment,
    // Of the pixel.
    OpenTrackingOff,
    NoHtml,
    NoSafePlace,
    // Of the listener; here, since reports are kept by the places of these names.
    Inbound,
}

impl fmt::Display for SkipReason {
    /// The same word that serde writes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl From<OffReason> for SkipReason {
    fn from(reason: OffReason) -> Self {
        match reason {
            OffReason::NoSender => Self::NoSender,
            OffReason::UnknownDomain => Self::UnknownDomain,
            OffReason::SwitchedOff => Self::SwitchedOff,
            OffReason::Disabled => Self::Disabled,
            OffReason::NoSubdomain => Self::NoSubdomain,
            OffReason::NotVerified => Self::NotVerified,
            OffReason::NoCertificate => Self::NoCertificate,
            OffReason::ExcludedRecipient => Self::ExcludedRecipient,
            OffReason::OptedOut => Self::OptedOut,
            OffReason::Inbound => Self::Inbound,
        }
    }
}

impl From<Broken> for SkipReason {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::HeaderTooLong
            | Broken::NoClosingBoundary
            | Broken::NoBoundary
            | Broken::Contradiction
            | Broken::SharedBoundary
            | Broken::EncodedMultipart => Self::BrokenStructure,
            Broken::TooDeep => Self::TooDeep,
            Broken::TooManyParts => Self::TooManyParts,
        }
    }
}

impl From<CharsetError> for SkipReason {
    fn from(_: CharsetError) -> Self {
        Self::Charset
    }
}

/// Whether a message carries the pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pixel {
    Inserted,
    Skipped(SkipReason),
}

/// Something that the operator may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Note {
    /// The HTML part is over 102 KB as sent: Gmail clips it, and with it the pixel.
    GmailClips,
    /// A 7bit or 8bit part became quoted-printable, since a line would have passed 998 octets.
    BecameQuotedPrintable,
    /// A DKIM signature of the From domain breaks (`on_signed = "rewrite"`).
    SignatureBreaks,
}

/// One link and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkDetail {
    /// The destination, or the value as it stood; cut to 500 octets.
    pub url: Box<str>,
    pub outcome: LinkOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkOutcome {
    /// The link's index in tokens and events.
    Rewritten(u16),
    Skipped(SkipReason),
}

/// The report of one message. Bytes are those of one copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Why the whole message was left alone; then no parts and links are counted as skipped.
    pub skipped: Option<SkipReason>,
    pub parts: u32,
    pub parts_skipped: BTreeMap<SkipReason, u32>,
    pub links_found: u32,
    pub links_rewritten: u32,
    pub links_skipped: BTreeMap<SkipReason, u32>,
    pub pixel: Pixel,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub notes: Vec<Note>,
    /// In order; 8 KB at most.
    pub links: Vec<LinkDetail>,
    /// Links beyond those in `links`.
    pub more_links: u32,
}

/// Octets of detail that a report keeps.
const MAX_DETAIL: usize = 8 << 10;
pub(super) const MAX_URL: usize = 500;
/// What a detail takes beside its URL, about.
const DETAIL_OVERHEAD: usize = 24;

/// First byte of a report as it is kept.
const KEPT_FORMAT: u8 = 1;
/// No report takes more, uncompressed.
const MAX_KEPT: usize = 64 << 10;

impl Report {
    /// The report as log and store keep it: compressed, since the links of a message have much in common.
    pub fn to_kept(&self) -> Option<Vec<u8>> {
        let plain = postcard::to_stdvec(self).ok()?;
        let mut kept = vec![KEPT_FORMAT];
        kept.extend_from_slice(&lz4_flex::block::compress_prepend_size(&plain));
        Some(kept)
    }

    /// The report that [`Self::to_kept`] made; `None` for anything else.
    pub fn from_kept(kept: &[u8]) -> Option<Self> {
        postcard::from_bytes(&unpacked(kept)?).ok()
    }

    /// Why copies carry neither a pixel nor a link of ours; `None` if they do.
    pub fn untracked(&self) -> Option<SkipReason> {
        match (self.skipped, self.pixel) {
            (Some(reason), _) => Some(reason),
            (None, Pixel::Skipped(reason)) if self.links_rewritten == 0 => Some(reason),
            (None, _) => None,
        }
    }

    pub(super) fn new(bytes: usize) -> Self {
        Self {
            skipped: None,
            parts: 0,
            parts_skipped: BTreeMap::new(),
            links_found: 0,
            links_rewritten: 0,
            links_skipped: BTreeMap::new(),
            pixel: Pixel::Skipped(SkipReason::NoHtml),
            bytes_in: bytes as u64,
            bytes_out: bytes as u64,
            notes: Vec::new(),
            links: Vec::new(),
            more_links: 0,
        }
    }

    pub(super) fn skip_part(&mut self, reason: SkipReason) {
        *self.parts_skipped.entry(reason).or_default() += 1;
    }

    pub(super) fn note(&mut self, note: Note) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Counts one link. `room` is what is left of the detail.
    pub(super) fn link(&mut self, url: &str, outcome: LinkOutcome, room: &mut DetailRoom) {
        self.links_found += 1;
        match outcome {
            LinkOutcome::Rewritten(_) => self.links_rewritten += 1,
            LinkOutcome::Skipped(reason) => *self.links_skipped.entry(reason).or_default() += 1,
        }
        let url = &url[..url.floor_char_boundary(MAX_URL)];
        match room.0.checked_sub(url.len() + DETAIL_OVERHEAD) {
            Some(left) => {
                room.0 = left;
                self.links.push(LinkDetail { url: url.into(), outcome });
            }
            None => {
                room.0 = 0;
                self.more_links += 1;
            }
        }
    }
}

/// What counts need of a report: its first fields, without the detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportFacts {
    /// Links that were rewritten.
    pub links: u32,
    pub pixel: bool,
    /// Why there is neither; the first reason of a part where the message itself gives none.
    pub untracked: Option<SkipReason>,
}

impl ReportFacts {
    /// Of what [`Report::to_kept`] made; `None` for anything else.
    pub fn from_kept(kept: &[u8]) -> Option<Self> {
        /// The fields of [`Report`] up to the last one that is wanted.
        #[derive(Deserialize)]
        struct Begin {
            skipped: Option<SkipReason>,
            _parts: u32,
            parts_skipped: BTreeMap<SkipReason, u32>,
            _found: u32,
            rewritten: u32,
            _links_skipped: BTreeMap<SkipReason, u32>,
            pixel: Pixel,
        }
        let plain = unpacked(kept)?;
        let (begin, _) = postcard::take_from_bytes::<Begin>(&plain).ok()?;
        let pixel = begin.pixel == Pixel::Inserted;
        let of_pixel = || match begin.pixel {
            Pixel::Skipped(reason) => Some(reason),
            Pixel::Inserted => None,
        };
        let is_tracked = pixel || begin.rewritten > 0;
        let reason = begin.skipped.or_else(|| begin.parts_skipped.keys().next().copied()).or_else(of_pixel);
        Some(Self { links: begin.rewritten, pixel, untracked: reason.filter(|_| !is_tracked) })
    }
}

fn unpacked(kept: &[u8]) -> Option<Vec<u8>> {
    let (&KEPT_FORMAT, packed) = kept.split_first()? else { return None };
    let (size, block) = lz4_flex::block::uncompressed_size(packed).ok()?;
    if size > MAX_KEPT {
        return None;
    }
    lz4_flex::block::decompress(block, size).ok()
}

/// What is left of the octets for per-link detail.
pub(super) struct DetailRoom(usize);

impl Default for DetailRoom {
    fn default() -> Self {
        Self(MAX_DETAIL)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.skipped {
            Some(reason) => writeln!(f, "message  left as it was: {reason}")?,
            None if self.links_rewritten == 0 && self.pixel != Pixel::Inserted => {
                writeln!(f, "message  nothing to rewrite")?
            }
            None => writeln!(f, "message  rewritten")?,
        }
        writeln!(f, "bytes    {} in, {} out", self.bytes_in, self.bytes_out)?;
        writeln!(f, "parts    {}{}", self.parts, Counts(&self.parts_skipped))?;
        let (found, rewritten) = (self.links_found, self.links_rewritten);
        writeln!(f, "links    {found} found, {rewritten} rewritten{}", Counts(&self.links_skipped))?;
        match self.pixel {
            Pixel::Inserted => writeln!(f, "pixel    inserted")?,
            Pixel::Skipped(reason) => writeln!(f, "pixel    none: {reason}")?,
        }
        for note in &self.notes {
            writeln!(f, "note     {}", note.text())?;
        }
        for link in &self.links {
            match link.outcome {
                LinkOutcome::Rewritten(index) => writeln!(f, "  {index:>4}  {}", link.url)?,
                LinkOutcome::Skipped(reason) => writeln!(f, "     -  {} ({reason})", link.url)?,
            }
        }
        if self.more_links > 0 {
            writeln!(f, "        and {} more", self.more_links)?;
        }
        Ok(())
    }
}

impl Note {
    fn text(self) -> &'static str {
        match self {
            Self::GmailClips => "the HTML is over 102 KB: Gmail clips it",
            Self::BecameQuotedPrintable => "a part became quoted-printable: a line would have passed 998 octets",
            Self::SignatureBreaks => "a DKIM signature of the sender's domain breaks",
        }
    }
}

struct Counts<'a>(&'a BTreeMap<SkipReason, u32>);

impl fmt::Display for Counts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (reason, count)) in self.0.iter().enumerate() {
            write!(f, "{} {count} {reason}", if place == 0 { "; left alone:" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detail_is_bounded() {
        let mut report = Report::new(1);
        let mut room = DetailRoom::default();
        for index in 0..100 {
            report.link(&"ä".repeat(400), LinkOutcome::Rewritten(index), &mut room);
        }
        assert_eq!((report.links.len(), report.more_links, report.links_rewritten), (15, 85, 100));
        assert!(report.to_string().contains("and 85 more"));
    }

    #[test]
    fn words_and_json() {
        assert_eq!(SkipReason::ListUnsubscribe.to_string(), "list-unsubscribe");
        let mut report = Report::new(10);
        report.skip_part(SkipReason::Attachment);
        report.link("mailto:a@example.com", LinkOutcome::Skipped(SkipReason::OtherScheme), &mut DetailRoom::default());
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.contains(r#""links_skipped":{"other-scheme":1}"#), "{json}");
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
        let kept = report.to_kept().unwrap();
        assert_eq!(Report::from_kept(&kept), Some(report.clone()));
        let facts = |report: &Report| ReportFacts::from_kept(&report.to_kept().unwrap()).unwrap();
        let untracked = Some(SkipReason::Attachment);
        assert_eq!(facts(&report), ReportFacts { links: 0, pixel: false, untracked });
        let with_pixel = Report { pixel: Pixel::Inserted, ..report.clone() };
        assert_eq!(facts(&with_pixel), ReportFacts { links: 0, pixel: true, untracked: None });
        let off = Report { skipped: Some(SkipReason::Disabled), ..report.clone() };
        assert_eq!(facts(&off).untracked, Some(SkipReason::Disabled));
        for end in 0..kept.len() {
            assert_eq!(Report::from_kept(&kept[..end]), None);
        }
        assert_eq!(Report::from_kept(&[KEPT_FORMAT, 0xff, 0xff, 0xff, 0xff, 0]), None, "no bomb");
        assert!(report.to_string().contains("links    1 found, 0 rewritten; left alone: 1 other-scheme"));
    }
}
