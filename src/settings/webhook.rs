//! An endpoint that is told of events, and which events those are.

use super::{ApiKey, Snapshot, Tie};
use crate::event::SigningSecret;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    pub id: Uuid,
    /// The URL that events are posted to.
    pub endpoint: String,
    /// Names of the events that it is told of; all known, none twice.
    pub events: Vec<String>,
    pub enabled: bool,
    /// Milliseconds since 1970, as all times here.
    pub created_at: u64,
    pub secret: SigningSecret,
    /// The secret before the last rotation, which is good for some time more.
    #[serde(default)]
    pub earlier: Option<EarlierSecret>,
    /// Of the key that made it: it is told of events of these sender domains alone; empty: of all.
    #[serde(default)]
    pub domains: Vec<Tie>,
    /// Why we disabled it, where it was us.
    #[serde(default)]
    pub disabled_because: Option<String>,
    #[serde(default)]
    pub disabled_at: Option<u64>,
    /// Since when every attempt has failed. Short failures are not noted.
    #[serde(default)]
    pub failing_since: Option<u64>,
}

/// A secret that was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierSecret {
    pub secret: SigningSecret,
    /// Until then requests are signed with it as well.
    pub until: u64,
}

/// How long a secret that was replaced is good.
pub const EARLIER_SECRET_MS: u64 = 24 * 3_600_000;

/// Whom an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About<'a> {
    /// Mail, by the domain of its From header and when it was accepted.
    Mail { from_domain: Option<&'a str>, accepted_at: u64 },
    /// A sender domain, which may have been removed.
    Domain(Uuid),
}

impl Webhook {
    /// One that is enabled.
    pub fn new(
        id: Uuid,
        endpoint: String,
        events: Vec<String>,
        secret: SigningSecret,
        domains: Vec<Tie>,
        now: u64,
    ) -> Self {
        Self {
            id,
            endpoint,
            events,
            enabled: true,
            created_at: now,
            secret,
            earlier: None,
            domains,
            disabled_because: None,
            disabled_at: None,
            failing_since: None,
        }
    }

    /// Replaces the secret; the one before stays good for [`EARLIER_SECRET_MS`].
    pub fn rotate(&mut self, secret: SigningSecret, now: u64) {
        let secret = std::mem::replace(&mut self.secret, secret);
        self.earlier = Some(EarlierSecret { secret, until: now.saturating_add(EARLIER_SECRET_MS) });
    }

    /// Turns it on, with its failures forgotten, or off at somebody's word.
    pub fn set_enabled(&mut self, enabled: bool) {
        if enabled && !self.enabled {
            (self.disabled_because, self.disabled_at, self.failing_since) = (None, None, None);
        }
        self.enabled = enabled;
    }

    /// The secrets that requests are signed with at `now`, the newest first.
    pub fn secrets(&self, now: u64) -> impl Iterator<Item = &SigningSecret> {
        let earlier = self.earlier.as_ref().filter(|earlier| now < earlier.until);
        std::iter::once(&self.secret).chain(earlier.map(|earlier| &earlier.secret))
    }
}

impl ApiKey {
    /// Whether it may see and change this endpoint: a key that is tied to domains those alone that it could have made.
    pub fn reaches_webhook(&self, webhook: &Webhook) -> bool {
        let own = |tie: &Tie| self.domains.iter().any(|own| own.id == tie.id);
        self.domains.is_empty() || !webhook.domains.is_empty() && webhook.domains.iter().all(own)
    }
}

impl Snapshot {
    /// The endpoints that are to be told of an event, by its name and when it happened. An endpoint is told of what
    /// happens while it is there and enabled, and of nothing that happened before it was made. One that is tied to
    /// domains hears of those very domains: not of mail that somebody else sent under the same name before the domain
    /// was added. What was made later than `now` was made by a clock that was ahead, and is as old as anything.
    pub fn webhooks_for<'a>(
        &'a self,
        kind: &'a str,
        about: About<'a>,
        at: u64,
        now: u64,
    ) -> impl Iterator<Item = Uuid> + 'a {
        let was_there = move |created_at: u64, at: u64| at >= created_at || created_at > now;
        let domain = match about {
            About::Domain(id) => Some(id),
            About::Mail { from_domain, accepted_at } => {
                let known = from_domain.and_then(|name| crate::mail::DomainName::parse(name).ok());
                let known = known.and_then(|name| self.domains.get(&name));
                known.filter(|domain| was_there(domain.created_at, accepted_at)).map(|domain| domain.id)
            }
        };
        let hears = move |webhook: &&Webhook| {
            let own = webhook.domains.is_empty() || webhook.domains.iter().any(|tie| Some(tie.id) == domain);
            own && webhook.enabled
                && was_there(webhook.created_at, at)
                && webhook.events.iter().any(|name| name == kind)
        };
        self.webhooks.values().filter(hears).map(|webhook| webhook.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SenderDomain;
    use crate::mail::DomainName;
    use crate::settings::{Change, Permission};

    fn webhook(id: u128, events: &[&str], domains: Vec<Tie>) -> Webhook {
        let events = events.iter().map(|name| (*name).to_owned()).collect();
        let secret = SigningSecret::new([1; 24]);
        Webhook::new(Uuid::from_u128(id), "https://example.com/".into(), events, secret, domains, 100)
    }

    fn tie(id: u128, name: &str) -> Tie {
        Tie { id: Uuid::from_u128(id), name: DomainName::parse(name).unwrap() }
    }

    #[test]
    fn who_is_told() {
        let mut settings = Snapshot::default();
        let domain = SenderDomain::new(DomainName::parse("example.com").unwrap(), Uuid::from_u128(50), 150);
        settings.apply(Change::Domain(domain));
        settings.apply(Change::Webhook(webhook(1, &["email.sent", "domain.deleted"], vec![])));
        settings.apply(Change::Webhook(webhook(2, &["email.sent", "domain.deleted"], vec![tie(50, "example.com")])));
        // Of a domain of this name that was there before.
        settings.apply(Change::Webhook(webhook(3, &["email.sent", "domain.deleted"], vec![tie(49, "example.com")])));
        settings.apply(Change::Webhook(Webhook { enabled: false, ..webhook(4, &["email.sent"], vec![]) }));
        let mail = |from_domain, accepted_at| About::Mail { from_domain, accepted_at };
        for (kind, about, at, told) in [
            ("email.sent", mail(Some("example.com"), 160), 200, &[1, 2][..]),
            ("email.sent", mail(Some("example.com"), 140), 200, &[1]),
            ("email.sent", mail(Some("example.net"), 160), 200, &[1]),
            ("email.sent", mail(None, 160), 200, &[1]),
            ("email.sent", mail(Some("example.com"), 160), 99, &[]),
            ("email.opened", mail(Some("example.com"), 160), 200, &[]),
            ("domain.deleted", About::Domain(Uuid::from_u128(49)), 200, &[1, 3]),
            ("domain.deleted", About::Domain(Uuid::from_u128(50)), 200, &[1, 2]),
        ] {
            let found: Vec<_> = settings.webhooks_for(kind, about, at, 1_000).map(|id| id.as_u128()).collect();
            assert_eq!(found, told, "{kind} {about:?} {at}");
        }
        // All of them were made by a clock that was ahead.
        let found = settings.webhooks_for("email.sent", mail(Some("example.com"), 60), 60, 60).map(|id| id.as_u128());
        assert_eq!(found.collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn who_may_see_it() {
        let key = |domains| ApiKey::new(Uuid::nil(), "k".into(), "re_a", Permission::FullAccess, domains, 0);
        let (all, one) =
            (webhook(1, &["email.sent"], vec![]), webhook(2, &["email.sent"], vec![tie(1, "a.example.com")]));
        let (none, a, ab) = (
            key(vec![]),
            key(vec![tie(1, "a.example.com")]),
            key(vec![tie(1, "a.example.com"), tie(2, "b.example.com")]),
        );
        let b = key(vec![tie(2, "b.example.com")]);
        let both = webhook(3, &["email.sent"], ab.domains.clone());
        let sees = |key: &ApiKey| [&all, &one, &both].map(|webhook| key.reaches_webhook(webhook));
        assert_eq!(sees(&none), [true, true, true]);
        assert_eq!(sees(&a), [false, true, false]);
        assert_eq!(sees(&ab), [false, true, true]);
        assert_eq!(sees(&b), [false, false, false]);
    }

    #[test]
    fn a_rotated_secret_is_good_for_a_day() {
        let mut webhook = webhook(1, &["email.sent"], vec![]);
        let (first, second) = (webhook.secret.clone(), SigningSecret::new([2; 24]));
        webhook.rotate(second.clone(), 1_000);
        assert_eq!(webhook.secrets(1_000).collect::<Vec<_>>(), [&second, &first]);
        assert_eq!(webhook.secrets(1_000 + EARLIER_SECRET_MS - 1).count(), 2);
        assert_eq!(webhook.secrets(1_000 + EARLIER_SECRET_MS).collect::<Vec<_>>(), [&second]);
        // At most two are good at once.
        webhook.rotate(SigningSecret::new([3; 24]), 2_000);
        assert_eq!(webhook.secrets(2_000).count(), 2);
    }
}
