//! From the files to the fold: what [`Log::open`](super::Log::open) does before the writer starts.
//!
//! Headers and heads are read, bodies passed over. Of the last segment, what lies behind the last sync that a header
//! in it tells of may be torn anywhere, because the disk writes pages in an order of its own; there, bodies are
//! checked as well. Behind the first record that is torn, sound ones may follow; if they were acknowledged, the torn
//! one was not torn but damaged. So they are never cut: they are written again into a new segment, which declares the
//! old one to end before the damage.

use super::index::{Index, Place, Segment};
use super::record::{Effect, HEADER, HeadError, Header, Seal};
use super::segment::{self, DATA, Start, VERSION};
use super::walk::{ReadAt, Step, Walk, read_full};
use super::{OpenError, Recovered, disk};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
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
    if let Some(last) = found.pop() {
        mend(dir, last, &mut index.highest, &mut found, &mut recovered).map_err(fail)?;
    }
    for segment in found {
        fold(dir, segment, &mut index, &mut recovered)?;
    }
    recovered.messages = index.live_messages();
    recovered.settings = index.settings.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect();
    recovered.took = started.elapsed();
    Ok((index, recovered))
}

struct Found {
    number: u64,
    file: Arc<File>,
    start: Start,
    end: u64,
    bad: bool,
}

/// Opens a segment. One whose first block is damaged twice over cannot be read, and is put aside.
fn find(dir: &Path, number: u64, recovered: &mut Recovered) -> Result<Option<Found>, OpenError> {
    let path = segment::path(dir, number);
    let fail = |e: io::Error| OpenError::io(&path, &e);
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(fail)?;
    let end = file.metadata().map_err(fail)?.len();
    match Start::read(&file).map_err(fail)? {
        Some(start) if start.version > VERSION => Err(OpenError::Newer { file: path, version: start.version }),
        Some(start) if start.seal.segment == number => {
            Ok(Some(Found { number, file: Arc::new(file), start, end, bad: false }))
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
        if segment.number + 1 != number {
            continue;
        }
        if segment.end < next {
            // Kept, like any other damage; what is missing cannot be counted in records.
            segment.bad = true;
        }
        segment.end = segment.end.min(next);
    }
}

/// What the end of the last segment looks like.
#[derive(Debug)]
struct Tail {
    /// Up to here, all is either sound or was synced once.
    keep: u64,
    /// Sound records behind that.
    rescued: Vec<(u64, Header)>,
    /// Some of it could not be read, which need not stay so.
    unreadable: bool,
}

fn tail(source: &dyn ReadAt, seal: Seal, len: u64) -> io::Result<Tail> {
    let mut synced = DATA;
    let mut walk = Walk::new(source, seal, DATA, len);
    while let Some(step) = walk.step()? {
        if let Step::Record { offset, header } = step
            && header.synced <= offset
        {
            synced = synced.max(header.synced);
        }
    }
    let mut torn = None;
    let mut rescued = Vec::new();
    let mut walk = Walk::new(source, seal, synced, len);
    while let Some(step) = walk.step()? {
        match step {
            Step::Record { offset, header } if is_sound(&mut walk, offset, &header)? => {
                if torn.is_some() {
                    rescued.push((offset, header));
                }
            }
            Step::Record { offset: at, .. } | Step::Gap { from: at, .. } => {
                torn.get_or_insert(at);
            }
        }
    }
    Ok(Tail { keep: torn.unwrap_or(len), rescued, unreadable: walk.met_unreadable() })
}

fn is_sound(walk: &mut Walk<'_>, offset: u64, header: &Header) -> io::Result<bool> {
    Ok(walk.head(offset, header)?.is_some() && (header.is_damaged() || walk.body_is_right(offset, header)?))
}

/// Cuts what is torn off the last segment, and adds it to `found`, with a new one behind it if records are rescued.
fn mend(
    dir: &Path,
    mut last: Found,
    highest: &mut u64,
    found: &mut Vec<Found>,
    recovered: &mut Recovered,
) -> io::Result<()> {
    let seal = last.start.seal;
    let Tail { keep, rescued, unreadable } = tail(&*last.file, seal, last.end)?;
    let saved: u64 = rescued.iter().map(|(_, header)| header.len()).sum();
    recovered.cut_bytes = last.end.saturating_sub(keep) - saved;
    if keep < last.end {
        tracing::warn!(segment = last.number, cut = recovered.cut_bytes, saved, "the end of the log was torn");
    }
    let mut new = None;
    if !rescued.is_empty() || unreadable {
        let number = *highest + 1;
        let mut end = DATA;
        let (file, seal) = segment::create(dir, number, keep, &mut |file, new_seal| {
            for (offset, header) in &rescued {
                let moved = Header { synced: DATA, ..*header };
                file.write_all_at(&moved.encode(new_seal, end), end)?;
                copy(&last.file, offset + HEADER as u64, file, end + HEADER as u64, header.len() - HEADER as u64)?;
                end += header.len();
            }
            Ok(())
        })?;
        *highest = number;
        let start = Start { version: VERSION, seal, previous: keep };
        new = Some(Found { number, file: Arc::new(file), start, end, bad: false });
    }
    if keep < last.end {
        last.end = keep;
        match unreadable {
            true => last.bad = true,
            false => last.file.set_len(keep)?,
        }
    }
    // What a killed process had written may be in memory only, and is about to be called durable.
    last.file.sync_all()?;
    found.push(last);
    found.extend(new);
    Ok(())
}

fn copy(from: &File, mut at: u64, to: &File, mut to_at: u64, mut left: u64) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    while left > 0 {
        let piece = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if read_full(from, &mut buffer[..piece], at)? < piece {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all_at(&buffer[..piece], to_at)?;
        at += piece as u64;
        to_at += piece as u64;
        left -= piece as u64;
    }
    Ok(())
}

/// Folds a segment into the index.
fn fold(dir: &Path, found: Found, index: &mut Index, recovered: &mut Recovered) -> Result<(), OpenError> {
    let Found { number, file, start, end, bad } = found;
    let bad_before = recovered.bad_records;
    recovered.bad_records += u64::from(bad);
    let seal = start.seal;
    let segment = Segment { file: file.clone(), seal, end, live: BTreeMap::new(), live_bytes: 0, bad };
    index.segments.insert(number, segment);
    let path = segment::path(dir, number);
    match fold_records(&*file, seal, end, index, recovered) {
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

/// Gives the format of the first head that is too new to be read, if there is one.
fn fold_records(
    source: &dyn ReadAt,
    seal: Seal,
    end: u64,
    index: &mut Index,
    recovered: &mut Recovered,
) -> io::Result<Option<u8>> {
    let mut walk = Walk::new(source, seal, DATA, end);
    while let Some(step) = walk.step()? {
        let Step::Record { offset, header } = step else {
            recovered.bad_records += 1;
            continue;
        };
        let effect = match walk.head(offset, &header)? {
            Some(head) => Effect::decode(&header, head),
            None => Err(HeadError::Damaged),
        };
        match effect {
            Ok(effect) => {
                recovered.records += 1;
                index.apply(effect, Place::new(seal.segment, offset, &header));
            }
            Err(HeadError::Damaged) => recovered.bad_records += 1,
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
    let start = Start::read(&data).ok().flatten();
    let seal = start.map_or(Seal { segment: 1, salt: 0 }, |start| start.seal);
    let Ok(Tail { keep, rescued, .. }) = tail(&data, seal, len) else { return };
    assert!(keep <= len.max(DATA));
    assert!(rescued.iter().all(|(offset, header)| *offset > keep && offset + header.len() <= len));
    assert!(rescued.is_sorted_by(|(a, header), (b, _)| a + header.len() <= *b));
    let Ok(file) = File::open("/dev/null") else { return };
    let (mut index, mut recovered) = (Index::default(), Recovered::default());
    let segment = Segment { file: Arc::new(file), seal, end: keep, live: BTreeMap::new(), live_bytes: 0, bad: false };
    index.segments.insert(seal.segment, segment);
    let _ = fold_records(&data, seal, keep, &mut index, &mut recovered);
    let settings: BTreeMap<u64, u64> = index.settings.values().map(|(_, place)| (place.offset, place.len())).collect();
    let live = index.messages.values().map(|m| m.place.len()).sum::<u64>() + settings.values().sum::<u64>();
    assert_eq!(index.live, live);
    assert!(live <= keep);
    assert_eq!(index.live_messages().len(), index.messages.len());
}
