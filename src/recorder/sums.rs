//! What one batch adds to the counts.

use super::known::Known;
use crate::mail::{Outcome, QueueId, Status};
use crate::rewrite::ReportFacts;
use crate::store::{Counter, Counts, RecipientRow, Scope, Write, link_hash};
use std::collections::HashMap;

/// Additions to rows of counts, those to the same row in one.
#[derive(Default)]
pub(super) struct Sums {
    rows: HashMap<Vec<u8>, Counts>,
    /// The texts of destinations that are counted.
    urls: HashMap<u64, Write>,
}

/// How a tag is counted: its name and value up to this many bytes.
const MAX_TAG: usize = 200;

impl Sums {
    pub fn len(&self) -> usize {
        self.rows.len() + self.urls.len()
    }

    pub fn take(&mut self, out: &mut Vec<Write>) {
        out.extend(self.rows.drain().filter(|(_, c)| !c.is_empty()).map(|(row, c)| Write::Add(row, Box::new(c))));
        out.extend(self.urls.drain().map(|(_, write)| write));
    }

    /// Forgets what would be added to the counts of one message and its links.
    pub fn forget(&mut self, id: &QueueId) {
        let message = Scope::Message(*id).row(0);
        let links = Scope::MessageLink(*id, 0).row(0);
        let links = &links[..links.len() - 2];
        self.rows.retain(|row, _| *row != message && !row.starts_with(links));
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    pub fn add(&mut self, scope: Scope<'_>, at: u64, counter: Counter, more: i64) {
        self.rows.entry(scope.row(at)).or_default().count(counter, more);
    }

    /// Adds for all mail and, where the message is known, for its sender domain and its tags.
    pub fn add_for(&mut self, known: Option<&Known>, at: u64, counter: Counter, more: i64) {
        self.add(Scope::All, at, counter, more);
        let Some(known) = known else { return };
        let domain = known.domain();
        self.add(Scope::Domain(domain), at, counter, more);
        for (name, value) in &known.head.tags {
            let tag = format!("{name}={value}");
            let tag = &tag[..tag.floor_char_boundary(MAX_TAG)];
            self.add(Scope::Tag { domain, tag }, at, counter, more);
        }
    }

    /// Adds for one destination in the mail of a domain, and for one link of one message.
    pub fn add_for_link(
        &mut self,
        known: &Known,
        id: QueueId,
        link: (u16, &str),
        at: u64,
        counter: Counter,
        more: i64,
    ) {
        let (index, url) = link;
        let (hash, text) = link_hash(url);
        self.urls.entry(hash).or_insert(text);
        self.add(Scope::Link { domain: known.domain(), hash }, at, counter, more);
        self.add(Scope::MessageLink(id, index), at, counter, more);
    }

    pub fn accepted(&mut self, known: &Known) {
        let (at, copies) = (known.head.accepted_at, known.delivered.len());
        self.add_for(Some(known), at, Counter::Messages, 1);
        self.add_for(Some(known), at, Counter::Sent, i64::try_from(copies).unwrap_or(0));
    }

    /// The first attempt has shown whether the message is tracked.
    pub fn planned(&mut self, known: &Known, facts: &ReportFacts, at: u64) {
        match facts.untracked {
            None => self.add_for(Some(known), at, Counter::Tracked, 1),
            Some(reason) => {
                self.add_for(Some(known), at, Counter::Untracked, 1);
                let skip = Scope::Skip { domain: known.domain(), reason: &reason.to_string() };
                self.add(skip, at, Counter::Untracked, 1);
            }
        }
    }

    /// What became of a copy. `before` is what was known of it; `tracked` says that it was not left alone.
    pub fn outcome(&mut self, known: &Known, before: &RecipientRow, outcome: &Outcome, tracked: bool) {
        // One that is settled stays so: a second word about it is a crash's echo.
        if before.status.is_settled() {
            return;
        }
        let counter = match outcome.status {
            Status::Delivered | Status::Relayed => Counter::Delivered,
            Status::Bounced if outcome.reply.starts_with('4') => Counter::BouncedTransient,
            Status::Bounced => Counter::BouncedPermanent,
            Status::Removed | Status::Suppressed => Counter::Failed,
            Status::Deferred { .. } | Status::Stranded { .. } if before.delay.is_none() => Counter::Delayed,
            Status::Deferred { .. } | Status::Stranded { .. } | Status::Queued | Status::Held => return,
        };
        self.add_for(Some(known), outcome.at, counter, 1);
        if let (Counter::Delivered, true, Some(facts)) = (counter, tracked, known.facts) {
            if facts.pixel {
                self.add_for(Some(known), outcome.at, Counter::PixelCopies, 1);
            }
            if facts.links > 0 {
                self.add_for(Some(known), outcome.at, Counter::LinkCopies, 1);
            }
        }
    }
}
