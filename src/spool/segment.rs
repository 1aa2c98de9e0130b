//! Segment files: their names, and the block at their start.
//!
//! The block is there twice, 4 KiB apart, because without its salt no record of the segment can be told from noise.
//! It says how much of the segment before was synced: what lies beyond that there was never acknowledged.

use super::disk;
use super::record::Seal;
use super::walk::{ReadAt, read_full};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Offset of a segment's first record.
pub(super) const DATA: u64 = 8192;

/// Format of segments and records. A later one is refused, not guessed at.
pub(super) const VERSION: u32 = 2;

const MAGIC: &[u8; 16] = b"trackpost log\r\n\0";

/// Bytes of a block:
///
/// ```text
/// 0 magic 16 | 16 version 4 | 20 CRC of the rest 4 | 24 segment 8 | 32 salt 8 | 40 synced bytes of the segment
/// before 8 | 48 zero 16       (little-endian; magic, version and CRC stay where they are in every version)
/// ```
const BLOCK: usize = 64;

/// Where the two copies of the block lie.
const COPIES: [u64; 2] = [0, 4096];

/// What stands at the start of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub version: u32,
    pub seal: Seal,
    /// Bytes of the segment before that were synced when this one was begun; 0 where there was none, [`UNBEGUN`] until
    /// this one's first sync.
    pub previous: u64,
}

/// Stands in the block of a segment that was made ahead: nothing in it was ever acknowledged.
pub(super) const UNBEGUN: u64 = u64::MAX;

impl Start {
    pub fn encode(&self) -> [u8; BLOCK] {
        let mut out = [0; BLOCK];
        out[..16].copy_from_slice(MAGIC);
        out[16..20].copy_from_slice(&self.version.to_le_bytes());
        out[24..32].copy_from_slice(&self.seal.segment.to_le_bytes());
        out[32..40].copy_from_slice(&self.seal.salt.to_le_bytes());
        out[40..48].copy_from_slice(&self.previous.to_le_bytes());
        let crc = block_crc(&out);
        out[20..24].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(block: &[u8; BLOCK]) -> Option<Self> {
        let u32_at = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        (block[..16] == MAGIC[..] && u32_at(20) == block_crc(block)).then(|| Self {
            version: u32_at(16),
            seal: Seal { segment: u64_at(24), salt: u64_at(32) },
            previous: u64_at(40),
        })
    }

    /// Reads the first of the two copies that is right; `None` when neither is. One that the disk cannot give is an error
    /// only where the other is not right either: it may be read again another day. Where the other is, `healed` is told
    /// of it.
    pub fn read(source: &dyn ReadAt, healed: impl FnMut(io::Error)) -> io::Result<Option<Self>> {
        let mut failed = None;
        for at in COPIES {
            let mut block = [0; BLOCK];
            match read_full(source, &mut block, at) {
                Ok(BLOCK) => {
                    if let Some(start) = Self::decode(&block) {
                        failed.into_iter().for_each(healed);
                        return Ok(Some(start));
                    }
                }
                Ok(_) => {}
                Err(e) => failed = Some(e),
            }
        }
        failed.map_or(Ok(None), Err)
    }
}

fn block_crc(block: &[u8; BLOCK]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&block[..20]);
    crc.update(&block[24..]);
    crc.finalize()
}

/// `DIR/0000000000000001.log`.
pub(super) fn path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:016}.log"))
}

/// The name under which a damaged segment is kept for the operator once the log is done with it.
pub(super) fn bad_path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:016}.bad"))
}

/// What the folder of the log holds.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Numbers of the segments, in order.
    pub segments: Vec<u64>,
    /// The highest number in use, that of `.bad` files included, so that none is ever given twice.
    pub highest: u64,
}

/// Lists the folder and removes segments whose creation was not finished; nothing was ever acknowledged in them.
pub(super) fn list(dir: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some((number, kind)) = name.to_str().and_then(|n| n.split_once('.')) else { continue };
        let Ok(number) = number.parse::<u64>() else { continue };
        match kind {
            "new" => fs::remove_file(entry.path())?,
            "log" => listing.segments.push(number),
            "bad" => {}
            _ => continue,
        }
        listing.highest = listing.highest.max(number);
    }
    listing.segments.sort_unstable();
    Ok(listing)
}

/// A segment made ahead, under a name that a start removes.
#[derive(Debug)]
pub(super) struct Unbegun {
    pub file: File,
    pub seal: Seal,
}

impl Unbegun {
    /// Makes and syncs it.
    pub fn make(dir: &Path, segment: u64) -> io::Result<Self> {
        let (mut file, seal) = make(dir, segment, UNBEGUN, &mut |_, _| Ok(()))?;
        file.seek(SeekFrom::Start(DATA))?;
        Ok(Self { file, seal })
    }

    /// Gives it the name under which it counts. The folder is not synced.
    pub fn name(&self, dir: &Path) -> io::Result<()> {
        fs::rename(unfinished(dir, self.seal.segment), path(dir, self.seal.segment))
    }

    pub fn remove(&self, dir: &Path) {
        let _ = fs::remove_file(unfinished(dir, self.seal.segment));
    }
}

/// Before the first sync of a segment that was made ahead: says how much of the one before was synced.
pub(super) fn begin(file: &File, seal: Seal, previous: u64) -> io::Result<()> {
    let block = Start { version: VERSION, seal, previous }.encode();
    COPIES.iter().try_for_each(|at| file.write_all_at(&block, *at))
}

fn unfinished(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:016}.new"))
}

/// Begins a segment. `fill` may write records into it; the file appears under its name, whole and synced, or not at
/// all.
pub(super) fn create(
    dir: &Path,
    segment: u64,
    previous: u64,
    fill: &mut dyn FnMut(&File, Seal) -> io::Result<()>,
) -> io::Result<(File, Seal)> {
    let (file, seal) = make(dir, segment, previous, fill)?;
    let named = fs::rename(unfinished(dir, segment), path(dir, segment)).and_then(|()| disk::sync_dir(dir));
    match named {
        Ok(()) => Ok((file, seal)),
        Err(e) => {
            let _ = fs::remove_file(unfinished(dir, segment));
            Err(e)
        }
    }
}

fn make(
    dir: &Path,
    segment: u64,
    previous: u64,
    fill: &mut dyn FnMut(&File, Seal) -> io::Result<()>,
) -> io::Result<(File, Seal)> {
    let mut salt = [0; 8];
    getrandom::fill(&mut salt).map_err(|e| io::Error::other(e.to_string()))?;
    let seal = Seal { segment, salt: u64::from_le_bytes(salt) };
    let path = unfinished(dir, segment);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    let made = (|| {
        file.set_len(DATA)?;
        begin(&file, seal, previous)?;
        fill(&file, seal)?;
        file.sync_all()
    })();
    match made {
        Ok(()) => Ok((file, seal)),
        Err(e) => {
            let _ = fs::remove_file(&path);
            Err(e)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_copy_of_the_block_will_do() {
        let dir = tempfile::tempdir().unwrap();
        let (file, seal) = create(dir.path(), 3, 4711, &mut |_, _| Ok(())).unwrap();
        let want = Start { version: VERSION, seal, previous: 4711 };
        for damaged in [&[][..], &[5], &[4096 + 40], &[5, 4096]] {
            for at in damaged {
                file.write_all_at(&[0xff], *at).unwrap();
            }
            let got = Start::read(&file, |e| panic!("{e}")).unwrap();
            assert_eq!(got, (damaged.len() < 2).then_some(want), "{damaged:?}");
            for at in COPIES {
                file.write_all_at(&want.encode(), at).unwrap();
            }
        }
        // Nor need the first one be readable.
        struct Unreadable(File);
        impl ReadAt for Unreadable {
            fn read_some(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
                if offset < 4096 { Err(io::Error::from_raw_os_error(libc::EIO)) } else { self.0.read_some(buf, offset) }
            }
        }
        let unreadable = Unreadable(file);
        let mut healed = None;
        assert_eq!(Start::read(&unreadable, |e| healed = e.raw_os_error()).unwrap(), Some(want));
        assert_eq!(healed, Some(libc::EIO));
        unreadable.0.write_all_at(&[0xff], 4096).unwrap();
        assert!(Start::read(&unreadable, drop).is_err(), "it may be read another day");
        fs::write(dir.path().join("0000000000000009.bad"), "").unwrap();
        fs::write(dir.path().join("0000000000000010.new"), "").unwrap();
        let listing = list(dir.path()).unwrap();
        assert_eq!((listing.segments, listing.highest), (vec![3], 10));
        assert!(!dir.path().join("0000000000000010.new").exists());
    }
}
