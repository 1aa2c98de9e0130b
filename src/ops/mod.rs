//! One function per change of state, and per look at it, for whoever asks: the command line's socket now, the API
//! and the dashboard later. Rules are the core's; this module puts them together with the settings, the log, the
//! queue and the view.

mod domains;
mod keys;
mod mail;

pub use domains::{
    DomainUpdate, DomainView, NewDomain, SubdomainView, domain_add, domain_list, domain_remove, domain_show,
    domain_update, tracking_switch,
};
pub use keys::{KeyView, NewKey, key_create, key_list, key_revoke, key_rotate};
pub use mail::{MessageView, QueueView, RecipientView, events_tail, queue_list, queue_show};

use crate::domain::DomainRule;
use crate::keys::{KeyError, TokenRing};
use crate::mail::{DomainError, DomainName, QueueId};
use crate::queue::Queue;
use crate::settings::Settings;
use crate::spool::AppendError;
use crate::store::{MaybeStore, StoreError};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What the functions of this module work on.
pub struct Ops {
    pub settings: Arc<Settings>,
    pub keys: TokenRing,
    pub queue: Arc<Queue>,
    pub store: MaybeStore,
    /// How long links of a removed domain go on redirecting.
    pub removed_domain_grace: Duration,
}

/// Why something could not be done. The text is for whoever asked.
#[derive(Debug)]
pub enum OpError {
    /// The customer's or the operator's: a rule of a domain.
    Rule(DomainRule),
    BadName(String, DomainError),
    DomainExists(DomainName),
    UnknownDomain(DomainName),
    UnknownKey(String),
    AmbiguousKey(String),
    UnknownMessage(QueueId),
    BadQueueId(String),
    BadKeyName,
    /// The log could not be written.
    Log(AppendError),
    Keys(KeyError),
    Store(StoreError),
    /// The view is shut, so there is no history to be had.
    NoHistory,
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => write!(f, "{rule}"),
            Self::BadName(name, e) => write!(f, "{name:?} {e}"),
            Self::DomainExists(name) => write!(f, "{name} is there already; change it with `trackpost domain update`"),
            Self::UnknownDomain(name) => write!(f, "there is no sender domain {name}"),
            Self::UnknownKey(id) => write!(f, "there is no API key {id}"),
            Self::AmbiguousKey(id) => write!(f, "several API keys begin with {id}: give more of the id"),
            Self::UnknownMessage(id) => write!(f, "there is no message {id}"),
            Self::BadQueueId(id) => write!(f, "{id:?} is no queue id"),
            Self::BadKeyName => f.write_str("a key's name has 1 to 50 characters"),
            Self::Log(e) => write!(f, "the change could not be written to the log: {e}"),
            Self::Keys(e) => write!(f, "{e}"),
            Self::Store(e) => write!(f, "the store cannot be read: {e}"),
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

impl From<StoreError> for OpError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn domain_name(text: &str) -> Result<DomainName, OpError> {
    DomainName::parse(text).map_err(|e| OpError::BadName(text.to_owned(), e))
}
