//! The tracking hosts that are served, as a snapshot that whoever keeps the settings builds.

use crate::mail::DomainName;
use std::collections::HashMap;

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
pub struct Hosts(HashMap<Box<str>, HostState>);

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
        Self(table)
    }

    /// `host` in lower case, without port and final dot.
    pub fn state(&self, host: &str) -> Option<HostState> {
        self.0.get(host).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
