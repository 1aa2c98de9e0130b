//! Sender domains as webhooks were last told of them, where an earlier version has left that: it is noted in the log now.
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

/// The writes that forget it.
pub fn forget_told_domain(id: Uuid, told: &ToldDomain, out: &mut Vec<Write>) {
    chunks::delete(&prefix(id), 0..told.pieces, out);
}

fn prefix(id: Uuid) -> Vec<u8> {
    [b"D", &id.as_bytes()[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::super::commit_now;
    use super::*;

    #[test]
    fn what_an_earlier_version_left_is_read_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (long, other) = (Uuid::from_u128(7), Uuid::from_u128(8));
        let mut writes = Vec::new();
        chunks::put(&prefix(long), &[b'x'; 5_000], 0, &mut writes);
        chunks::put(&prefix(other), b"{}", 0, &mut writes);
        commit_now(&store, std::mem::take(&mut writes)).unwrap();
        let told = told_domains(&store).unwrap();
        assert_eq!(
            told.iter().map(|(id, told)| (*id, told.data.len())).collect::<Vec<_>>(),
            [(long, 5_000), (other, 2)]
        );
        forget_told_domain(long, &told[0].1, &mut writes);
        commit_now(&store, writes).unwrap();
        let told = told_domains(&store).unwrap();
        assert_eq!((told.len(), told[0].0, &told[0].1.data[..]), (1, other, &b"{}"[..]));
        assert_eq!(store.scan(b"D", b"E", 9, false).unwrap().len(), 1);
    }
}
