//! The tracking hosts that are served, and the links that are switched off, as a snapshot that whoever keeps the settings builds.

use crate::kill::KillList;
use crate::mail::{DomainName, QueueId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// How a served host stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostState {
    /// A tracking subdomain in use, or an earlier one of the domain.
    Active,
    /// Its domain was removed: links redirect, unrecorded, before `until` (milliseconds since 1970) and are gone from
    /// then on.
    Removed { until: u64 },
}

/// All served hosts but `cname_target`. A host that is missing here still redirects what was signed for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    table: HashMap<Box<str>, HostState>,
    kills: Arc<KillList>,
    /// Those of sender domains that are on the kill list.
    killed: HashSet<DomainName>,
}

impl Hosts {
    /// Where a host comes twice, as after a domain was removed and added again, `Active` wins, else the longer grace.
    pub fn new(hosts: impl IntoIterator<Item = (DomainName, HostState)>) -> Self {
        let mut table = HashMap::new();
        for (host, state) in hosts {
            let held = table.entry(host.as_str().into()).or_insert(state);
            *held = match (*held, state) {
                (HostState::Removed { until: a }, HostState::Removed { until: b }) => {
                    HostState::Removed { until: a.max(b) }
                }
                _ => HostState::Active,
            };
        }
        Self { table, ..Self::default() }
    }

    /// The same with a kill list, and with the hosts of the sender domains that are on it.
    pub fn with_kills(self, kills: Arc<KillList>, killed: impl IntoIterator<Item = DomainName>) -> Self {
        Self { kills, killed: killed.into_iter().collect(), ..self }
    }

    /// `host` in lower case, without port and final dot.
    pub fn state(&self, host: &str) -> Option<HostState> {
        self.table.get(host).copied()
    }

    /// Whether a link that was made for `host` is switched off. Nobody knows whose a host is that is not served any
    /// more, so it counts as one of each sender domain that it lies under.
    pub fn kill(&self, host: &str, id: &QueueId, url: &str) -> bool {
        if self.kills.is_empty() {
            return false;
        }
        let by_sender = || match self.table.contains_key(host) {
            true => self.killed.contains(host),
            false => self.kills.holds_host(host),
        };
        self.kills.holds_link(id, url) || by_sender()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kill::{Kill, Killed};

    #[test]
    fn a_host_that_comes_twice() {
        let (active, short, long) =
            (HostState::Active, HostState::Removed { until: 1 }, HostState::Removed { until: 2 });
        let host = DomainName::parse("links.example.com").unwrap();
        for (states, want) in [
            (vec![active], active),
            (vec![short], short),
            (vec![short, long], long),
            (vec![long, short], long),
            (vec![long, active], active),
            (vec![active, long], active),
        ] {
            let hosts = Hosts::new(states.iter().map(|state| (host.clone(), *state)));
            assert_eq!(hosts.state("links.example.com"), Some(want), "{states:?}");
            assert_eq!(hosts.state("example.com"), None);
        }
    }

    #[test]
    fn whose_links_are_switched_off() {
        let (id, url) = (QueueId::from_bytes([5; 16]), "https://destination.test/");
        let name = |text: &str| DomainName::parse(text).unwrap();
        let mut kills = KillList::default();
        kills.insert(Kill::Domain(name("example.com")), Killed { id: uuid::Uuid::nil(), added_at: 1 });
        let served = [name("links.example.com"), name("links.news.example.com"), name("links.example.org")];
        let hosts = Hosts::new(served.map(|host| (host, HostState::Active)));
        let hosts = hosts.with_kills(Arc::new(kills), [name("links.example.com")]);
        for (host, want) in [
            ("links.example.com", true),
            // Of another sender domain.
            ("links.news.example.com", false),
            ("links.example.org", false),
            // Not served any more.
            ("old.example.com", true),
            ("old.example.net", false),
        ] {
            assert_eq!(hosts.kill(host, &id, url), want, "{host}");
        }
        assert!(hosts.kill("links.example.org", &id, "https://www.example.com/"), "a destination");
        assert!(!Hosts::default().kill("links.example.com", &id, url));
    }
}
