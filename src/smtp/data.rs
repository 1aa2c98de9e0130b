//! What stands between 354 and the final dot: finds the end, takes the stuffed dots out (RFC 5321 §4.5.2), and judges
//! line ends. It does not look at headers or MIME, and it answers nothing.
//!
//! Only CRLF.CRLF ends the data, or `.CRLF` right at its start. A bare CR or LF never begins a line, so a dot behind
//! one is text: this is what keeps a second message from being smuggled in. Faults are noted and the data is read on
//! to its real end, since an answer before that would be taken for the answer to something else.
//!
//! Speed matters here: one `memchr3` a line, one copy for a run of lines without stuffed dots, one buffer that then
//! becomes the message.

use super::{BareNewline, limits};

/// Reads the data of one message, in pieces of any size; the result does not depend on how it was cut.
#[derive(Debug)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// What the message will take if it is as large as declared; 0 where nothing was.
    declared: usize,
    limit: u64,
    bare_newline: BareNewline,
    at: At,
    /// Octets fed.
    received: u64,
    /// Octets of the message, kept or not: without stuffed dots and the final one (RFC 1870 §5).
    size: u64,
    faults: Faults,
    /// A NUL or a bare CR was the last thing read.
    odd_before: bool,
    /// The last line ended in NUL CRLF or CR CRLF.
    odd_line_end: bool,
}

/// Why a message is refused after its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub fault: Fault,
    /// The final dot stood behind CR CRLF or NUL CRLF. A relay before us that strips or joins such bytes may have
    /// seen no end there, so what follows may be somebody's message text: it must not be executed.
    pub doubtful_end: bool,
}

/// Of several, the one that comes first here is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Over the limit, RFC 1870 §6.3.
    TooLarge,
    Nul,
    /// CR or LF on its own (RFC 5321 §2.3.8). Where they are normalised, only a doubtful end is refused for them.
    BareNewline,
}

/// Where the next octet stands. `Text` is anywhere inside a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    LineStart,
    /// After the dot that began a line; not kept yet, and never will be.
    Dot,
    /// After CR behind that dot; not kept yet.
    DotCr,
    Text,
    /// After CR; not kept yet.
    Cr,
}

#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    too_large: bool,
    nul: bool,
    bare_newline: bool,
}

impl Decoder {
    /// `limit` and `declared` (SIZE of MAIL) are octets. Takes no memory before the first octet.
    pub fn new(limit: u64, declared: Option<u64>, bare_newline: BareNewline) -> Self {
        let declared = usize::try_from(declared.unwrap_or(0).min(limit)).unwrap_or(usize::MAX);
        Self {
            bytes: Vec::new(),
            declared: if declared == 0 { 0 } else { declared.saturating_add(limits::IN_FRONT) },
            limit,
            bare_newline,
            at: At::LineStart,
            received: 0,
            size: 0,
            faults: Faults::default(),
            odd_before: false,
            odd_line_end: false,
        }
    }

    /// Takes `input` up to the end of the data. Returns how much of it was used, and at the end the message.
    /// After the end the decoder is spent.
    pub fn feed(&mut self, input: &[u8]) -> (usize, Option<Result<Vec<u8>, Refused>>) {
        let mut next = 0;
        while let Some(&byte) = input.get(next) {
            let used = match (self.at, byte) {
                (At::LineStart, b'.') => self.go(At::Dot),
                (At::Dot, b'\r') => self.go(At::DotCr),
                (At::LineStart | At::Dot, _) => {
                    self.odd_line_end = false;
                    self.at = At::Text;
                    0
                }
                (At::DotCr, b'\n') => {
                    next += 1;
                    self.received += next as u64;
                    return (next, Some(self.finish()));
                }
                (At::Cr, b'\n') => {
                    self.keep(b"\r\n");
                    self.go(At::LineStart)
                }
                (At::DotCr | At::Cr, _) => {
                    self.bare(b" ");
                    self.odd_before = true;
                    self.odd_line_end = false;
                    self.at = At::Text;
                    0
                }
                (At::Text, _) => self.text(&input[next..]),
            };
            next += used;
        }
        self.received += next as u64;
        (next, None)
    }

    /// Lets go of what was kept; the rest is read for its end alone.
    pub fn drop_all(&mut self) {
        self.bytes = Vec::new();
        self.limit = 0;
        self.faults.too_large = true;
    }

    /// Octets fed so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Octets of the message that are kept.
    pub fn kept(&self) -> usize {
        self.bytes.len()
    }

    fn go(&mut self, at: At) -> usize {
        self.at = at;
        1
    }

    /// From inside a line up to the next octet that needs a look: a dot after CRLF, a lone CR or LF, NUL, or the end
    /// of the piece. Whole lines pass through in one run.
    fn text(&mut self, input: &[u8]) -> usize {
        let odd_before = std::mem::take(&mut self.odd_before);
        let mut from = 0;
        while let Some(found) = memchr::memchr3(b'\r', b'\n', 0, &input[from..]) {
            let here = from + found;
            let odd_line_end = odd_before && here == 0;
            match (input[here], input.get(here + 1)) {
                (b'\r', Some(b'\n')) => match input.get(here + 2) {
                    Some(next) if *next != b'.' => from = here + 2,
                    _ => {
                        self.keep(&input[..here + 2]);
                        self.odd_line_end = odd_line_end;
                        self.at = At::LineStart;
                        return here + 2;
                    }
                },
                (b'\r', _) => {
                    self.keep(&input[..here]);
                    self.odd_line_end = odd_line_end;
                    self.at = At::Cr;
                    return here + 1;
                }
                (b'\n', _) => {
                    self.keep(&input[..here]);
                    self.bare(b"\r\n");
                    return here + 1;
                }
                _ => {
                    self.keep(&input[..here]);
                    self.faults.nul = true;
                    self.drop_bytes();
                    self.odd_before = true;
                    return here + 1;
                }
            }
        }
        self.keep(input);
        input.len()
    }

    fn keep(&mut self, run: &[u8]) {
        self.size += run.len() as u64;
        if self.size > self.limit {
            self.faults.too_large = true;
            self.drop_bytes();
        } else if !self.is_refused() {
            self.make_room(run.len());
            self.bytes.extend_from_slice(run);
        }
    }

    /// Reserves ahead of what has come, never by more than as much again: a declaration is no proof that more will
    /// come.
    fn make_room(&mut self, more: usize) {
        let need = self.bytes.len() + more;
        if need > self.bytes.capacity() {
            let ahead = if need < limits::RESERVED_TWICE { need * 2 } else { need + need / 4 };
            let want = if self.declared >= need { self.declared.min(ahead) } else { ahead };
            self.bytes.reserve_exact(want.max(limits::RESERVED) - self.bytes.len());
        }
    }

    fn bare(&mut self, instead: &[u8]) {
        self.faults.bare_newline = true;
        self.keep(instead);
        if self.is_refused() {
            self.drop_bytes();
        }
    }

    fn is_refused(&self) -> bool {
        let Faults { too_large, nul, bare_newline } = self.faults;
        too_large || nul || bare_newline && self.bare_newline == BareNewline::Reject
    }

    /// A message that will be refused holds no memory while the rest of it is read.
    fn drop_bytes(&mut self) {
        self.bytes = Vec::new();
    }

    fn finish(&mut self) -> Result<Vec<u8>, Refused> {
        let doubtful_end = self.odd_line_end;
        let bytes = std::mem::take(&mut self.bytes);
        if !self.is_refused() && !doubtful_end {
            return Ok(bytes);
        }
        let fault = match self.faults {
            Faults { too_large: true, .. } => Fault::TooLarge,
            Faults { nul: true, .. } => Fault::Nul,
            _ => Fault::BareNewline,
        };
        Err(Refused { fault, doubtful_end })
    }
}

/// `message` as it goes over the wire: dots stuffed and the final dot behind it. The message must end in CRLF or be
/// empty. For tests, where it is the inverse that the decoder is held against.
#[doc(hidden)]
pub fn stuff(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 8);
    for line in message.split_inclusive(|b| *b == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What became of `input`: octets used and the result, or `None` while the end has not come.
    fn decode(input: &[u8], size: usize, limit: u64, bare: BareNewline) -> (usize, Option<Result<Vec<u8>, Refused>>) {
        let mut decoder = Decoder::new(limit, None, bare);
        let mut used = 0;
        for piece in input.chunks(size) {
            let (n, end) = decoder.feed(piece);
            used += n;
            if end.is_some() {
                assert_eq!(decoder.received(), used as u64);
                return (used, end);
            }
            assert_eq!(n, piece.len());
        }
        (used, None)
    }

    #[test]
    fn ends_dots_and_line_ends() {
        use BareNewline::{Normalize, Reject};
        let bare = |doubtful_end| Some(Err(Refused { fault: Fault::BareNewline, doubtful_end }));
        let nul = |doubtful_end| Some(Err(Refused { fault: Fault::Nul, doubtful_end }));
        let ok = |bytes: &[u8]| Some(Ok(bytes.to_vec()));
        let table = [
            (&b".\r\n"[..], Reject, ok(b"")),
            (b"\r\n.\r\n", Reject, ok(b"\r\n")),
            (b"a\r\n.\r\n", Reject, ok(b"a\r\n")),
            (b"..\r\n.\r\n", Reject, ok(b".\r\n")),
            (b".a\r\n...b\r\n.\r\n", Reject, ok(b"a\r\n..b\r\n")),
            (b"a.b\r\nc.\r\n.\r\n", Reject, ok(b"a.b\r\nc.\r\n")),
            (b"a\r\n.", Reject, None),
            (b"a\r\n.\r", Reject, None),
            (b"a\n.\r\nb\r\n.\r\n", Reject, bare(false)),
            (b"a\r.\r\nb\r\n.\r\n", Reject, bare(false)),
            (b"a\r\n.\n\r\n.\r\n", Reject, bare(false)),
            (b"a\r\n.\rb\r\n.\r\n", Reject, bare(false)),
            (b"a\r\r\n.\r\n", Reject, bare(true)),
            (b"a\r\n.\r\r\n.\r\n", Reject, bare(true)),
            (b"a\r\r\nb\r\n.\r\n", Reject, bare(false)),
            (b"a\n.\r\nb\r\n.\r\n", Normalize, ok(b"a\r\n.\r\nb\r\n")),
            (b"a\r.\r\nb\r\n.\r\n", Normalize, ok(b"a .\r\nb\r\n")),
            (b"a\r\rb\n\nc\r\n.\r\n", Normalize, ok(b"a  b\r\n\r\nc\r\n")),
            (b"a\r\n.\rb\r\n.\r\n", Normalize, ok(b"a\r\n b\r\n")),
            (b"a\r\r\nb\r\n.\r\n", Normalize, ok(b"a \r\nb\r\n")),
            (b"a\r\r\n.\r\n", Normalize, bare(true)),
            (b"a\0b\r\n.\r\n", Reject, nul(false)),
            (b"a\0b\r\n.\r\n", Normalize, nul(false)),
            (b"a\0\r\n.\r\n", Normalize, nul(true)),
            (b"a\r\n\0.\r\n.\0\r\n.\r\n", Reject, nul(true)),
            (b"a\nb\0c\r\n.\r\n", Reject, nul(false)),
        ];
        for (input, mode, want) in table {
            for size in 1..=input.len() {
                let (_, got) = decode(input, size, 1_000, mode);
                assert_eq!(got, want, "{:?} {mode:?} in pieces of {size}", input.escape_ascii().to_string());
            }
        }
    }

    #[test]
    fn the_limit_counts_the_message_and_not_the_wire() {
        let message = b".12\r\n.45\r\n";
        let wire = [&stuff(message)[..], b"MAIL"].concat();
        for size in 1..=wire.len() {
            let (used, got) = decode(&wire, size, 10, BareNewline::Reject);
            assert_eq!((used, got), (wire.len() - 4, Some(Ok(message.to_vec()))));
            let (used, got) = decode(&wire, size, 9, BareNewline::Reject);
            let refused = Refused { fault: Fault::TooLarge, doubtful_end: false };
            assert_eq!((used, got), (wire.len() - 4, Some(Err(refused))));
        }
    }

    #[test]
    fn a_refused_message_holds_no_memory() {
        for bad in [&b"a\nb"[..], b"a\0b", &[b'x'; 101]] {
            let mut decoder = Decoder::new(100, Some(100), BareNewline::Reject);
            decoder.feed(bad);
            decoder.feed(b"more\r\n");
            assert_eq!(decoder.bytes.capacity(), 0);
            assert_eq!(decoder.received(), bad.len() as u64 + 6);
        }
    }

    /// Any octet that may stand inside a line, dots more often.
    fn text_octet() -> impl Strategy<Value = u8> {
        prop_oneof![Just(b'.'), any::<u8>().prop_map(|b| if matches!(b, 0 | b'\r' | b'\n') { b'x' } else { b })]
    }

    proptest! {
        #[test]
        fn a_stuffed_message_comes_back(
            lines in proptest::collection::vec(proptest::collection::vec(text_octet(), 0..6), 0..12),
            cuts in proptest::collection::vec(1usize..9, 1..40),
        ) {
            let message: Vec<u8> = lines.iter().flat_map(|line| [&line[..], b"\r\n"].concat()).collect();
            let wire = stuff(&message);
            let mut decoder = Decoder::new(10_000, Some(message.len() as u64), BareNewline::Reject);
            let mut rest = &wire[..];
            let mut cuts = cuts.into_iter().cycle();
            let got = loop {
                let piece = &rest[..cuts.next().unwrap().min(rest.len())];
                let (used, end) = decoder.feed(piece);
                prop_assert_eq!(used, piece.len());
                rest = &rest[used..];
                if let Some(end) = end {
                    break end;
                }
            };
            prop_assert!(rest.is_empty());
            prop_assert_eq!(got, Ok(message));
        }

        #[test]
        fn cutting_changes_nothing(input in proptest::collection::vec(
            prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(0), Just(b'a')], 0..60), limit in 0u64..40) {
            super::super::fuzz::fuzz_data(&[&[limit as u8], &input[..]].concat());
        }
    }
}
