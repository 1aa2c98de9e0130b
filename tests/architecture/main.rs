//! Who may import whom. Owns the table of the import rule that `src/lib.rs` tells, and the list of what the core must
//! not touch; holds both against every path in `src` that is compiled outside of tests.
//!
//! Reading is `source`'s: it gives the paths of each file, with the line. Not looked at: what a macro of another crate
//! writes, and paths through a renamed import of half a path (`use std as s`).

mod pins;
mod source;

use source::{Place, Use};
use std::collections::BTreeMap;
use std::path::Path;

/// Top down: a module imports what stands below it, never its own row or above. A name may be here before its module.
const ROWS: &[(&str, &[&str])] = &[
    ("the program", &["main"]),
    ("command line", &["cli"]),
    ("demonstration", &["demo"]),
    ("wiring", &["server"]),
    ("shells", SHELLS),
    ("changes of state", &["ops"]),
    ("settings", &["settings", "health", "meters"]),
    ("state", &["queue", "store"]),
    ("files and clock", &["spool", "keys", "config", "clock"]),
    ("what survives a panic", &["supervise"]),
    ("core", &["kill"]),
    ("core", &["rewrite", "dsn"]),
    ("core", &["smtp", "mime", "token", "domain", "event", "retry", "privacy"]),
    ("core", &["mail"]),
];

const SHELLS: &[&str] = &[
    "inbound",
    "intake",
    "outbound",
    "recorder",
    "http",
    "track",
    "admin",
    "api",
    "dashboard",
    "webhook",
    "verify",
    "tls",
    "proxy_header",
    "acme",
];

/// The shells that other shells may import; the rest meet through records and a `Notify`.
const OPEN_SHELLS: &[&str] = &["intake", "http", "tls", "proxy_header"];

/// What the core must not name, and why. A path is refused that begins with one of these.
const NOT_IN_THE_CORE: &[(&str, &str)] = &[
    ("tokio", "the core does not wait"),
    ("std::fs", "the core reads no files"),
    ("std::os", "the core holds no descriptors"),
    ("std::env", "the core is told all it needs"),
    ("std::process", "the core starts nothing"),
    ("std::thread", "the core starts nothing"),
    ("std::net::TcpStream", "the core opens no sockets"),
    ("std::net::TcpListener", "the core opens no sockets"),
    ("std::net::UdpSocket", "the core opens no sockets"),
    ("std::net::ToSocketAddrs", "the core asks no resolver"),
    ("std::time::SystemTime", "the time is an argument"),
    ("std::time::UNIX_EPOCH", "the time is an argument"),
    ("getrandom", "random bytes are an argument"),
    ("rand", "random bytes are an argument"),
    ("libc", "the core makes no system calls"),
];

/// Functions that read the clock or the dice, whatever their type is called here: `Instant::now`, `Uuid::new_v4`.
const AMBIENT: &[&str] = &["now", "now_v7", "new_v4"];

#[test]
fn every_import_keeps_the_rule() {
    let source = source::read(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(source.files >= 60, "only {} files were found", source.files);
    assert!(source.uses.len() >= 1_000, "only {} paths were found", source.uses.len());
    let homeless = source.modules.iter().filter_map(homeless);
    let faults: Vec<String> = source.uses.iter().filter_map(fault).chain(homeless).collect();
    assert!(faults.is_empty(), "the import rule (src/lib.rs) is broken:\n{}", faults.join("\n"));
}

/// What is wrong with a path, as `FILE:LINE: …`; nothing for most.
fn fault(used: &Use) -> Option<String> {
    let Use { place, path } = used;
    let module = &place.module;
    let why = match path.split_first() {
        Some((first, rest)) if first == "crate" => import_fault(module, rest.first()?),
        _ if row_of(module).is_some_and(|row| ROWS[row].0 == "core") => core_fault(module, path),
        _ => None,
    }?;
    Some(format!("{place}: {why}"))
}

fn import_fault(from: &str, to: &str) -> Option<String> {
    // lib.rs itself is the map: it declares modules and names none.
    if from == to || from == "lib" {
        return None;
    }
    if to == "*" {
        return Some(format!("{from} imports the whole crate by a glob: name what it needs"));
    }
    let (Some(above), Some(below)) = (row_of(from), row_of(to)) else {
        return Some(format!("{from} imports {to}: one of them has no row in {}", file!()));
    };
    let (from_row, to_row) = (ROWS[above].0, ROWS[below].0);
    if above < below || (from_row == "shells" && OPEN_SHELLS.contains(&to)) && above == below {
        None
    } else if above == below && from_row == "shells" {
        Some(format!(
            "{from} imports {to}: shells meet through records and a Notify, but for {}",
            OPEN_SHELLS.join(", ")
        ))
    } else if above == below {
        Some(format!("{from} imports {to}: both stand in the row of {from_row}"))
    } else {
        Some(format!("{from} ({from_row}) imports {to} ({to_row}), which stands above it"))
    }
}

fn core_fault(from: &str, path: &[String]) -> Option<String> {
    let name = path.join("::");
    let begins = |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let why = NOT_IN_THE_CORE.iter().find(|(prefix, _)| begins(prefix)).map(|(_, why)| *why);
    let ambient = path.len() > 1 && path.last().is_some_and(|last| AMBIENT.contains(&last.as_str()));
    let why = why.or(ambient.then_some("the time and random bytes are arguments"))?;
    Some(format!("{from} (core) uses {name}: {why}"))
}

fn row_of(module: &str) -> Option<usize> {
    ROWS.iter().position(|(_, modules)| modules.contains(&module))
}

fn homeless((module, place): (&String, &Place)) -> Option<String> {
    row_of(module).is_none().then(|| format!("{place}: {module} has no row in {}", file!()))
}

#[test]
fn no_module_has_two_rows() {
    let mut seen = BTreeMap::new();
    for module in ROWS.iter().flat_map(|(_, modules)| *modules) {
        *seen.entry(module).or_insert(0) += 1;
    }
    assert!(seen.values().all(|n| *n == 1), "{seen:?}");
    assert!(OPEN_SHELLS.iter().all(|open| SHELLS.contains(open)));
}

/// Module, source, and what must be found wrong with it; "" for nothing.
#[test]
fn planted_violations_are_found() {
    let table = [
        // Up and down.
        ("mail", "use crate::smtp::Session;", "1: mail (core) imports smtp (core), which stands above it"),
        ("smtp", "use crate::mail::Reply;", ""),
        ("mime", "use crate::smtp::Session;", "1: mime imports smtp: both stand in the row of core"),
        ("token", "\n\nuse crate::spool;", "3: token (core) imports spool (files and clock), which stands above it"),
        ("store", "use crate::spool::Cursor;", ""),
        (
            "spool",
            "use crate::store::Store;",
            "1: spool (files and clock) imports store (state), which stands above it",
        ),
        (
            "settings",
            "fn f() { crate::ops::add() }",
            "1: settings (settings) imports ops (changes of state), which stands above it",
        ),
        ("ops", "use crate::{mail::Reply, settings};", ""),
        ("ops", "use crate::server;", "1: ops (changes of state) imports server (wiring), which stands above it"),
        (
            "server",
            "use crate::{cli, track::Tracker};",
            "1: server (wiring) imports cli (command line), which stands above it",
        ),
        ("cli", "use crate::{admin, config::Config, demo, server};", ""),
        // Sideways.
        ("track", "use crate::http::Request;", ""),
        ("inbound", "use crate::intake::Intake; use crate::{proxy_header, tls};", ""),
        (
            "track",
            "use crate::recorder;",
            "1: track imports recorder: shells meet through records and a Notify, but for intake, http, tls, proxy_header",
        ),
        (
            "http",
            "use crate::track;",
            "1: http imports track: shells meet through records and a Notify, but for intake, http, tls, proxy_header",
        ),
        // Ways to write a path.
        ("mail", "use crate::{self as house, smtp as s};", "1: mail (core) imports smtp (core), which stands above it"),
        (
            "mail",
            "use crate::{mail::{Reply, Address}, token::{Token}};",
            "1: mail (core) imports token (core), which stands above it",
        ),
        (
            "mail",
            "fn f(x: Vec<crate::spool::Log>) {}",
            "1: mail (core) imports spool (files and clock), which stands above it",
        ),
        (
            "mail",
            "fn f() { println!(\"{}\", crate::keys::NAME) }",
            "1: mail (core) imports keys (files and clock), which stands above it",
        ),
        ("mail", "use super::keys;", "1: mail (core) imports keys (files and clock), which stands above it"),
        (
            "mail",
            "mod a { mod b { use super::super::super::keys; } }",
            "1: mail (core) imports keys (files and clock), which stands above it",
        ),
        (
            "mail",
            "mod a { use super::{b, super::keys::K}; }",
            "1: mail (core) imports keys (files and clock), which stands above it",
        ),
        ("mail", "mod a { use super::keys; }", ""),
        ("mail", "use crate::*;", "1: mail imports the whole crate by a glob: name what it needs"),
        (
            "mail",
            "macro_rules! m { () => { $crate::keys::K } }",
            "1: mail (core) imports keys (files and clock), which stands above it",
        ),
        ("mail", "pub(crate) fn f() { self::keys::f(); keys::f() }", ""),
        ("mail", "// use crate::keys;\n/// [`crate::keys`]\nconst A: &str = \"crate::keys\";", ""),
        // Only tests are free.
        ("mail", "#[cfg(test)] mod tests { use crate::keys; }", ""),
        ("mail", "#[cfg(test)]\n#[allow(unused)]\nfn f<A, B>() where A: X, B: Y { crate::keys::f() }", ""),
        ("mail", "struct S { #[cfg(test)] planned: Vec<(u8, crate::keys::K)>, b: u8 }", ""),
        (
            "mail",
            "struct S { #[cfg(test)] a: u8, b: crate::keys::K }",
            "1: mail (core) imports keys (files and clock), which stands above it",
        ),
        (
            "mail",
            "#[cfg(test)] use super::x; use crate::keys;",
            "1: mail (core) imports keys (files and clock), which stands above it",
        ),
        (
            "mail",
            "#[cfg(not(test))] use crate::keys;",
            "1: mail (core) imports keys (files and clock), which stands above it",
        ),
        // The core's own rule.
        ("retry", "use std::time::Duration;", ""),
        (
            "retry",
            "use std::time::{Duration, SystemTime};",
            "1: retry (core) uses std::time::SystemTime: the time is an argument",
        ),
        ("retry", "fn f(now: Instant) {}", ""),
        (
            "retry",
            "fn f() { let t = Instant::now(); }",
            "1: retry (core) uses Instant::now: the time and random bytes are arguments",
        ),
        (
            "event",
            "fn f() { Uuid::now_v7() }",
            "1: event (core) uses Uuid::now_v7: the time and random bytes are arguments",
        ),
        ("smtp", "use std::net::{IpAddr, SocketAddr};", ""),
        (
            "smtp",
            "use std::{io, net::{IpAddr, TcpStream}};",
            "1: smtp (core) uses std::net::TcpStream: the core opens no sockets",
        ),
        ("smtp", "use tokio::io::AsyncRead;", "1: smtp (core) uses tokio::io::AsyncRead: the core does not wait"),
        ("smtp", "use ::tokio;", "1: smtp (core) uses tokio: the core does not wait"),
        (
            "rewrite",
            "fn f() { std::fs::read(\"a\"); }",
            "1: rewrite (core) uses std::fs::read: the core reads no files",
        ),
        ("token", "use getrandom as dice;", "1: token (core) uses getrandom: random bytes are an argument"),
        ("spool", "use std::fs; fn f() { Instant::now(); }", ""),
        ("orphan", "use crate::mail;", &format!("1: orphan imports mail: one of them has no row in {}", file!())),
    ];
    for (module, text, want) in table {
        let found: Vec<String> = source::read_text(module, text).uses.iter().filter_map(fault).collect();
        let want = if want.is_empty() { vec![] } else { vec![format!("src/{module}.rs:{want}")] };
        assert_eq!(found, want, "{module}: {text}");
    }
}
