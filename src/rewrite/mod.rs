//! Rewriting: a message and a policy make a [`Plan`]; the plan makes a copy for each recipient.
//!
//! Owns: which parts, links and place are changed, and that nothing else is. Does not: sign (that comes last), send,
//! or read a clock, a file or a random number. Pure: the same input gives the same plan.
//!
//! 1. [`plan`] reads the header (`policy`: what does the sender ask for?), finds the parts
//!    ([`crate::mime::scan`]), decodes those that are HTML (`draft`), looks for links and the pixel's place (`html`), decides
//!    on each link (`link`), and lays the changes out in each part's transfer encoding (`splice`).
//! 2. [`Plan::copy_for`] copies the octets that stay and writes the tokens of one recipient between them.
//!
//! [`marked`] tells afterwards, for people, what became of each link.
//!
//! In doubt nothing is changed and the [`Report`] says why. A panic in here costs the tracking of one message: the
//! original goes out.

mod draft;
mod foreign;
mod html;
mod link;
mod marked;
mod pixel;
mod policy;
mod report;
mod splice;
#[cfg(test)]
mod tests;

pub use link::destination_of;
pub use marked::{Mark, Marked, MarkedHtml, MarkedLink, Shown, marked};
pub use policy::{Limits, OffReason, OnSigned, Policy, Scheme, Tracking, signing_domain};
pub use report::{LinkDetail, LinkOutcome, Note, Pixel, Report, ReportFacts, SkipReason};

use crate::mail::QueueId;
use crate::mime::header::fields;
use crate::mime::scan::{MAX_HEADER, header_block, scan};
use crate::token::{HostSigner, Width};
use draft::Draft;
use policy::Wishes;
use splice::{Piece, Texts, Tokens};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a message becomes. Holds no reference to it; [`Plan::copy_for`] must be given the same octets again.
#[derive(Debug)]
pub struct Plan {
    /// Of a tracked copy. Empty when there is nothing to track.
    pieces: Vec<Piece>,
    /// Our own header fields, which no copy keeps.
    removed: Vec<Range<usize>>,
    base: String,
    width: Width,
    links: Vec<Box<str>>,
    eol: &'static [u8],
    report: Report,
}

/// Plans the copies of `message` for so many recipients. Never panics, never fails: what cannot be rewritten is left
/// alone, and the report says why.
pub fn plan(message: &[u8], tracking: &Tracking, recipients: usize) -> Plan {
    let wishes = match tracking {
        Tracking::Off(OffReason::Inbound) => Wishes::default(),
        _ => catch_unwind(|| read_header(message)).unwrap_or_default(),
    };
    let drafted = catch_unwind(AssertUnwindSafe(|| match tracking {
        Tracking::Off(reason) => Draft::untouched(message, (*reason).into()),
        Tracking::Active(policy) => Draft::new(message, policy, &wishes, recipients),
    }));
    let draft = drafted.unwrap_or_else(|_| Draft::untouched(message, SkipReason::Panicked));
    draft.into_plan(message, tracking, wishes.removed)
}

impl Plan {
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// False when all recipients get the same octets.
    pub fn copies_differ(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// True when every copy is the message, octet by octet.
    pub fn is_untouched(&self) -> bool {
        self.pieces.is_empty() && self.removed.is_empty()
    }

    /// Octets of a copy, within a few: for reserving space.
    pub fn len_hint(&self) -> usize {
        // Soft breaks move a little with the tokens.
        usize::try_from(self.report.bytes_out).unwrap_or(0) + 3 * self.links.len()
    }

    /// Appends the copy for one recipient, by the index into the envelope's recipients. Without a signer: an
    /// untracked copy, from which only our own header fields are removed. Never panics; were there a fault of ours,
    /// the untracked copy is what goes out.
    pub fn copy_for(
        &self,
        message: &[u8],
        id: &QueueId,
        recipient: u16,
        signer: Option<&HostSigner>,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        if let Some(signer) = signer.filter(|_| self.copies_differ()) {
            let tokens = Tokens::Signed { signer, id, recipient };
            let written = catch_unwind(AssertUnwindSafe(|| self.write(message, tokens, out)));
            if written.is_ok() {
                return;
            }
            out.truncate(start);
        }
        let mut from = 0;
        for span in &self.removed {
            // `get`, since nothing in this fallback may panic, not even if given another message.
            out.extend_from_slice(message.get(from..span.start).unwrap_or_default());
            from = span.end;
        }
        out.extend_from_slice(message.get(from..).unwrap_or_default());
    }

    fn write(&self, message: &[u8], tokens: Tokens<'_>, out: &mut Vec<u8>) {
        out.reserve(self.len_hint());
        let texts = Texts { base: &self.base, width: self.width, links: &self.links };
        splice::write(message, &self.pieces, &texts, tokens, self.eol, out);
    }
}

fn read_header(message: &[u8]) -> Wishes {
    let mut wishes = Wishes::default();
    let head = &message[..message.len().min(MAX_HEADER)];
    let block = header_block(head, 0, |_| false).map_or(0..head.len(), |(block, _)| block);
    fields(head, block).for_each(|field| wishes.read(head, &field));
    if message.len() > head.len() {
        // A field that was cut off must not lose its first half.
        wishes.removed.retain(|span| span.end < head.len());
    }
    wishes
}

/// Entry for fuzzing: whatever the octets, planning and copying neither panics nor changes what it must not.
#[doc(hidden)]
pub fn fuzz_rewrite(data: &[u8]) {
    let Ok(host) = crate::mail::DomainName::parse("links.example.com") else { return };
    let Ok(domain) = crate::mail::DomainName::parse("example.com") else { return };
    let key = crate::token::TokenKey { id: 1, secret: [7; 32] };
    let signer = crate::token::Signer::new(&key).for_host(&host);
    let policy = Policy {
        domain,
        open: true,
        click: true,
        scheme: Scheme::Https,
        host,
        port: 0,
        own_hosts: Vec::new(),
        on_signed: OnSigned::Skip,
        signs: false,
        limits: Limits::default(),
    };
    let plan = plan(data, &Tracking::Active(policy), 2);
    let report = plan.report();
    assert_ne!(report.skipped, Some(SkipReason::Panicked));
    assert_eq!(report.links_found, report.links_rewritten + report.links_skipped.values().sum::<u32>());
    let id = QueueId::from_bytes([1; 16]);
    let mut copy = Vec::new();
    plan.copy_for(data, &id, 1, Some(&signer), &mut copy);
    let mut plain = Vec::new();
    plan.copy_for(data, &id, 1, None, &mut plain);
    assert_eq!(plain == data, plan.removed.is_empty());
    if !plan.copies_differ() {
        assert_eq!(copy, plain);
        return;
    }
    // The same structure, and nothing left to rewrite but what was left alone.
    let (before, after) = (scan(data), scan(&copy));
    assert_eq!(before.map(|parts| parts.len()), after.map(|parts| parts.len()));
    assert!(copy.len().abs_diff(plan.report.bytes_out as usize) <= 3 * (report.links_found as usize + 1) * 8);
}
