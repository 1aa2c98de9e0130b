//! What the operator and the customers decided: sender domains, API keys, webhooks, switches, the kill list, opt-outs. A
//! snapshot in memory, folded from the log's Setting records; a change is a new record, and is in force when the log
//! has it on disk.
//!
//! Mail, redirects and lists read the snapshot alone, so all of it works with the store gone. The rules of a change
//! are not here: [`crate::domain`] has a domain's, `ops` puts them together.

mod beside;
mod erasures;
mod progress;
mod webhook;

pub use beside::{Note, TOLD_DOMAIN, is_of_this_log};
pub use erasures::{Accepted, Erasure, Erasures, erasure_added, erasure_elsewhere, erasure_of};
pub use progress::Progress;
pub use webhook::{About, EARLIER_SECRET_MS, EarlierSecret, Webhook};

use self::beside::Beside;
use crate::domain::{CertificateState, SenderDomain};
use crate::kill::{Kill, KillList, Killed};
use crate::mail::{Address, DomainName};
use crate::privacy::{OptOut, OptOuts, OptedOut, PrivacyKey};
use crate::spool::{AppendError, Entry, Log};
use arc_swap::ArcSwap;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// All settings at one moment. Cheap to hold, never changed.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Grows with every change in this process.
    pub version: u64,
    pub domains: BTreeMap<DomainName, SenderDomain>,
    /// Removed domains, whose links are still answered.
    pub removed: BTreeMap<Uuid, SenderDomain>,
    pub api_keys: BTreeMap<Uuid, ApiKey>,
    /// Endpoints that are told of events.
    pub webhooks: BTreeMap<Uuid, Webhook>,
    /// What is known of the certificates of tracking hosts.
    pub certificates: BTreeMap<DomainName, CertificateState>,
    /// Tracking is off for all mail (`trackpost tracking off`).
    pub tracking_off: bool,
    /// Tracking is off for these sender domains, known or not.
    pub tracking_off_for: BTreeSet<DomainName>,
    /// Nothing is delivered (`trackpost queue hold`).
    pub queue_held: bool,
    /// Links that are switched off.
    pub kills: Arc<KillList>,
    /// Recipients who are not tracked.
    pub opt_outs: Arc<OptOuts>,
    /// Some API keys could not be read, so a token that is not found may still be one.
    pub api_keys_incomplete: bool,
}

/// What is known of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyLookup {
    Found(ApiKey),
    Unknown,
    /// Not found, but not all keys could be read.
    Unreadable,
}

/// An API key. The token itself is not kept, only its SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    pub id: Uuid,
    pub name: String,
    /// SHA-256 of the token, hex. The token has 256 random bits, so no salt and no slow hash is needed.
    pub token_sha256: String,
    pub permission: Permission,
    /// The key is good for these sender domains alone; empty: for all.
    #[serde(default)]
    pub domains: Vec<Tie>,
    pub created_at: u64,
    /// When it was last used, within [`USE_STEP_MS`].
    #[serde(default)]
    pub last_used_at: Option<u64>,
    /// How a tie was stored before there could be several: resolved when settings are read.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "domain")]
    name_alone: Option<DomainName>,
}

/// A sender domain that a key is tied to. Mail may be sent for the name also while the domain is not set up, but not
/// once somebody has added it again; settings, mail and events are seen of this very domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tie {
    pub id: Uuid,
    pub name: DomainName,
}

/// Uses of a key within this time of each other are not told apart, so that reading does not become writing.
pub const USE_STEP_MS: u64 = 3_600_000;

impl ApiKey {
    /// A key that was never used.
    pub fn new(id: Uuid, name: String, token: &str, permission: Permission, domains: Vec<Tie>, now: u64) -> Self {
        let token_sha256 = token_digest(token);
        Self { id, name, token_sha256, permission, domains, created_at: now, last_used_at: None, name_alone: None }
    }

    /// Whether it may see and change this domain.
    pub fn reaches(&self, domain: &SenderDomain) -> bool {
        self.domains.is_empty() || self.domains.iter().any(|tie| tie.id == domain.id)
    }

    /// Whether it may send mail whose From header names this domain, which is set up as `known` or not at all: a name
    /// that somebody else has set up since is theirs.
    pub fn sends_for(&self, domain: Option<&DomainName>, known: Option<&SenderDomain>) -> bool {
        let own = |domain: &DomainName| {
            let mut ties = self.domains.iter().filter(|tie| tie.name == *domain);
            ties.any(|tie| known.is_none_or(|known| known.id == tie.id))
        };
        self.domains.is_empty() || domain.is_some_and(own)
    }

    fn resolved(mut self, domains: &BTreeMap<DomainName, SenderDomain>) -> Self {
        if let Some(name) = self.name_alone.take() {
            let id = domains.get(&name).map_or(Uuid::nil(), |domain| domain.id);
            self.domains.push(Tie { id, name });
        }
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    FullAccess,
    SendingAccess,
}

/// One setting with the value it takes, or that it is to go.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Domain(SenderDomain),
    DropDomain(DomainName),
    Removed(SenderDomain),
    DropRemoved(Uuid),
    ApiKey(ApiKey),
    DropApiKey(Uuid),
    Webhook(Webhook),
    DropWebhook(Uuid),
    Certificate(DomainName, CertificateState),
    DropCertificate(DomainName),
    TrackingOff(Option<DomainName>, bool),
    QueueHeld(bool),
    Kill(Kill, Killed),
    DropKill(Kill),
    OptOut(OptOut, OptedOut),
    DropOptOut(OptOut),
}

/// The settings in force, and the way to change them.
pub struct Settings {
    held: Arc<Held>,
    log: Log,
    /// One change at a time, so that each sees the one before it.
    turn: Arc<tokio::sync::Mutex<()>>,
}

struct Held {
    current: ArcSwap<Snapshot>,
    /// Told of each change.
    changed: tokio::sync::watch::Sender<u64>,
    /// What is made of the settings, anew before a change is answered.
    derived: std::sync::OnceLock<Derive>,
    beside: Beside,
}

type Derive = Box<dyn Fn(&Snapshot) + Send + Sync>;
/// What follows from a change. Quickly done: others wait for it.
pub type Then = Box<dyn FnOnce() + Send>;

const OFF: &str = "tracking-off";
const HELD: &str = "queue-held";

impl Settings {
    /// Starts from what recovery found. A record that cannot be read is left out and returned by its key, so that
    /// one damaged value takes nothing else with it.
    pub fn new(log: Log, recovered: &BTreeMap<Box<str>, Bytes>) -> (Self, Vec<String>) {
        let mut snapshot = Snapshot::default();
        let mut unreadable = Vec::new();
        let beside = Beside::default();
        for (key, value) in recovered {
            let taken = beside.take(key, value);
            match decode(key, value) {
                _ if taken == Some(true) => {}
                Some(change) => snapshot.apply(change),
                None => {
                    snapshot.api_keys_incomplete |= key.starts_with("api-key/");
                    unreadable.push(key.to_string());
                }
            }
        }
        beside.drop_surplus(&log);
        let keys = std::mem::take(&mut snapshot.api_keys);
        snapshot.api_keys = keys.into_iter().map(|(id, key)| (id, key.resolved(&snapshot.domains))).collect();
        let (current, changed) = (ArcSwap::from_pointee(snapshot), tokio::sync::watch::Sender::new(0));
        let held = Held { current, changed, derived: std::sync::OnceLock::new(), beside };
        (Self { held: Arc::new(held), log, turn: Arc::default() }, unreadable)
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.held.current.load_full()
    }

    /// Has `derive` make something of the settings now and at every change, before that is answered: who changes
    /// something sees it in force. Once only.
    pub fn derive(&self, derive: impl Fn(&Snapshot) + Send + Sync + 'static) {
        derive(&self.snapshot());
        assert!(self.held.derived.set(Box::new(derive)).is_ok(), "one thing is derived, at the start");
    }

    /// Tells of every change from now on.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.held.changed.subscribe()
    }

    /// Has everybody who waits for a change look again, since something else that they go by has changed.
    pub fn nudge(&self) {
        self.held.changed.send_modify(|_| ());
    }

    /// Lets `decide` look at the settings and say what changes; puts that on disk, then in force. Who asks may go away:
    /// what is on its way to the disk comes into force all the same, or memory and disk would say different things.
    pub async fn change<T, E: From<AppendError>>(
        &self,
        decide: impl FnOnce(&Snapshot) -> Result<(Vec<Change>, T), E>,
    ) -> Result<T, E> {
        self.change_then(|settings| decide(settings).map(|(changes, value)| (changes, value, None))).await
    }

    /// As [`Self::change`], with something to be done once it is in force: before the next change is decided, and also
    /// where who asked has gone. It is not done where nothing changes or the log cannot be written.
    pub async fn change_then<T, E: From<AppendError>>(
        &self,
        decide: impl FnOnce(&Snapshot) -> Result<(Vec<Change>, T, Option<Then>), E>,
    ) -> Result<T, E> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let mut next = Snapshot::clone(&self.held.current.load());
        let (changes, value, then) = decide(&next)?;
        let mut records: Vec<_> = changes.iter().map(encode).map(|(key, value)| (key.into(), value)).collect();
        // One record, so that a crash leaves no half of a change.
        let entry = match records.len() {
            0 => return Ok(value),
            1 => records.pop().map(|(key, value)| Entry::Setting { key, value }),
            _ => Some(Entry::Settings(records)),
        };
        let Some(durable) = entry.map(|entry| self.log.append(entry)) else { return Ok(value) };
        let held = Arc::clone(&self.held);
        let written = tokio::spawn(async move {
            let _turn = turn;
            durable.await?;
            changes.into_iter().for_each(|change| next.apply(change));
            next.version += 1;
            let version = next.version;
            if let Some(derive) = held.derived.get() {
                derive(&next);
            }
            held.current.store(Arc::new(next));
            held.changed.send_replace(version);
            if let Some(then) = then {
                then();
            }
            Ok::<_, AppendError>(())
        });
        written.await.unwrap_or(Err(AppendError::Closed))?;
        Ok(value)
    }
}

impl Settings {
    /// Notes that a key was used, at most once in [`USE_STEP_MS`]. A log that cannot be written is no reason to
    /// refuse the key.
    pub async fn note_use(&self, id: Uuid, now: u64) {
        let is_old = |key: &ApiKey| key.last_used_at.is_none_or(|at| now >= at.saturating_add(USE_STEP_MS));
        if !self.snapshot().api_keys.get(&id).is_some_and(is_old) {
            return;
        }
        let noted = self.change(|settings| {
            let key = settings.api_keys.get(&id).filter(|key| is_old(key)).cloned();
            let change = key.map(|key| Change::ApiKey(ApiKey { last_used_at: Some(now), ..key }));
            Ok::<_, AppendError>((change.into_iter().collect(), ()))
        });
        if let Err(e) = noted.await {
            tracing::debug!("the use of a key was not noted: {e}");
        }
    }
}

impl Snapshot {
    /// The sender domain with this id.
    pub fn domain(&self, id: Uuid) -> Option<&SenderDomain> {
        self.domains.values().find(|domain| domain.id == id)
    }

    /// The API key that `token` is. Takes the same time whether and where it is found.
    pub fn find_api_key(&self, token: &str) -> KeyLookup {
        let digest = token_digest(token);
        let mut found = None;
        for key in self.api_keys.values() {
            if bool::from(key.token_sha256.as_bytes().ct_eq(digest.as_bytes())) {
                found = Some(key);
            }
        }
        match found {
            Some(key) => KeyLookup::Found(key.clone()),
            None if self.api_keys_incomplete => KeyLookup::Unreadable,
            None => KeyLookup::Unknown,
        }
    }

    /// Whether a recipient has opted out of the tracking of mail of this sender domain, or of all mail. Costs nothing
    /// while nobody has.
    pub fn opted_out(&self, key: &PrivacyKey, domain: Option<&DomainName>, recipient: &Address) -> bool {
        self.opt_outs.hold(key, domain, recipient)
    }

    /// Every setting as the log has it: key and value. What [`Settings::new`] reads back.
    pub fn records(&self) -> BTreeMap<String, Bytes> {
        let domains = self.domains.values().cloned().map(Change::Domain);
        let removed = self.removed.values().cloned().map(Change::Removed);
        let keys = self.api_keys.values().cloned().map(Change::ApiKey);
        let webhooks = self.webhooks.values().cloned().map(Change::Webhook);
        let off = self.tracking_off_for.iter().cloned().map(|name| Change::TrackingOff(Some(name), true));
        let switches = [Change::TrackingOff(None, self.tracking_off), Change::QueueHeld(self.queue_held)];
        let all = domains.chain(removed).chain(keys).chain(webhooks).chain(off).chain(switches);
        let certificates =
            self.certificates.iter().map(|(host, state)| Change::Certificate(host.clone(), state.clone()));
        let kills = self.kills.iter().map(|(kill, killed)| Change::Kill(kill, killed));
        let opt_outs = self.opt_outs.iter().map(|(opt_out, kept)| Change::OptOut(opt_out, kept));
        let all = all.chain(certificates).chain(kills).chain(opt_outs);
        all.map(|change| encode(&change)).filter_map(|(key, value)| Some((key, value?))).collect()
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Domain(domain) => drop(self.domains.insert(domain.name.clone(), domain)),
            Change::DropDomain(name) => drop(self.domains.remove(&name)),
            Change::Removed(domain) => drop(self.removed.insert(domain.id, domain)),
            Change::DropRemoved(id) => drop(self.removed.remove(&id)),
            Change::ApiKey(key) => drop(self.api_keys.insert(key.id, key)),
            Change::DropApiKey(id) => drop(self.api_keys.remove(&id)),
            Change::Webhook(webhook) => drop(self.webhooks.insert(webhook.id, webhook)),
            Change::DropWebhook(id) => drop(self.webhooks.remove(&id)),
            Change::Certificate(host, state) => drop(self.certificates.insert(host, state)),
            Change::DropCertificate(host) => drop(self.certificates.remove(&host)),
            Change::QueueHeld(held) => self.queue_held = held,
            Change::TrackingOff(None, off) => self.tracking_off = off,
            Change::TrackingOff(Some(name), true) => drop(self.tracking_off_for.insert(name)),
            Change::TrackingOff(Some(name), false) => drop(self.tracking_off_for.remove(&name)),
            Change::Kill(kill, killed) => Arc::make_mut(&mut self.kills).insert(kill, killed),
            Change::DropKill(kill) => Arc::make_mut(&mut self.kills).remove(&kill),
            Change::OptOut(opt_out, kept) => Arc::make_mut(&mut self.opt_outs).insert(opt_out, kept),
            Change::DropOptOut(opt_out) => Arc::make_mut(&mut self.opt_outs).remove(&opt_out),
        }
    }
}

/// What is kept of an API key's token: SHA-256 in hex.
pub fn token_digest(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The log's key and value of a change; no value where the setting goes.
fn encode(change: &Change) -> (String, Option<Bytes>) {
    fn json<T: Serialize>(value: &T) -> Option<Bytes> {
        let text = serde_json::to_vec(value).expect("settings have string keys only and always serialise");
        Some(text.into())
    }
    match change {
        Change::Domain(domain) => (format!("domain/{}", domain.name), json(domain)),
        Change::DropDomain(name) => (format!("domain/{name}"), None),
        Change::Removed(domain) => (format!("removed/{}", domain.id), json(domain)),
        Change::DropRemoved(id) => (format!("removed/{id}"), None),
        Change::ApiKey(key) => (format!("api-key/{}", key.id), json(key)),
        Change::DropApiKey(id) => (format!("api-key/{id}"), None),
        Change::Webhook(webhook) => (format!("webhook/{}", webhook.id), json(webhook)),
        Change::DropWebhook(id) => (format!("webhook/{id}"), None),
        Change::Certificate(host, state) => (format!("certificate/{host}"), json(state)),
        Change::DropCertificate(host) => (format!("certificate/{host}"), None),
        Change::QueueHeld(held) => (HELD.to_owned(), held.then(|| Bytes::from_static(b"true"))),
        Change::TrackingOff(None, off) => (OFF.to_owned(), off.then(|| Bytes::from_static(b"true"))),
        Change::TrackingOff(Some(name), off) => (format!("{OFF}/{name}"), off.then(|| Bytes::from_static(b"true"))),
        Change::Kill(kill, killed) => (format!("kill/{kill}"), json(killed)),
        Change::DropKill(kill) => (format!("kill/{kill}"), None),
        Change::OptOut(opt_out, kept) => (format!("opt-out/{opt_out}"), json(kept)),
        Change::DropOptOut(opt_out) => (format!("opt-out/{opt_out}"), None),
    }
}

/// The change that a record stands for; `None` if this version cannot read it.
fn decode(key: &str, value: &[u8]) -> Option<Change> {
    fn json<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
        serde_json::from_slice(value).ok()
    }
    match key.split_once('/') {
        None if key == OFF => Some(Change::TrackingOff(None, true)),
        None if key == HELD => Some(Change::QueueHeld(true)),
        Some(("domain", _)) => json(value).map(Change::Domain),
        Some(("removed", _)) => json(value).map(Change::Removed),
        Some(("api-key", _)) => json(value).map(Change::ApiKey),
        Some(("webhook", _)) => json(value).map(Change::Webhook),
        Some(("certificate", host)) => Some(Change::Certificate(DomainName::parse(host).ok()?, json(value)?)),
        Some(("kill", kill)) => Some(Change::Kill(Kill::of_key(kill)?, json(value)?)),
        Some(("opt-out", hash)) => Some(Change::OptOut(OptOut::parse(hash)?, json(value)?)),
        Some((OFF, name)) => DomainName::parse(name).ok().map(|name| Change::TrackingOff(Some(name), true)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
