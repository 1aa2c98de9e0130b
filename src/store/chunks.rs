//! Values that are longer than a row may be: in numbered pieces under one prefix.
//!
//! Key: the prefix, then the piece's number in 2 bytes. Piece 0 begins with how many there are.

use super::{MAX_VALUE, Store, StoreError, Write};

const PIECE: usize = MAX_VALUE - 2;

/// The writes that put `bytes` under `prefix`; `earlier` is how many pieces lie there already. How many it takes.
pub(super) fn put(prefix: &[u8], bytes: &[u8], earlier: usize, out: &mut Vec<Write>) -> usize {
    let count = bytes.len().div_ceil(PIECE).max(1);
    for place in 0..count {
        let piece = bytes.get(place * PIECE..bytes.len().min((place + 1) * PIECE)).unwrap_or_default();
        let mut value = Vec::with_capacity(piece.len() + 2);
        if place == 0 {
            value.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes());
        }
        value.extend_from_slice(piece);
        out.push(Write::Put(key(prefix, place), value));
    }
    delete(prefix, count..earlier, out);
    count
}

pub(super) fn delete(prefix: &[u8], places: std::ops::Range<usize>, out: &mut Vec<Write>) {
    out.extend(places.map(|place| Write::Delete(key(prefix, place))));
}

/// What was put under `prefix`, and in how many pieces it lies there.
pub(super) fn get(store: &Store, prefix: &[u8]) -> Result<Option<(Vec<u8>, usize)>, StoreError> {
    let Some(first) = store.get(&key(prefix, 0))? else { return Ok(None) };
    let (count, first) = first.split_first_chunk::<2>().ok_or(StoreError::Malformed)?;
    let count = usize::from(u16::from_be_bytes(*count));
    let mut bytes = first.to_vec();
    for place in 1..count {
        bytes.extend(store.get(&key(prefix, place))?.ok_or(StoreError::Malformed)?);
    }
    Ok(Some((bytes, count)))
}

pub(super) fn key(prefix: &[u8], place: usize) -> Vec<u8> {
    [prefix, &u16::try_from(place).unwrap_or(u16::MAX).to_be_bytes()].concat()
}
