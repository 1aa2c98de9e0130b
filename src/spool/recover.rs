//! From the files to the fold: what [`Log::open`](super::Log::open) does before the writer starts.
//!
//! A segment that has a footer is folded in by that. Of others, headers and heads are read, in large pieces, and those
//! that are full get their footer again. The end of the log is for [`mend`](super::mend) to see to before.

use super::footer::{self, Footer};
use super::index::{Index, Place, Segment};
use super::mend::{Tail, mend, tail};
use super::record::{Effect, HeadError, Header, Seal, kind};
use super::second::Firsts;
use super::segment::{self, DATA, Start, UNBEGUN, VERSION};
use super::walk::{Step, Walk};
use super::{OpenError, Recovered, disk};
use crate::mail::QueueId;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Reads the log in `dir`, mends its end, and folds it.
pub(super) fn recover(dir: &Path) -> Result<(Index, Recovered), OpenError> {
    let started = Instant::now();
    let fail = |e: io::Error| OpenError::io(dir, &e);
    let listing = segment::list(dir).map_err(fail)?;
    let mut index = Index { highest: listing.highest, ..Index::default() };
    let mut recovered = Recovered::default();
    let mut found = Vec::new();
    for number in listing.segments {
        found.extend(find(dir, number, &mut recovered)?);
    }
    limit_by_next(&mut found);
    mend(dir, &mut index.highest, &mut found, &mut recovered).map_err(fail)?;
    let full: Vec<_> = found.iter().rev().skip(1).rev().map(|segment| segment.number).collect();
    for segment in found {
        let (number, had_footer) = (segment.number, segment.footer.is_some());
        fold(dir, segment, &mut index, &mut recovered)?;
        if !had_footer && full.contains(&number) {
            write_footer(&index, number);
        }
    }
    recovered.messages = index.live_messages();
    recovered.lost.retain(|id| !index.messages.contains_key(id));
    full.into_iter().for_each(|number| index.is_full(number));
    recovered.settings = index.settings.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect();
    recovered.took = started.elapsed();
    Ok((index, recovered))
}

/// Messages without a head that are told of.
const MOST_LOST: usize = 10_000;

pub(super) struct Found {
    pub number: u64,
    pub file: Arc<File>,
    pub start: Start,
    pub end: u64,
    pub bad: bool,
    pub footer: Option<Footer>,
    /// An error of the disk that reading went past.
    pub failed: Option<io::Error>,
}

/// Opens a segment. One whose first block is damaged twice over cannot be read, and is put aside.
fn find(dir: &Path, number: u64, recovered: &mut Recovered) -> Result<Option<Found>, OpenError> {
    let path = segment::path(dir, number);
    let fail = |e: io::Error| OpenError::io(&path, &e);
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(fail)?;
    let end = file.metadata().map_err(fail)?.len();
    let healed = |error| {
        tracing::warn!(file = %path.display(), %error, "the start of this segment of the log is read from its copy");
    };
    match Start::read(&file, healed).map_err(fail)? {
        Some(start) if start.version > VERSION => Err(OpenError::Newer { file: path, version: start.version }),
        Some(start) if start.seal.segment == number => {
            let footer = Footer::read(&file, start.seal, end).map_err(fail)?;
            let end = footer.as_ref().map_or(end, |footer| footer.covers);
            Ok(Some(Found { number, file: Arc::new(file), start, end, bad: false, footer, failed: None }))
        }
        _ => {
            tracing::error!(file = %path.display(), "the start of this segment of the log is damaged: put aside");
            recovered.bad_segments += 1;
            recovered.bad_records += 1;
            fs::rename(&path, segment::bad_path(dir, number)).map_err(fail)?;
            disk::sync_dir(dir).map_err(fail)?;
            Ok(None)
        }
    }
}

/// Each segment ends where the next one says that it was synced.
fn limit_by_next(found: &mut [Found]) {
    for at in 1..found.len() {
        let (next, number) = (found[at].start.previous, found[at].number);
        let segment = &mut found[at - 1];
        // Of the one before that, which is gone, it says nothing about this.
        if segment.number + 1 != number || next == UNBEGUN {
            continue;
        }
        if segment.end < next {
            // Kept, like any other damage; what is missing cannot be counted in records.
            segment.bad = true;
        }
        segment.end = segment.end.min(next);
        // One that tells of more, or of less, is none of ours.
        segment.footer.take_if(|footer| footer.covers != segment.end);
    }
}

/// Folds a segment into the index.
fn fold(dir: &Path, found: Found, index: &mut Index, recovered: &mut Recovered) -> Result<(), OpenError> {
    let Found { number, file, start, end, bad, footer, failed } = found;
    let bad_before = recovered.bad_records;
    recovered.bad_records += u64::from(bad);
    let seal = start.seal;
    index
        .segments
        .insert(number, Segment { bad, old: start.version < VERSION, ..Segment::new(file.clone(), seal, end) });
    if let Some(footer) = footer.filter(|_| !bad) {
        recovered.records += footer.records;
        index.apply_footer(number, footer);
        return Ok(());
    }
    let path = segment::path(dir, number);
    let mut walk = Walk::through(&*file, seal, DATA, end);
    let folded = fold_records(&mut walk, seal, index, recovered);
    if let Some(error) = failed.or(walk.take_error()) {
        tracing::warn!(file = %path.display(), %error, "the disk did not give all of this segment of the log at once");
    }
    match folded {
        Ok(None) => {}
        Ok(Some(format)) => return Err(OpenError::Newer { file: path, version: format.into() }),
        Err(e) => return Err(OpenError::io(&path, &e)),
    }
    if recovered.bad_records > bad_before {
        recovered.bad_segments += 1;
        let damaged = recovered.bad_records - bad_before;
        tracing::error!(file = %path.display(), damaged, "records of the log are damaged; the segment will be kept");
        if let Some(segment) = index.segments.get_mut(&number) {
            segment.bad = true;
        }
    }
    Ok(())
}

/// Gives a full segment that was walked its footer, for the next start. Where it is damaged, it is walked again.
fn write_footer(index: &Index, number: u64) {
    let (Some(footer), Some(segment)) = (Footer::of(index, number), index.segments.get(&number)) else { return };
    if let Some(bytes) = footer.encode(segment.seal) {
        footer::write(&segment.file, footer.covers, &bytes);
    }
}

/// Gives the format of the first head that is too new to be read, if there is one.
fn fold_records(
    walk: &mut Walk<'_>,
    seal: Seal,
    index: &mut Index,
    recovered: &mut Recovered,
) -> io::Result<Option<u8>> {
    let mut firsts = Firsts::default();
    while let Some(step) = walk.step()? {
        let Step::Record { offset, header } = step else {
            recovered.bad_records += 1;
            continue;
        };
        if header.kind == kind::SECOND {
            let Some(first) = firsts.lost(walk, offset, &header)? else { continue };
            let Ok(effect) = Effect::decode(&first.header, first.head) else { continue };
            let id = QueueId::from_bytes(header.id);
            tracing::warn!(queue_id = %id, "the record of a message is damaged: its second head is used");
            recovered.records += 1;
            recovered.lost.retain(|lost| *lost != id);
            index.apply(effect, Place::new(seal.segment, first.offset, &first.header));
            continue;
        }
        let effect = match walk.head(offset, &header)? {
            Some(head) => Effect::decode(&header, head),
            None => Err(HeadError::Damaged),
        };
        match effect {
            Ok(effect) => {
                if header.kind == kind::MESSAGE {
                    firsts.is_sound(offset, &header);
                }
                recovered.records += 1;
                index.apply(effect, Place::new(seal.segment, offset, &header));
            }
            Err(HeadError::Damaged) => {
                recovered.bad_records += 1;
                let id = QueueId::from_bytes(header.id);
                if header.kind == kind::MESSAGE && recovered.lost.len() < MOST_LOST {
                    recovered.lost.push(id);
                }
                tracing::error!(queue_id = %id, kind = header.kind, segment = seal.segment, offset, "a record is damaged");
            }
            Err(HeadError::Newer(format)) => return Ok(Some(format)),
        }
    }
    Ok(None)
}

/// For the fuzzer: takes `data` for the last segment of a log, and for a head of each kind, and asserts that what
/// recovery makes of it hangs together. Panics, loops and memory beyond a small multiple of the input are faults.
#[doc(hidden)]
pub fn fuzz_recover(data: &[u8]) {
    for kind in 0..=6 {
        let (head_len, body_len) = (u32::try_from(data.len()).unwrap_or(u32::MAX), 0);
        let header = Header { kind, flags: 0, head_len, head_crc: 0, body_len, body_crc: 0, id: [0; 16], synced: 0 };
        let _ = Effect::decode(&header, data);
    }
    let len = data.len() as u64;
    let start = Start::read(&data, drop).ok().flatten();
    let seal = start.map_or(Seal { segment: 1, salt: 0 }, |start| start.seal);
    let _ = Footer::read(&data, seal, len);
    Footer::fuzz(data);
    let Ok(Tail { keep, rescued, .. }) = tail(&data, seal, len) else { return };
    assert!(keep <= len.max(DATA));
    assert!(rescued.iter().all(|piece| piece.offset >= keep && piece.end() <= len));
    assert!(rescued.is_sorted_by(|a, b| a.end() <= b.offset));
    let Ok(file) = File::open("/dev/null") else { return };
    let (mut index, mut recovered) = (Index::default(), Recovered::default());
    index.segments.insert(seal.segment, Segment::new(Arc::new(file), seal, keep));
    let _ = fold_records(&mut Walk::through(&data, seal, DATA, keep), seal, &mut index, &mut recovered);
    let settings: BTreeMap<u64, u64> = index.settings.values().map(|(_, place)| (place.offset, place.len())).collect();
    let live = index.messages.values().map(|m| m.place().len()).sum::<u64>() + settings.values().sum::<u64>();
    assert_eq!(index.live, live);
    assert!(live <= keep);
    assert_eq!(index.live_messages().len(), index.messages.len());
}
