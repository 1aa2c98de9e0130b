//! One record on disk: a header of fixed size, a head, a body.
//!
//! The header has a CRC-32 of its own, which also covers the place where the record lies: segment, offset and the
//! segment's salt. So a record can be told from bytes that merely look like one: left-overs of an earlier use of the
//! same blocks, or a forged record inside a message body, whose sender does not know the salt. Head and body have a
//! CRC each, so that recovery can check heads without reading bodies.
//!
//! Knows nothing of files; [`super::segment`] and [`super::walk`] do.

use super::{AppendError, Entry, MessageHead, second};
use crate::event::Hit;
use crate::mail::{Outcome, QueueId, Role};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::io::IoSlice;
use std::sync::Arc;

/// Bytes of a record header:
///
/// ```text
/// 0 mark 4 | 4 CRC of the rest and the place 4 | 8 kind 1 | 9 flags 1 | 10 zero 2 | 12 head length 4 |
/// 16 head CRC 4 | 20 body length 4 | 24 body CRC 4 | 28 queue id 16 | 44 synced 8       (little-endian)
/// ```
pub(super) const HEADER: usize = 52;

/// The first bytes of every header, by which a scan finds the next one behind damage.
pub(super) const MARK: [u8; 4] = [0xa7, b't', b'p', 0x1e];

/// The leading byte of every head: the layout of what follows it.
const FORMAT: u8 = 1;
/// The layout of a setting's head that holds several keys. Versions that do not know it refuse the log rather than
/// pass over what was decided.
const SEVERAL: u8 = 2;

/// Kinds of records. 5 (Feedback: a late bounce or a complaint) is reserved; unknown kinds are passed over.
pub(super) mod kind {
    pub const MESSAGE: u8 = 1;
    pub const OUTCOMES: u8 = 2;
    pub const HITS: u8 = 3;
    pub const SETTING: u8 = 4;
    /// See [`super::super::second`].
    pub const SECOND: u8 = 8;
    /// See [`super::super::footer`].
    pub const FOOTER: u8 = 9;
}

/// Set on a record that compaction wrote again; its head carries the folded state.
pub(super) const AGAIN: u8 = 1;

/// Set on a copy whose original had a damaged body. Such a body is not torn, wherever it lies.
pub(super) const DAMAGED: u8 = 2;

/// Set on a message that came in by an inbound listener. A version that does not know it takes the message for one of
/// no sender domain, which its head has none of.
const INBOUND: u8 = 4;

/// By which kind of listener a message came in.
pub(super) fn role_of(flags: u8) -> Role {
    if flags & INBOUND == 0 { Role::Submission } else { Role::Inbound }
}

/// Set on a message behind which its head stands once more.
pub(super) const SECONDED: u8 = 8;

/// What a header's CRC covers beside the header: where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    pub segment: u64,
    pub salt: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub kind: u8,
    pub flags: u8,
    pub head_len: u32,
    pub head_crc: u32,
    pub body_len: u32,
    pub body_crc: u32,
    /// The message's queue id; zero where the kind has none.
    pub id: [u8; 16],
    /// The offset in this segment below which everything was known to be synced when this record was written. It
    /// tells a torn tail from damage in older data.
    pub synced: u64,
}

impl Header {
    pub fn encode(&self, seal: Seal, offset: u64) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..4].copy_from_slice(&MARK);
        out[8] = self.kind;
        out[9] = self.flags;
        out[12..16].copy_from_slice(&self.head_len.to_le_bytes());
        out[16..20].copy_from_slice(&self.head_crc.to_le_bytes());
        out[20..24].copy_from_slice(&self.body_len.to_le_bytes());
        out[24..28].copy_from_slice(&self.body_crc.to_le_bytes());
        out[28..44].copy_from_slice(&self.id);
        out[44..].copy_from_slice(&self.synced.to_le_bytes());
        let crc = place_crc(&out[8..], seal, offset);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header that lies at `offset`, or `None` where none does.
    pub fn decode(bytes: &[u8], seal: Seal, offset: u64) -> Option<Self> {
        let bytes: &[u8; HEADER] = bytes.get(..HEADER)?.try_into().ok()?;
        if bytes[..4] != MARK || u32_at(bytes, 4) != place_crc(&bytes[8..], seal, offset) {
            return None;
        }
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[28..44]);
        let mut synced = [0; 8];
        synced.copy_from_slice(&bytes[44..]);
        Some(Self {
            kind: bytes[8],
            flags: bytes[9],
            head_len: u32_at(bytes, 12),
            head_crc: u32_at(bytes, 16),
            body_len: u32_at(bytes, 20),
            body_crc: u32_at(bytes, 24),
            id,
            synced: u64::from_le_bytes(synced),
        })
    }

    /// Bytes of the whole record.
    pub fn len(&self) -> u64 {
        HEADER as u64 + u64::from(self.head_len) + u64::from(self.body_len)
    }

    pub fn is_damaged(&self) -> bool {
        self.flags & DAMAGED != 0
    }

    pub fn is_seconded(&self) -> bool {
        self.flags & SECONDED != 0
    }

    pub fn as_damaged(&self) -> Self {
        Self { flags: self.flags | DAMAGED, ..*self }
    }

    pub fn is_again(&self) -> bool {
        self.flags & AGAIN != 0
    }
}

fn place_crc(rest: &[u8], seal: Seal, offset: u64) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&seal.salt.to_le_bytes());
    crc.update(&seal.segment.to_le_bytes());
    crc.update(&offset.to_le_bytes());
    crc.update(rest);
    crc.finalize()
}

fn u32_at(bytes: &[u8; HEADER], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// What a record does to the folded state. The same value comes from an entry that is written and from a head that
/// is read, so that the running log and recovery cannot come to different folds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Effect {
    Message {
        id: QueueId,
        head: Arc<MessageHead>,
        /// The folded state, in a record that was written again.
        newest: Option<Vec<Outcome>>,
    },
    Outcomes {
        id: QueueId,
        outcomes: Vec<Outcome>,
    },
    Setting {
        key: Box<str>,
        value: Option<Bytes>,
    },
    /// Settings that change together or not at all.
    Settings(Vec<(Box<str>, Option<Bytes>)>),
    Hits(Vec<Hit>),
    /// A kind that this version does not know.
    Unknown,
}

/// Why a head with the right length gave no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadError {
    Damaged,
    /// Written in a format of a later version.
    Newer(u8),
}

impl Effect {
    /// Reads a head whose CRC was found right.
    pub fn decode(header: &Header, head: &[u8]) -> Result<Self, HeadError> {
        Self::decode_kind(header.kind, header.flags, header.id, head)
    }

    pub fn decode_kind(kind: u8, flags: u8, id: [u8; 16], head: &[u8]) -> Result<Self, HeadError> {
        if !(kind::MESSAGE..=kind::SETTING).contains(&kind) {
            return Ok(Self::Unknown);
        }
        let (&format, head) = head.split_first().ok_or(HeadError::Damaged)?;
        let newest = if kind == kind::SETTING { SEVERAL } else { FORMAT };
        if format > newest {
            return Err(HeadError::Newer(format));
        }
        let id = QueueId::from_bytes(id);
        Ok(match kind {
            kind::MESSAGE => {
                let (mut head, newest): (MessageHead, Option<Vec<Outcome>>) = from_postcard(head)?;
                head.role = role_of(flags);
                Self::Message { id, head: Arc::new(head), newest }
            }
            kind::OUTCOMES => Self::Outcomes { id, outcomes: from_postcard(head)? },
            kind::HITS => Self::Hits(from_postcard(head)?),
            _ if format == SEVERAL => {
                let all: Vec<(Box<str>, Option<Vec<u8>>)> = from_postcard(head)?;
                Self::Settings(all.into_iter().map(|(key, value)| (key, value.map(Bytes::from))).collect())
            }
            _ => {
                let (key, value): (Box<str>, Option<Vec<u8>>) = from_postcard(head)?;
                Self::Setting { key, value: value.map(Bytes::from) }
            }
        })
    }

    fn encode(&self) -> Result<Vec<u8>, AppendError> {
        match self {
            Self::Message { head, newest, .. } => to_postcard(&(FORMAT, &**head, newest)),
            Self::Outcomes { outcomes, .. } => to_postcard(&(FORMAT, outcomes)),
            Self::Setting { key, value } => to_postcard(&(FORMAT, key, value.as_deref())),
            Self::Settings(all) => {
                let all: Vec<_> = all.iter().map(|(key, value)| (key, value.as_deref())).collect();
                to_postcard(&(SEVERAL, all))
            }
            Self::Hits(hits) => to_postcard(&(FORMAT, hits)),
            Self::Unknown => Ok(Vec::new()),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Message { .. } => kind::MESSAGE,
            Self::Outcomes { .. } => kind::OUTCOMES,
            Self::Setting { .. } | Self::Settings(_) => kind::SETTING,
            Self::Hits(_) => kind::HITS,
            Self::Unknown => 0,
        }
    }
}

fn from_postcard<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, HeadError> {
    postcard::from_bytes(bytes).map_err(|_| HeadError::Damaged)
}

fn to_postcard<T: Serialize>(value: &T) -> Result<Vec<u8>, AppendError> {
    postcard::to_stdvec(value).map_err(|e| AppendError::Failed(format!("a record could not be encoded: {e}")))
}

/// What of a record depends on its place.
pub(super) struct Headers {
    first: [u8; HEADER],
    second: Option<[u8; HEADER + second::PREFIX]>,
}

/// A record ready to be written, but for what depends on its place.
#[derive(Debug)]
pub(super) struct Encoded {
    flags: u8,
    kind: u8,
    id: [u8; 16],
    pub head: Vec<u8>,
    head_crc: u32,
    /// In the pieces in which it came: `writev` joins them.
    pub body: Vec<Bytes>,
    body_len: u32,
    body_crc: u32,
    /// The CRC of the head as it stands behind the record once more.
    second_crc: Option<u32>,
    pub effect: Effect,
}

impl Encoded {
    /// Encodes and sums up an entry. Runs on the caller's thread, so that the writer's has nothing to do but write.
    pub fn new(entry: Entry) -> Result<Self, AppendError> {
        let (effect, body) = match entry {
            Entry::Message { id, head, body } => (Effect::Message { id, head, newest: None }, body),
            Entry::Outcomes { id, outcomes, report } => {
                (Effect::Outcomes { id, outcomes }, report.into_iter().collect())
            }
            Entry::Hits(hits) => (Effect::Hits(hits), Vec::new()),
            Entry::Setting { key, value } => (Effect::Setting { key, value }, Vec::new()),
            Entry::Settings(all) => (Effect::Settings(all), Vec::new()),
        };
        Self::of(effect, body, None)
    }

    /// A record that compaction writes again. `body_crc` is the one from the acceptance, which the body does not have
    /// if it is damaged.
    pub fn again(effect: Effect, body: Vec<Bytes>, body_crc: u32, damaged: bool) -> Result<Self, AppendError> {
        let record = Self::of(effect, body, Some(body_crc))?;
        Ok(Self { flags: record.flags | AGAIN | if damaged { DAMAGED } else { 0 }, ..record })
    }

    /// The footer of a segment, which has no effect of its own.
    pub fn footer(head: Vec<u8>, body: Vec<Bytes>) -> Option<Self> {
        let head_crc = crc32fast::hash(&head);
        let record = Self::of(Effect::Unknown, body, None).ok()?;
        Some(Self { kind: kind::FOOTER, head, head_crc, ..record })
    }

    fn of(effect: Effect, body: Vec<Bytes>, body_crc: Option<u32>) -> Result<Self, AppendError> {
        let head = effect.encode()?;
        let body_len: usize = body.iter().map(Bytes::len).sum();
        let too_long = |_| AppendError::Failed(format!("a record of {} bytes is too long", head.len() + body_len));
        u32::try_from(head.len()).map_err(too_long)?;
        let id = match &effect {
            Effect::Message { id, .. } | Effect::Outcomes { id, .. } => *id.as_bytes(),
            Effect::Setting { .. } | Effect::Settings(_) | Effect::Hits(_) | Effect::Unknown => [0; 16],
        };
        let (seconded, inbound) = match &effect {
            Effect::Message { head, .. } => (true, head.role == Role::Inbound),
            _ => (false, false),
        };
        let mut record = Self {
            flags: if seconded { SECONDED } else { 0 } | if inbound { INBOUND } else { 0 },
            kind: effect.kind(),
            id,
            head_crc: crc32fast::hash(&head),
            body_len: u32::try_from(body_len).map_err(too_long)?,
            body_crc: body_crc.unwrap_or_else(|| crc_of(&body)),
            second_crc: None,
            head,
            body,
            effect,
        };
        record.second_crc = seconded.then(|| {
            let mut crc = crc32fast::Hasher::new();
            crc.update(&second::prefix(&record.header(0)));
            crc.update(&record.head);
            crc.finalize()
        });
        Ok(record)
    }

    /// Bytes of the record, and of its head where that stands behind it once more.
    pub fn len(&self) -> u64 {
        let header = self.header(0);
        header.len() + if header.is_seconded() { second::len(header.head_len) } else { 0 }
    }

    /// What stands before the head at this offset, and before the second one.
    pub fn headers(&self, seal: Seal, offset: u64, synced: u64) -> Headers {
        let header = self.header(synced);
        let second = self.second_crc.map(|crc| {
            let mut out = [0; HEADER + second::PREFIX];
            out[..HEADER].copy_from_slice(&second::header(&header, crc).encode(seal, offset + header.len()));
            out[HEADER..].copy_from_slice(&second::prefix(&header));
            out
        });
        Headers { first: header.encode(seal, offset), second }
    }

    /// All that is written, in order.
    pub fn pieces<'a>(&'a self, headers: &'a Headers, out: &mut Vec<IoSlice<'a>>) {
        out.extend([IoSlice::new(&headers.first), IoSlice::new(&self.head)]);
        out.extend(self.body.iter().map(|piece| IoSlice::new(piece)));
        if let Some(second) = &headers.second {
            out.extend([IoSlice::new(second), IoSlice::new(&self.head)]);
        }
    }

    pub fn header(&self, synced: u64) -> Header {
        Header {
            kind: self.kind,
            flags: self.flags,
            // `of` has seen that it fits.
            head_len: u32::try_from(self.head.len()).unwrap_or(u32::MAX),
            head_crc: self.head_crc,
            body_len: self.body_len,
            body_crc: self.body_crc,
            id: self.id,
            synced,
        }
    }
}

fn crc_of(pieces: &[Bytes]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    pieces.iter().for_each(|piece| crc.update(piece));
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAL: Seal = Seal { segment: 7, salt: 99 };

    #[test]
    fn a_header_is_right_in_its_own_place_only() {
        let header = Header {
            kind: kind::MESSAGE,
            flags: AGAIN,
            head_len: 1,
            head_crc: 2,
            body_len: 3,
            body_crc: 4,
            id: [5; 16],
            synced: 6,
        };
        let bytes = header.encode(SEAL, 8192);
        assert_eq!(Header::decode(&bytes, SEAL, 8192), Some(header));
        assert_eq!(Header::decode(&bytes, SEAL, 8193), None);
        assert_eq!(Header::decode(&bytes, Seal { segment: 8, ..SEAL }, 8192), None);
        assert_eq!(Header::decode(&bytes, Seal { salt: 98, ..SEAL }, 8192), None);
        assert_eq!(Header::decode(&bytes[..HEADER - 1], SEAL, 8192), None);
        for at in 0..HEADER {
            let mut wrong = bytes;
            wrong[at] ^= 0x10;
            assert_eq!(Header::decode(&wrong, SEAL, 8192), None, "byte {at}");
        }
    }

    #[test]
    fn a_message_of_before_roles_was_submitted() {
        let head = crate::spool::MessageHead {
            envelope: crate::mail::Envelope {
                sender: None,
                recipients: Vec::new(),
                body: crate::mail::Body::SevenBit,
                smtputf8: false,
                ret: None,
                envid: None,
            },
            accepted_at: 1,
            from_domain: None,
            from: "".into(),
            subject: "".into(),
            message_id: "".into(),
            size: 0,
            tags: Vec::new(),
            role: Role::Inbound,
        };
        // Bytes as they were written before there were roles.
        let old = [1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        let made =
            Encoded::new(Entry::Message { id: QueueId::from_bytes([1; 16]), head: head.into(), body: Vec::new() });
        let made = made.unwrap();
        assert_eq!(made.head, old, "the layout of a head stays");
        for (flags, role) in [(made.flags, Role::Inbound), (0, Role::Submission), (AGAIN, Role::Submission)] {
            let header = Header { flags, ..made.header(0) };
            let Ok(Effect::Message { head, .. }) = Effect::decode(&header, &old) else { panic!("it is a message") };
            assert_eq!(head.role, role);
        }
    }

    #[test]
    fn settings_come_back_and_later_formats_are_named() {
        for value in [None, Some(Bytes::new()), Some(Bytes::from_static(b"on"))] {
            let made = Encoded::new(Entry::Setting { key: "domain/example.com".into(), value }).unwrap();
            let header = made.header(0);
            assert_eq!(Effect::decode(&header, &made.head), Ok(made.effect.clone()));
            let mut later = made.head.clone();
            later[0] = SEVERAL + 1;
            assert_eq!(Effect::decode(&header, &later), Err(HeadError::Newer(SEVERAL + 1)));
            assert_eq!(Effect::decode(&header, &[]), Err(HeadError::Damaged));
            assert_eq!(Effect::decode(&Header { kind: 5, ..header }, &later), Ok(Effect::Unknown));
        }
        let all = vec![("a".into(), Some(Bytes::from_static(b"1"))), ("b".into(), None)];
        let made = Encoded::new(Entry::Settings(all)).unwrap();
        // The bytes on disk: what is written once is read for ever.
        assert_eq!(made.head, b"\x02\x02\x01a\x01\x011\x01b\x00");
        assert_eq!(Effect::decode(&made.header(0), &made.head), Ok(made.effect.clone()));
        let outcomes = Header { kind: kind::OUTCOMES, ..made.header(0) };
        assert_eq!(Effect::decode(&outcomes, &made.head), Err(HeadError::Newer(SEVERAL)));
    }
}
