//! Going through the records of a segment from one header to the next, past damage.
//!
//! Bodies are passed over by their length. Whether head and body are right is for the caller to ask.

use super::record::{HEADER, Header, MARK, Seal};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes that can be read at any offset: a file, or the input of a fuzzer.
pub(super) trait ReadAt {
    /// As `pread`: 0 at the end, else what could be read at once.
    fn read_some(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_some(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_at(buf, offset)
    }
}

impl ReadAt for &[u8] {
    fn read_some(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..)).unwrap_or(&[]);
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

/// Reads until `buf` is full or the source ends; gives the bytes read.
pub(super) fn read_full(source: &dyn ReadAt, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match source.read_some(&mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(some) => done += some,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// What lies at the walk's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A right header, whose record ends before the walk does.
    Record { offset: u64, header: Header },
    /// Bytes in which no header is right.
    Gap { from: u64, to: u64 },
}

/// A walk over `source`, up to `end`.
pub(super) struct Walk<'a> {
    window: Window<'a>,
    seal: Seal,
    at: u64,
    end: u64,
}

impl<'a> Walk<'a> {
    pub fn new(source: &'a dyn ReadAt, seal: Seal, from: u64, end: u64) -> Self {
        Self {
            window: Window {
                source,
                end,
                start: 0,
                bytes: Vec::new(),
                step: SMALL,
                through: 0,
                unreadable: false,
                failed: None,
            },
            seal,
            at: from,
            end,
        }
    }

    /// A walk that is to go all the way: bodies are read as well, where that spares reads.
    pub fn through(source: &'a dyn ReadAt, seal: Seal, from: u64, end: u64) -> Self {
        let mut walk = Self::new(source, seal, from, end);
        walk.window.through = THROUGH;
        walk
    }

    /// True when the disk could not give some of the bytes, which were taken for zeros.
    pub fn met_unreadable(&self) -> bool {
        self.window.unreadable
    }

    /// The first error of the disk, also where it gave the bytes when it was asked again.
    pub fn take_error(&mut self) -> Option<io::Error> {
        self.window.failed.take()
    }

    /// The offset behind the last step.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next record or gap; `None` at the end. Never gives the same place twice.
    pub fn step(&mut self) -> io::Result<Option<Step>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let from = self.at;
        if let Some(header) = self.header_at(from)? {
            // A right header tells the truth about its length: behind a record that was cut off there is nothing.
            self.at = from.saturating_add(header.len()).min(self.end);
            return Ok(Some(match self.at - from == header.len() {
                true => Step::Record { offset: from, header },
                false => Step::Gap { from, to: self.end },
            }));
        }
        self.at = self.find_header(from + 1)?;
        Ok(Some(Step::Gap { from, to: self.at }))
    }

    /// The head of a record that `step` gave, or `None` if it is damaged.
    pub fn head(&mut self, offset: u64, header: &Header) -> io::Result<Option<&[u8]>> {
        let len = header.head_len as usize;
        let head = self.window.get(offset + HEADER as u64, len)?.get(..len);
        Ok(head.filter(|head| crc32fast::hash(head) == header.head_crc))
    }

    /// True when the body of a record that `step` gave is as it was written. Holds little of it at a time.
    pub fn body_is_right(&mut self, offset: u64, header: &Header) -> io::Result<bool> {
        let mut crc = crc32fast::Hasher::new();
        let mut at = offset + HEADER as u64 + u64::from(header.head_len);
        let end = offset + header.len();
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let piece = self.window.get(at, left.min(LARGE))?;
            let piece = &piece[..piece.len().min(left)];
            if piece.is_empty() {
                return Ok(false);
            }
            crc.update(piece);
            at += piece.len() as u64;
        }
        Ok(crc.finalize() == header.body_crc)
    }

    fn header_at(&mut self, offset: u64) -> io::Result<Option<Header>> {
        Ok(Header::decode(self.window.get(offset, HEADER)?, self.seal, offset))
    }

    /// The offset of the first right header at or behind `from`, or the end.
    fn find_header(&mut self, mut from: u64) -> io::Result<u64> {
        while from < self.end {
            // Whatever the window still holds is searched before more is read.
            let bytes = self.window.get(from, HEADER)?;
            if bytes.len() < HEADER {
                break;
            }
            match memchr::memmem::find(bytes, &MARK) {
                Some(at) => {
                    from += at as u64;
                    if self.header_at(from)?.is_some() {
                        return Ok(from);
                    }
                    from += 1;
                }
                // A mark may begin in the last bytes.
                None => from += (bytes.len() - MARK.len() + 1) as u64,
            }
        }
        Ok(self.end)
    }
}

const SMALL: usize = 4096;
const LARGE: usize = 256 * 1024;
const THROUGH: usize = 1024 * 1024;

/// The piece of the source that was read last.
struct Window<'a> {
    source: &'a dyn ReadAt,
    end: u64,
    start: u64,
    bytes: Vec<u8>,
    /// Bytes to read at once: much where the walk goes on where the window ended, little behind a body passed over.
    step: usize,
    /// Bytes that are read at once, whatever of them is passed over; 0: only what is asked for.
    through: usize,
    unreadable: bool,
    failed: Option<io::Error>,
}

impl Window<'_> {
    /// All that the window holds from `offset` on: at least `len` bytes, unless the source ends before.
    fn get(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let window_end = self.start + self.bytes.len() as u64;
        let wanted_end = offset.saturating_add(len as u64).min(self.end);
        if offset < self.start || wanted_end > window_end {
            let far = window_end.saturating_add(self.through as u64);
            let goes_on = (self.start..=far).contains(&offset) && (self.through > 0 || !self.bytes.is_empty());
            let most = self.through.max(LARGE);
            self.step = if goes_on { (self.step * 2).min(most) } else { SMALL };
            let left = usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX);
            self.bytes.resize(len.max(self.step).min(left), 0);
            self.start = offset;
            let (read, unreadable) = read_or_zero(self.source, &mut self.bytes, offset, &mut self.failed)?;
            self.unreadable |= unreadable;
            self.bytes.truncate(read);
        }
        let skip = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        Ok(self.bytes.get(skip..).unwrap_or(&[]))
    }
}

/// Reads as [`read_full`] does, but takes pages that the disk cannot give for zeros, and says so: what lies in them is
/// damaged, and the rest of the log must not go with it.
fn read_or_zero(
    source: &dyn ReadAt,
    buf: &mut [u8],
    offset: u64,
    failed: &mut Option<io::Error>,
) -> io::Result<(usize, bool)> {
    match read_full(source, buf, offset) {
        Err(e) if e.raw_os_error() == Some(libc::EIO) => drop(failed.get_or_insert(e)),
        done => return done.map(|read| (read, false)),
    }
    let (mut done, mut unreadable) = (0, false);
    for page in buf.chunks_mut(SMALL) {
        match read_full(source, page, offset + done as u64) {
            Ok(read) if read < page.len() => return Ok((done + read, unreadable)),
            Ok(_) => {}
            Err(_) => {
                page.fill(0);
                unreadable = true;
            }
        }
        done += page.len();
    }
    Ok((done, unreadable))
}

#[cfg(test)]
mod tests {
    use super::super::Entry;
    use super::super::record::Encoded;
    use super::*;
    use crate::mail::QueueId;

    const SEAL: Seal = Seal { segment: 1, salt: 5 };

    /// Settings of growing length, one behind the other, and their offsets.
    fn records(count: usize) -> (Vec<u8>, Vec<u64>) {
        let (mut bytes, mut offsets) = (Vec::new(), Vec::new());
        for n in 0..count {
            let value = Some(vec![b'x'; n * 997].into());
            let made = Encoded::new(Entry::Setting { key: n.to_string().into(), value }).unwrap();
            offsets.push(bytes.len() as u64);
            bytes.extend(made.header(0).encode(SEAL, bytes.len() as u64));
            bytes.extend(&made.head);
        }
        (bytes, offsets)
    }

    #[test]
    fn damage_hides_no_other_record() {
        let (good, offsets) = records(12);
        for (n, &offset) in offsets.iter().enumerate() {
            let mut bytes = good.clone();
            bytes[usize::try_from(offset).unwrap() + 9] ^= 1;
            let source = &bytes[..];
            let mut walk = Walk::new(&source, SEAL, 0, bytes.len() as u64);
            let mut seen = Vec::new();
            while let Some(step) = walk.step().unwrap() {
                match step {
                    Step::Record { offset, header } => {
                        assert!(walk.head(offset, &header).unwrap().is_some());
                        assert!(walk.body_is_right(offset, &header).unwrap());
                        seen.push(offset);
                    }
                    Step::Gap { from, to } => {
                        assert_eq!(from, offset);
                        assert_eq!(to, offsets.get(n + 1).copied().unwrap_or(bytes.len() as u64));
                    }
                }
            }
            let want: Vec<_> = offsets.iter().copied().filter(|o| *o != offset).collect();
            assert_eq!(seen, want);
        }
    }

    /// Counts what is read of it.
    struct Counted(Vec<u8>, std::cell::Cell<usize>);

    impl ReadAt for Counted {
        fn read_some(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            self.1.set(self.1.get() + 1);
            (&self.0[..]).read_some(buf, offset)
        }
    }

    #[test]
    fn a_walk_through_reads_seldom() {
        let mut bytes = Vec::new();
        let mut count = 0;
        while bytes.len() < 32 << 20 {
            let body = vec![b'x'; 20_000 + count % 999].into();
            let made = Encoded::new(Entry::Outcomes {
                id: QueueId::from_bytes([1; 16]),
                outcomes: Vec::new(),
                report: Some(body),
            });
            let made = made.unwrap();
            bytes.extend(made.header(0).encode(SEAL, bytes.len() as u64));
            bytes.extend(&made.head);
            made.body.iter().for_each(|piece| bytes.extend_from_slice(piece));
            count += 1;
        }
        let end = bytes.len() as u64;
        let source = Counted(bytes, Default::default());
        let mut walk = Walk::through(&source, SEAL, 0, end);
        let mut seen = 0;
        while let Some(step) = walk.step().unwrap() {
            let Step::Record { offset, header } = step else { panic!("{step:?}") };
            assert!(walk.head(offset, &header).unwrap().is_some());
            seen += 1;
        }
        assert_eq!(seen, count);
        assert!(source.1.get() < 50, "{} reads", source.1.get());
    }

    #[test]
    fn noise_full_of_marks_is_searched_once() {
        let noise = MARK.repeat(500_000);
        let source = &noise[..];
        let mut walk = Walk::new(&source, SEAL, 0, noise.len() as u64);
        assert_eq!(walk.step().unwrap(), Some(Step::Gap { from: 0, to: noise.len() as u64 }));
        assert_eq!(walk.step().unwrap(), None);
    }
    /// Gives nothing of the first page, for so many reads.
    struct Failing(Vec<u8>, std::cell::Cell<usize>);

    impl ReadAt for Failing {
        fn read_some(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            let left = self.1.get();
            if offset < SMALL as u64 && left > 0 {
                self.1.set(left - 1);
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            (&self.0[..]).read_some(buf, offset)
        }
    }

    #[test]
    fn an_error_of_the_disk_is_known_also_where_it_gave_the_bytes_after_all() {
        let (bytes, offsets) = records(12);
        for (times, failed, unreadable) in [(0, false, false), (1, true, false), (usize::MAX, true, true)] {
            let end = bytes.len() as u64;
            let source = Failing(bytes.clone(), times.into());
            let mut walk = Walk::through(&source, SEAL, 0, end);
            let mut seen = 0;
            while let Some(step) = walk.step().unwrap() {
                seen += usize::from(matches!(step, Step::Record { .. }));
            }
            assert_eq!((seen == offsets.len(), walk.met_unreadable()), (!unreadable, unreadable), "{times}");
            let error = walk.take_error().and_then(|error| error.raw_os_error());
            assert_eq!(error, failed.then_some(libc::EIO), "{times}");
        }
    }
}
