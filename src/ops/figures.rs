//! What counts are called, and how rates are made of them.
//!
//! A rate of opens or clicks is the share of copies delivered in a period, of those with a pixel or a tracked link,
//! that were opened or clicked at any time since. So it lies between 0 and 1, and grows for a while after the period.

use crate::store::{Counter, Counts};
use serde::Serialize;

/// One figure that can be asked for.
#[derive(Debug)]
pub struct Figure {
    pub name: &'static str,
    value: fn(&Counts) -> Value,
}

/// A number: how many, or a share from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    Count(u64),
    Rate(f64),
}

impl Figure {
    pub fn of(&self, counts: &Counts) -> Value {
        (self.value)(counts)
    }

    pub fn named(name: &str) -> Option<&'static Self> {
        CONTRACT.iter().chain(&OURS).find(|figure| figure.name == name)
    }
}

/// Those of the contract, which are given where nobody asks for some. What a relay cannot know is nothing.
pub static CONTRACT: [Figure; 22] = [
    Figure { name: "received", value: |_| Value::Count(0) },
    Figure { name: "delivered", value: |c| sum(c, &[Counter::Delivered]) },
    Figure { name: "complained", value: |_| Value::Count(0) },
    Figure { name: "suppressed", value: |_| Value::Count(0) },
    Figure { name: "bounced", value: |c| sum(c, BOUNCED) },
    Figure { name: "bounced_transient", value: |c| sum(c, &[Counter::BouncedTransient]) },
    Figure { name: "bounced_permanent", value: |c| sum(c, &[Counter::BouncedPermanent]) },
    Figure { name: "bounced_undetermined", value: |_| Value::Count(0) },
    Figure { name: "opened", value: |c| sum(c, &[Counter::OpensHuman, Counter::OpensMachine, Counter::OpensUnknown]) },
    Figure {
        name: "clicked",
        value: |c| sum(c, &[Counter::ClicksHuman, Counter::ClicksMachine, Counter::ClicksUnknown]),
    },
    Figure { name: "unsubscribed", value: |_| Value::Count(0) },
    Figure { name: "delivery_delayed", value: |c| sum(c, &[Counter::Delayed]) },
    Figure { name: "failed", value: |c| sum(c, &[Counter::Failed]) },
    Figure { name: "sent", value: |c| sum(c, &[Counter::Sent]) },
    Figure { name: "unique_opened", value: |c| sum(c, &[Counter::OpenedAny]) },
    Figure { name: "unique_clicked", value: |c| sum(c, &[Counter::ClickedAny]) },
    Figure { name: "delivery_rate", value: |c| share(c, &[Counter::Delivered], SETTLED) },
    Figure { name: "open_rate", value: |c| share(c, &[Counter::DeliveredOpenedAny], &[Counter::PixelCopies]) },
    Figure { name: "click_rate", value: |c| share(c, &[Counter::DeliveredClickedAny], &[Counter::LinkCopies]) },
    Figure { name: "bounce_rate", value: |c| share(c, BOUNCED, SETTLED) },
    Figure { name: "complaint_rate", value: |_| Value::Rate(0.0) },
    Figure { name: "unsubscribe_rate", value: |_| Value::Rate(0.0) },
];

/// Ours. A hit of which it is not known whose it is counts as a person's.
pub static OURS: [Figure; 11] = [
    Figure { name: "messages", value: |c| sum(c, &[Counter::Messages]) },
    Figure { name: "tracked", value: |c| sum(c, &[Counter::Tracked]) },
    Figure { name: "untracked", value: |c| sum(c, &[Counter::Untracked]) },
    Figure { name: "opened_human", value: |c| sum(c, &[Counter::OpensHuman, Counter::OpensUnknown]) },
    Figure { name: "opened_machine", value: |c| sum(c, &[Counter::OpensMachine]) },
    Figure { name: "clicked_human", value: |c| sum(c, &[Counter::ClicksHuman, Counter::ClicksUnknown]) },
    Figure { name: "clicked_machine", value: |c| sum(c, &[Counter::ClicksMachine]) },
    Figure { name: "unique_opened_human", value: |c| sum(c, &[Counter::OpenedHuman]) },
    Figure { name: "unique_clicked_human", value: |c| sum(c, &[Counter::ClickedHuman]) },
    Figure { name: "open_rate_human", value: |c| share(c, &[Counter::DeliveredOpenedHuman], &[Counter::PixelCopies]) },
    Figure { name: "click_rate_human", value: |c| share(c, &[Counter::DeliveredClickedHuman], &[Counter::LinkCopies]) },
];

/// A figure that is a count, by its name.
pub fn figure_count(name: &str, counts: &Counts) -> u64 {
    match Figure::named(name).map(|figure| figure.of(counts)) {
        Some(Value::Count(count)) => count,
        _ => 0,
    }
}

/// A figure that is a share, by its name.
pub fn figure_rate(name: &str, counts: &Counts) -> f64 {
    match Figure::named(name).map(|figure| figure.of(counts)) {
        Some(Value::Rate(rate)) => rate,
        _ => 0.0,
    }
}

const BOUNCED: &[Counter] = &[Counter::BouncedPermanent, Counter::BouncedTransient];
/// Copies of which the end is known. Not all that were sent: those that wait may still be delivered.
const SETTLED: &[Counter] =
    &[Counter::Delivered, Counter::BouncedPermanent, Counter::BouncedTransient, Counter::Failed];

fn total(counts: &Counts, of: &[Counter]) -> u64 {
    of.iter().map(|counter| counts.get(*counter)).fold(0, u64::saturating_add)
}

fn sum(counts: &Counts, of: &[Counter]) -> Value {
    Value::Count(total(counts, of))
}

/// Nothing where there is nothing to be had a share of; never over 1, whatever a fault has counted.
fn share(counts: &Counts, part: &[Counter], whole: &[Counter]) -> Value {
    let (part, whole) = (total(counts, part), total(counts, whole));
    Value::Rate(if whole == 0 { 0.0 } else { part.min(whole) as f64 / whole as f64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_rates() {
        let mut counts = Counts::default();
        for (counter, more) in [
            (Counter::Sent, 12),
            (Counter::Delivered, 7),
            (Counter::BouncedPermanent, 2),
            (Counter::BouncedTransient, 1),
            (Counter::PixelCopies, 4),
            (Counter::LinkCopies, 5),
            (Counter::OpensHuman, 3),
            (Counter::OpensMachine, 20),
            (Counter::OpensUnknown, 4),
            (Counter::DeliveredOpenedAny, 3),
            (Counter::DeliveredOpenedHuman, 1),
            (Counter::DeliveredClickedAny, 9),
        ] {
            counts.count(counter, more);
        }
        for (name, value) in [
            ("sent", Value::Count(12)),
            ("bounced", Value::Count(3)),
            ("opened", Value::Count(27)),
            ("opened_human", Value::Count(7)),
            ("opened_machine", Value::Count(20)),
            ("delivery_rate", Value::Rate(0.7)),
            ("bounce_rate", Value::Rate(0.3)),
            ("open_rate", Value::Rate(0.75)),
            ("open_rate_human", Value::Rate(0.25)),
            ("click_rate", Value::Rate(1.0)),
            ("complaint_rate", Value::Rate(0.0)),
        ] {
            assert_eq!(Figure::named(name).unwrap().of(&counts), value, "{name}");
        }
        assert!(Figure::named("bounces").is_none());
        let nothing = Counts::default();
        for figure in CONTRACT.iter().chain(&OURS) {
            let value = serde_json::to_value(figure.of(&nothing)).unwrap();
            assert_eq!(value.as_f64(), Some(0.0), "{}", figure.name);
        }
    }
}
