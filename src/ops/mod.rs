//! One function per change of state, and per look at it, for whoever asks: the command line's socket, the API,
//! the dashboard. Rules are the core's; this module puts them together with the settings, the log, the
//! queue and the view.

mod certificates;
mod configuration;
mod content;
mod dkim;
mod domain_view;
mod domains;
mod emails;
mod events;
mod figures;
#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod hang_up;
mod history;
mod keys;
mod kills;
mod mail;
mod metrics;
mod opt_outs;
mod periods;
mod recipients;
mod search;
mod share;
mod stats;
mod tops;
mod walk;
mod webhooks;

pub use certificates::{
    WantedHost, certificate_dropped, certificate_failed, certificate_in_use, certificate_issued, hosts_of_nobody,
    hosts_with_certificates, target_asked,
};
pub use configuration::Configuration;
pub use content::{Content, email_content};
pub use dkim::{DkimImport, dkim_checked, dkim_forget, dkim_import, dkim_rotate};
pub use domain_view::{CertificateView, DomainView, RecordView};
pub use domains::{
    DomainUpdate, NewDomain, Verify, domain_add, domain_checked, domain_id, domain_list, domain_remove, domain_show,
    domain_update, domain_verify, tracking_switch,
};
pub use emails::{Email, Range, email_list, email_show};
pub use events::{
    CopyEvents, Interest, LinkClicks, events_of, events_of_copies, events_of_page, events_page, events_tail,
    link_clicks,
};
pub use figures::{CONTRACT, Figure, OURS, Value, figure_count, figure_rate};
pub use history::{READERS, apart, aside, email_of, may_see};
pub use keys::{KeyView, Made, NewKey, key_create, key_delete, key_list, key_rename, key_revoke, key_rotate};
pub use kills::{KillView, kill_add, kill_delete, kill_list, kill_remove};
pub use mail::{
    MessageView, QueueView, RecipientView, message_show, queue_failed, queue_hold, queue_list, queue_page,
    queue_remove, queue_retry, queue_show, search,
};
pub use opt_outs::{OPT_OUTS, OptOutView, opt_in, opt_out, opted_out};

pub use metrics::{DomainHours, Metrics, MetricsQuery, MetricsRow, metrics};
pub use periods::{Granularity, MAX_PERIODS, Period, PeriodError, Window};
pub use search::{Among, LOOKS, Looked, Wanted, domains_of, emails_where, emails_with};
pub use share::{Bounds, Full};

pub use recipients::{Forget, KnownMessage, recipient_erase, recipient_export, recipients_erased};
pub use stats::{DayStats, DomainStats, LinkStats, SkipStats, TagStats, domain_stats};
pub use tops::{SkipTop, Tops, link_tops, skip_tops};

pub use webhooks::{
    NewWebhook, WEBHOOKS, WebhookUpdate, domain_told, webhook_attempts, webhook_create, webhook_delete,
    webhook_disable, webhook_event, webhook_events, webhook_failing, webhook_replay, webhook_rotate, webhook_update,
};

use crate::config::WebhookPorts;
use crate::domain::{Demand, DomainRule, Expected};
use crate::keys::{BadDkimKey, DkimKeys, KeyError, TokenRing};
use crate::kill::KillError;
use crate::mail::{AddressError, DomainError, DomainName, QueueId};
use crate::privacy::PrivacyKey;
use crate::queue::Queue;
use crate::settings::Settings;
use crate::spool::{AppendError, Log};
use crate::store::{MaybeStore, StoreError};
use arc_swap::ArcSwap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::Notify;

/// What the functions of this module work on.
pub struct Ops {
    pub settings: Arc<Settings>,
    pub keys: TokenRing,
    pub dkim: Arc<DkimKeys>,
    /// One change of DKIM keys at a time: files and settings must go together.
    pub dkim_turn: tokio::sync::Mutex<()>,
    /// What opt-outs are hashed with.
    pub privacy: Arc<PrivacyKey>,
    pub queue: Arc<Queue>,
    pub log: Log,
    pub store: MaybeStore,
    /// Told when a webhook's endpoint may have something to be sent.
    pub webhooks: Arc<Notify>,
    /// May be swapped.
    pub terms: ArcSwap<Terms>,
    /// To whom recipients are named that are to be forgotten.
    pub forget: tokio::sync::mpsc::Sender<Forget>,
    /// Turns at reading the history; so many at once as [`READERS`].
    pub readers: tokio::sync::Semaphore,
    /// The next look at DNS takes nothing from what earlier ones left in the resolver's cache.
    pub forget_dns: AtomicBool,
}

/// What the configuration says of domains and endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    pub expected: Expected,
    pub demand: Demand,
    /// Certificates are ordered from a CA, so that its CAA records and its refusals count.
    pub by_acme: bool,
    pub unsupported_suffixes: Vec<String>,
    pub policy_url: Option<String>,
    /// How long links of a removed domain go on redirecting.
    pub removed_domain_grace: Duration,
    /// Webhooks may lead to private addresses, and over http.
    pub private_webhooks: bool,
    /// The ports that they may have.
    pub webhook_ports: WebhookPorts,
}

/// Why something could not be done. The text is for whoever asked.
#[derive(Debug)]
pub enum OpError {
    /// The customer's or the operator's: a rule of a domain.
    Rule(DomainRule),
    BadName(String, DomainError),
    DomainExists(DomainName),
    UnknownDomain(DomainName),
    /// By its id.
    NoSuchDomain,
    /// It is no longer what whoever wants to change it has seen.
    ChangedMeanwhile,
    /// All tracking hosts lead there, so it can be none itself.
    HostIsTarget(DomainName),
    /// The CA does not serve names that end so.
    UnsupportedSuffix {
        host: DomainName,
        suffix: String,
        /// Where the CA says whom it does not serve.
        policy: Option<String>,
    },
    /// The tracking host is another sender domain's.
    HostTaken(DomainName),
    UnknownKey(String),
    AmbiguousKey(String),
    UnknownMessage(QueueId),
    /// Settled, or never there.
    NotQueued(QueueId),
    /// Being delivered at this moment.
    InFlight(QueueId),
    NothingToSearch,
    /// It cannot stand on the kill list.
    Kill(KillError),
    /// It does not stand there.
    NotKilled,
    /// There is no room for more.
    TooManyOptOuts(Full),
    BadAddress(String, AddressError),
    /// A message was not taken; the reply.
    Refused(String),
    BadQueueId(String),
    BadKeyName,
    NoSuchWebhook,
    NoSuchWebhookEvent,
    TooManyWebhooks(Full),
    /// Where a webhook may not lead, and why.
    BadEndpoint(String, &'static str),
    /// A webhook may have other ports.
    ClosedPort {
        endpoint: String,
        port: u16,
        ports: WebhookPorts,
    },
    UnknownEventName(String),
    NoEventNames,
    /// A list cannot go on after this.
    UnknownAfter(String),
    /// The log could not be written.
    Log(AppendError),
    Keys(KeyError),
    /// A DKIM key that was brought.
    BadDkimKey(BadDkimKey),
    /// A DKIM key could not be made.
    Fault(String),
    Store(StoreError),
    /// The view is shut, so there is no history to be had.
    NoHistory,
    /// The caller's: no such range of time.
    Periods(PeriodError),
    /// An answer would have more rows than this.
    TooManyRows(usize),
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => write!(f, "{rule}"),
            Self::BadName(name, e) => write!(f, "{name:?} {e}"),
            Self::DomainExists(name) => write!(f, "{name} is a sender domain already; update that one"),
            Self::UnknownDomain(name) => write!(f, "there is no sender domain {name}"),
            Self::HostIsTarget(host) => {
                write!(f, "{host} is where the CNAMEs of all tracking hosts lead: give another subdomain")
            }
            Self::NoSuchDomain => f.write_str("there is no such sender domain"),
            Self::ChangedMeanwhile => f.write_str("somebody else has changed this domain meanwhile: look at it again"),
            Self::UnsupportedSuffix { host, suffix, policy } => {
                write!(
                    f,
                    "{host} cannot be a tracking host: the certificate authority serves no names under {suffix:?}"
                )?;
                policy.as_ref().map_or(Ok(()), |url| write!(f, ", see {url}"))
            }
            Self::HostTaken(host) => write!(f, "{host} belongs to another sender domain: give another subdomain"),
            Self::UnknownKey(id) => write!(f, "there is no API key {id}"),
            Self::AmbiguousKey(id) => write!(f, "several API keys begin with {id}: give more of the id"),
            Self::UnknownMessage(id) => write!(f, "there is no message {id}"),
            Self::NotQueued(id) => write!(f, "there is no message {id} in the queue"),
            Self::InFlight(id) => write!(f, "{id} is being delivered at this moment; try again when that has ended"),
            Self::NothingToSearch => f.write_str("say what to search: a queue id, a recipient or a Message-ID"),
            Self::Kill(e) => write!(f, "{e}"),
            Self::NotKilled => f.write_str("that is not on the kill list"),
            Self::TooManyOptOuts(full) => write!(f, "no more opt-outs are kept: {full}"),
            Self::BadAddress(address, e) => write!(f, "{address:?} is no address: {e:?}"),
            Self::Refused(reply) => write!(f, "the message was not taken: {reply}"),
            Self::BadQueueId(id) => write!(f, "{id:?} is no queue id"),
            Self::BadKeyName => f.write_str("a key's name has 1 to 50 characters"),
            Self::NoSuchWebhook => f.write_str("there is no such webhook"),
            Self::NoSuchWebhookEvent => f.write_str("there is no such event of this webhook"),
            Self::TooManyWebhooks(full) => write!(f, "there is no room for another webhook: {full}; remove one"),
            Self::BadEndpoint(url, why) => write!(f, "the endpoint {url:?} {why}"),
            Self::ClosedPort { endpoint, port, ports } => {
                write!(f, "the endpoint {endpoint:?} has port {port}; endpoints may have {ports}")
            }
            Self::UnknownEventName(name) => {
                write!(f, "{name:?} is no event; there are {}", crate::event::payload::EVENT_NAMES.join(", "))
            }
            Self::UnknownAfter(id) => write!(f, "the `after` parameter names nothing in this list: {id:?}"),
            Self::NoEventNames => f.write_str("a webhook needs at least one event"),
            Self::Log(e) => write!(f, "the change could not be written to the log: {e}"),
            Self::Keys(e) => write!(f, "{e}"),
            Self::BadDkimKey(e) => write!(f, "{e}"),
            Self::Fault(why) => f.write_str(why),
            Self::Store(e) => write!(f, "the store cannot be read: {e}"),
            Self::Periods(e) => write!(f, "{e}"),
            Self::TooManyRows(most) => write!(
                f,
                "the answer would have over {most} rows: give a shorter range, longer periods or fewer dimensions"
            ),
            Self::NoHistory => f.write_str(
                "the store is not open, so there is no history yet; if it stays so, the server's log says why",
            ),
        }
    }
}

impl std::error::Error for OpError {}

impl From<AppendError> for OpError {
    fn from(error: AppendError) -> Self {
        Self::Log(error)
    }
}

impl From<DomainRule> for OpError {
    fn from(rule: DomainRule) -> Self {
        Self::Rule(rule)
    }
}

impl From<KeyError> for OpError {
    fn from(error: KeyError) -> Self {
        Self::Keys(error)
    }
}

impl From<BadDkimKey> for OpError {
    fn from(error: BadDkimKey) -> Self {
        Self::BadDkimKey(error)
    }
}

impl From<KillError> for OpError {
    fn from(error: KillError) -> Self {
        Self::Kill(error)
    }
}

impl From<StoreError> for OpError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<PeriodError> for OpError {
    fn from(error: PeriodError) -> Self {
        Self::Periods(error)
    }
}

fn domain_name(text: &str) -> Result<DomainName, OpError> {
    DomainName::parse(text).map_err(|e| OpError::BadName(text.to_owned(), e))
}
