//! The life of one DNS record that a customer was asked to add: what is known of it, and what each look at DNS makes of
//! that. Pure; `now` is an argument, in milliseconds since 1970.

use serde::{Deserialize, Serialize};

/// What is known of one record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Record {
    /// Nobody has asked for a check yet, or not since the last change.
    #[default]
    NotStarted,
    /// Looked for since then.
    Pending { since: u64 },
    /// Found, for the first time in a row then.
    Verified { at: u64 },
    /// Was there and is missing since then; what depends on it goes on.
    TemporaryFailure { since: u64 },
    /// Given up then; looked for again only when asked.
    Failed { at: u64 },
}

/// What one look at DNS says of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// It is there and right.
    Good,
    /// It is certainly not there, or wrong.
    Bad,
    /// SERVFAIL, a time-out and their like: nothing can be said.
    Unknown,
}

/// How long a record is looked for.
pub const PATIENCE_MS: u64 = 72 * 3_600_000;

/// Pauses between looks at what is not settled, in seconds; the last repeats.
const PAUSES: [u64; 11] = [5, 15, 30, 60, 120, 300, 600, 1_200, 2_400, 3_600, 7_200];
/// Pause between looks at what is verified.
pub const ROUTINE_MS: u64 = 3_600_000;

/// The pause after the look number `looks` (from 0) that settled nothing, in milliseconds.
pub fn pause_ms(looks: u32) -> u64 {
    PAUSES[(looks as usize).min(PAUSES.len() - 1)] * 1_000
}

impl Record {
    /// Somebody asks for a check. What was given up begins anew; what is being looked for is not looked for longer.
    pub fn asked(self, now: u64) -> Self {
        match self {
            Self::NotStarted | Self::Failed { .. } => Self::Pending { since: now },
            going_on => going_on,
        }
    }

    /// What a look at DNS makes of it. Not known never takes anything away from what was verified.
    pub fn judged(self, evidence: Evidence, now: u64) -> Self {
        let over = |since: u64| now.saturating_sub(since) >= PATIENCE_MS;
        match (self, evidence) {
            // The clock was wrong, then or now; the time begins again.
            (Self::Pending { since }, Evidence::Bad | Evidence::Unknown) if since > now => Self::Pending { since: now },
            (Self::TemporaryFailure { since }, Evidence::Bad | Evidence::Unknown) if since > now => {
                Self::TemporaryFailure { since: now }
            }
            (Self::NotStarted | Self::Failed { .. }, _) => self,
            (Self::Verified { at }, Evidence::Good) => Self::Verified { at },
            (_, Evidence::Good) => Self::Verified { at: now },
            (Self::Verified { .. }, Evidence::Bad) => Self::TemporaryFailure { since: now },
            (Self::TemporaryFailure { since }, Evidence::Bad) if over(since) => Self::Failed { at: now },
            (Self::Pending { since }, _) if over(since) => Self::Failed { at: now },
            _ => self,
        }
    }

    /// Mail may rely on it.
    pub fn holds(self) -> bool {
        matches!(self, Self::Verified { .. } | Self::TemporaryFailure { .. })
    }

    pub fn is_verified(self) -> bool {
        matches!(self, Self::Verified { .. })
    }

    /// It is being looked for.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Pending { .. } | Self::TemporaryFailure { .. })
    }

    /// The word that the API has for it.
    pub fn status(self) -> &'static str {
        match self {
            Self::NotStarted => "not_started",
            Self::Pending { .. } => "pending",
            Self::Verified { .. } => "verified",
            Self::TemporaryFailure { .. } => "temporary_failure",
            Self::Failed { .. } => "failed",
        }
    }
}

/// The status of a domain from those of the records that weigh on it. `temporary_failure` is a record's alone, since
/// clients know no domain with it: such a record is being looked for again, as a pending one is.
pub fn overall(records: impl IntoIterator<Item = Record>) -> &'static str {
    let (mut verified, mut untouched, mut failed, mut all) = (0, 0, 0, 0);
    for record in records {
        all += 1;
        match record {
            Record::Verified { .. } => verified += 1,
            Record::NotStarted => untouched += 1,
            Record::Failed { .. } => failed += 1,
            Record::Pending { .. } | Record::TemporaryFailure { .. } => {}
        }
    }
    match () {
        () if failed > 0 => "failed",
        () if verified == all => "verified",
        () if untouched == all => "not_started",
        () if verified > 0 => "partially_verified",
        () => "pending",
    }
}

#[cfg(test)]
mod tests {
    use super::Evidence::{Bad, Good, Unknown};
    use super::Record::{Failed, NotStarted, Pending, TemporaryFailure, Verified};
    use super::*;

    const H72: u64 = PATIENCE_MS;

    #[test]
    fn one_look_at_a_time() {
        let table = [
            // Nobody asked: DNS changes nothing.
            (NotStarted, Good, 9, NotStarted),
            (NotStarted, Bad, 9, NotStarted),
            (Failed { at: 3 }, Good, 9, Failed { at: 3 }),
            // Looked for.
            (Pending { since: 5 }, Good, 9, Verified { at: 9 }),
            (Pending { since: 5 }, Bad, 9, Pending { since: 5 }),
            (Pending { since: 5 }, Unknown, 9, Pending { since: 5 }),
            (Pending { since: 5 }, Bad, 4 + H72, Pending { since: 5 }),
            (Pending { since: 5 }, Bad, 5 + H72, Failed { at: 5 + H72 }),
            (Pending { since: 5 }, Unknown, 5 + H72, Failed { at: 5 + H72 }),
            (Pending { since: 5 }, Good, 5 + H72, Verified { at: 5 + H72 }),
            // Found, lost, found again.
            (Verified { at: 5 }, Good, 9, Verified { at: 5 }),
            (Verified { at: 5 }, Unknown, 9 + H72, Verified { at: 5 }),
            (Verified { at: 5 }, Bad, 9, TemporaryFailure { since: 9 }),
            (TemporaryFailure { since: 9 }, Good, 11, Verified { at: 11 }),
            (TemporaryFailure { since: 9 }, Bad, 8 + H72, TemporaryFailure { since: 9 }),
            (TemporaryFailure { since: 9 }, Bad, 9 + H72, Failed { at: 9 + H72 }),
            (TemporaryFailure { since: 9 }, Unknown, 9 + 2 * H72, TemporaryFailure { since: 9 }),
            // The clock was set back.
            (Pending { since: 5 }, Bad, 0, Pending { since: 0 }),
            (TemporaryFailure { since: 5 }, Unknown, 0, TemporaryFailure { since: 0 }),
        ];
        for (before, evidence, now, after) in table {
            assert_eq!(before.judged(evidence, now), after, "{before:?} {evidence:?} at {now}");
        }
    }

    #[test]
    fn asking() {
        for (before, after) in [
            (NotStarted, Pending { since: 9 }),
            (Failed { at: 1 }, Pending { since: 9 }),
            (Pending { since: 1 }, Pending { since: 1 }),
            (Verified { at: 1 }, Verified { at: 1 }),
            (TemporaryFailure { since: 1 }, TemporaryFailure { since: 1 }),
        ] {
            assert_eq!(before.asked(9), after);
        }
    }

    #[test]
    fn a_domain_is_as_good_as_its_records() {
        let (new, wait, ok) = (NotStarted, Pending { since: 1 }, Verified { at: 1 });
        let (lost, gone) = (TemporaryFailure { since: 1 }, Failed { at: 1 });
        let table: &[(&[Record], &str)] = &[
            (&[], "verified"),
            (&[ok], "verified"),
            (&[ok, ok], "verified"),
            (&[new], "not_started"),
            (&[new, new], "not_started"),
            (&[wait], "pending"),
            (&[new, wait], "pending"),
            (&[lost], "pending"),
            (&[ok, wait], "partially_verified"),
            (&[ok, new], "partially_verified"),
            (&[ok, lost], "partially_verified"),
            (&[gone], "failed"),
            (&[ok, gone], "failed"),
            (&[wait, gone], "failed"),
        ];
        for (records, status) in table {
            assert_eq!(overall(records.iter().copied()), *status, "{records:?}");
        }
    }

    #[test]
    fn pauses_grow_and_the_last_repeats() {
        let pauses: Vec<_> = (0..20).map(pause_ms).collect();
        assert!(pauses.is_sorted());
        assert_eq!((pauses[0], pauses[10], pauses[19]), (5_000, 7_200_000, 7_200_000));
    }
}
