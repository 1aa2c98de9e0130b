//! A smarthost that does with each recipient what the address says, and remembers it. It outlives the relay's lives.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What becomes of a recipient's copies, by the first word of the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Taken,
    Refused,
    /// Deferred once, then taken.
    Later,
}

impl Fate {
    pub fn address(self, number: usize) -> String {
        let word = match self {
            Self::Taken => "taken",
            Self::Refused => "refused",
            Self::Later => "later",
        };
        format!("{word}-{number}@example.net")
    }
}

/// One recipient of one message, which its subject names.
pub type Copy = (String, String);

#[derive(Default)]
pub struct Seen {
    /// How often each copy was taken.
    pub taken: HashMap<Copy, usize>,
    /// Attempts at each.
    tried: HashMap<Copy, usize>,
}

#[derive(Clone)]
pub struct Smarthost {
    pub port: u16,
    seen: Arc<Mutex<Seen>>,
}

/// How long a message takes.
const PACE: Duration = Duration::from_millis(40);

impl Smarthost {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let noted = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let noted = Arc::clone(&noted);
                std::thread::spawn(move || serve(stream, &noted));
            }
        });
        Self { port, seen }
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// Copies taken in all, those taken twice included.
    pub fn taken(&self) -> usize {
        self.seen().taken.values().sum()
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Seen>) -> Option<()> {
    let mut input = BufReader::new(stream.try_clone().ok()?);
    let mut output = stream;
    output.write_all(b"220 smarthost.test\r\n").ok()?;
    let mut recipients: Vec<String> = Vec::new();
    loop {
        let mut line = String::new();
        if input.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let word = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let answer = match word.as_str() {
            "MAIL" | "RSET" => {
                recipients.clear();
                "250 2.1.0 Ok"
            }
            "RCPT" => {
                let address = line.split(['<', '>']).nth(1)?.to_owned();
                if address.starts_with("refused") {
                    "550 5.1.1 Nobody here"
                } else {
                    recipients.push(address);
                    "250 2.1.5 Ok"
                }
            }
            "DATA" => {
                output.write_all(b"354 Go ahead\r\n").ok()?;
                data(&mut input, &recipients, seen)?
            }
            "QUIT" => return None,
            _ => "250 smarthost.test",
        };
        output.write_all(format!("{answer}\r\n").as_bytes()).ok()?;
    }
}

/// Reads a message to its end. All its recipients share one answer: what is put off once is sent alone.
fn data(input: &mut impl BufRead, recipients: &[String], seen: &Mutex<Seen>) -> Option<&'static str> {
    let mut subject = String::new();
    loop {
        let mut line = String::new();
        if input.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == ".\r\n" {
            break;
        }
        if let Some(text) = line.strip_prefix("Subject: ") {
            text.trim_end().clone_into(&mut subject);
        }
    }
    std::thread::sleep(PACE);
    let mut seen = seen.lock().unwrap();
    let copies: Vec<Copy> = recipients.iter().map(|to| (subject.clone(), to.clone())).collect();
    let mut is_new = false;
    for copy in &copies {
        let tried = seen.tried.entry(copy.clone()).or_default();
        *tried += 1;
        is_new |= *tried == 1 && copy.1.starts_with("later");
    }
    if is_new {
        return Some("451 4.2.0 Later");
    }
    for copy in copies {
        *seen.taken.entry(copy).or_default() += 1;
    }
    Some("250 2.0.0 Ok")
}
