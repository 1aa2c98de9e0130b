//! What people set of a domain, as it stood when somebody began to change it: of two who do so at once, the second is
//! told, and takes nothing back that he has not seen.

use crate::domain::SenderDomain;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What can be set of a domain, small enough to go out with a form and to come back with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The labels asked for, A-labels.
    pub subdomain: Option<String>,
    pub open: bool,
    pub click: bool,
    pub dkim: bool,
    /// A digest of who is excluded.
    pub excluded: String,
}

impl Configuration {
    /// As it is now.
    pub fn of(domain: &SenderDomain) -> Self {
        let mut digest = Sha256::new();
        for entry in domain.excluded.iter() {
            digest.update(entry.as_bytes());
            // No entry has a line end in it.
            digest.update(b"\n");
        }
        Self {
            subdomain: domain.tracking_subdomain().map(|subdomain| subdomain.labels.clone()),
            open: domain.open_tracking,
            click: domain.click_tracking,
            dkim: domain.dkim.is_on(),
            excluded: URL_SAFE_NO_PAD.encode(digest.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Demand, Excluded, Expected};
    use crate::keys::{DkimKeys, TokenRing};
    use crate::mail::DomainName;
    use crate::ops::{self, DomainUpdate, NewDomain, OpError, Ops, Terms};
    use crate::queue::{Queue, heads_of};
    use crate::retry::Schedule;
    use crate::settings::Settings;
    use crate::spool::{Log, Options};
    use arc_swap::ArcSwap;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;
    use uuid::Uuid;

    fn ops_in(dir: &Path) -> Ops {
        let (log, recovered) = Log::open(Options::new(dir)).unwrap();
        let (settings, _) = Settings::new(log.clone(), &recovered.settings);
        let keys = TokenRing::open(dir).unwrap();
        let name = |text| DomainName::parse(text).unwrap();
        let schedule = Schedule { pauses: vec![Duration::from_mins(1)], max_age: Duration::from_hours(1) };
        Ops {
            settings: Arc::new(settings),
            privacy: Arc::new(keys.keys.privacy_key(false).unwrap()),
            keys,
            dkim: Arc::new(DkimKeys::new(dir)),
            dkim_turn: tokio::sync::Mutex::default(),
            queue: Arc::new(Queue::new(recovered.messages, heads_of(&log), 0, &schedule)),
            log,
            store: crate::store::MaybeStore::default(),
            webhooks: Arc::default(),
            terms: ArcSwap::from_pointee(Terms {
                expected: Expected { cname_target: name("track.example.net"), caa_issuer: name("ca.example.net") },
                demand: Demand::Nothing,
                by_acme: false,
                unsupported_suffixes: Vec::new(),
                policy_url: None,
                removed_domain_grace: Duration::from_hours(24),
                private_webhooks: false,
                webhook_ports: crate::config::WebhookPorts::Any,
            }),
            forget: tokio::sync::mpsc::channel(1).0,
            readers: tokio::sync::Semaphore::new(1),
            forget_dns: false.into(),
        }
    }

    #[tokio::test]
    async fn the_second_of_two_who_began_at_once_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let ops = ops_in(dir.path());
        let new = NewDomain { name: "example.com".into(), open: true, ..NewDomain::default() };
        let id: Uuid = ops::domain_add(&ops, new).await.unwrap().id.parse().unwrap();
        let now = || Configuration::of(ops.settings.snapshot().domain(id).unwrap());
        let began = now();
        let update = |expects: &Configuration| DomainUpdate {
            subdomain: Some("links".into()),
            excluded: Some(vec!["@example.com".into()]),
            expects: Some(expects.clone()),
            ..DomainUpdate::default()
        };
        ops::domain_update(&ops, id, update(&began)).await.unwrap();
        let first = now();
        assert_eq!((first.subdomain.as_deref(), first.open), (Some("links"), true));

        let second = DomainUpdate { open: Some(false), dkim: Some(true), ..update(&began) };
        let refused = ops::domain_update(&ops, id, second.clone()).await;
        assert!(matches!(refused, Err(OpError::ChangedMeanwhile)), "{refused:?}");
        assert_eq!(now(), first, "a refusal changes nothing");

        let seen = DomainUpdate { expects: Some(first.clone()), dkim: None, ..second };
        assert!(!ops::domain_update(&ops, id, seen).await.unwrap().open_tracking);
        // Who expects nothing, such as the API, is asked nothing.
        let blind = DomainUpdate { click: Some(true), ..DomainUpdate::default() };
        assert!(ops::domain_update(&ops, id, blind).await.unwrap().click_tracking);
    }

    #[test]
    fn every_part_of_it_is_told_apart() {
        let plain = SenderDomain::new(DomainName::parse("example.com").unwrap(), Uuid::nil(), 0);
        let changed = |change: fn(&mut SenderDomain)| {
            let mut domain = plain.clone();
            change(&mut domain);
            Configuration::of(&domain)
        };
        let all = [
            changed(|_| ()),
            changed(|domain| domain.open_tracking = true),
            changed(|domain| domain.click_tracking = true),
            changed(|domain| domain.set_subdomain("links", 0).unwrap()),
            changed(|domain| domain.excluded = Excluded::parse(["a@example.com"]).unwrap()),
            changed(|domain| domain.excluded = Excluded::parse(["@example.com", "a@example.com"]).unwrap()),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(all[place + 1..].iter().all(|other| other != one), "{one:?}");
        }
        assert_eq!(changed(|domain| domain.created_at = 9), all[0]);
    }
}
