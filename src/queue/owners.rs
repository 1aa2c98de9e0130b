//! How many messages of each sender domain wait, so that one customer can be held to a share.

use crate::mail::DomainName;
use std::collections::HashMap;

/// The domain of a From header, by a number: there may be a million messages, and few domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnerId(u32);

/// Whose From header names no domain.
const NOBODY: OwnerId = OwnerId(u32::MAX);

/// Messages in the queue by the domain of their From header.
#[derive(Default)]
pub(super) struct Owners {
    ids: HashMap<Box<str>, OwnerId>,
    counted: Vec<Counted>,
    /// Numbers of domains of which nothing waits.
    free: Vec<OwnerId>,
}

struct Counted {
    domain: Box<str>,
    messages: usize,
}

impl Owners {
    /// Counts one more message of this domain.
    pub fn add(&mut self, domain: Option<&str>) -> OwnerId {
        let Some(domain) = domain else { return NOBODY };
        if let Some(id) = self.ids.get(domain) {
            self.counted[id.0 as usize].messages += 1;
            return *id;
        }
        let fresh = Counted { domain: domain.into(), messages: 1 };
        let id = match self.free.pop() {
            Some(id) => {
                self.counted[id.0 as usize] = fresh;
                id
            }
            None => {
                let Ok(next) = u32::try_from(self.counted.len()) else { return NOBODY };
                self.counted.push(fresh);
                OwnerId(next)
            }
        };
        self.ids.insert(domain.into(), id);
        id
    }

    /// A message of it has left.
    pub fn remove(&mut self, id: OwnerId) {
        let Some(counted) = self.counted.get_mut(id.0 as usize) else { return };
        counted.messages -= 1;
        if counted.messages == 0 {
            let domain = std::mem::take(&mut counted.domain);
            self.ids.remove(&domain);
            self.free.push(id);
        }
    }

    /// How many there are of these domains together.
    pub fn of<'a>(&self, domains: impl IntoIterator<Item = &'a DomainName>) -> usize {
        let ids = domains.into_iter().filter_map(|name| self.ids.get(name.as_str()));
        ids.map(|id| self.counted[id.0 as usize].messages).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_counted_and_their_numbers_used_again() {
        let mut owners = Owners::default();
        let [a, b] = ["a.test", "b.test"].map(|name| DomainName::parse(name).unwrap());
        let first = owners.add(Some("a.test"));
        assert_eq!((owners.add(Some("a.test")), owners.add(None)), (first, NOBODY));
        let other = owners.add(Some("b.test"));
        assert_eq!((owners.of([&a]), owners.of([&a, &b])), (2, 3));
        owners.remove(NOBODY);
        owners.remove(first);
        owners.remove(first);
        assert_eq!((owners.of([&a, &b]), owners.add(Some("c.test"))), (1, first));
        owners.remove(other);
        assert_eq!(owners.of([&a, &b]), 0);
    }
}
