//! How much of what everybody shares one customer may use. Keys that are tied to domains have a share each, and cannot
//! touch a reserve that is left to untied keys. Pure.

use crate::settings::Tie;
use std::collections::BTreeSet;
use std::fmt;
use uuid::Uuid;

/// The bounds of one kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Of everybody together.
    pub all: usize,
    /// Of all tied keys together; what `all` has more is the reserve.
    pub tied: usize,
    /// Of one customer.
    pub share: usize,
}

/// What is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    pub all: usize,
    pub tied: usize,
    /// By the customer who asks for one more.
    pub own: usize,
}

/// Why there is no room, with the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Everybody's room is used up.
    All(usize),
    /// The reserve alone is left.
    Tied(usize),
    /// The customer's share is used up.
    Share(usize),
}

impl Bounds {
    /// Whether a key with these ties may have one more.
    pub fn takes(&self, ties: &[Tie], used: Used) -> Result<(), Full> {
        let is_tied = !ties.is_empty();
        match () {
            () if is_tied && used.own >= self.share => Err(Full::Share(self.share)),
            () if is_tied && used.tied >= self.tied => Err(Full::Tied(self.tied)),
            () if used.all >= self.all => Err(Full::All(self.all)),
            () => Ok(()),
        }
    }
}

/// Whether two sets of ties are the same customer's: the same domains, in whatever order.
pub fn is_same_customer(a: &[Tie], b: &[Tie]) -> bool {
    let ids = |ties: &[Tie]| ties.iter().map(|tie| tie.id).collect::<BTreeSet<Uuid>>();
    a.len() == b.len() && ids(a) == ids(b)
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(bound) => write!(f, "there are {bound} already"),
            Self::Tied(bound) => write!(f, "keys that are tied to domains have {bound} together already"),
            Self::Share(bound) => write!(f, "keys of these domains have {bound} already"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::DomainName;

    fn tie(id: u128) -> Tie {
        Tie { id: Uuid::from_u128(id), name: DomainName::parse(&format!("d{id}.example")).unwrap() }
    }

    #[test]
    fn a_tied_key_has_a_share_and_leaves_the_reserve() {
        let bounds = Bounds { all: 10, tied: 8, share: 3 };
        for (all, tied_used, own, tied_wants, untied_wants) in [
            (0, 0, 0, Ok(()), Ok(())),
            (2, 2, 2, Ok(()), Ok(())),
            (3, 3, 3, Err(Full::Share(3)), Ok(())),
            (7, 7, 0, Ok(()), Ok(())),
            (8, 8, 0, Err(Full::Tied(8)), Ok(())),
            (9, 8, 0, Err(Full::Tied(8)), Ok(())),
            (10, 8, 0, Err(Full::Tied(8)), Err(Full::All(10))),
            (10, 0, 0, Err(Full::All(10)), Err(Full::All(10))),
        ] {
            let used = Used { all, tied: tied_used, own };
            assert_eq!(bounds.takes(&[tie(1)], used), tied_wants, "{used:?}");
            assert_eq!(bounds.takes(&[], used), untied_wants, "{used:?}");
        }
    }

    #[test]
    fn who_is_the_same_customer() {
        assert!(is_same_customer(&[tie(1), tie(2)], &[tie(2), tie(1)]));
        assert!(!is_same_customer(&[tie(1)], &[tie(1), tie(2)]));
        assert!(!is_same_customer(&[tie(1)], &[tie(2)]));
        assert!(!is_same_customer(&[tie(1)], &[]));
    }
}
