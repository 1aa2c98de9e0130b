//! Sender domains as webhooks were last told of them, so that a change is told once and no start tells anything.
//!
//! Key: `D`, the domain's id (16), piece (2).

use super::{Row, Store, StoreError, Write, chunks, prefix_end};
use uuid::Uuid;

/// What was told last of one domain: JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldDomain {
    pub data: Vec<u8>,
    pieces: usize,
}

/// Every domain that somebody was told of.
pub fn told_domains(store: &Store) -> Result<Vec<(Uuid, ToldDomain)>, StoreError> {
    let is_first = |(key, _): &Row| key.len() == 19 && key.ends_with(&[0, 0]);
    let ids = store.scan(b"D", &prefix_end(b"D"), usize::MAX, false)?;
    let ids = ids.iter().filter(|row| is_first(row)).filter_map(|(key, _)| Uuid::from_slice(key.get(1..17)?).ok());
    let mut told = Vec::new();
    for id in ids.collect::<Vec<_>>() {
        if let Some((data, pieces)) = chunks::get(store, &prefix(id))? {
            told.push((id, ToldDomain { data, pieces }));
        }
    }
    Ok(told)
}

/// Notes what is told of a domain; `None`: that it is gone.
pub fn told_domain_writes(id: Uuid, earlier: Option<&ToldDomain>, data: Option<&[u8]>, out: &mut Vec<Write>) {
    let pieces = earlier.map_or(0, |told| told.pieces);
    match data {
        Some(data) => drop(chunks::put(&prefix(id), data, pieces, out)),
        None => chunks::delete(&prefix(id), 0..pieces, out),
    }
}

fn prefix(id: Uuid) -> Vec<u8> {
    [b"D", &id.as_bytes()[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::super::commit_now;
    use super::*;

    #[test]
    fn what_was_told_last_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (long, other) = (Uuid::from_u128(7), Uuid::from_u128(8));
        let mut writes = Vec::new();
        told_domain_writes(long, None, Some(&[b'x'; 5_000]), &mut writes);
        told_domain_writes(other, None, Some(b"{}"), &mut writes);
        commit_now(&store, std::mem::take(&mut writes)).unwrap();
        let told = told_domains(&store).unwrap();
        assert_eq!(
            told.iter().map(|(id, told)| (*id, told.data.len())).collect::<Vec<_>>(),
            [(long, 5_000), (other, 2)]
        );
        told_domain_writes(long, Some(&told[0].1), None, &mut writes);
        told_domain_writes(other, Some(&told[1].1), Some(b"[]"), &mut writes);
        commit_now(&store, writes).unwrap();
        let told = told_domains(&store).unwrap();
        assert_eq!((told.len(), told[0].0, &told[0].1.data[..]), (1, other, &b"[]"[..]));
        assert_eq!(store.scan(b"D", b"E", 9, false).unwrap().len(), 1);
    }
}
