//! The program itself: `trackpost serve` on a folder of its own, and its other commands.

use super::{DEADLINE, HOST, until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use tempfile::TempDir;

/// A configuration in the making. Keys are written as `queue.retry`; those of the one listener as `listener.auth`.
pub struct Setup {
    folder: TempDir,
    keys: BTreeMap<String, String>,
}

impl Setup {
    /// Ports are the system's choice, the smarthost has no TLS, pauses are short.
    pub fn new(smarthost: SocketAddr) -> Self {
        Self::inside(&std::env::temp_dir(), smarthost)
    }

    /// With its data below `parent`.
    pub fn inside(parent: &Path, smarthost: SocketAddr) -> Self {
        let folder = tempfile::Builder::new().prefix("trackpost-scenario-").tempdir_in(parent).unwrap();
        let address = format!("\"{smarthost}\"");
        let defaults = [
            ("hostname", "\"relay.example.net\""),
            ("listener.address", "\"127.0.0.1:0\""),
            ("smarthost.address", &*address),
            ("smarthost.tls", "\"none\""),
            ("queue.retry", "[\"1s\"]"),
            ("queue.min_free", "\"1MiB\""),
            ("tracking.http", "[\"127.0.0.1:0\"]"),
            ("tracking.link_scheme", "\"http\""),
            ("tracking.cname_target", "\"track.relay.example.net\""),
            ("api.address", "\"127.0.0.1:0\""),
        ];
        let keys = defaults.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Self { folder, keys }
    }

    /// Sets one key to a value as TOML has it.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.keys.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Starts the server and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Relay {
        let config = self.write();
        let mut relay = Relay { folder: self.folder, config, running: None };
        relay.start();
        relay
    }

    /// Starts a server that is expected to end by itself.
    pub fn fails(self) -> Ran {
        let config = self.write();
        trackpost(&["serve", "--config", config.to_str().unwrap()])
    }

    pub fn write(&self) -> PathBuf {
        let file = self.folder.path().join("trackpost.toml");
        fs::write(&file, rendered(&self.keys)).unwrap();
        file
    }
}

fn rendered(keys: &BTreeMap<String, String>) -> String {
    let mut sections: BTreeMap<&str, String> = BTreeMap::new();
    for (key, value) in keys {
        let (section, key) = key.rsplit_once('.').unwrap_or(("", key));
        *sections.entry(section).or_default() += &format!("{key} = {value}\n");
    }
    let heading = |section: &str| match section {
        "" => String::new(),
        "listener" => "[[smtp.listener]]\n".to_owned(),
        section => format!("[{section}]\n"),
    };
    sections.into_iter().map(|(section, lines)| heading(section) + &lines).collect()
}

/// A server with its folder, running or not.
pub struct Relay {
    folder: TempDir,
    config: PathBuf,
    running: Option<Running>,
}

struct Running {
    child: Child,
    smtp: SocketAddr,
    web: SocketAddr,
    api: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    reader: JoinHandle<()>,
}

impl Relay {
    /// Starts it, again or for the first time.
    #[track_caller]
    pub fn start(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        let mut child = command(&["serve", "--config", self.config.to_str().unwrap()]).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, stderr) = (Arc::clone(&log), BufReader::new(child.stderr.take().unwrap()));
        let reader = thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| lines.lock().unwrap().push(line));
        });
        let listens = |what: &str| {
            let lines = log.lock().unwrap();
            let line = lines.iter().find(|line| line.contains(what)).expect("an address is logged");
            line.rsplit('=').next().and_then(|address| address.parse().ok()).expect("the address can be read")
        };
        until("the server to be ready", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the server ended, {status}: {:#?}", log.lock().unwrap());
            }
            log.lock().unwrap().iter().any(|line| line.ends_with(" ready")).then_some(())
        });
        let (smtp, web) = (listens("SMTP listens"), listens("tracking host listens"));
        let api = listens("API listens");
        self.running = Some(Running { child, smtp, web, api, log, reader });
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the server runs")
    }

    pub fn smtp(&self) -> SocketAddr {
        self.running().smtp
    }

    /// Where the tracking host listens.
    pub fn web(&self) -> SocketAddr {
        self.running().web
    }

    /// Where the API listens.
    pub fn api(&self) -> SocketAddr {
        self.running().api
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// Sends a signal, such as `libc::SIGTERM`.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.running().child.id()).unwrap();
        // SAFETY: a plain system call; the child has not been waited for, so the id is still its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Stops it where it is, until SIGCONT: when this returns, none of its threads runs.
    #[track_caller]
    pub fn hold_still(&self) {
        self.signal(libc::SIGSTOP);
        let tasks = format!("/proc/{}/task", self.running().child.id());
        until("all threads to stand still", || {
            // The state stands behind the name, which is in brackets and may hold anything.
            let stands = |stat: String| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'));
            let mut threads = fs::read_dir(&tasks).ok()?.flatten();
            threads.all(|t| fs::read_to_string(t.path().join("stat")).is_ok_and(stands)).then_some(())
        });
    }

    /// Kills it at once, as `kill -9` does.
    pub fn kill(&mut self) {
        let mut running = self.running.take().expect("the server runs");
        running.child.kill().unwrap();
        running.child.wait().unwrap();
        running.reader.join().unwrap();
    }

    /// Waits until it has ended; its exit code and its log.
    #[track_caller]
    pub fn ended(&mut self) -> (ExitStatus, Vec<String>) {
        let mut running = self.running.take().expect("the server runs");
        let status = until("the server to end", || running.child.try_wait().unwrap());
        running.reader.join().unwrap();
        let log = running.log.lock().unwrap().clone();
        (status, log)
    }

    /// SIGTERM, and the end that is expected of it.
    #[track_caller]
    pub fn stop(&mut self) -> Vec<String> {
        self.signal(libc::SIGTERM);
        let (status, log) = self.ended();
        assert_eq!(status.code(), Some(0), "{log:#?}");
        log
    }

    /// Lines of the log so far that hold `text`.
    pub fn logged(&self, text: &str) -> Vec<String> {
        let log = self.running().log.lock().unwrap();
        log.iter().filter(|line| line.contains(text)).cloned().collect()
    }

    #[track_caller]
    pub fn wait_for_log(&self, text: &str) -> String {
        until(&format!("{text:?} in the log"), || self.logged(text).pop())
    }

    /// Runs a command on this configuration.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        trackpost(&[arguments, &["--config", self.config.to_str().unwrap()]].concat())
    }

    /// Runs a command that must be done; what it prints.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}", ran.stderr);
        ran.stdout
    }

    /// Runs a command with `--json`; its answer.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["--json"]].concat())).expect("it prints JSON")
    }

    /// Adds example.com with opens and clicks tracked on [`HOST`].
    pub fn track_example_com(&self) {
        let labels = HOST.strip_suffix(".example.com").unwrap();
        self.ok(&["domain", "add", "example.com", "--subdomain", labels, "--open", "--click", "--force-verified"]);
    }

    /// The events so far, the oldest first.
    pub fn events(&self) -> Vec<Value> {
        let tail = ["events", "tail", "--json", "--limit", "1000"];
        // History opens a moment after the server is ready.
        let ran = until("history to be open", || Some(self.run(&tail)).filter(|ran| ran.code == Some(0)));
        ran.stdout.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }

    /// Waits until there are `count` events of one kind, such as `email.opened`.
    #[track_caller]
    pub fn wait_for_events(&self, kind: &str, count: usize) -> Vec<Value> {
        until(&format!("{count} × {kind}"), || {
            let events: Vec<_> = self.events().into_iter().filter(|event| event["type"] == kind).collect();
            (events.len() >= count).then_some(events)
        })
    }

    /// Waits until `queue show ID` says of every recipient, in order, what is wanted.
    #[track_caller]
    pub fn wait_for_status(&self, id: &str, wanted: &[&str]) -> Value {
        until(&format!("{id} to be {wanted:?}"), || {
            let ran = self.run(&["queue", "show", id, "--json"]);
            let shown: Value = serde_json::from_str(&ran.stdout).ok()?;
            let recipients = shown["recipients"].as_array()?;
            let same = recipients.iter().map(|r| r["status"].as_str()).eq(wanted.iter().map(|w| Some(*w)));
            same.then_some(shown)
        })
    }

    /// What `queue list` prints, once history is open.
    #[track_caller]
    pub fn queue_with_failed(&self) -> Value {
        until("history to be open", || {
            let list = self.json(&["queue", "list"]);
            list["failed"].is_array().then_some(list)
        })
    }

    /// Waits until nothing is queued.
    #[track_caller]
    pub fn wait_until_empty(&self) {
        until("the queue to be empty", || (self.json(&["queue", "list"])["queued"] == 0).then_some(()));
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        let _ = running.child.kill();
        let _ = running.child.wait();
        let _ = running.reader.join();
        if thread::panicking() {
            eprintln!("the server's log:\n{}", running.log.lock().unwrap().join("\n"));
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the program to its end.
#[track_caller]
pub fn trackpost(arguments: &[&str]) -> Ran {
    let child = command(arguments).spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let (done, waiting) = mpsc::channel();
    thread::spawn(move || done.send(child.wait_with_output()));
    let Ok(output) = waiting.recv_timeout(DEADLINE) else {
        // SAFETY: a plain system call; the child is still being waited for, so the id is its own.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        panic!("trackpost {arguments:?} does not end");
    };
    let Output { status, stdout, stderr } = output.unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("it prints UTF-8");
    Ran { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trackpost"));
    command.args(arguments).env_remove("TRACKPOST_CONFIG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}
