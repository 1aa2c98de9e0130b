//! The kill list: links that their sender has switched off, by message, by destination or by domain.
//!
//! Owns: what can stand on the list, how it is read, and the question that every click asks. Does not: say whose a
//! tracking host is, or answer anybody.

use crate::mail::{DomainError, DomainName, QueueId};
use crate::rewrite;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use uuid::Uuid;

/// What is switched off.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kill {
    /// All links of one message.
    Message(QueueId),
    /// All links to this destination, which is compared as browsers get it.
    Link(Box<str>),
    /// All links to this host and those under it, and all links in mail of the sender domain of this very name.
    Domain(DomainName),
}

/// The kinds, by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KillKind {
    Message,
    Link,
    Domain,
}

/// Since when something stands on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Killed {
    /// Sorts by time.
    pub id: Uuid,
    /// Milliseconds since 1970.
    pub added_at: u64,
}

/// Why something cannot stand on the list. The fault of who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KillError {
    NoMessageId,
    NoLink,
    /// Over [`MAX_LINK`].
    LinkTooLong,
    BadDomain(DomainError),
    /// Over [`MAX_KILLS`] entries, or [`MAX_BYTES`] of destinations.
    Full,
}

/// Entries of the list.
pub const MAX_KILLS: usize = 10_000;
/// Bytes of one destination.
pub const MAX_LINK: usize = 8_000;
/// Bytes of all destinations, so that settings stay small enough for a backup.
pub const MAX_BYTES: usize = 16 << 20;

impl Kill {
    /// Reads what people give: the id of a message, an http or https URL (with the spaces and line ends around and
    /// inside it that a browser drops), or a domain name (IDN also as it is spoken).
    pub fn parse(kind: KillKind, value: &str) -> Result<Self, KillError> {
        match kind {
            KillKind::Message => {
                // The short and the braced forms of a UUID are nowhere else taken for a queue id.
                let id = value.parse().ok().filter(|_| value.len() == 36);
                id.map(Self::Message).ok_or(KillError::NoMessageId)
            }
            KillKind::Link if value.len() > 2 * MAX_LINK => Err(KillError::LinkTooLong),
            KillKind::Link => {
                let url = rewrite::destination_of(value).ok_or(KillError::NoLink)?;
                if url.len() > MAX_LINK { Err(KillError::LinkTooLong) } else { Ok(Self::Link(url.into())) }
            }
            KillKind::Domain => DomainName::parse(value).map(Self::Domain).map_err(KillError::BadDomain),
        }
    }

    pub fn kind(&self) -> KillKind {
        match self {
            Self::Message(_) => KillKind::Message,
            Self::Link(_) => KillKind::Link,
            Self::Domain(_) => KillKind::Domain,
        }
    }

    /// What stands on the list, without its kind.
    pub fn value(&self) -> String {
        match self {
            Self::Message(id) => id.to_string(),
            Self::Link(url) => url.to_string(),
            Self::Domain(name) => name.to_string(),
        }
    }

    /// The kill of a key `KIND/VALUE`, which [`fmt::Display`] has made.
    pub fn of_key(key: &str) -> Option<Self> {
        let (kind, value) = key.split_once('/')?;
        match kind {
            "message" => Self::parse(KillKind::Message, value).ok(),
            // As it was taken: a later version may read URLs in another way.
            "link" => Some(Self::Link(value.into())),
            "domain" => Self::parse(KillKind::Domain, value).ok(),
            _ => None,
        }
    }
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind(), self.value())
    }
}

impl fmt::Display for KillKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Message => "message",
            Self::Link => "link",
            Self::Domain => "domain",
        })
    }
}

/// The list. Asking takes a few look-ups in tables, and the host is read from a URL only if a domain is on the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KillList {
    messages: HashMap<QueueId, Killed>,
    links: HashMap<Box<str>, Killed>,
    domains: HashMap<DomainName, Killed>,
    /// Of destinations.
    bytes: usize,
}

impl KillList {
    /// Whether a link of this message to this destination is off, whoever has sent it.
    pub fn holds_link(&self, id: &QueueId, url: &str) -> bool {
        if self.messages.is_empty() && self.links.is_empty() && self.domains.is_empty() {
            return false;
        }
        self.messages.contains_key(id) || self.links.contains_key(url) || self.holds_destination(url)
    }

    /// Whether all links in mail of this sender domain are off.
    pub fn holds_sender(&self, domain: &DomainName) -> bool {
        self.domains.contains_key(domain)
    }

    /// Whether a host is on the list, or lies under one that is. `host` in lower case, as A-labels.
    pub fn holds_host(&self, host: &str) -> bool {
        let mut rest = host.trim_end_matches('.');
        while !self.domains.is_empty() {
            if self.domains.contains_key(rest) {
                return true;
            }
            match rest.split_once('.') {
                Some((_, parent)) => rest = parent,
                None => return false,
            }
        }
        false
    }

    fn holds_destination(&self, url: &str) -> bool {
        if self.domains.is_empty() {
            return false;
        }
        // Read as a browser does: users, ports, percent signs and capitals hide no host.
        let url = url::Url::parse(url).ok();
        url.as_ref().and_then(url::Url::host_str).is_some_and(|host| self.holds_host(host))
    }

    /// Since when something is on the list.
    pub fn get(&self, kill: &Kill) -> Option<Killed> {
        match kill {
            Kill::Message(id) => self.messages.get(id),
            Kill::Link(url) => self.links.get(url),
            Kill::Domain(name) => self.domains.get(name),
        }
        .copied()
    }

    /// Whether there is room for another entry.
    pub fn takes(&self, kill: &Kill) -> Result<(), KillError> {
        let more = if let Kill::Link(url) = kill { url.len() } else { 0 };
        if self.len() < MAX_KILLS && self.bytes + more <= MAX_BYTES { Ok(()) } else { Err(KillError::Full) }
    }

    pub fn insert(&mut self, kill: Kill, killed: Killed) {
        match kill {
            Kill::Message(id) => drop(self.messages.insert(id, killed)),
            Kill::Link(url) => {
                let bytes = url.len();
                if self.links.insert(url, killed).is_none() {
                    self.bytes += bytes;
                }
            }
            Kill::Domain(name) => drop(self.domains.insert(name, killed)),
        }
    }

    pub fn remove(&mut self, kill: &Kill) {
        match kill {
            Kill::Message(id) => drop(self.messages.remove(id)),
            Kill::Link(url) => {
                if self.links.remove(url).is_some() {
                    self.bytes -= url.len();
                }
            }
            Kill::Domain(name) => drop(self.domains.remove(name)),
        }
    }

    pub fn len(&self) -> usize {
        self.messages.len() + self.links.len() + self.domains.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Kill, Killed)> {
        let messages = self.messages.iter().map(|(id, killed)| (Kill::Message(*id), *killed));
        let links = self.links.iter().map(|(url, killed)| (Kill::Link(url.clone()), *killed));
        let domains = self.domains.iter().map(|(name, killed)| (Kill::Domain(name.clone()), *killed));
        messages.chain(links).chain(domains)
    }
}

impl fmt::Display for KillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMessageId => f.write_str("a message is named by its id, a UUID"),
            Self::NoLink => f.write_str("a link is an absolute http or https URL"),
            Self::LinkTooLong => write!(f, "a link on the kill list has {MAX_LINK} bytes at most"),
            Self::BadDomain(e) => write!(f, "the domain {e}"),
            Self::Full => {
                let (mib, entries) = (MAX_BYTES >> 20, MAX_KILLS);
                write!(f, "the kill list is full: it takes {entries} entries and {mib} MiB of links")
            }
        }
    }
}

impl std::error::Error for KillError {}

#[cfg(test)]
mod tests {
    use super::*;
    use KillKind::{Domain, Link, Message};

    const ID: &str = "01a20be1-7252-70f9-aff9-876b58905e9a";

    fn list(kills: &[(KillKind, &str)]) -> KillList {
        let mut list = KillList::default();
        for (kind, value) in kills {
            list.insert(Kill::parse(*kind, value).unwrap(), Killed { id: Uuid::nil(), added_at: 1 });
        }
        list
    }

    #[test]
    fn what_people_give() {
        let long = format!("https://example.com/{}", "a".repeat(MAX_LINK));
        let table: &[(KillKind, &str, Result<&str, KillError>)] = &[
            (Message, ID, Ok("message/01a20be1-7252-70f9-aff9-876b58905e9a")),
            (Message, "01A20BE1-7252-70F9-AFF9-876B58905E9A", Ok("message/01a20be1-7252-70f9-aff9-876b58905e9a")),
            (Message, "01a20be1725270f9aff9876b58905e9a", Err(KillError::NoMessageId)),
            (Message, "", Err(KillError::NoMessageId)),
            (Link, " https://Example.com/A?b#c\n", Ok("link/https://Example.com/A?b#c")),
            (Link, "https://bücher.example/ü", Ok("link/https://xn--bcher-kva.example/%C3%BC")),
            (Link, "https://example.com/?a=1&amp;b", Ok("link/https://example.com/?a=1&amp;b")),
            (Link, "ftp://example.com/", Err(KillError::NoLink)),
            (Link, "example.com", Err(KillError::NoLink)),
            (Link, "", Err(KillError::NoLink)),
            (Link, &long, Err(KillError::LinkTooLong)),
            (Domain, "Bücher.Example", Ok("domain/xn--bcher-kva.example")),
            (Domain, "localhost", Err(KillError::BadDomain(DomainError::NoDot))),
        ];
        for (kind, value, want) in table {
            let got = Kill::parse(*kind, value);
            let text = got.as_ref().map(ToString::to_string).map_err(Clone::clone);
            assert_eq!(text, want.clone().map(str::to_owned), "{value:?}");
            if let Ok(kill) = got {
                assert_eq!(Kill::of_key(&kill.to_string()), Some(kill));
            }
        }
        assert_eq!(Kill::of_key("later/thing"), None);
    }

    #[test]
    fn what_a_click_asks() {
        let (this, other) = (ID.parse().unwrap(), QueueId::from_bytes([9; 16]));
        type Kills<'a> = &'a [(KillKind, &'a str)];
        let table: &[(Kills<'_>, &QueueId, &str, bool)] = &[
            (&[], &this, "https://example.com/", false),
            (&[(Message, ID)], &this, "https://example.com/", true),
            (&[(Message, ID)], &other, "https://example.com/", false),
            (&[(Link, "https://example.com/a")], &other, "https://example.com/a", true),
            (&[(Link, "https://example.com/a")], &other, "https://example.com/A", false),
            (&[(Link, "https://example.com/a")], &other, "https://example.com/a?", false),
            (&[(Domain, "evil.test")], &other, "https://evil.test", true),
            (&[(Domain, "evil.test")], &other, "HTTPS://a.b.EVIL.test.:8443/x", true),
            (&[(Domain, "evil.test")], &other, "http://user:pw@a%2Eevil.test\\b", true),
            (&[(Domain, "evil.test")], &other, "https://a_b.evil.test/", true),
            (&[(Domain, "evil.test")], &other, "https://notevil.test/", false),
            (&[(Domain, "evil.test")], &other, "https://evil.test.example/", false),
            (&[(Domain, "evil.test")], &other, "https://example.com/?u=https://evil.test/", false),
            (&[(Domain, "evil.test")], &other, "https://evil.test@example.com/", false),
            (&[(Domain, "a.evil.test")], &other, "https://evil.test/", false),
            (&[(Domain, "evil.test")], &other, "https://[::1]/", false),
        ];
        for (kills, id, url, want) in table {
            assert_eq!(list(kills).holds_link(id, url), *want, "{kills:?} {url}");
        }
        let list = list(&[(Domain, "example.com")]);
        assert!(list.holds_sender(&DomainName::parse("example.com").unwrap()));
        assert!(!list.holds_sender(&DomainName::parse("news.example.com").unwrap()));
    }

    #[test]
    fn it_is_full_at_some_point() {
        let killed = Killed { id: Uuid::nil(), added_at: 1 };
        let mut list = KillList::default();
        let mut message = 0u128;
        while list.takes(&Kill::Message(QueueId::from_bytes(message.to_be_bytes()))).is_ok() {
            list.insert(Kill::Message(QueueId::from_bytes(message.to_be_bytes())), killed);
            message += 1;
        }
        assert_eq!((list.len(), list.iter().count()), (MAX_KILLS, MAX_KILLS));

        let mut list = KillList::default();
        let link = |n: usize| Kill::Link(format!("https://example.com/{n:0>width$}", width = MAX_LINK - 20).into());
        let mut count = 0;
        while list.takes(&link(count)).is_ok() {
            list.insert(link(count), killed);
            list.insert(link(count), killed);
            count += 1;
        }
        assert_eq!(count, MAX_BYTES / MAX_LINK);
        list.remove(&link(0));
        list.remove(&link(0));
        assert_eq!(
            (list.takes(&link(count)), list.takes(&Kill::Domain(DomainName::parse("a.test").unwrap()))),
            (Ok(()), Ok(()))
        );
    }
}
