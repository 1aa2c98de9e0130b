//! Replies that many messages have in common.

use std::sync::Arc;

/// The last replies, so that a thousand messages that a smarthost puts off with the same words keep them once.
#[derive(Debug, Default)]
pub struct Replies {
    last: [Arc<str>; 16],
    turn: usize,
}

impl Replies {
    pub fn of(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.last.iter().find(|known| ***known == *text) {
            return Arc::clone(known);
        }
        let reply: Arc<str> = text.into();
        self.turn = (self.turn + 1) % self.last.len();
        self.last[self.turn] = Arc::clone(&reply);
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_words_are_kept_once() {
        let mut replies = Replies::default();
        let (one, other) = (replies.of("450 later"), replies.of("451 no"));
        assert!(Arc::ptr_eq(&one, &replies.of("450 later")) && Arc::ptr_eq(&other, &replies.of("451 no")));
    }
}
