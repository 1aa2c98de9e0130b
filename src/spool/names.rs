//! The names of domains that the messages of one segment have: each once, since thousands of messages share a few.

use super::MessageHead;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

/// Names by their number, from 1 on.
#[derive(Debug, Default)]
pub(super) struct Names {
    list: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, NonZeroU32>,
}

impl Names {
    /// The numbers of a message's names: the domain of its first recipient in lower case, which is empty where there is
    /// none, and that of its From header.
    pub fn of(&mut self, head: &MessageHead) -> (NonZeroU32, Option<NonZeroU32>) {
        let lane = self.number(&head.lane());
        (lane, head.from_domain.as_deref().map(|from| self.number(from)))
    }

    pub fn get(&self, number: NonZeroU32) -> Option<&Arc<str>> {
        self.list.get(number.get() as usize - 1)
    }

    /// In the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.list.iter()
    }

    pub fn number(&mut self, name: &str) -> NonZeroU32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let name: Arc<str> = name.into();
        self.list.push(Arc::clone(&name));
        let number = u32::try_from(self.list.len()).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX);
        self.numbers.insert(name, number);
        number
    }

    /// The name itself, shared with all who asked for it before.
    pub fn shared(&mut self, name: &str) -> Arc<str> {
        let number = self.number(name);
        self.get(number).map_or_else(|| name.into(), Arc::clone)
    }
}
