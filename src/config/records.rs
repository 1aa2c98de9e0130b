//! `[events]`, `[webhooks]` and `[log]`: what is kept, and who is told.

use super::section::Section;
use super::value::{address, duration, flag, number, one_of, size, some_time};
use crate::event::MachineList;
use crate::mail::Address;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tracing::Level;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// How long events are kept.
    pub retention: Duration,
    /// How long the addresses and user agents in them are; zero: not at all. Never over `retention`.
    pub raw_retention: Duration,
    /// Whether addresses are cut to /24 and /48 before they are kept.
    pub anonymize_ip: bool,
    /// Bytes that the history may take on disk before its oldest part goes.
    pub max_size: u64,
    /// Where `machines` was read; `None`: it is the list that comes with the program.
    pub machines_file: Option<PathBuf>,
    /// Whose hits are no person's.
    pub machines: Arc<MachineList>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhooks {
    /// Who is told when an endpoint is disabled.
    pub notify: Option<Address>,
    /// Whether endpoints may have private addresses, and http.
    pub allow_private: bool,
    /// Ports that endpoints may have.
    pub ports: WebhookPorts,
    /// Pauses after the first, second, … failed attempt; after one more failure an event is given up. Never empty.
    pub retry: Vec<Duration>,
    /// An endpoint at which every attempt failed for so long is disabled.
    pub disable_after: Duration,
    /// A root certificate besides those of the system.
    pub ca_file: Option<PathBuf>,
}

/// Ports that endpoints may have, so that nobody has us speak to other services than those for the web.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookPorts {
    Any,
    These(Vec<u16>),
}

impl WebhookPorts {
    pub fn hold(&self, port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::These(ports) => ports.contains(&port),
        }
    }
}

impl fmt::Display for WebhookPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any port"),
            Self::These(ports) => {
                let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
                write!(f, "these alone (`webhooks.ports`): {}", ports.join(", "))
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
    pub level: Level,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

pub(super) fn read_events(s: &mut Section<'_>) -> Events {
    let retention = s.value("retention", some_time, Duration::from_hours(400 * 24));
    let raw = s.value("raw_retention", duration, Duration::from_hours(30 * 24).min(retention));
    s.refuse(raw > retention, &["raw_retention", "retention"], "is longer than retention");
    let anonymize_ip = s.value("anonymize_ip", flag, false);
    let max_size = s.value("max_size", size, 20 << 30);
    let (machines_file, machines) = read_machines(s);
    Events { retention, raw_retention: raw, anonymize_ip, max_size, machines_file, machines: Arc::new(machines) }
}

/// The operator's list, which takes the place of ours.
fn read_machines(s: &mut Section<'_>) -> (Option<PathBuf>, MachineList) {
    let Some(file) = s.readable_file("machines_file") else { return (None, MachineList::builtin()) };
    if !s.opens(&file) {
        return (Some(file), MachineList::builtin());
    }
    let text = fs::read(&file).map_err(|e| format!("{} cannot be read: {e}", s.written("machines_file")));
    let text = text.and_then(|bytes| {
        String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8 text", s.written("machines_file")))
    });
    let list =
        text.and_then(|text| MachineList::parse(&text).map_err(|e| format!("{} line {e}", s.written("machines_file"))));
    let list = list.unwrap_or_else(|message| {
        s.refuse(true, &["machines_file"], message);
        MachineList::builtin()
    });
    (Some(file), list)
}

pub(super) fn read_webhooks(s: &mut Section<'_>) -> Webhooks {
    let (minute, hour) = (60, 3_600);
    let pauses = [5, 5 * minute, 30 * minute, 2 * hour, 5 * hour, 10 * hour, 10 * hour].map(Duration::from_secs);
    let (notify, allow_private) = (s.option("notify", address), s.value("allow_private", flag, false));
    let ports = read_ports(s, allow_private);
    let retry = s.list("retry", some_time, pauses);
    s.refuse(retry.is_empty(), &["retry"], "needs at least one pause");
    Webhooks {
        notify,
        allow_private,
        ports,
        retry,
        disable_after: s.value("disable_after", some_time, Duration::from_hours(5 * 24)),
        ca_file: s.readable_file("ca_file"),
    }
}

/// Those of https, and any where endpoints may be our own and nobody has given a list.
fn read_ports(s: &mut Section<'_>, allow_private: bool) -> WebhookPorts {
    let is_given = s.is_set("ports");
    let ports = s.list("ports", number(1..=u16::MAX), [443, 8443]);
    s.refuse(ports.is_empty(), &["ports"], "needs at least one port");
    if allow_private && !is_given { WebhookPorts::Any } else { WebhookPorts::These(ports) }
}

pub(super) fn read_log(s: &mut Section<'_>) -> Log {
    let format = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let level = [
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
        ("trace", Level::TRACE),
    ];
    Log {
        format: s.value("format", one_of(&format), LogFormat::Text),
        level: s.value("level", one_of(&level), Level::INFO),
    }
}
