//! An SMTP relay that adds open and click tracking to HTML mail on its way to a smarthost, and answers the pixel and
//! the links of what it sent. `docs/` tells how it is run; this page tells how it is built.
//!
//! ```text
//!       SMTP                                                       HTTP
//!         │                                                          │
//!   ┌─────▼─────┐                                              ┌─────▼─────┐
//!   │  inbound  │ smtp::Session                                │   http    │
//!   └─────┬─────┘                                              └─────┬─────┘
//!   ┌─────▼─────┐    Message     ╔═══════════════╗     Hits    ┌─────▼─────┐
//!   │  intake   ├───────────────►║               ║◄────────────┤   track   │ token::Verifier
//!   └─────┬─────┘                ║               ║             └───────────┘
//!   ┌─────▼─────┐  at the start  ║     spool     ║   Setting   ┌───────────┐
//!   │   queue   │◄───────────────╢    the log    ║◄────────────┤ settings  │◄─ ops ◄─ admin ◄─ cli
//!   └─────┬─────┘                ║               ║             └───────────┘
//!   ┌─────▼─────┐    Outcomes    ║               ║  a cursor   ┌───────────┐
//!   │ outbound  ├───────────────►║               ╟────────────►│ recorder  ├─► store, events
//!   └─────┬─────┘                ╚═══════════════╝             └───────────┘
//!         │ rewrite::plan, a copy per recipient
//!     smarthost
//! ```
//!
//! **The log is the truth.** [`spool`] is an append-only log of four kinds of record: messages, outcomes, hits and
//! settings. Folding it gives the queue and the settings back; nothing else has to survive. [`store`] is a view of it
//! that people search: sled, which may be slow, damaged or deleted, and takes no message, no link and no setting with
//! it. The token keys ([`keys`]) are files of their own, since they alone decide whether links already sent work.
//!
//! # The way of one message
//!
//! 1. [`inbound`] reads bytes and hands them to a [`smtp::Session`], which gives back replies and, at the end of DATA,
//!    an envelope with the message. The session owns the protocol and does no IO.
//! 2. [`intake`] looks at the header block alone, prepends `Received`, and appends one Message record. The log's one
//!    writer thread syncs for all sessions that wait, and only after that fdatasync does the client read
//!    `250 2.0.0 Ok: queued as ID`. What is wrong with MIME or HTML never keeps a message from being accepted.
//! 3. [`queue`] knows what is due. Bytes just accepted go on in memory while there is room; all others are read from
//!    the log again.
//! 4. [`outbound`] asks the settings what is done to mail of the From domain, at every attempt. [`rewrite::plan`]
//!    reads the message once; [`rewrite::Plan::copy_for`] then writes each recipient's copy with tokens of their own.
//!    In doubt, and after a panic, the original bytes go out and the report says why. Where the domain has a DKIM key in
//!    use, what leaves is signed, last of all.
//! 5. The smarthost answers for each recipient. That outcome is appended before the next transaction begins, and is
//!    durable with the next sync, 200 ms later at most. A crash in between delivers that copy a second time: the one
//!    way to a duplicate beside a connection that breaks after the final dot.
//! 6. [`retry`] says when a deferred recipient is tried again, or that it is given up. The sender is told of who is
//!    refused or given up: [`dsn`] composes the notice, which goes in by [`intake`] before the bounce is written down.
//!    While the smarthost cannot be reached one connection probes for all that is due.
//!
//! # The way of one click
//!
//! 1. [`track`] verifies the token from the request and the keys alone. The MAC is bound to the tracking host, so a
//!    valid token proves that the host was ours, and it redirects whatever else is broken.
//! 2. The hit goes into a bounded queue, the `302` goes out, and a task writes hits to the log in batches. A full
//!    queue holds a redirect up for 50 ms at most; then the hit is lost and counted, never the redirect.
//! 3. [`recorder`] reads the log from its cursor, judges each hit ([`event::classify`]), and commits rows together
//!    with the cursor. Folding a record twice changes nothing.
//!
//! # The import rule
//!
//! `main` → [`cli`] → [`server`] → shells → [`ops`] → [`settings`], [`health`], [`meters`] → [`queue`], [`store`] → [`spool`],
//! [`keys`], [`config`], [`clock`] → [`supervise`] → core, where all rests on [`mail`]. A module imports what stands to its right. Shells do not
//! import each other but for [`intake`], [`http`], [`tls`] and [`proxy_header`]: they meet through records and a wake-up. The core has no tokio,
//! no files, no clock and no dice; the time and random bytes are arguments. `tests/architecture` holds all of this by
//! reading every path in `src`.
//!
//! # Reading order
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`mail`] | the words: address, envelope, reply, outcome, queue id |
//! | [`smtp`] | the server's side of the protocol, without IO |
//! | [`mime`] | where something stands in a message: headers, parts, transfer encodings, charsets; whose mail it says it is; 8-bit to 7-bit |
//! | [`token`] | what a link says, and the MAC over it |
//! | [`domain`], [`event`], [`retry`] | a sender domain's rules; machine or human; when to try again |
//! | [`privacy`] | who has opted out of tracking, as keyed hashes |
//! | [`rewrite`] | message and policy → plan → copies and a report |
//! | [`kill`] | links that their sender has switched off |
//! | [`dsn`] | what a sender is told: failed, delayed, handed on; composed, not sent |
//! | [`spool`] | the log: writer, recovery, compaction |
//! | [`keys`], [`config`], [`clock`] | secrets in files; the configuration and all its faults; time and dice |
//! | [`queue`], [`store`] | what is due; the view that may be deleted |
//! | [`settings`] | domains, API keys, webhooks and switches: a snapshot that mail and clicks read |
//! | [`ops`] | one function per change of state, for whoever asks |
//! | [`inbound`], [`intake`], [`outbound`] | mail in, the door into the log, mail out |
//! | [`proxy_header`] | what a load balancer says of its client, before mail and before HTTP |
//! | [`http`], [`track`], [`recorder`] | listeners; pixel and redirect; from the log to the store |
//! | [`tls`], [`acme`] | certificates from files, taken anew when they change, and one for each tracking host; how they are ordered |
//! | [`verify`] | what DNS says of tracking hosts, and whether they lead here |
//! | [`webhook`] | events posted to endpoints until they are taken or given up |
//! | [`admin`], [`api`] | the socket of the command line; the REST API, and whether the relay works |
//! | [`dashboard`] | pages for the operator and for customers, one file a page; sessions, forms, plots |
//! | [`health`], [`meters`] | whether log and store work, found by trying; what is measured, for Prometheus |
//! | [`supervise`] | a panic ends one turn of a task, never the task |
//! | [`server`] | the wiring: start, reload, drain |
//! | [`cli`] | one file per command, and the demo |

// Core.
pub mod domain;
pub mod dsn;
pub mod event;
pub mod kill;
pub mod mail;
pub mod mime;
pub mod privacy;
pub mod retry;
pub mod rewrite;
pub mod smtp;
pub mod token;

// State, and the files and the clock beneath it.
pub mod clock;
pub mod config;
pub mod health;
pub mod keys;
pub mod meters;
pub mod queue;
pub mod settings;
pub mod spool;
pub mod store;
pub mod supervise;

// What changes it.
pub mod ops;

// Shells.
pub mod acme;
pub mod admin;
pub mod api;
pub mod dashboard;
pub mod http;
pub mod inbound;
pub mod intake;
pub mod outbound;
pub mod proxy_header;
pub mod recorder;
pub mod tls;
pub mod track;
pub mod verify;
pub mod webhook;

// The program.
pub mod cli;
pub mod server;

#[cfg(test)]
mod model;
