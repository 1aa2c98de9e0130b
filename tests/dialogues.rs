//! Runs every `fixtures/smtp/*.dialog` against the session: as it stands, octet by octet, and in random pieces.
//!
//! A dialogue is read line by line. `#` begins a comment, but for the one line of settings:
//!
//! ```text
//! # config: auth=required starttls tls peer=192.0.2.1 untrusted max_size=100 max_recipients=2 normalize whole
//! ```
//!
//! All are optional; the default is a trusted client on loopback, no AUTH, no TLS, 1,000 octets, 5 recipients, bare line
//! ends refused. `whole`: the dialogue is about what comes in one segment, so it is not cut into pieces.
//!
//! | line | meaning |
//! |---|---|
//! | `C: text` | the client sends text and CRLF. Lines in a row go in one segment |
//! | `C! text` | the same without CRLF |
//! | `S: text` | the next line of reply starts with text |
//! | `M: text` | the next message that was handed over is exactly text |
//! | `A: act`  | the shell acts: `greet`, `early_talker`, `refuse 421`, `timed_out`, `shutting_down`, `refuse_mail 452`, `take_mail`, `refuse_data 452`, `take_data` |
//! | `CLOSED`  | the session is closed; a dialogue that does not say so must end open |
//!
//! Text knows the escapes `\r`, `\n`, `\0`, `\t`, `\\`, `\xNN`, and `\*N(x)` for N times x. Before a line that is not
//! `C`, what the client said is sent. A dialogue begins with the banner read, unless its first line is an `A:`.
//!
//! The shell takes the password `secret`, is unavailable for the user `nobody`, and refuses mail whose text has the word
//! REFUSE with 451.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use trackpost::mail::{Enhanced, Reply};
use trackpost::smtp::{Auth, BareNewline, Event, Peer, Session, SessionConfig};

#[test]
fn as_they_stand() {
    for dialogue in dialogues() {
        dialogue.run(&mut |_| usize::MAX);
    }
}

#[test]
fn octet_by_octet() {
    for dialogue in dialogues().into_iter().filter(|dialogue| !dialogue.whole) {
        dialogue.run(&mut |_| 1);
    }
}

#[test]
fn in_random_pieces() {
    for dialogue in dialogues().into_iter().filter(|dialogue| !dialogue.whole) {
        for seed in 1..=50u64 {
            // Pieces end at line ends at the latest, or DATA and what follows 354 would share a segment.
            let mut random = Random(seed);
            let cut = &mut |rest: &[u8]| {
                let near = &rest[..rest.len().min(100)];
                let line = near.iter().position(|b| *b == b'\n').map_or(near.len(), |at| at + 1);
                1 + random.next() as usize % line
            };
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| dialogue.run(cut)));
            assert!(result.is_ok(), "{} failed with seed {seed}", dialogue.name);
        }
    }
}

#[test]
fn there_are_dialogues() {
    assert!(dialogues().len() >= 30);
}

struct Dialogue {
    name: String,
    config: SessionConfig,
    peer: Peer,
    whole: bool,
    steps: Vec<Step>,
}

enum Step {
    Client(Vec<u8>),
    Server(String),
    Message(Vec<u8>),
    Act(String),
    Closed,
}

fn dialogues() -> Vec<Dialogue> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/smtp");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "dialog"));
    files.sort();
    files.iter().map(|path| Dialogue::read(path)).collect()
}

impl Dialogue {
    fn read(path: &Path) -> Self {
        let config = SessionConfig {
            hostname: "relay.example.net".into(),
            max_message_size: 1_000,
            max_recipients: 5,
            starttls: false,
            auth: Auth::None,
            bare_newline: BareNewline::Reject,
        };
        let mut dialogue = Self {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            config,
            peer: Peer { address: [127, 0, 0, 1].into(), trusted: true, tls: false },
            whole: false,
            steps: Vec::new(),
        };
        for (number, line) in fs::read_to_string(path).unwrap().lines().enumerate() {
            let place = format!("{}:{}", dialogue.name, number + 1);
            if let Some(settings) = line.strip_prefix("# config:") {
                settings.split_whitespace().for_each(|setting| dialogue.set(setting, &place));
            } else if let Some(text) = line.strip_prefix("C: ") {
                dialogue.steps.push(Step::Client([&unescape(text)[..], b"\r\n"].concat()));
            } else if let Some(text) = line.strip_prefix("C! ") {
                dialogue.steps.push(Step::Client(unescape(text)));
            } else if let Some(text) = line.strip_prefix("S: ") {
                dialogue.steps.push(Step::Server(text.to_owned()));
            } else if let Some(text) = line.strip_prefix("M: ") {
                dialogue.steps.push(Step::Message(unescape(text)));
            } else if let Some(act) = line.strip_prefix("A: ") {
                dialogue.steps.push(Step::Act(act.to_owned()));
            } else if line == "CLOSED" {
                dialogue.steps.push(Step::Closed);
            } else if line == "C:" {
                dialogue.steps.push(Step::Client(b"\r\n".to_vec()));
            } else {
                assert!(line.is_empty() || line.starts_with('#'), "{place}: {line}");
            }
        }
        dialogue
    }

    fn set(&mut self, setting: &str, place: &str) {
        match setting.split_once('=').unwrap_or((setting, "")) {
            ("auth", "optional") => self.config.auth = Auth::Optional,
            ("auth", "required") => self.config.auth = Auth::Required,
            ("starttls", "") => self.config.starttls = true,
            ("normalize", "") => self.config.bare_newline = BareNewline::Normalize,
            ("max_size", n) => self.config.max_message_size = n.parse().unwrap(),
            ("max_recipients", n) => self.config.max_recipients = n.parse().unwrap(),
            ("tls", "") => self.peer.tls = true,
            ("untrusted", "") => self.peer.trusted = false,
            ("peer", address) => self.peer.address = address.parse().unwrap(),
            ("whole", "") => self.whole = true,
            _ => panic!("{place}: no such setting: {setting}"),
        }
    }

    /// `cut` says how long the next piece of what is left may be.
    fn run(&self, cut: &mut dyn FnMut(&[u8]) -> usize) {
        let mut shell = Shell::new(Session::new(Arc::new(self.config.clone()), self.peer));
        if !matches!(self.steps.first(), Some(Step::Act(_))) {
            shell.act("greet");
            assert_eq!(shell.next_line().as_deref(), Some("220 relay.example.net ESMTP"));
        }
        let mut segment = Vec::new();
        let mut said_closed = false;
        for step in &self.steps {
            if let Step::Client(bytes) = step {
                segment.extend_from_slice(bytes);
                continue;
            }
            shell.send(&std::mem::take(&mut segment), cut);
            match step {
                Step::Client(_) => {}
                Step::Server(want) => {
                    let got = shell.next_line();
                    let fits = got.as_ref().is_some_and(|line| line.starts_with(want));
                    assert!(fits, "{}: wanted {want:?}, got {got:?}", self.name);
                }
                Step::Message(want) => {
                    let got = shell.messages.pop_front().map(|bytes| bytes.escape_ascii().to_string());
                    assert_eq!(got, Some(want.escape_ascii().to_string()), "{}", self.name);
                }
                Step::Act(act) => shell.act(act),
                Step::Closed => {
                    assert!(shell.session.is_closed(), "{}: still open", self.name);
                    said_closed = true;
                }
            }
        }
        shell.send(&segment, cut);
        assert_eq!(shell.next_line(), None, "{}: one reply too many", self.name);
        assert_eq!(shell.messages.len(), 0, "{}: a message too many", self.name);
        assert_eq!(shell.session.is_closed(), said_closed, "{}: closed?", self.name);
    }
}

/// Answers the session's events as the table above says.
struct Shell {
    session: Session,
    output: Vec<u8>,
    messages: VecDeque<Vec<u8>>,
    data_refusal: Option<Reply>,
}

impl Shell {
    fn new(session: Session) -> Self {
        Self { session, output: Vec::new(), messages: VecDeque::new(), data_refusal: None }
    }

    fn send(&mut self, mut bytes: &[u8], cut: &mut dyn FnMut(&[u8]) -> usize) {
        while !bytes.is_empty() {
            let piece = &bytes[..cut(bytes).min(bytes.len())];
            bytes = &bytes[piece.len()..];
            self.input(piece);
        }
    }

    fn input(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let (used, event) = self.session.input(piece);
            piece = &piece[used..];
            match event {
                Some(Event::StartTls) => self.session.tls_started(),
                Some(Event::Authenticate { username, .. }) if username == "nobody" => self.session.auth_unavailable(),
                Some(Event::Authenticate { password, .. }) if password == "secret" => self.session.auth_ok(),
                Some(Event::Authenticate { .. }) => self.session.auth_failed(),
                Some(Event::Data { .. }) => match self.data_refusal.clone() {
                    Some(reply) => self.session.data_refused(reply),
                    None => self.session.data_go_ahead(),
                },
                Some(Event::Message { bytes, .. }) if memchr::memmem::find(&bytes, b"REFUSE").is_some() => {
                    self.session.message_answered(Reply::new(451, Enhanced(4, 3, 0), "Not now"));
                }
                Some(Event::Message { bytes, .. }) => {
                    self.messages.push_back(bytes);
                    self.session.message_answered(Reply::new(250, Enhanced(2, 0, 0), "Ok: queued as ID"));
                }
                Some(Event::Close) => assert!(piece.is_empty(), "a closed session uses everything"),
                None => assert!(piece.is_empty(), "octets left over without an event"),
            }
        }
    }

    fn act(&mut self, act: &str) {
        let (act, code) = act.split_once(' ').unwrap_or((act, "0"));
        let code = code.parse().unwrap();
        let reply = Reply::new(code, Enhanced((code / 100) as u8, 3, 2), "As told");
        match act {
            "greet" => self.session.greet(),
            "early_talker" => self.session.early_talker(),
            "refuse" => self.session.refuse(reply),
            "timed_out" => self.session.timed_out(),
            "shutting_down" => self.session.shutting_down(),
            "refuse_mail" => self.session.set_mail_refusal(Some(reply)),
            "take_mail" => self.session.set_mail_refusal(None),
            "refuse_data" => self.data_refusal = Some(reply),
            "take_data" => self.data_refusal = None,
            _ => panic!("no such act: {act}"),
        }
    }

    fn next_line(&mut self) -> Option<String> {
        self.output.append(self.session.output());
        let end = memchr::memmem::find(&self.output, b"\r\n")?;
        let line: Vec<u8> = self.output.drain(..end + 2).collect();
        Some(String::from_utf8(line[..end].to_vec()).unwrap())
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        let (kind, tail) = rest.split_first().expect("an escape after a backslash");
        rest = tail;
        match kind {
            b'r' => out.push(b'\r'),
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'0' => out.push(0),
            b'\\' => out.push(b'\\'),
            b'x' => {
                out.push(u8::from_str_radix(std::str::from_utf8(&rest[..2]).unwrap(), 16).unwrap());
                rest = &rest[2..];
            }
            b'*' => {
                let text = std::str::from_utf8(rest).unwrap();
                let (count, tail) = text.split_once('(').expect("\\*N(x)");
                let (what, tail) = tail.split_once(')').expect("\\*N(x)");
                out.extend(unescape(what).repeat(count.parse().unwrap()));
                rest = tail.as_bytes();
            }
            _ => panic!("no such escape in {text:?}"),
        }
    }
    out
}

/// xorshift64: repeatable, and good enough to cut.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
