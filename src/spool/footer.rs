//! The footer of a segment that is full: what its records have done to the fold, so that a start need not read them.
//!
//! It is a record like any other, but lies behind the end that the next segment's first block tells of. So readers do
//! not meet it, and one that is missing, torn or damaged is no damage: the segment is walked, and the footer written
//! again. It is never synced for its own sake. It states what is so at the segment's end and not how that came about:
//! what is live in the segment, the newest outcomes of messages from earlier ones, what is gone, what settings are.
//!
//! The file's last bytes say where it begins:
//!
//! ```text
//! 0 offset of the record 8 | 8 CRC of that and the seal 4 | 12 mark 4       (little-endian)
//! ```

use super::index::{Index, Message, Notes, Place};
use super::names::Names;
use super::owners::Owner;
use super::record::{Encoded, HEADER, Header, Seal, kind};
use super::segment::DATA;
use super::walk::{ReadAt, read_full};
use crate::mail::{Outcome, QueueId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::num::NonZeroU32;
use std::os::unix::fs::FileExt;

/// The layout of what the body of the record holds.
const FORMAT: u8 = 1;
const MARK: [u8; 4] = *b"tpf\n";
const TRAILER: usize = 16;
/// Bytes of the file's end that are read at first: most footers are smaller.
const FIRST: u64 = 256 * 1024;

/// What a footer says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Footer {
    /// The end of the records that it tells of.
    pub covers: u64,
    /// How many there are.
    pub records: u64,
    names: Vec<Box<str>>,
    live: Vec<LiveMessage>,
    /// The newest outcomes of messages that lie in earlier segments.
    touched: Vec<(QueueId, Vec<Outcome>)>,
    /// Settled here, and they lie in earlier segments too.
    gone: Vec<QueueId>,
    /// What is in force from here on; `None` was deleted.
    settings: Vec<Setting>,
}

/// A key with its value, and where the record lies that set it.
type Setting = (Box<str>, Option<(Vec<u8>, Spot)>);

/// Where a record lies in the segment.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Spot {
    offset: u64,
    head_len: u32,
    head_crc: u32,
    body_len: u32,
    body_crc: u32,
    flags: u8,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct LiveMessage {
    id: QueueId,
    spot: Spot,
    accepted_at: u64,
    recipients: u16,
    lane: NonZeroU32,
    from: Option<NonZeroU32>,
    newest: Vec<Outcome>,
    /// It lies in earlier segments too.
    touched: bool,
}

impl Spot {
    fn of(place: &Place) -> Self {
        let Place { segment: _, offset, head_len, head_crc, body_len, body_crc, flags } = *place;
        Self { offset, head_len, head_crc, body_len, body_crc, flags }
    }

    fn place(&self, segment: u64) -> Place {
        let Self { offset, head_len, head_crc, body_len, body_crc, flags } = *self;
        Place { segment, offset, head_len, head_crc, body_len, body_crc, flags }
    }

    /// Within what the footer tells of.
    fn fits(&self, covers: u64) -> bool {
        // The second head may have been cut off.
        self.offset >= DATA && self.offset <= covers && self.place(0).end() <= covers
    }
}

impl Footer {
    /// The footer of a segment whose last record has just been folded in; `None` where too much would have to be said,
    /// or where a start had better walk the segment, since it is damaged.
    pub fn of(index: &Index, number: u64) -> Option<Self> {
        let segment = index.segments.get(&number).filter(|segment| !segment.bad)?;
        let notes = segment.notes.as_deref().filter(|notes| notes.suffice())?;
        let here = |id: &QueueId| index.messages.get(id).filter(|message| message.place().segment == number);
        let live = segment.live.iter().filter_map(|owner| match owner {
            Owner::Message(id) => Some(LiveMessage::of(*id, here(id)?, notes.touched.contains(id))),
            Owner::Setting(_) | Owner::Settings(_) => None,
        });
        let (mut touched, mut gone) = (Vec::new(), Vec::new());
        for id in &notes.touched {
            match index.messages.get(id) {
                Some(message) if message.place().segment == number => {}
                Some(message) => touched.push((*id, message.newest())),
                None => gone.push(*id),
            }
        }
        let settings = notes.keys.iter().map(|key| {
            let value = index.settings.get(key).map(|(value, place)| (value.to_vec(), Spot::of(place)));
            (key.clone(), value)
        });
        Some(Self {
            covers: segment.end,
            records: notes.records,
            names: segment.names.iter().map(|name| (**name).into()).collect(),
            live: live.collect(),
            touched,
            gone,
            settings: settings.collect(),
        })
    }

    /// The record to write at the segment's end.
    pub fn encode(&self, seal: Seal) -> Option<Vec<u8>> {
        let mut body = postcard::to_stdvec(self).ok()?;
        body.extend(self.covers.to_le_bytes());
        body.extend(trailer_crc(self.covers, seal).to_le_bytes());
        body.extend(MARK);
        let record = Encoded::footer(vec![FORMAT], vec![Bytes::from(body)])?;
        let mut bytes = record.header(self.covers).encode(seal, self.covers).to_vec();
        bytes.extend(&record.head);
        record.body.iter().for_each(|piece| bytes.extend_from_slice(piece));
        Some(bytes)
    }

    /// Reads the footer at the end of a segment of `len` bytes; `None` where none stands there, or one that cannot be
    /// trusted.
    pub fn read(source: &dyn ReadAt, seal: Seal, len: u64) -> io::Result<Option<Self>> {
        let from = len.saturating_sub(FIRST).max(DATA);
        let Some(mut bytes) = read_range(source, from, len)? else { return Ok(None) };
        let Some(offset) = trailer(&bytes, seal).filter(|offset| *offset >= DATA && *offset < len) else {
            return Ok(None);
        };
        if offset < from {
            let Some(mut before) = read_range(source, offset, from)? else { return Ok(None) };
            before.append(&mut bytes);
            bytes = before;
        } else {
            bytes.drain(..usize::try_from(offset - from).unwrap_or(usize::MAX).min(bytes.len()));
        }
        Ok(Self::decode(&bytes, seal, offset))
    }

    fn decode(bytes: &[u8], seal: Seal, offset: u64) -> Option<Self> {
        let header = Header::decode(bytes, seal, offset)?;
        if header.kind != kind::FOOTER || header.len() != bytes.len() as u64 {
            return None;
        }
        let (head, body) = bytes[HEADER..].split_at_checked(header.head_len as usize)?;
        let right = crc32fast::hash(head) == header.head_crc && crc32fast::hash(body) == header.body_crc;
        if !right || head != [FORMAT] {
            return None;
        }
        let footer: Self = postcard::from_bytes(body).ok()?;
        let spots = footer.live.iter().map(|message| &message.spot);
        let settings = footer.settings.iter().filter_map(|(_, value)| Some(&value.as_ref()?.1));
        let fits = spots.chain(settings).all(|spot| spot.fits(footer.covers));
        (footer.covers == offset && fits).then_some(footer)
    }
}

impl Footer {
    /// For the fuzzer: takes anything for the body of a footer.
    pub fn fuzz(data: &[u8]) {
        let _ = postcard::from_bytes::<Self>(data);
    }
}

impl LiveMessage {
    fn of(id: QueueId, message: &Message, touched: bool) -> Self {
        Self {
            id,
            spot: Spot::of(&message.place()),
            accepted_at: message.accepted_at,
            recipients: message.recipients,
            lane: message.lane,
            from: message.from,
            newest: message.newest(),
            touched,
        }
    }
}

/// What a live record of a footer is.
enum Held {
    Message(QueueId),
    Setting(Box<str>, Vec<u8>),
}

impl Index {
    /// Folds in a whole segment by its footer. The segment must be known, and the newest so far.
    pub fn apply_footer(&mut self, number: u64, footer: Footer) {
        let mut notes = Notes { records: footer.records, ..Notes::default() };
        let mut names = Names::default();
        for name in &footer.names {
            names.number(name);
        }
        for id in footer.gone {
            self.forget(&id);
            notes.touched.insert(id);
        }
        for (id, newest) in footer.touched {
            notes.touched.insert(id);
            if let Some(message) = self.messages.get_mut(&id) {
                message.set_newest(newest, &mut self.replies);
            }
        }
        let mut live = Vec::with_capacity(footer.live.len());
        for LiveMessage { id, spot, accepted_at, recipients, lane, from, newest, touched } in footer.live {
            if touched {
                notes.touched.insert(id);
            }
            let place = spot.place(number);
            let mut message = Message::new(place, accepted_at, recipients, (lane, from));
            message.set_newest(newest, &mut self.replies);
            self.forget(&id);
            self.messages.insert(id, message);
            live.push((place, Held::Message(id)));
        }
        for (key, value) in footer.settings {
            self.drop_setting(&key);
            if let Some((value, spot)) = value {
                live.push((spot.place(number), Held::Setting(key.clone(), value)));
            }
            notes.keys.insert(key);
        }
        live.sort_by_key(|(place, _)| place.offset);
        for (place, held) in live {
            match held {
                Held::Message(id) => self.add_live(place, Owner::Message(id)),
                Held::Setting(key, value) => self.add_setting(key, Bytes::from(value), place),
            }
        }
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.names = names;
            segment.notes = Some(Box::new(notes));
        }
    }
}

/// Writes a footer behind the records of a segment to which nobody writes any more. It may fail: a start walks the
/// segment then.
pub(super) fn write(file: &File, covers: u64, bytes: &[u8]) {
    let written = file.write_all_at(bytes, covers).and_then(|()| file.set_len(covers + bytes.len() as u64));
    if let Err(error) = written {
        tracing::debug!(%error, "a segment of the log has no footer");
        let _ = file.set_len(covers);
    }
}

fn read_range(source: &dyn ReadAt, from: u64, to: u64) -> io::Result<Option<Vec<u8>>> {
    let Ok(len) = usize::try_from(to.saturating_sub(from)) else { return Ok(None) };
    let mut bytes = vec![0; len];
    match read_full(source, &mut bytes, from) {
        Ok(read) => Ok((read == len).then_some(bytes)),
        // What the disk cannot give is walked, page by page.
        Err(e) if e.raw_os_error() == Some(libc::EIO) => Ok(None),
        Err(e) => Err(e),
    }
}

fn trailer(bytes: &[u8], seal: Seal) -> Option<u64> {
    let trailer: &[u8; TRAILER] = bytes.last_chunk()?;
    let (offset, rest) = trailer.split_first_chunk::<8>()?;
    let (crc, mark) = rest.split_first_chunk::<4>()?;
    let offset = u64::from_le_bytes(*offset);
    (*mark == MARK && u32::from_le_bytes(*crc) == trailer_crc(offset, seal)).then_some(offset)
}

fn trailer_crc(offset: u64, seal: Seal) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&seal.salt.to_le_bytes());
    crc.update(&seal.segment.to_le_bytes());
    crc.update(&offset.to_le_bytes());
    crc.finalize()
}
