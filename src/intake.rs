//! The one door into the queue: envelope and bytes become a Message record, and only when that is on disk the
//! message has an id that may be told.
//!
//! Only the header block is looked at here. What is wrong with MIME or HTML is found when the message is sent, and
//! never keeps it from being accepted.

use crate::clock;
use crate::mail::{
    Address, DomainName, Enhanced, Envelope, Protocol, QueueId, Reply, Role, Trace, received_header, rfc5322_date,
};
use crate::mime::header_facts;
use crate::mime::originators::{Doubt, originators};
use crate::queue::{HOT_MESSAGE, Queue};
use crate::settings::{ApiKey, Settings, Snapshot};
use crate::spool::{AppendError, Durable, Entry, Log, MessageHead};
use arc_swap::ArcSwap;
use bytes::Bytes;
use std::net::IpAddr;
use std::sync::Arc;
use uuid::Uuid;

/// RFC 5321 §6.3 asks for a bound of at least 100 hops or a smaller one that suits; ours is the spec's.
const MAX_RECEIVED: usize = 50;

/// What accepting needs; made once.
pub struct Intake {
    pub log: Log,
    pub queue: Arc<Queue>,
    pub settings: Arc<Settings>,
    pub hostname: Box<str>,
    pub rules: ArcSwap<Rules>,
}

/// What is taken; may be swapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Mail whose From domain is not set up is refused (`unknown_domains = "reject"`).
    pub reject_unknown: bool,
    /// Messages that may wait in the queue.
    pub max_messages: usize,
}

/// Whence a message came, for its trace header.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    pub helo: &'a str,
    pub client: IpAddr,
    pub protocol: Protocol,
    /// Who authenticated, if anybody did.
    pub login: Option<&'a Login>,
    /// Of the listener.
    pub role: Role,
    /// Of the listener.
    pub mail_from: MailFrom,
}

/// What MAIL FROM may name where the client's key is tied to domains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MailFrom {
    /// A domain of the key, one below it, or nobody.
    #[default]
    Own,
    /// Anybody: the client is a forwarder, whose return paths are its own.
    Any,
}

/// The API key by which a client may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub key: Uuid,
}

/// Why a message is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It went through too many hosts: a loop. The sender's side's fault.
    Loop,
    /// Nobody set up the domain of its From header.
    UnknownDomain,
    /// The From header names another domain than those that the key is tied to.
    OtherDomain(Vec<DomainName>),
    /// Sender or one of its like does.
    OtherSender(Vec<DomainName>),
    /// MAIL FROM does.
    OtherReturnPath(Vec<DomainName>),
    /// A tied key, and a header that readers could take in two ways.
    Unclear(Vec<DomainName>, Doubt),
    /// The key was revoked after the client authenticated.
    KeyRevoked,
    QueueFull,
    /// The customer whose key it is has as much in the queue as one may.
    ShareFull,
    DiskFull,
    /// The log cannot be written; ours.
    Failed(String),
    ShuttingDown,
}

impl Intake {
    /// What MAIL is answered while no message can be taken.
    pub fn refusal(&self) -> Option<Refusal> {
        if self.log.is_full() {
            Some(Refusal::DiskFull)
        } else if self.queue.len() >= self.rules.load().max_messages {
            Some(Refusal::QueueFull)
        } else {
            None
        }
    }

    /// Takes responsibility for a message. When this returns an id the message is on disk.
    pub async fn accept(&self, envelope: Envelope, mut bytes: Vec<u8>, origin: Origin<'_>) -> Result<QueueId, Refusal> {
        let facts = header_facts(&bytes);
        if facts.received > MAX_RECEIVED {
            return Err(Refusal::Loop);
        }
        let settings = self.settings.snapshot();
        if let Some(login) = origin.login {
            let Some(key) = settings.api_keys.get(&login.key) else { return Err(Refusal::KeyRevoked) };
            if !key.domains.is_empty() {
                speaks_for_its_own(key, &settings, &bytes, envelope.sender.as_ref(), origin.mail_from)?;
            }
        }
        self.has_room(&settings, origin.login)?;
        let inbound = origin.role == Role::Inbound;
        let is_known = facts.from_domain.as_ref().is_some_and(|domain| settings.domains.contains_key(domain));
        if !is_known && !inbound && self.rules.load().reject_unknown {
            return Err(Refusal::UnknownDomain);
        }
        let id = clock::queue_id();
        let accepted_at = id.unix_ms();
        let mut trace = received_header(&Trace {
            helo: origin.helo,
            client: origin.client,
            by: &self.hostname,
            protocol: origin.protocol,
            id,
            recipient: match &envelope.recipients[..] {
                [only] => Some(&only.address),
                _ => None,
            },
            now: accepted_at,
        });
        // RFC 6409 §8.2 and §8.3: a submission server completes what a relay must leave alone.
        let mut message_id = facts.message_id.unwrap_or_default();
        if origin.login.is_some() && !inbound {
            if !facts.date {
                trace.push_str(&format!("Date: {}\r\n", rfc5322_date(accepted_at)));
            }
            if message_id.is_empty() {
                message_id = format!("<{id}@{}>", self.hostname).into();
                trace.push_str(&format!("Message-ID: {message_id}\r\n"));
            }
        }
        let size = (trace.len() + bytes.len()) as u64;
        let body = if bytes.len() <= HOT_MESSAGE {
            // A small message may stay in memory for long, and its buffer has room for a larger one.
            if bytes.capacity() > 2 * (trace.len() + bytes.len()) {
                bytes = [trace.as_bytes(), &bytes].concat();
            } else {
                bytes.splice(..0, trace.bytes());
            }
            vec![Bytes::from(bytes)]
        } else {
            vec![Bytes::from(trace), Bytes::from(bytes)]
        };
        // What is in one piece may be delivered from memory.
        let hot = (body.len() == 1).then(|| body[0].clone());
        let head = Arc::new(MessageHead {
            envelope,
            accepted_at,
            // What a stranger writes into a header makes nothing the mail of a domain here, nor names it a tag.
            from_domain: facts.from_domain.filter(|_| !inbound).map(|domain| domain.as_str().into()),
            from: facts.sender.unwrap_or_default(),
            subject: facts.subject.unwrap_or_default(),
            message_id,
            size,
            tags: if inbound { Vec::new() } else { facts.tags },
            role: origin.role,
        });
        self.send_off(id, head, body, hot).arrived().await?;
        metrics::counter!("trackpost_messages_accepted_total").increment(1);
        Ok(id)
    }

    /// Whether a key that is tied to domains may put one more into the queue. Its customer has a quarter of it, and the
    /// last tenth is for others.
    fn has_room(&self, settings: &Snapshot, login: Option<&Login>) -> Result<(), Refusal> {
        let key = login.and_then(|login| settings.api_keys.get(&login.key));
        let Some(key) = key.filter(|key| !key.domains.is_empty()) else { return Ok(()) };
        let most = self.rules.load().max_messages;
        if self.queue.len() >= most - most / 10 {
            return Err(Refusal::QueueFull);
        }
        match self.queue.len_of(key.domains.iter().map(|tie| &tie.name)) >= most.div_ceil(4) {
            true => Err(Refusal::ShareFull),
            false => Ok(()),
        }
    }

    /// Takes a message of our own making, whatever is true of the queue and of the domain of its From header. Under an
    /// id that is in the queue already, it is there already.
    pub async fn submit(&self, id: QueueId, envelope: Envelope, bytes: Vec<u8>) -> Result<(), Refusal> {
        self.submit_with(id, envelope, bytes, None).await
    }

    /// As [`Self::submit`], with an entry that is written behind the message and in one go with it. The entry is written
    /// also where the message cannot be.
    pub async fn submit_with(
        &self,
        id: QueueId,
        envelope: Envelope,
        bytes: Vec<u8>,
        behind: Option<Entry>,
    ) -> Result<(), Refusal> {
        if self.queue.contains(&id) {
            self.follow(behind);
            return Ok(());
        }
        let facts = header_facts(&bytes);
        let body = Bytes::from(bytes);
        let head = Arc::new(MessageHead {
            envelope,
            accepted_at: clock::unix_ms(),
            from_domain: facts.from_domain.map(|domain| domain.as_str().into()),
            from: facts.sender.unwrap_or_default(),
            subject: facts.subject.unwrap_or_default(),
            message_id: facts.message_id.unwrap_or_default(),
            size: body.len() as u64,
            tags: facts.tags,
            role: Role::Submission,
        });
        let arriving = self.send_off(id, head, vec![body], None);
        // Both are in the writer's hand before it is waited for.
        let behind = behind.map(|entry| (self.log.append(entry.clone()), entry));
        let written = arriving.arrived().await;
        if let Some((durable, entry)) = behind
            && durable.await.is_err()
        {
            self.follow(Some(entry));
        }
        Ok(written?)
    }

    /// To the log, and when it is there on disk, into the queue.
    fn send_off(&self, id: QueueId, head: Arc<MessageHead>, body: Vec<Bytes>, hot: Option<Bytes>) -> Arriving<'_> {
        let durable = self.log.append(Entry::Message { id, head: Arc::clone(&head), body });
        Arriving { durable: Some(durable), queue: &self.queue, message: Some((id, head, hot)) }
    }

    /// Writes an entry for which nobody waits; what cannot be written yet is written later.
    pub fn follow(&self, entry: Option<Entry>) {
        if let Some(Err(e)) = entry.map(|entry| self.log.append_soon(entry)) {
            tracing::error!("an outcome could not be logged, mail may be delivered twice: {e}");
        }
    }
}

/// Whether a message of a tied key is from the key's domains alone, whoever reads it.
fn speaks_for_its_own(
    key: &ApiKey,
    settings: &Snapshot,
    message: &[u8],
    sender: Option<&Address>,
    mail_from: MailFrom,
) -> Result<(), Refusal> {
    let tied_to = || -> Vec<DomainName> { key.domains.iter().map(|tie| tie.name.clone()).collect() };
    let own = |name: &DomainName| key.sends_for(Some(name), settings.domains.get(name));
    let own_or_below = |name: &DomainName| key.domains.iter().any(|tie| name.is_within(&tie.name) && own(&tie.name));
    let named = originators(message).map_err(|doubt| Refusal::Unclear(tied_to(), doubt))?;
    if !named.from.iter().all(own) {
        return Err(Refusal::OtherDomain(tied_to()));
    }
    if !named.senders.iter().all(own_or_below) {
        return Err(Refusal::OtherSender(tied_to()));
    }
    let Some(sender) = sender.filter(|_| mail_from == MailFrom::Own) else { return Ok(()) };
    let domain = sender.domain().and_then(|domain| DomainName::parse(domain).ok());
    if domain.is_some_and(|domain| own_or_below(&domain)) { Ok(()) } else { Err(Refusal::OtherReturnPath(tied_to())) }
}

type Message = (QueueId, Arc<MessageHead>, Option<Bytes>);

/// A message on its way to the disk. Whoever sent it may hang up: what then is in the log must be in the queue as well,
/// or it would stay where it is until the next start.
struct Arriving<'a> {
    durable: Option<Durable>,
    queue: &'a Arc<Queue>,
    message: Option<Message>,
}

impl Arriving<'_> {
    async fn arrived(mut self) -> Result<(), AppendError> {
        let Some(durable) = &mut self.durable else { return Ok(()) };
        let written = durable.await;
        self.durable = None;
        written?;
        if let Some(message) = self.message.take() {
            put(self.queue, message);
        }
        Ok(())
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        let (Some(durable), Some(message)) = (self.durable.take(), self.message.take()) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let queue = Arc::clone(self.queue);
        runtime.spawn(async move {
            if durable.await.is_ok() {
                put(&queue, message);
            }
        });
    }
}

fn put(queue: &Queue, (id, head, hot): Message) {
    tracing::info!(
        queue_id = %id, from = %Sender(&head), to = head.envelope.recipients.len(), size = head.size, "queued"
    );
    queue.insert(id, head, hot);
}

struct Sender<'a>(&'a MessageHead);

impl std::fmt::Display for Sender<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0.envelope.sender {
            Some(address) => write!(f, "<{address}>"),
            None => f.write_str("<>"),
        }
    }
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Full => Self::DiskFull,
            AppendError::Failed(why) => Self::Failed(why),
            AppendError::Closed => Self::ShuttingDown,
        }
    }
}

impl Refusal {
    /// What the client is told.
    pub fn reply(&self) -> Reply {
        match self {
            Self::Loop => Reply::new(554, Enhanced(5, 4, 6), "Too many hops: the message is in a loop"),
            Self::UnknownDomain => {
                Reply::new(550, Enhanced(5, 7, 1), "The domain of the From header is not set up here")
            }
            Self::OtherDomain(domains) => {
                not_own(domains, "the From header names another domain, or one that was set up anew")
            }
            Self::OtherSender(domains) => not_own(domains, "Sender, or a Resent field, names another domain"),
            Self::OtherReturnPath(domains) => not_own(domains, "MAIL FROM names another domain"),
            Self::Unclear(domains, doubt) => {
                not_own(domains, &format!("whose message this is cannot be told: {doubt}"))
            }
            Self::KeyRevoked => Reply::new(550, Enhanced(5, 7, 1), "The API key was revoked"),
            Self::QueueFull => Reply::new(451, Enhanced(4, 3, 1), "The queue is full, try again later"),
            Self::ShareFull => Reply::new(
                451,
                Enhanced(4, 3, 1),
                "Mail of this API key's domains fills its share of the queue, try again later",
            ),
            Self::DiskFull => Reply::new(452, Enhanced(4, 3, 1), "Insufficient system storage, try again later"),
            Self::Failed(_) => Reply::new(451, Enhanced(4, 3, 0), "The message could not be stored, try again later"),
            Self::ShuttingDown => Reply::new(421, Enhanced(4, 3, 2), "Shutting down, try again later"),
        }
    }
}

fn not_own(domains: &[DomainName], why: &str) -> Reply {
    // A reply is one line, however many there are.
    let named: Vec<_> = domains.iter().take(3).map(DomainName::as_str).collect();
    let more = if domains.len() > 3 { " and others" } else { "" };
    let text = format!("This API key may send mail from {}{more} alone; {why}", named.join(", "));
    Reply::with_text(550, Enhanced(5, 7, 1), text)
}
