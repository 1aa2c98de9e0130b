//! The command line's socket, `DATA_DIR/admin.sock`: one request a connection, as a line of JSON; the answer is one
//! line, or, for a stream of events, a line each until the caller goes.
//!
//! Who may open the socket may do everything: it is 0600, in the data folder. Nothing is decided here; [`crate::ops`]
//! does it all.

mod streams;
mod trial;

use crate::event::Event;
use crate::intake::Intake;
use crate::kill::KillKind;
use crate::mail::QueueId;
use crate::ops::{self, DkimImport, DomainUpdate, NewDomain, NewKey, OpError, Ops, Verify};
use crate::settings::erasure_elsewhere;
use crate::supervise;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do", content = "with")]
pub enum Request {
    DomainAdd(NewDomain),
    DomainUpdate {
        name: String,
        update: DomainUpdate,
    },
    DomainVerify {
        name: String,
        how: Verify,
    },
    DomainRemove(String),
    DomainShow(String),
    DomainStats {
        name: String,
        days: u32,
    },
    DomainList,
    DkimRotate {
        name: String,
        force: bool,
    },
    DkimForget {
        name: String,
        selector: String,
    },
    DkimImport {
        name: String,
        import: DkimImport,
    },
    KeyCreate(NewKey),
    KeyList,
    KeyRevoke(String),
    KeyRotate,
    QueueList {
        limit: usize,
    },
    QueueShow(String),
    /// All settings as the log has them, for a backup.
    Settings,
    /// One message, or all.
    QueueRetry(Option<String>),
    QueueRemove(String),
    QueueHold(bool),
    Search {
        text: String,
        limit: usize,
    },
    Test {
        to: String,
        from: Option<String>,
    },
    Tracking {
        domain: Option<String>,
        on: bool,
    },
    EventsTail {
        limit: usize,
        follow: bool,
    },
    /// Every event that is kept, a line each, and then how many there were.
    EventsExport,
    /// All that is kept of one address, a line for each message, and then how many there were.
    RecipientExport(String),
    RecipientErase(String),
    /// Hashes of whom the history has to forget.
    RecipientsErased,
    KillAdd {
        kind: KillKind,
        value: String,
    },
    KillRemove {
        kind: KillKind,
        value: String,
    },
    KillList,
    OptOut {
        email: String,
        domain: Option<String>,
    },
    OptIn {
        email: String,
        domain: Option<String>,
    },
}

/// The answer's line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Ok(Value),
    Error(String),
}

/// Longest request, in bytes.
const MAX_REQUEST: u64 = 64 * 1024;
/// How long the answer waits for a look at DNS.
const CHECK_PATIENCE: Duration = Duration::from_secs(20);
/// How long the answer waits for the history to know of a message.
const HISTORY_PATIENCE: Duration = Duration::from_secs(2);
/// How long a caller may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens the socket. A socket left by a server that was killed is replaced: the log's lock has shown that it is gone.
pub fn listen(data_dir: &Path) -> io::Result<UnixListener> {
    let path = socket(data_dir);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Where the socket of a data folder is.
pub fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.sock")
}

/// Answers until `stop`.
pub async fn serve(
    listener: Arc<UnixListener>,
    ops: Arc<Ops>,
    intake: Arc<Intake>,
    events: broadcast::Sender<Arc<Event>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut callers = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        while let Some(ended) = callers.try_join_next() {
            supervise::joined("command line", ended);
        }
        match accepted {
            Ok((stream, _)) => {
                let (ops, intake, events) = (Arc::clone(&ops), Arc::clone(&intake), events.clone());
                callers.spawn(async move {
                    if let Err(e) = answer(stream, &ops, &intake, &events).await {
                        tracing::debug!("a command went away: {e}");
                    }
                });
            }
            Err(e) => {
                tracing::warn!("admin.sock: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    callers.shutdown().await;
}

async fn answer(
    stream: UnixStream,
    ops: &Arc<Ops>,
    intake: &Intake,
    events: &broadcast::Sender<Arc<Event>>,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(read).take(MAX_REQUEST);
    tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await??;
    let request = match serde_json::from_str::<Request>(&line) {
        Ok(request) => request,
        Err(e) => return say(&mut write, &Answer::Error(format!("the server does not know this command: {e}"))).await,
    };
    match request {
        Request::EventsTail { limit, follow: true } => return streams::follow(ops, events, limit, &mut write).await,
        Request::EventsExport => return streams::export(ops, &mut write).await,
        Request::RecipientExport(address) => return streams::export_recipient(ops, address, &mut write).await,
        _ => {}
    }
    let done = match perform(ops, intake, request).await {
        Ok(value) => Answer::Ok(value),
        Err(e) => Answer::Error(e.to_string()),
    };
    say(&mut write, &done).await
}

async fn perform(ops: &Ops, intake: &Intake, request: Request) -> Result<Value, OpError> {
    Ok(match request {
        Request::DomainAdd(new) => json!(ops::domain_add(ops, new).await?),
        Request::DomainUpdate { name, update } => {
            json!(ops::domain_update(ops, ops::domain_id(ops, &name)?, update).await?)
        }
        Request::DomainVerify { name, how } => {
            // The operator has looked at what is wrong; keys of customers have no say in what is not theirs.
            ops::target_asked(ops).await?;
            json!(ops::domain_verify(ops, ops::domain_id(ops, &name)?, how, CHECK_PATIENCE).await?)
        }
        Request::DomainRemove(name) => json!(ops::domain_remove(ops, ops::domain_id(ops, &name)?).await?),
        Request::DomainShow(name) => json!(ops::domain_show(ops, ops::domain_id(ops, &name)?)?),
        Request::DomainStats { name, days } => json!(ops::domain_stats(ops, ops::domain_id(ops, &name)?, days)?),
        Request::DomainList => json!(ops::domain_list(ops)),
        Request::DkimRotate { name, force } => {
            json!(ops::dkim_rotate(ops, ops::domain_id(ops, &name)?, force).await?)
        }
        Request::DkimForget { name, selector } => {
            json!(ops::dkim_forget(ops, ops::domain_id(ops, &name)?, &selector).await?)
        }
        Request::DkimImport { name, import } => {
            json!(ops::dkim_import(ops, ops::domain_id(ops, &name)?, import).await?)
        }
        Request::KeyCreate(new) => json!(ops::key_create(ops, new).await?),
        Request::KeyList => json!(ops::key_list(ops)),
        Request::KeyRevoke(id) => json!(ops::key_revoke(ops, &id).await?),
        Request::KeyRotate => json!(ops::key_rotate(ops).await?),
        Request::QueueList { limit } => json!(supervise::out_of_the_way(|| ops::queue_list(ops, limit))?),
        Request::QueueShow(id) => {
            let id = queue_id(id)?;
            let end = Instant::now() + HISTORY_PATIENCE;
            // What has just left the queue is in the history some tenths of a second later.
            while ops.queue.settled(&id).is_some() && Instant::now() < end {
                match ops::queue_show(ops, &id) {
                    Err(OpError::UnknownMessage(_)) => tokio::time::sleep(HISTORY_PATIENCE / 40).await,
                    other => return Ok(json!(other?)),
                }
            }
            json!(supervise::out_of_the_way(|| ops::message_show(ops, &id))?)
        }
        Request::Settings => {
            let text = |bytes: bytes::Bytes| String::from_utf8_lossy(&bytes).into_owned();
            let records = ops.settings.snapshot().records();
            let erased = ops.settings.erasures().list().into_iter().map(|(erased, at)| erasure_elsewhere(erased, at));
            let records = records.into_iter().map(|(key, value)| (key, text(value)));
            json!(records.chain(erased).collect::<BTreeMap<_, _>>())
        }
        Request::QueueRetry(id) => {
            let id = id.map(queue_id).transpose()?;
            json!(supervise::out_of_the_way(|| ops::queue_retry(ops, id.as_ref()))?)
        }
        Request::QueueRemove(id) => json!(ops::queue_remove(ops, &queue_id(id)?).await?),
        Request::QueueHold(held) => json!(ops::queue_hold(ops, held).await?),
        Request::Search { text, limit } => json!(supervise::out_of_the_way(|| ops::search(ops, &text, limit))?),
        Request::Test { to, from } => json!(trial::send(ops, intake, &to, from.as_deref()).await?),
        Request::Tracking { domain, on } => json!(ops::tracking_switch(ops, domain.as_deref(), on).await?),
        Request::EventsTail { limit, .. } => json!(ops::events_tail(ops, limit)?),
        Request::RecipientErase(address) => json!(ops::recipient_erase(ops, &address).await?),
        Request::RecipientsErased => json!(ops::recipients_erased(ops)),
        // Answered in many lines, before this.
        Request::EventsExport | Request::RecipientExport(_) => json!(null),
        Request::KillAdd { kind, value } => json!(ops::kill_add(ops, kind, &value).await?),
        Request::KillRemove { kind, value } => json!(ops::kill_remove(ops, kind, &value).await?),
        Request::KillList => json!(ops::kill_list(ops)),
        Request::OptOut { email, domain } => json!(ops::opt_out(ops, None, &email, domain.as_deref()).await?),
        Request::OptIn { email, domain } => json!(ops::opt_in(ops, &email, domain.as_deref()).await?),
    })
}

fn queue_id(text: String) -> Result<QueueId, OpError> {
    text.parse::<QueueId>().map_err(|_| OpError::BadQueueId(text))
}

async fn say(write: &mut (impl AsyncWriteExt + Unpin), answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    write.write_all(&line).await
}

/// Why a command got no answer.
#[derive(Debug)]
pub enum CallError {
    /// Nobody listens on the socket.
    NoServer(PathBuf, io::Error),
    /// The server's refusal, in its words.
    Refused(String),
    Broken(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServer(path, e) => {
                write!(f, "no server answers on {} ({e}); start it with `trackpost serve`", path.display())
            }
            Self::Refused(text) => f.write_str(text),
            Self::Broken(why) => write!(f, "the server's answer cannot be read: {why}"),
        }
    }
}

impl std::error::Error for CallError {}

/// Asks the server of a data folder, and hands every line of its answer to `each` until that says to end.
pub async fn call(
    data_dir: &Path,
    request: &Request,
    mut each: impl FnMut(Result<Value, String>) -> bool,
) -> Result<(), CallError> {
    let path = socket(data_dir);
    let mut stream = UnixStream::connect(&path).await.map_err(|e| CallError::NoServer(path, e))?;
    let broken = |e: io::Error| CallError::Broken(e.to_string());
    let mut line = serde_json::to_vec(request).map_err(|e| CallError::Broken(e.to_string()))?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(broken)?;
    let mut lines = BufReader::new(stream).lines();
    let mut answered = false;
    while let Some(line) = lines.next_line().await.map_err(broken)? {
        answered = true;
        let answer = serde_json::from_str(&line).map_err(|e| CallError::Broken(e.to_string()))?;
        let go_on = match answer {
            Answer::Ok(value) => each(Ok(value)),
            Answer::Error(text) => each(Err(text)),
        };
        if !go_on {
            break;
        }
    }
    if answered { Ok(()) } else { Err(CallError::Broken("the connection was closed without one".to_owned())) }
}

/// Asks for one answer.
pub async fn ask(data_dir: &Path, request: &Request) -> Result<Value, CallError> {
    let mut answer = None;
    call(data_dir, request, |line| {
        answer = Some(line);
        false
    })
    .await?;
    answer.ok_or_else(|| CallError::Broken("it is empty".to_owned()))?.map_err(CallError::Refused)
}
