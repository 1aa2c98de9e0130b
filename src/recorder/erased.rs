//! Whom the history has to forget is forgotten as the log is folded, or a store that is made anew would bring them back.

use crate::mail::Outcome;
use crate::settings::{Accepted, Erasures};
use crate::spool::{Cursor, MessageHead};
use crate::store::{ERASED, head_erased};
use std::sync::Arc;

/// The head of the message at `place`, without those of its recipients who were erased since.
pub(super) fn without_erased(
    erasures: &Erasures,
    mut head: Arc<MessageHead>,
    place: Cursor,
    moved: bool,
) -> Arc<MessageHead> {
    let accepted = Accepted { place, at: head.accepted_at, moved };
    if !erasures.reach(accepted) {
        return head;
    }
    let places = (0u16..).zip(&head.envelope.recipients);
    let gone = places.filter(|(_, recipient)| erasures.cover(&recipient.address, accepted));
    let gone: Vec<u16> = gone.map(|(place, _)| place).collect();
    if !gone.is_empty() {
        head_erased(Arc::make_mut(&mut head), &gone);
    }
    head
}

/// Takes out of outcomes what names somebody who was erased: smarthosts repeat addresses in their words.
pub(super) fn hush(head: &MessageHead, outcomes: &mut [Outcome]) {
    for outcome in outcomes {
        let recipient = head.envelope.recipients.get(usize::from(outcome.recipient));
        if recipient.is_some_and(|recipient| recipient.address.as_str() == ERASED) {
            outcome.reply = Box::default();
        }
    }
}

/// Whether all recipients of a message were erased, so that no report of it is kept: links may name them.
pub(super) fn is_nobodys(head: &MessageHead) -> bool {
    head.envelope.recipients.iter().all(|recipient| recipient.address.as_str() == ERASED)
}
