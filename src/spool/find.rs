//! The bytes of a message that has left the queue, for as long as the log still has them: nobody's mail needs them any
//! more, so no index leads there.
//!
//! A settled message lies where it was accepted, or, if its segment was freed while it still waited, where compaction
//! has written it again. Segments follow each other in time. So the headers of those are walked, and no bodies, in which
//! it can lie: from the last segment that begins before the message was accepted to the last one that begins before it
//! was settled. For most mail that is one. The bound on headers holds for the rest: what is not met within it counts as
//! gone. So may a message that was accepted while the clock stood wrong.

use super::record::{Effect, Header, Seal, kind};
use super::second::First;
use super::segment::DATA;
use super::walk::{Step, Walk};
use super::{BodyError, Log};
use crate::mail::QueueId;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Messages are written in the order in which they were accepted, but for so many milliseconds.
const SLACK_MS: u64 = 10_000;
/// Headers of a segment that are looked at for when it begins.
const BEGIN_HEADERS: usize = 100;

impl Log {
    /// The bytes of a message, in the queue or settled. `lived`: when it was accepted and when it was settled at the
    /// latest, in milliseconds since 1970. Reads the disk: up to `headers` headers of records, beside a few of each
    /// segment. [`BodyError::NotFound`] where the log no longer has it.
    pub fn find_body(&self, id: &QueueId, lived: Range<u64>, headers: usize) -> Result<Vec<u8>, BodyError> {
        match self.body(id) {
            Err(BodyError::NotFound) => {}
            found => return found,
        }
        let segments: Vec<Part> = {
            let index = self.0.shared.index();
            index.segments.values().map(|s| Part { file: s.file.clone(), seal: s.seal, end: s.end }).collect()
        };
        let failed = |e: io::Error| BodyError::Io(e.to_string());
        let mut wanted = Vec::new();
        for segment in segments.into_iter().rev() {
            let begins = segment.begins().map_err(failed)?;
            if begins.is_none_or(|begins| begins <= lived.end.saturating_add(SLACK_MS)) {
                wanted.push(segment);
            }
            if begins.is_some_and(|begins| begins.saturating_add(SLACK_MS) <= lived.start) {
                break;
            }
        }
        let mut left = headers;
        for segment in wanted.iter().rev() {
            if let Some((header, offset)) = segment.find(id, &mut left).map_err(failed)? {
                return segment.body(&header, offset);
            }
        }
        Err(BodyError::NotFound)
    }
}

/// One segment, which can be read also after it was freed.
struct Part {
    file: Arc<File>,
    seal: Seal,
    end: u64,
}

impl Part {
    /// When the first message was accepted that was first written here; `None` where none stands near the beginning.
    /// Its id would not do: that of a notice has the time of the message that it tells of.
    fn begins(&self) -> io::Result<Option<u64>> {
        let mut walk = Walk::new(&*self.file, self.seal, DATA, self.end);
        for _ in 0..BEGIN_HEADERS {
            let Some(step) = walk.step()? else { break };
            if let Step::Record { offset, header } = step
                && header.kind == kind::MESSAGE
                && !header.is_again()
                && let Some(head) = walk.head(offset, &header)?
                && let Ok(Effect::Message { head, .. }) = Effect::decode(&header, head)
            {
                return Ok(Some(head.accepted_at));
            }
        }
        Ok(None)
    }

    fn find(&self, id: &QueueId, left: &mut usize) -> io::Result<Option<(Header, u64)>> {
        let mut walk = Walk::new(&*self.file, self.seal, DATA, self.end);
        while *left > 0
            && let Some(step) = walk.step()?
        {
            *left -= 1;
            let Step::Record { offset, header } = step else { continue };
            if header.id != *id.as_bytes() {
                continue;
            }
            if header.kind == kind::MESSAGE {
                return Ok(Some((header, offset)));
            }
            // The header of the first one is damaged, or it would have been met.
            if header.kind == kind::SECOND
                && let Some(first) = walk.head(offset, &header)?.and_then(|head| First::of(offset, &header, head))
            {
                return Ok(Some((first.header, first.offset)));
            }
        }
        Ok(None)
    }

    fn body(&self, header: &Header, offset: u64) -> Result<Vec<u8>, BodyError> {
        let mut body = vec![0; header.body_len as usize];
        let at = offset + header.len() - u64::from(header.body_len);
        match self.file.read_exact_at(&mut body, at) {
            Ok(()) if crc32fast::hash(&body) == header.body_crc => Ok(body),
            Ok(()) => Err(BodyError::Damaged),
            Err(e) => Err(BodyError::Io(e.to_string())),
        }
    }
}
