//! Head and body of an unsettled message, from the place that the index knows.

use super::index::Place;
use super::record::{Effect, Seal, kind, role_of};
use super::walk::{ReadAt, read_full};
use super::{BodyError, Log, MessageHead, second};
use crate::mail::{QueueId, Role};
use std::fs::File;
use std::sync::Arc;

impl Log {
    /// The bytes of an unsettled message. Reads the disk.
    pub fn body(&self, id: &QueueId) -> Result<Vec<u8>, BodyError> {
        let (file, _, place) = self.place(id)?;
        let body = read(&*file, place.body_offset(), place.body_len as usize)?;
        if crc32fast::hash(&body) == place.body_crc { Ok(body) } else { Err(BodyError::Damaged) }
    }

    /// What is known of an unsettled message beside its bytes. Reads the disk.
    pub fn head(&self, id: &QueueId) -> Result<MessageHead, BodyError> {
        let (file, seal, place) = self.place(id)?;
        self.head_at(&file, seal, &place)
    }

    /// Which listener took an unsettled message.
    pub fn role(&self, id: &QueueId) -> Result<Role, BodyError> {
        self.place(id).map(|(_, _, place)| role_of(place.flags))
    }

    /// Both, in one read; the bytes where there are no more than `most` and nothing is wrong with them, which
    /// [`Self::body`] says.
    pub fn message(&self, id: &QueueId, most: usize) -> Result<(MessageHead, Option<Vec<u8>>), BodyError> {
        let (file, seal, place) = self.place(id)?;
        let (head_len, body_len) = (place.head_len as usize, place.body_len as usize);
        if body_len > most {
            return Ok((self.head_at(&file, seal, &place)?, None));
        }
        let Ok(mut bytes) = read(&*file, place.head_offset(), head_len + body_len) else {
            return Ok((self.head_at(&file, seal, &place)?, None));
        };
        let body = bytes.split_off(head_len);
        let head = head_of(&place, &bytes).or_else(|_| self.head_at(&file, seal, &place))?;
        Ok((head, Some(body).filter(|body| crc32fast::hash(body) == place.body_crc)))
    }

    fn head_at(&self, file: &File, seal: Seal, place: &Place) -> Result<MessageHead, BodyError> {
        head_at(file, seal, place, |error| self.0.shared.head_healed(&self.0.dir, place.segment, error))
    }

    /// An open file can be read even after its segment was freed.
    fn place(&self, id: &QueueId) -> Result<(Arc<File>, Seal, Place), BodyError> {
        let index = self.0.shared.index();
        let place = index.messages.get(id).ok_or(BodyError::NotFound)?.place();
        let segment = index.segments.get(&place.segment).ok_or(BodyError::NotFound)?;
        Ok((Arc::clone(&segment.file), segment.seal, place))
    }
}

/// Bytes that are there once; `Damaged` where the file ends before.
pub(super) fn read(source: &dyn ReadAt, offset: u64, len: usize) -> Result<Vec<u8>, BodyError> {
    let mut bytes = vec![0; len];
    match read_full(source, &mut bytes, offset) {
        Ok(read) if read == len => Ok(bytes),
        Ok(_) => Err(BodyError::Damaged),
        Err(e) => Err(BodyError::Io(e.to_string())),
    }
}

/// The head at this place, or the second one where that is damaged. `Damaged` only where both were read: one that the
/// disk did not give now may be right the next time. Where the second one is used, `healed` is told what was wrong.
pub(super) fn head_at(
    source: &dyn ReadAt,
    seal: Seal,
    place: &Place,
    healed: impl FnOnce(&BodyError),
) -> Result<MessageHead, BodyError> {
    let first = read(source, place.head_offset(), place.head_len as usize);
    first.and_then(|bytes| head_of(place, &bytes)).or_else(|error| {
        if !place.is_seconded() {
            return Err(error);
        }
        let second = second::head(source, seal, place.end(), place.head_len);
        let second = second.map_err(|e| BodyError::Io(e.to_string()))?;
        let head = second.and_then(|bytes| head_of(place, &bytes).ok());
        head.inspect(|_| healed(&error)).ok_or(error)
    })
}

fn head_of(place: &Place, bytes: &[u8]) -> Result<MessageHead, BodyError> {
    if crc32fast::hash(bytes) != place.head_crc {
        return Err(BodyError::Damaged);
    }
    match Effect::decode_kind(kind::MESSAGE, place.flags, [0; 16], bytes) {
        Ok(Effect::Message { head, .. }) => Ok(Arc::unwrap_or_clone(head)),
        _ => Err(BodyError::Damaged),
    }
}
