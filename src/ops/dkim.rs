//! The DKIM keys of a domain: made, brought, turned over. A key is on disk before the settings name it, and goes from
//! there after they no longer do, in the same step: whoever asked may hang up in between.

use super::domain_view::DomainView;
use super::domains::{domain_show, take_in};
use super::{OpError, Ops};
use crate::clock;
use crate::domain::{DkimKey, DomainRule, Selector, SenderDomain, TxtFinding};
use crate::keys::{DkimKeys, NewDkimKey};
use crate::mail::DomainName;
use crate::settings::{Change, Then};
use crate::supervise::out_of_the_way;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// A key that somebody brings.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DkimImport {
    /// PKCS#8 or PKCS#1 in PEM.
    pub pem: String,
    /// The one under which it is published, or is to be; else one of ours.
    pub selector: Option<String>,
    /// Though it takes the place of one that others rely on.
    #[serde(default)]
    pub force: bool,
}

/// Gives a domain another key, which signs once its record is verified. The one before it signs until then. Refused
/// where a key would go that others rely on, unless with `force`: see [`crate::domain::Dkim::may_add`].
pub async fn dkim_rotate(ops: &Ops, id: Uuid, force: bool) -> Result<DomainView, OpError> {
    let _turn = ops.dkim_turn.lock().await;
    {
        let settings = ops.settings.snapshot();
        let domain = settings.domain(id).ok_or(OpError::NoSuchDomain)?;
        if !domain.dkim.is_on() {
            return Err(DomainRule::DkimOff.into());
        }
        // Before time is spent on making one. No key has an empty public half.
        if !force {
            domain.dkim.may_add(&domain.name, &domain.dkim.next_selector(), "", clock::unix_ms())?;
        }
    }
    let key = generate().await?;
    add(ops, id, &key, None, force).await
}

/// Lets go of an earlier key, and takes it from the disk.
pub async fn dkim_forget(ops: &Ops, id: Uuid, selector: &str) -> Result<DomainView, OpError> {
    let _turn = ops.dkim_turn.lock().await;
    let selector = Selector::parse(selector)?;
    let forgotten = ops.settings.change_then(|settings| {
        let mut domain = settings.domain(id).cloned().ok_or(OpError::NoSuchDomain)?;
        let before = domain.clone();
        domain.dkim.forget(&selector)?;
        let then = settling(ops, Some(&before), &domain);
        Ok::<_, OpError>((vec![Change::Domain(domain)], (), Some(then)))
    });
    forgotten.await?;
    domain_show(ops, id)
}

/// Takes in a key, which signs once its record is verified, and turns DKIM on.
pub async fn dkim_import(ops: &Ops, id: Uuid, import: DkimImport) -> Result<DomainView, OpError> {
    let _turn = ops.dkim_turn.lock().await;
    let selector = import.selector.as_deref().map(Selector::parse).transpose()?;
    let (pem, force) = (import.pem, import.force);
    let key = tokio::task::spawn_blocking(move || NewDkimKey::import(pem.as_bytes())).await;
    let key = key.map_err(|e| OpError::Fault(e.to_string()))??;
    add(ops, id, &key, selector, force).await
}

async fn add(
    ops: &Ops,
    id: Uuid,
    key: &NewDkimKey,
    selector: Option<Selector>,
    force: bool,
) -> Result<DomainView, OpError> {
    let now = clock::unix_ms();
    let added = ops.settings.change_then(|settings| {
        let before = settings.domain(id).ok_or(OpError::NoSuchDomain)?;
        let selector = selector.unwrap_or_else(|| before.dkim.next_selector());
        if !force {
            before.dkim.may_add(&before.name, &selector, &key.public, now)?;
        }
        let mut domain = before.clone();
        place(ops, &mut domain, key, Some(selector), now)?;
        let then = settling(ops, Some(before), &domain);
        Ok::<_, OpError>((vec![Change::Domain(domain)], (), Some(then)))
    });
    added.await?;
    domain_show(ops, id)
}

/// Makes a key, away from those who wait for mail.
pub(super) async fn generate() -> Result<NewDkimKey, OpError> {
    let made = tokio::task::spawn_blocking(NewDkimKey::generate).await;
    let failed = |why: String| OpError::Fault(format!("a DKIM key could not be made: {why}"));
    made.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))
}

/// Puts a key on disk and into the domain, in one turn of the settings: no look at DNS comes in between that would make
/// the key with its selector the one that signs. [`settling`] is to follow once the domain is on disk.
pub(super) fn place(
    ops: &Ops,
    domain: &mut SenderDomain,
    key: &NewDkimKey,
    selector: Option<Selector>,
    now: u64,
) -> Result<(), OpError> {
    let selector = selector.unwrap_or_else(|| domain.dkim.next_selector());
    domain.dkim.add(&domain.name, selector.clone(), key.public.clone(), now)?;
    Ok(out_of_the_way(|| ops.dkim.keep(&domain.name, &selector, key))?)
}

/// What has the keys of a domain lie as the settings have them: the newest in its place, and those that were dropped
/// nowhere. Keys are placed and removed within turns of the settings alone, so none that is added later is taken for one
/// of these.
pub(super) fn settling(ops: &Ops, before: Option<&SenderDomain>, after: &SenderDomain) -> Then {
    let of = |key: &DkimKey| (key.selector.clone(), key.public.clone());
    let newest = after.dkim.newest().map(of);
    let stays = |key: &&DkimKey| after.dkim.keys().any(|it| it.selector == key.selector && it.public == key.public);
    let earlier = before.into_iter().flat_map(|before| before.dkim.keys());
    let dropped: Vec<_> = earlier.filter(|key| !stays(key)).map(of).collect();
    let (files, domain) = (Arc::clone(&ops.dkim), after.name.clone());
    changed(move || {
        if let Some((selector, public)) = newest
            && let Err(e) = files.settle(&domain, &selector, &public)
        {
            tracing::warn!(%domain, "a DKIM key stays where it was made: {e}");
        }
        remove(&files, &domain, dropped);
    })
}

/// What takes all keys of a domain from the disk once it is removed.
pub(super) fn removal_of_all(ops: &Ops, domain: &SenderDomain) -> Then {
    let all = domain.dkim.keys().map(|key| (key.selector.clone(), key.public.clone())).collect();
    let (files, domain) = (Arc::clone(&ops.dkim), domain.name.clone());
    changed(move || remove(&files, &domain, all))
}

fn changed(files: impl FnOnce() + Send + 'static) -> Then {
    Box::new(|| out_of_the_way(files))
}

fn remove(files: &DkimKeys, domain: &DomainName, keys: Vec<(Selector, String)>) {
    for (selector, public) in keys {
        if let Err(e) = files.remove(domain, &selector, &public) {
            tracing::warn!(%domain, "a DKIM key that is no longer needed stays on disk: {e}");
        }
    }
}

/// Takes in what a look at the record of a key has brought, which was `looked_at` as it began at `began`.
pub async fn dkim_checked(
    ops: &Ops,
    id: Uuid,
    looked_at: &DkimKey,
    finding: &TxtFinding,
    began: u64,
) -> Result<(), OpError> {
    take_in(ops, id, |domain, _| domain.dkim_checked(looked_at, finding, began)).await
}

impl fmt::Debug for DkimImport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DkimImport").field("selector", &self.selector).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture::{Fixture, aside};
    use crate::ops::{NewDomain, domain_add, domain_remove};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_key_gives_way_when_the_settings_are_on_disk_and_no_sooner() {
        let fixture = Fixture::new();
        let ops = &*fixture.ops;
        let made = domain_add(ops, NewDomain { name: "example.com".to_owned(), ..NewDomain::default() }).await.unwrap();
        let (id, selector) = (Uuid::parse_str(&made.id).unwrap(), Selector::parse("own").unwrap());
        let key = async |new: &NewDkimKey| add(ops, id, new, Some(selector.clone()), true).await;
        let name = DomainName::parse("example.com").unwrap();
        let opens = |new: &NewDkimKey| ops.dkim.open(&name, &selector, &new.public).is_ok();
        let all = [generate().await.unwrap(), generate().await.unwrap(), generate().await.unwrap()];
        key(&all[0]).await.unwrap();
        key(&all[1]).await.unwrap();
        assert_eq!([0, 1].map(|n| opens(&all[n])), [false, true]);
        // The settings go on naming the second key, whatever a restart finds.
        aside(|| {
            ops.log.close();
        });
        key(&all[2]).await.unwrap_err();
        assert!(opens(&all[1]), "the file of the key that is in force was written over");
        domain_remove(ops, id).await.unwrap_err();
        assert!(opens(&all[1]));
    }
}
