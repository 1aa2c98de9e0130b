//! What may be tracked: the sender domain's policy, and what a message asks for itself.
//!
//! Owns: [`Tracking`] as the caller hands it in, and the header fields by which a sender asks for less (ours and those
//! of other providers). Does not: decide whether a domain is verified or a certificate is there; the caller knows.

use super::report::SkipReason;
use crate::mail::DomainName;
use crate::mime::header::{Field, unfold};
use crate::token::MAX_INDEX;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// Whether mail of the From domain is tracked, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tracking {
    Active(Policy),
    Off(OffReason),
}

/// Why mail of a domain is not tracked at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OffReason {
    /// From is missing or cannot be read.
    NoSender,
    UnknownDomain,
    /// The panic switch.
    SwitchedOff,
    /// Neither open nor click tracking is on.
    Disabled,
    NoSubdomain,
    NotVerified,
    /// No browser would accept the links yet.
    NoCertificate,
    /// No recipient is tracked, the first since the domain excludes them.
    ExcludedRecipient,
    /// No recipient is tracked, the first since they have opted out.
    OptedOut,
    /// It came in by an inbound listener: nothing in it is ours to read or remove.
    Inbound,
}

/// Scheme of the links that we write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    Http,
    #[default]
    Https,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

/// What to do with a message that its own domain has signed with a key that is not ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnSigned {
    #[default]
    Skip,
    Rewrite,
}

/// Bounds within which messages are rewritten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Characters of a link as we write it; one that would be longer is left alone.
    pub max_link_length: usize,
    /// A message with more links is left alone. Never over 32,768, whatever is set: tokens count no further.
    pub max_links: usize,
    /// Octets of one HTML part, decoded.
    pub max_html_size: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_link_length: 2_000, max_links: 5_000, max_html_size: 8 << 20 }
    }
}

impl Limits {
    pub(super) fn links(&self) -> usize {
        self.max_links.min(usize::from(MAX_INDEX) + 1)
    }
}

/// The tracking of one sender domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The From domain.
    pub domain: DomainName,
    /// Add the pixel.
    pub open: bool,
    /// Rewrite links.
    pub click: bool,
    pub scheme: Scheme,
    /// The tracking host in use.
    pub host: DomainName,
    /// Port in the links; 0: none is written.
    pub port: u16,
    /// All tracking hosts of the domain: links to them, and to [`Self::host`], are left alone.
    pub own_hosts: Vec<DomainName>,
    pub on_signed: OnSigned,
    /// We hold a DKIM key in use for the domain and sign what we rewrite.
    pub signs: bool,
    pub limits: Limits,
}

impl Policy {
    /// `SCHEME://HOST[:PORT]`.
    pub fn base_url(&self) -> String {
        match self.port {
            0 => format!("{}://{}", self.scheme, self.host),
            port => format!("{}://{}:{port}", self.scheme, self.host),
        }
    }
}

/// What the header of one message asks for, and what is removed from it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    pub no_opens: bool,
    pub no_clicks: bool,
    /// Fields that never leave us: X-Trackpost-Track and X-Trackpost-Tag, folding included.
    pub removed: Vec<Range<usize>>,
    /// Domains (`d=`) of DKIM-Signature fields, in lower case.
    pub signed_by: Vec<String>,
    /// URLs of List-Unsubscribe (RFC 2369 §3.2).
    pub unsubscribe: Vec<String>,
}

impl Wishes {
    /// Reads one field of the message's header.
    pub fn read(&mut self, message: &[u8], field: &Field) {
        let name = &message[field.name.clone()];
        let value = || unfold(&message[field.value.clone()]);
        // Only names with these first letters matter; most fields end here.
        match name[0].to_ascii_lowercase() {
            b'x' => self.read_extension(message, field),
            b'd' if field.is(message, "DKIM-Signature") => self.signed_by.extend(signing_domain(&value())),
            b'l' if field.is(message, "List-Unsubscribe") => unsubscribe_urls(&value(), &mut self.unsubscribe),
            _ => {}
        }
    }

    fn read_extension(&mut self, message: &[u8], field: &Field) {
        let is = |name| field.is(message, name);
        let says = |words: &[&str]| {
            let value = unfold(&message[field.value.clone()]);
            words.iter().any(|word| value.eq_ignore_ascii_case(word))
        };
        const NO: &[&str] = &["no", "false"];
        if is("X-Trackpost-Tag") {
            self.removed.push(field.span.clone());
        } else if is("X-Trackpost-Track") {
            self.removed.push(field.span.clone());
            // A message can only ask for less, so what is not understood counts as "none".
            self.no_opens |= !says(&["opens"]);
            self.no_clicks |= !says(&["clicks"]);
        } else if is("X-Mailgun-Track") && says(NO) {
            (self.no_opens, self.no_clicks) = (true, true);
        } else if (is("X-PM-TrackOpens") || is("X-Mailgun-Track-Opens")) && says(NO)
            || is("X-Mailjet-TrackOpen") && says(&["0"])
        {
            self.no_opens = true;
        } else if is("X-PM-TrackLinks") && says(&["none", "textonly"])
            || is("X-Mailgun-Track-Clicks") && says(NO)
            || is("X-Mailjet-TrackClick") && says(&["0"])
        {
            self.no_clicks = true;
        }
    }

    /// Why the whole message is left alone under `policy`, if it is.
    pub fn refusal(&self, policy: &Policy) -> Option<SkipReason> {
        if !policy.signs
            && policy.on_signed == OnSigned::Skip
            && self.signed_by.iter().any(|d| d == policy.domain.as_str())
        {
            return Some(SkipReason::DkimSigned);
        }
        if !policy.open && !policy.click {
            return Some(SkipReason::Disabled);
        }
        let open = policy.open && !self.no_opens;
        let click = policy.click && !self.no_clicks;
        (!open && !click).then_some(SkipReason::AskedByHeader)
    }
}

/// The `d=` of a DKIM-Signature (RFC 6376 §3.5), in lower case. White space inside does not count (§3.2).
pub fn signing_domain(value: &str) -> Option<String> {
    let tags = value.split(';').filter_map(|tag| tag.split_once('='));
    let domain = tags.filter(|(name, _)| name.trim() == "d").map(|(_, domain)| domain).next()?;
    let domain: String = domain.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    // Compared as A-labels; a name that is none equals no sender domain.
    DomainName::parse(domain.trim_end_matches('.')).ok().map(|name| name.as_str().to_owned())
}

fn unsubscribe_urls(value: &str, out: &mut Vec<String>) {
    let mut rest = value;
    while let Some((_, tail)) = rest.split_once('<')
        && let Some((url, tail)) = tail.split_once('>')
        && out.len() < 50
    {
        out.push(url.chars().filter(|c| !c.is_ascii_whitespace()).collect());
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mime::header::fields;

    fn wishes(header: &str) -> Wishes {
        let mut wishes = Wishes::default();
        fields(header.as_bytes(), 0..header.len()).for_each(|f| wishes.read(header.as_bytes(), &f));
        wishes
    }

    #[test]
    fn a_message_asks_for_less() {
        let table = [
            ("Subject: x\n", (false, false)),
            ("X-Trackpost-Track: none\n", (true, true)),
            ("x-trackpost-track: Opens\n", (false, true)),
            ("X-Trackpost-Track:\n clicks\n", (true, false)),
            ("X-Trackpost-Track: opens\nX-Trackpost-Track: clicks\n", (true, true)),
            ("X-Trackpost-Track: everything\n", (true, true)),
            ("X-PM-TrackOpens: false\n", (true, false)),
            ("X-PM-TrackOpens: true\n", (false, false)),
            ("X-PM-TrackLinks: None\n", (false, true)),
            ("X-PM-TrackLinks: TextOnly\n", (false, true)),
            ("X-PM-TrackLinks: HtmlOnly\n", (false, false)),
            ("X-Mailgun-Track: no\n", (true, true)),
            ("X-Mailgun-Track-Opens: no\n", (true, false)),
            ("X-Mailgun-Track-Clicks: no\n", (false, true)),
            ("X-Mailgun-Track-Clicks: htmlonly\n", (false, false)),
            ("X-Mailjet-TrackOpen: 0\nX-Mailjet-TrackClick: 0\n", (true, true)),
            ("X-Mailjet-TrackOpen: 1\n", (false, false)),
        ];
        for (header, want) in table {
            let got = wishes(header);
            assert_eq!((got.no_opens, got.no_clicks), want, "{header}");
        }
    }

    #[test]
    fn removed_fields_and_signatures() {
        let header = "A: b\nX-Trackpost-Tag: a=\n b\nDKIM-Signature: v=1; a=x;\n d=Exam\n ple.com; s=1\nX-PM-Tag: c\n";
        let got = wishes(header);
        assert_eq!(got.removed.iter().map(|r| &header[r.clone()]).collect::<Vec<_>>(), ["X-Trackpost-Tag: a=\n b\n"]);
        assert_eq!(got.signed_by, ["example.com"]);
        let got = wishes("List-Unsubscribe: <mailto:u@example.com>,\n <https://example.com/\n u?a=b>\n");
        assert_eq!(got.unsubscribe, ["mailto:u@example.com", "https://example.com/u?a=b"]);
    }
}
