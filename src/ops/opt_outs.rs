//! Recipients who opt out of tracking, and back in. Nobody can list them: addresses are not kept.

use super::share::{Bounds, Used};
use super::{OpError, Ops, domain_name};
use crate::clock;
use crate::mail::{Address, DomainName};
use crate::privacy::OptedOut;
use crate::settings::{ApiKey, Change, Tie};
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

/// Opt-outs that there may be, so that settings stay small enough for a backup. Those of a customer are those that keys
/// tied to the same domains have made.
pub const OPT_OUTS: Bounds = Bounds { all: 250_000, tied: 200_000, share: 50_000 };

/// Has no mail to `email` tracked from now on, or none of this sender domain. Who has opted out already keeps the time
/// of it. `key` is whose word it is; `None`: the operator's.
pub async fn opt_out(
    ops: &Ops,
    key: Option<&ApiKey>,
    email: &str,
    domain: Option<&str>,
) -> Result<OptOutView, OpError> {
    let (address, domain) = parsed(email, domain)?;
    let hash = ops.privacy.opt_out(domain.as_ref(), &address);
    let now = clock::unix_ms();
    let made = ops.settings.change(|settings| {
        // A name with a slip of the pen would look like an opt-out and be none.
        if let Some(name) = domain.as_ref().filter(|name| !settings.domains.contains_key(*name)) {
            return Err(OpError::UnknownDomain(name.clone()));
        }
        let view = |created_at| OptOutView { id: hash.id(), domain: domain.clone().map(Into::into), created_at };
        match settings.opt_outs.get(&hash) {
            Some(at) => Ok((vec![], view(at))),
            None => {
                let ties = key.map_or(&[][..], |key| &key.domains);
                let own = |tie: &Tie| settings.opt_outs.of_customer(tie.id);
                let used = Used {
                    all: settings.opt_outs.len(),
                    tied: settings.opt_outs.of_customers(),
                    own: ties.iter().map(own).sum(),
                };
                OPT_OUTS.takes(ties, used).map_err(OpError::TooManyOptOuts)?;
                let made_for = |tie: &&Tie| domain.as_ref() == Some(&tie.name);
                let customer = ties.iter().find(made_for).map(|tie| tie.id);
                Ok((vec![Change::OptOut(hash, OptedOut { created_at: now, customer })], view(now)))
            }
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

#[cfg(test)]
mod tests {
    use super::super::fixture::{self, Fixture};
    use super::super::share::Full;
    use super::*;

    #[tokio::test]
    async fn one_customer_does_not_take_the_opt_outs_of_all() {
        let fixture = Fixture::new();
        let ops = &fixture.ops;
        let domains = [fixture::domain("one.example", 1), fixture::domain("two.example", 2)];
        let keys = domains.each_ref().map(|domain| fixture::key(&[domain]));
        let (both, operator) = (fixture::key(&domains.each_ref()), fixture::key(&[]));
        let hash = |n: usize| ops.privacy.opt_out(None, &Address::parse(&format!("u{n}@example.net")).unwrap());
        let own = |n| Change::OptOut(hash(n), OptedOut { created_at: 1, customer: Some(domains[0].id) });
        let added = domains.iter().cloned().map(Change::Domain);
        let full: Vec<_> = added.chain((0..OPT_OUTS.share - 1).map(own)).collect();
        ops.settings.change(|_| Ok::<_, OpError>((full, ()))).await.unwrap();

        let made = async |key, email, domain| opt_out(ops, Some(key), email, Some(domain)).await;
        let last = made(&keys[0], "last@example.net", "one.example").await.unwrap();
        for key in [&keys[0], &both] {
            let refused = made(key, "more@example.net", "one.example").await;
            assert!(matches!(refused, Err(OpError::TooManyOptOuts(Full::Share(_)))), "{refused:?}");
        }
        // Who has opted out already has, and others are not kept from it.
        assert_eq!(made(&keys[0], "last@example.net", "one.example").await.unwrap(), last);
        made(&keys[1], "more@example.net", "two.example").await.unwrap();
        made(&operator, "more@example.net", "one.example").await.unwrap();
        opt_out(ops, None, "more@example.net", None).await.unwrap();
        // One that is taken back makes room.
        assert!(opt_in(ops, "last@example.net", Some("one.example")).await.unwrap());
        made(&keys[0], "other@example.net", "one.example").await.unwrap();
    }
}
