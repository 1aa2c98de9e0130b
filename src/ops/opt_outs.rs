//! Recipients who opt out of tracking, and back in. Nobody can list them: addresses are not kept.

use super::{OpError, Ops, domain_name};
use crate::clock;
use crate::mail::{Address, DomainName};
use crate::privacy::MAX_OPT_OUTS;
use crate::settings::Change;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An opt-out, without its address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptOutView {
    pub id: Uuid,
    /// Of mail of this sender domain alone.
    pub domain: Option<String>,
    /// Milliseconds since 1970.
    pub created_at: u64,
}

/// Has no mail to `email` tracked from now on, or none of this sender domain. Who has opted out already keeps the time
/// of it.
pub async fn opt_out(ops: &Ops, email: &str, domain: Option<&str>) -> Result<OptOutView, OpError> {
    let (address, domain) = parsed(email, domain)?;
    let hash = ops.privacy.opt_out(domain.as_ref(), &address);
    let now = clock::unix_ms();
    let made = ops.settings.change(|settings| {
        // A name with a slip of the pen would look like an opt-out and be none.
        if let Some(name) = domain.as_ref().filter(|name| !settings.domains.contains_key(*name)) {
            return Err(OpError::UnknownDomain(name.clone()));
        }
        let view = |created_at| OptOutView { id: hash.id(), domain: domain.map(Into::into), created_at };
        match settings.opt_outs.get(&hash) {
            Some(at) => Ok((vec![], view(at))),
            None if settings.opt_outs.len() >= MAX_OPT_OUTS => Err(OpError::TooManyOptOuts),
            None => Ok((vec![Change::OptOut(hash, now)], view(now))),
        }
    });
    made.await
}

/// Takes an opt-out back: the one of this sender domain, or the one of all; the other stays. Whether there was one.
pub async fn opt_in(ops: &Ops, email: &str, domain: Option<&str>) -> Result<bool, OpError> {
    let (address, domain) = parsed(email, domain)?;
    let hash = ops.privacy.opt_out(domain.as_ref(), &address);
    let taken_back = ops.settings.change(|settings| match settings.opt_outs.get(&hash) {
        Some(_) => Ok::<_, OpError>((vec![Change::DropOptOut(hash)], true)),
        None => Ok((vec![], false)),
    });
    taken_back.await
}

/// Whether mail to `email` is left alone: that of this sender domain, or all.
pub fn opted_out(ops: &Ops, email: &str, domain: Option<&str>) -> Result<bool, OpError> {
    let (address, domain) = parsed(email, domain)?;
    Ok(ops.settings.snapshot().opted_out(&ops.privacy, domain.as_ref(), &address))
}

fn parsed(email: &str, domain: Option<&str>) -> Result<(Address, Option<DomainName>), OpError> {
    let address = Address::parse(email).map_err(|e| OpError::BadAddress(email.to_owned(), e))?;
    Ok((address, domain.map(domain_name).transpose()?))
}
