//! The head of a message stands in the log twice: in its record, and in a record of its own right behind that, with
//! what the header says. So one that is damaged loses no envelope and no message.
//!
//! ```text
//!  header | head | body | header | lengths and CRCs of the first 16 | the same head once more
//! ```

use super::record::{HEADER, Header, SECONDED, Seal, kind};
use super::walk::{ReadAt, Walk, read_full};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes before the head: head length 4 | head CRC 4 | body length 4 | body CRC 4 (little-endian).
pub(super) const PREFIX: usize = 16;

/// Bytes of the second record of a message with a head so long.
pub(super) fn len(head_len: u32) -> u64 {
    (HEADER + PREFIX) as u64 + u64::from(head_len)
}

pub(super) fn prefix(first: &Header) -> [u8; PREFIX] {
    let mut out = [0; PREFIX];
    for (piece, value) in out.chunks_exact_mut(4).zip([first.head_len, first.head_crc, first.body_len, first.body_crc])
    {
        piece.copy_from_slice(&value.to_le_bytes());
    }
    out
}

/// The header of the second record.
pub(super) fn header(first: &Header, second_crc: u32) -> Header {
    let head_len = first.head_len.saturating_add(PREFIX as u32);
    Header { kind: kind::SECOND, head_len, head_crc: second_crc, body_len: 0, body_crc: 0, ..*first }
}

/// What the second record says of the first, and where that lies.
pub(super) struct First<'a> {
    pub offset: u64,
    pub header: Header,
    pub head: &'a [u8],
}

impl<'a> First<'a> {
    /// Of a second record at `offset`, from its header and its sound head.
    pub fn of(offset: u64, second: &Header, head: &'a [u8]) -> Option<Self> {
        let (prefix, head) = head.split_first_chunk::<PREFIX>()?;
        let number = |at: usize| u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]);
        let (head_len, head_crc, body_len, body_crc) = (number(0), number(4), number(8), number(12));
        let header = Header { kind: kind::MESSAGE, head_len, head_crc, body_len, body_crc, ..*second };
        let right = head.len() == head_len as usize && crc32fast::hash(head) == head_crc;
        let offset = offset.checked_sub(header.len())?;
        (right && header.flags & SECONDED != 0).then_some(Self { offset, header, head })
    }
}

/// True when the record at `offset`, of which a second one says this, can be read itself.
pub(super) fn first_is_sound(file: &File, seal: Seal, first: &First<'_>) -> io::Result<bool> {
    let mut bytes = vec![0; HEADER + first.head.len()];
    match file.read_exact_at(&mut bytes, first.offset) {
        Ok(()) => Ok(Header::decode(&bytes, seal, first.offset).is_some() && bytes[HEADER..] == *first.head),
        Err(e) if e.raw_os_error() == Some(libc::EIO) || e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

/// The head of the first record at this offset, from the second one. `None` where there is none that is right.
pub(super) fn head(source: &dyn ReadAt, seal: Seal, first_end: u64, head_len: u32) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; (HEADER + PREFIX) + head_len as usize];
    if read_full(source, &mut bytes, first_end)? < bytes.len() {
        return Ok(None);
    }
    let header = Header::decode(&bytes, seal, first_end).filter(|header| header.kind == kind::SECOND);
    let Some(header) = header else { return Ok(None) };
    let head = &bytes[HEADER..];
    if header.head_len as usize != head.len() || crc32fast::hash(head) != header.head_crc {
        return Ok(None);
    }
    Ok(First::of(first_end, &header, head).map(|first| first.head.to_vec()))
}

/// Tells, along a walk, which second records are needed.
#[derive(Default)]
pub(super) struct Firsts {
    /// Where the last sound message ends.
    sound: Option<u64>,
}

impl Firsts {
    pub fn is_sound(&mut self, offset: u64, header: &Header) {
        self.sound = Some(offset + header.len());
    }

    /// The message of which the second record at `offset` tells, where its own record was not sound.
    pub fn lost<'a>(&self, walk: &'a mut Walk<'_>, offset: u64, header: &Header) -> io::Result<Option<First<'a>>> {
        if self.sound == Some(offset) {
            return Ok(None);
        }
        Ok(walk.head(offset, header)?.and_then(|head| First::of(offset, header, head)))
    }
}
