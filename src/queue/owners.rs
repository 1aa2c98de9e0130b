//! How many messages of each sender domain wait, so that one customer can be held to a share.

use crate::mail::DomainName;
use crate::spool::MessageHead;
use std::collections::HashMap;

/// Messages in the queue by the domain of their From header.
#[derive(Default)]
pub(super) struct Owners(HashMap<Box<str>, usize>);

impl Owners {
    pub fn add(&mut self, head: &MessageHead) {
        let Some(domain) = head.from_domain.as_deref() else { return };
        match self.0.get_mut(domain) {
            Some(count) => *count += 1,
            None => drop(self.0.insert(domain.into(), 1)),
        }
    }

    pub fn remove(&mut self, head: &MessageHead) {
        let Some(domain) = head.from_domain.as_deref() else { return };
        if let Some(count) = self.0.get_mut(domain) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(domain);
            }
        }
    }

    /// How many there are of these domains together.
    pub fn of<'a>(&self, domains: impl IntoIterator<Item = &'a DomainName>) -> usize {
        domains.into_iter().filter_map(|name| self.0.get(name.as_str())).sum()
    }
}
