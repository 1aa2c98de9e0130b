//! The end of the log, which a crash may have left in any state.
//!
//! Of the last segment, what lies behind the last sync that a header in it tells of may be torn anywhere, because the
//! disk writes pages in an order of its own; there, bodies are checked as well. Behind the first record that is torn,
//! sound ones may follow; if they were acknowledged, the torn one was not torn but damaged. So they are never cut: they
//! are written again into a new segment, which declares the old one to end before the damage.
//!
//! Behind the last segment there may be one that was begun and never synced. Nothing in it was acknowledged, and what
//! is sound in it is written again as well, under its number.

use super::record::{HEADER, Header, Seal, kind};
use super::recover::Found;
use super::second::Firsts;
use super::segment::{self, DATA, Start, UNBEGUN, VERSION};
use super::walk::{ReadAt, Step, Walk, read_full};
use super::{Recovered, disk, second};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// What the end of the last segment looks like.
#[derive(Debug)]
pub(super) struct Tail {
    /// Up to here, all is either sound or was synced once.
    pub keep: u64,
    /// Sound records behind that.
    pub rescued: Vec<Piece>,
    /// Some of it could not be read, which need not stay so.
    unreadable: bool,
    failed: Option<io::Error>,
}

pub(super) fn tail(source: &dyn ReadAt, seal: Seal, len: u64) -> io::Result<Tail> {
    let mut synced = DATA;
    let mut walk = Walk::through(source, seal, DATA, len);
    while let Some(step) = walk.step()? {
        if let Step::Record { offset, header } = step
            && header.synced <= offset
        {
            synced = synced.max(header.synced);
        }
    }
    let failed = walk.take_error();
    let mut walk = Walk::through(source, seal, synced, len);
    let (torn, rescued) = sound(&mut walk, false)?;
    let (unreadable, failed) = (walk.met_unreadable(), failed.or(walk.take_error()));
    Ok(Tail { keep: torn.unwrap_or(len), rescued, unreadable, failed })
}

/// A sound record, and where its head lies, which may be the second one of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub offset: u64,
    pub header: Header,
    head_at: u64,
}

impl Piece {
    fn new(offset: u64, header: Header) -> Self {
        Self { offset, header, head_at: offset + HEADER as u64 }
    }

    pub fn end(&self) -> u64 {
        self.offset + self.header.len()
    }
}

/// Where the first record lies that is not sound, and the sound ones behind it; or all of them.
fn sound(walk: &mut Walk<'_>, all: bool) -> io::Result<(Option<u64>, Vec<Piece>)> {
    let mut torn = None;
    let mut pieces: Vec<Piece> = Vec::new();
    let mut firsts = Firsts::default();
    while let Some(step) = walk.step()? {
        let (offset, header) = match step {
            Step::Record { offset, header } => (offset, header),
            Step::Gap { from, .. } => {
                torn.get_or_insert(from);
                continue;
            }
        };
        if header.kind == kind::SECOND {
            // Behind its message it stays; alone, it says all but the body.
            if let Some(first) = firsts.lost(walk, offset, &header)? {
                let (at, first) = (first.offset, first.header);
                let sound = first.is_damaged() || walk.body_is_right(at, &first)?;
                if all && !sound {
                    // Nothing in this segment was ever synced, so nobody was told that it is accepted.
                    continue;
                }
                // Nothing here tells a body that a power cut tore before its sync was done from one that was accepted and
                // has been damaged since: no later record says that this one was synced, which only means that none came.
                // Pages of zeros are what a torn write leaves, and also what a disk leaves that lost what it had synced.
                // So the message counts as damaged, and its sender is told: at worst of mail that was never accepted and
                // that comes a second time, where to cut it would at worst lose accepted mail, with nobody told.
                let first = if sound { first } else { first.as_damaged() };
                pieces.push(Piece { head_at: offset + (HEADER + second::PREFIX) as u64, ..Piece::new(at, first) });
            } else if walk.head(offset, &header)?.is_none() {
                torn.get_or_insert(offset);
                continue;
            }
            if pieces.last().is_some_and(|last| last.end() == offset) {
                pieces.push(Piece::new(offset, header));
            }
            continue;
        }
        if is_sound(walk, offset, &header)? {
            if header.kind == kind::MESSAGE {
                firsts.is_sound(offset, &header);
            }
            if torn.is_some() || all {
                pieces.push(Piece::new(offset, header));
            }
        } else {
            torn.get_or_insert(offset);
        }
    }
    Ok((torn, pieces))
}

fn is_sound(walk: &mut Walk<'_>, offset: u64, header: &Header) -> io::Result<bool> {
    Ok(walk.head(offset, header)?.is_some() && (header.is_damaged() || walk.body_is_right(offset, header)?))
}

/// A record that is to be written again.
struct Rescued {
    file: Arc<File>,
    piece: Piece,
}

/// Cuts what is torn off the last of the segments, and adds a new one behind it where records are rescued.
pub(super) fn mend(dir: &Path, highest: &mut u64, found: &mut Vec<Found>, recovered: &mut Recovered) -> io::Result<()> {
    let unbegun = found.pop_if(|last| last.start.previous == UNBEGUN);
    let mut rescued = Vec::new();
    let (mut unreadable, mut failed) = (false, None);
    if let Some(last) = found.last_mut() {
        unreadable = cut(last, &mut rescued, recovered)?;
    }
    if let Some(Found { file, start, end, .. }) = &unbegun {
        let mut walk = Walk::through(&**file, start.seal, DATA, *end);
        let (_, pieces) = sound(&mut walk, true)?;
        failed = walk.take_error();
        let kept: u64 = pieces.iter().map(|piece| piece.header.len()).sum();
        let cut = end.saturating_sub(DATA).saturating_sub(kept);
        rescued.extend(pieces.into_iter().map(|piece| Rescued { file: file.clone(), piece }));
        recovered.cut_bytes += cut;
    }
    let keep = found.last().map_or(0, |last| last.end);
    if !rescued.is_empty() || unreadable {
        let number = unbegun.as_ref().map_or(*highest + 1, |unbegun| unbegun.number);
        let mut end = DATA;
        let (file, seal) = segment::create(dir, number, keep, &mut |file, new_seal| {
            for Rescued { file: from, piece: Piece { offset, header, head_at } } in &rescued {
                let moved = Header { synced: DATA, ..*header };
                let (head_len, body_len) = (u64::from(header.head_len), u64::from(header.body_len));
                let head_to = end + HEADER as u64;
                file.write_all_at(&moved.encode(new_seal, end), end)?;
                copy(from, *head_at, file, head_to, head_len)?;
                copy(from, offset + HEADER as u64 + head_len, file, head_to + head_len, body_len)?;
                end += header.len();
            }
            Ok(())
        })?;
        *highest = number.max(*highest);
        let start = Start { version: VERSION, seal, previous: keep };
        found.push(Found { number, file: Arc::new(file), start, end, bad: false, footer: None, failed });
    } else if let Some(unbegun) = unbegun {
        fs::remove_file(segment::path(dir, unbegun.number))?;
        disk::sync_dir(dir)?;
    }
    Ok(())
}

/// Cuts the end of the last segment that was synced. True when some of it could not be read.
fn cut(last: &mut Found, rescued: &mut Vec<Rescued>, recovered: &mut Recovered) -> io::Result<bool> {
    if last.footer.is_some() {
        // It was written after the last sync.
        return Ok(false);
    }
    let Tail { keep, rescued: sound, unreadable, failed } = tail(&*last.file, last.start.seal, last.end)?;
    last.failed = failed;
    let saved: u64 = sound.iter().map(|piece| piece.header.len()).sum();
    recovered.cut_bytes = last.end.saturating_sub(keep).saturating_sub(saved);
    if keep < last.end {
        tracing::warn!(segment = last.number, cut = recovered.cut_bytes, saved, "the end of the log was torn");
    }
    rescued.extend(sound.into_iter().map(|piece| Rescued { file: last.file.clone(), piece }));
    if keep < last.end {
        last.end = keep;
        // What is rescued is still to be read.
        match unreadable || !rescued.is_empty() {
            true => last.bad |= unreadable,
            false => last.file.set_len(keep)?,
        }
    }
    // What a killed process had written may be in memory only, and is about to be called durable.
    last.file.sync_all()?;
    Ok(unreadable)
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
