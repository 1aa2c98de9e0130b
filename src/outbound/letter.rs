//! What one transaction carries: a copy as it was planned, made to fit the smarthost, and signed last.

use super::attempt::Run;
use super::fit::fit;
use super::sign::{Unsigned, sign};
use crate::mime::downgrade::Stuck;
use crate::rewrite::Plan;
use std::borrow::Cow;

/// A copy that is to be sent.
#[derive(Clone, Copy)]
pub(super) struct Letter<'a> {
    /// As it was planned.
    pub bytes: &'a [u8],
    /// Links or a pixel were put in.
    pub rewritten: bool,
    /// From which it was made.
    pub message: &'a [u8],
    pub plan: &'a Plan,
}

impl Run<'_> {
    /// The octets for a smarthost that takes 8-bit mail, or does not. Where signing fails the message goes out without
    /// what we would have changed: a signature that it brought holds then, and nobody is sent one that does not.
    pub(super) async fn seal<'m>(&self, letter: &Letter<'m>, eight_bit_mime: bool) -> Result<Cow<'m, [u8]>, Stuck> {
        let fitted = fit(letter.bytes, eight_bit_mime)?;
        let Some(signer) = &self.dkim else { return Ok(fitted) };
        let changed = letter.rewritten || matches!(fitted, Cow::Owned(_));
        match sign(&self.outbound.signing, signer, &fitted, changed).await {
            Ok(signed) => {
                metrics::counter!("trackpost_dkim_signed_total").increment(1);
                Ok(Cow::Owned(signed))
            }
            Err(Unsigned::HasOne) => Ok(fitted),
            Err(why) => {
                self.tell_unsigned(&why);
                if !letter.rewritten {
                    return Ok(fitted);
                }
                let mut plain = Vec::new();
                letter.plan.copy_for(letter.message, &self.id, 0, None, &mut plain);
                Ok(Cow::Owned(fit(&plain, eight_bit_mime)?.into_owned()))
            }
        }
    }

    pub(super) fn tell_unsigned(&self, why: &Unsigned) {
        metrics::counter!("trackpost_dkim_unsigned_total", "reason" => why.word()).increment(1);
        tracing::warn!(queue_id = %self.id, "not signed: {why}");
    }
}
