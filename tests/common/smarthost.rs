//! A smarthost in this process that does what its script says, and keeps what it is given.
//!
//! Each has a loopback address of its own, so that its port stays free while it is stopped and can be taken again.

use super::{DEADLINE, until};
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

/// The moments at which a script is asked.
pub enum At<'a> {
    /// A connection is there; the banner is not out.
    Connect,
    Mail,
    /// The address.
    Rcpt(&'a str),
    /// DATA was said by a client with recipients.
    Data,
    /// The first line of the message has been read.
    Middle,
    /// The final dot has been read.
    Dot(&'a Taken),
}

/// What a script wants.
pub enum Do {
    /// What a smarthost in good health does.
    Go,
    /// This reply instead. On [`At::Connect`] it hangs up behind it.
    Say(&'static str),
    HangUp,
    /// Waits for the gate, then goes on in good health.
    Wait(Gate),
}

/// Shut until it is opened.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let shut = self.0.0.lock().unwrap();
        drop(self.0.1.wait_timeout_while(shut, 3 * DEADLINE, |open| !*open).unwrap());
    }
}

/// A message of which the final dot came.
#[derive(Clone, Debug)]
pub struct Taken {
    /// What stood behind `MAIL FROM:`, parameters included.
    pub mail: String,
    pub to: Vec<String>,
    /// Dots unstuffed.
    pub body: Vec<u8>,
    /// The reply to it was a 2xx, and was sent.
    pub answered: bool,
}

impl Taken {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

type Script = Box<dyn FnMut(&At<'_>) -> Do + Send>;

/// What it offers unless told otherwise. Without DSN, so that what it takes counts as relayed.
const OFFER: &[&str] = &["PIPELINING", "SIZE 100000000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"];

pub struct Smarthost {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

struct Shared {
    script: Mutex<Script>,
    offer: Vec<&'static str>,
    messages: Mutex<Vec<Taken>>,
    /// By the number of the connection, while it is open.
    streams: Mutex<HashMap<u32, TcpStream>>,
    connections: AtomicU32,
    stopped: AtomicBool,
}

impl Smarthost {
    /// Takes everything.
    pub fn start() -> Self {
        Self::scripted(|_| Do::Go)
    }

    pub fn scripted(script: impl FnMut(&At<'_>) -> Do + Send + 'static) -> Self {
        let mut smarthost = Self::stopped(OFFER, script);
        smarthost.listen();
        smarthost
    }

    /// Takes everything, and offers only these extensions.
    pub fn offering(offer: &[&'static str]) -> Self {
        let mut smarthost = Self::stopped(offer, |_| Do::Go);
        smarthost.listen();
        smarthost
    }

    /// Nobody listens on its address until [`Self::listen`].
    pub fn down() -> Self {
        Self::stopped(OFFER, |_| Do::Go)
    }

    fn stopped(offer: &[&'static str], script: impl FnMut(&At<'_>) -> Do + Send + 'static) -> Self {
        let shared = Shared {
            script: Mutex::new(Box::new(script)),
            offer: offer.to_vec(),
            messages: Mutex::default(),
            streams: Mutex::default(),
            connections: AtomicU32::new(0),
            stopped: AtomicBool::new(true),
        };
        let free = TcpListener::bind((own_address(), 0)).expect("all of 127.0.0.0/8 is ours");
        Self { address: free.local_addr().unwrap(), shared: Arc::new(shared), listening: None }
    }

    pub fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).expect("nobody else has the address");
        self.shared.stopped.store(false, Ordering::SeqCst);
        let shared = Arc::clone(&self.shared);
        self.listening = Some(thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let Ok(cut) = stream.try_clone() else { return };
                    shared.streams.lock().unwrap().insert(number, cut);
                    // The client has gone away, or was told to: both are part of the scenario.
                    let _ = shared.talk(stream);
                    // The last handle, so that the client is not left with a connection that nobody reads.
                    shared.streams.lock().unwrap().remove(&number);
                });
            }
        }));
    }

    /// Stops listening and cuts every connection.
    pub fn stop(&mut self) {
        let Some(listening) = self.listening.take() else { return };
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread, which then sees that it is over.
        drop(TcpStream::connect(self.address));
        let _ = listening.join();
        for (_, stream) in self.shared.streams.lock().unwrap().drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Does this from now on.
    pub fn change(&self, script: impl FnMut(&At<'_>) -> Do + Send + 'static) {
        *self.shared.script.lock().unwrap() = Box::new(script);
    }

    /// Connections made so far.
    pub fn connections(&self) -> u32 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Every message so far of which the final dot came.
    pub fn messages(&self) -> Vec<Taken> {
        self.shared.messages.lock().unwrap().clone()
    }

    /// Those that were taken with a 2xx.
    pub fn taken(&self) -> Vec<Taken> {
        self.messages().into_iter().filter(|message| message.answered).collect()
    }

    /// Waits until `count` messages are taken.
    #[track_caller]
    pub fn wait_for(&self, count: usize) -> Vec<Taken> {
        until(&format!("{count} messages at the smarthost"), || {
            let taken = self.taken();
            (taken.len() >= count).then_some(taken)
        })
    }

    /// Waits until a message whose text holds `text` is taken.
    #[track_caller]
    pub fn wait_for_text(&self, text: &str) -> Taken {
        until(&format!("a message with {text:?}"), || self.taken().into_iter().find(|m| m.text().contains(text)))
    }
}

impl Drop for Smarthost {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An address that this process gives out once: two processes are apart by their ids.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (pid, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    Ipv4Addr::new(127, 64 + (pid >> 6 & 0x7f) as u8, (pid << 2 & 0xff) as u8 | (n >> 7 & 3) as u8, 1 + (n & 0x7f) as u8)
}

/// What a client has said so far in this transaction.
#[derive(Default)]
struct Transaction {
    mail: Option<String>,
    to: Vec<String>,
}

impl Shared {
    fn ask(&self, at: &At<'_>) -> Do {
        let wanted = (self.script.lock().unwrap())(at);
        if let Do::Wait(gate) = wanted {
            gate.wait();
            return Do::Go;
        }
        wanted
    }

    fn talk(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        match self.ask(&At::Connect) {
            Do::Say(reply) => return say(&mut stream, reply),
            Do::HangUp => return Ok(()),
            Do::Go | Do::Wait(_) => say(&mut stream, "220 smarthost.example.net ESMTP")?,
        }
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut open = Transaction::default();
        loop {
            let line = line(&mut reader)?;
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let reply = match text.to_ascii_uppercase() {
                upper if upper.starts_with("EHLO") => {
                    let names = ["smarthost.example.net"].iter().chain(&self.offer);
                    let lines: Vec<_> = names.map(|name| format!("250-{name}")).collect();
                    let all = lines.join("\r\n");
                    let last = all.rfind("250-").unwrap_or(0);
                    stream.write_all(format!("{}250 {}\r\n", &all[..last], &all[last + 4..]).as_bytes())?;
                    continue;
                }
                upper if upper.starts_with("MAIL FROM:") => match self.ask(&At::Mail) {
                    Do::HangUp => return Ok(()),
                    Do::Say(reply) => reply,
                    _ => {
                        open = Transaction { mail: Some(text[10..].to_owned()), to: Vec::new() };
                        "250 2.1.0 Ok"
                    }
                },
                upper if upper.starts_with("RCPT TO:") && open.mail.is_some() => {
                    let address = text[8..].trim_start_matches('<').split('>').next().unwrap_or_default();
                    match self.ask(&At::Rcpt(address)) {
                        Do::HangUp => return Ok(()),
                        Do::Say(reply) => reply,
                        _ => {
                            open.to.push(address.to_owned());
                            "250 2.1.5 Ok"
                        }
                    }
                }
                upper if upper.starts_with("RCPT TO:") => "503 5.5.1 Send MAIL first",
                upper if upper == "DATA" && open.to.is_empty() => "554 5.5.1 No valid recipients",
                upper if upper == "DATA" => match self.ask(&At::Data) {
                    Do::HangUp => return Ok(()),
                    Do::Say(reply) => reply,
                    _ => {
                        say(&mut stream, "354 Go on")?;
                        let transaction = std::mem::take(&mut open);
                        match self.message(&mut reader, transaction)? {
                            None => return Ok(()),
                            Some(reply) => reply,
                        }
                    }
                },
                upper if upper == "RSET" => {
                    open = Transaction::default();
                    "250 2.0.0 Ok"
                }
                upper if upper == "QUIT" => return say(&mut stream, "221 2.0.0 Bye"),
                _ => "500 5.5.1 What?",
            };
            say(&mut stream, reply)?;
        }
    }

    /// Reads a message to its dot. `None` to hang up.
    fn message(&self, reader: &mut BufReader<TcpStream>, open: Transaction) -> io::Result<Option<&'static str>> {
        let mut body = Vec::new();
        let mut begun = false;
        loop {
            let line = line(reader)?;
            if line == b".\r\n" {
                break;
            }
            body.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            if !begun {
                begun = true;
                if let Do::HangUp = self.ask(&At::Middle) {
                    return Ok(None);
                }
            }
        }
        let mail = open.mail.unwrap_or_default();
        let mut taken = Taken { mail, to: open.to, body, answered: false };
        let reply = match self.ask(&At::Dot(&taken)) {
            Do::HangUp => None,
            Do::Say(reply) => Some(reply),
            _ => Some("250 2.0.0 Ok: taken"),
        };
        taken.answered = reply.is_some_and(|reply| reply.starts_with('2'));
        self.messages.lock().unwrap().push(taken);
        Ok(reply)
    }
}

fn line(reader: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    match reader.read_until(b'\n', &mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line),
    }
}

fn say(stream: &mut TcpStream, reply: &str) -> io::Result<()> {
    stream.write_all(format!("{reply}\r\n").as_bytes())
}
