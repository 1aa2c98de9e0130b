//! `[smarthost]`, `[queue]`, `[spool]` and `[rewrite]`: what becomes of accepted mail.

use super::reach::{Bound, is_reachable};
use super::section::Section;
use super::smtp::LARGE_POOL;
use super::value::{KIB, MIB, Secret, host_and_port, number, one_of, size, size_within, some_time, string};
use crate::retry::Schedule;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Links that a tracking token can count.
pub const MAX_LINKS: usize = 0x8000;

/// One server that takes our mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmarthostConfig {
    /// A host name, or an IP address without brackets.
    pub host: String,
    pub port: u16,
    pub tls: SmarthostTls,
    pub credentials: Option<Credentials>,
    /// Where the password was read.
    pub password_file: Option<PathBuf>,
    /// A root certificate besides those of the system. It could be opened when the configuration was read.
    pub ca_file: Option<PathBuf>,
    pub max_connections: usize,
    pub timeouts: SmarthostTimeouts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmarthostTls {
    None,
    /// STARTTLS where it is offered, with any certificate.
    Opportunistic,
    /// STARTTLS, with a certificate that verifies.
    Required,
    /// TLS from the first byte, with a certificate that verifies.
    Implicit,
}

/// What AUTH says to a smarthost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    /// The content of `password_file`, without the line end behind it.
    pub password: Secret,
}

/// `[smarthost.timeouts]`: how long each step may take (RFC 5321 §4.5.3.2). None is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmarthostTimeouts {
    pub connect: Duration,
    pub greeting: Duration,
    pub ehlo: Duration,
    pub mail: Duration,
    pub rcpt: Duration,
    pub data: Duration,
    /// For one piece of the message to be taken.
    pub block: Duration,
    /// For the reply to the final dot. Short ones send mail twice.
    pub dot: Duration,
    pub quit: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// `retry` and `max_age`.
    pub schedule: Schedule,
    /// With so many messages waiting, new ones get 451.
    pub max_messages: u64,
    /// Bytes free on the disk of `data_dir` below which new messages get 452; 0: none.
    pub min_free: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    /// Bytes at which a file of the log is closed and the next begun.
    pub segment_size: u64,
}

/// Bounds beyond which a message, or a link, leaves as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Characters of a rewritten link.
    pub max_link_length: usize,
    pub max_links: usize,
    /// Bytes of a decoded HTML part.
    pub max_html_size: u64,
    pub on_signed: OnSigned,
}

/// What becomes of a message that carries the DKIM signature of a domain for which we hold no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnSigned {
    Skip,
    /// Rewritten though the signature no longer holds then.
    Rewrite,
}

/// The smarthost and its fallbacks, in the order in which they are tried.
pub(super) fn read_smarthosts(s: &mut Section<'_>, bound: &Bound) -> Vec<SmarthostConfig> {
    let mut all = vec![read_smarthost(s, bound)];
    let fallbacks = s.sections("fallback", |f| {
        f.refuse(!f.is_set("address"), &["address"], "a fallback needs an address");
        read_smarthost(f, bound)
    });
    all.extend(fallbacks.unwrap_or_default());
    all
}

fn read_smarthost(s: &mut Section<'_>, bound: &Bound) -> SmarthostConfig {
    let tls = [
        ("none", SmarthostTls::None),
        ("opportunistic", SmarthostTls::Opportunistic),
        ("required", SmarthostTls::Required),
        ("implicit", SmarthostTls::Implicit),
    ];
    let (host, port) = s.value("address", host_and_port, ("127.0.0.1".to_owned(), 1025));
    if let Some(place) = bound.answering(&host, port) {
        s.refuse(true, &["address"], format_args!("mail would go round in a circle: {host}:{port} is {place}"));
    }
    let tls = s.value("tls", one_of(&tls), SmarthostTls::Opportunistic);
    let (credentials, password_file) = read_credentials(s);
    let away = host != "localhost" && host.parse::<IpAddr>().map_or(true, |ip| is_reachable(SocketAddr::new(ip, port)));
    let clear = matches!(tls, SmarthostTls::None | SmarthostTls::Opportunistic);
    s.warn(
        credentials.is_some() && clear && away,
        &["tls", "address", "username"],
        "the password can be read on the way: \"required\" or \"implicit\" would protect it",
    );
    SmarthostConfig {
        host,
        port,
        tls,
        credentials,
        password_file,
        ca_file: s.readable_file("ca_file"),
        max_connections: s.value("max_connections", number(1..=10_000), 20),
        timeouts: s.section("timeouts", |t| SmarthostTimeouts {
            connect: t.value("connect", some_time, Duration::from_secs(30)),
            greeting: t.value("greeting", some_time, Duration::from_mins(5)),
            ehlo: t.value("ehlo", some_time, Duration::from_mins(5)),
            mail: t.value("mail", some_time, Duration::from_mins(5)),
            rcpt: t.value("rcpt", some_time, Duration::from_mins(5)),
            data: t.value("data", some_time, Duration::from_mins(2)),
            block: t.value("block", some_time, Duration::from_mins(3)),
            dot: t.value("dot", some_time, Duration::from_mins(10)),
            quit: t.value("quit", some_time, Duration::from_secs(5)),
        }),
    }
}

/// `username` and `password_file`, of which neither goes without the other.
fn read_credentials(s: &mut Section<'_>) -> (Option<Credentials>, Option<PathBuf>) {
    let username = s.option("username", string);
    let file = s.readable_file("password_file");
    s.refuse(username.is_some() && file.is_none(), &["username", "password_file"], "goes with a password_file");
    s.refuse(file.is_some() && username.is_none(), &["password_file", "username"], "goes with a username");
    let (Some(username), Some(file)) = (username, file) else { return (None, None) };
    if !s.opens(&file) {
        return (None, Some(file));
    }
    let mode = fs::metadata(&file).map_or(0, |metadata| metadata.mode() & 0o777);
    let exposed = format!("{} can be read by every user (mode {mode:o})", s.written("password_file"));
    s.warn(mode & 0o004 != 0, &["password_file"], exposed);
    match read_password(&file) {
        Ok(password) => (Some(Credentials { username, password }), Some(file)),
        Err(problem) => {
            s.refuse(true, &["password_file"], format_args!("{} {problem}", s.written("password_file")));
            (None, Some(file))
        }
    }
}

fn read_password(file: &Path) -> Result<Secret, String> {
    let text = fs::read_to_string(file).map_err(|e| format!("cannot be read: {e}"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    match line {
        "" => Err("is empty".to_owned()),
        // NUL would end the password in AUTH PLAIN (RFC 4616 §2); the others are a second line, or no text at all.
        _ if line.chars().any(char::is_control) => Err("holds more than one line of text".to_owned()),
        _ => Ok(Secret::new(line)),
    }
}

pub(super) fn read_queue(s: &mut Section<'_>) -> Queue {
    let minutes = [1, 5, 15, 30, 60, 120, 240].map(Duration::from_mins);
    let pauses = s.list("retry", some_time, minutes);
    s.refuse(pauses.is_empty(), &["retry"], "needs at least one pause");
    Queue {
        schedule: Schedule { pauses, max_age: s.value("max_age", some_time, Duration::from_hours(5 * 24)) },
        max_messages: s.value("max_messages", number(1..=u64::from(u32::MAX)), 1_000_000),
        min_free: s.value("min_free", size, 256 * MIB),
    }
}

pub(super) fn read_spool(s: &mut Section<'_>) -> Spool {
    Spool { segment_size: s.value("segment_size", size_within(64 * KIB..=1 << 30), 64 * MIB) }
}

pub(super) fn read_rewrite(s: &mut Section<'_>) -> Rewrite {
    let on_signed = [("skip", OnSigned::Skip), ("rewrite", OnSigned::Rewrite)];
    Rewrite {
        max_link_length: s.value("max_link_length", number(1..=65_536), 2_000),
        max_links: s.value("max_links", number(1..=MAX_LINKS), 5_000),
        max_html_size: s.value("max_html_size", size_within(1..=LARGE_POOL), 8 * MIB),
        on_signed: s.value("on_signed", one_of(&on_signed), OnSigned::Skip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let table: &[(&[u8], Result<&str, &str>)] = &[
            (b"secret", Ok("secret")),
            (b"secret\n", Ok("secret")),
            (b"secret\r\n", Ok("secret")),
            (b" two words \n", Ok(" two words ")),
            (b"", Err("is empty")),
            (b"\n", Err("is empty")),
            (b"one\ntwo\n", Err("holds more than one line of text")),
            (b"a\0b", Err("holds more than one line of text")),
            (b"\xff", Err("cannot be read: stream did not contain valid UTF-8")),
        ];
        for (content, want) in table {
            fs::write(&file, content).unwrap();
            assert_eq!(read_password(&file), want.map(Secret::new).map_err(str::to_owned), "{content:?}");
        }
    }
}
