//! What the scenarios on the real binary share: a [`Relay`] on a folder of its own, a [`Smarthost`] that does what its
//! script says, an SMTP [`Client`] that can also say what it should not, and HTTP.
//!
//! Nothing here waits for a fixed time: [`until`] looks again and again, up to a deadline. That something did not
//! happen is shown by a later message that has gone the same way.

mod certificate;
mod client;
mod disk;
mod knot;
mod mail;
mod relay;
mod smarthost;
mod web;

pub use certificate::{Certificate, Trust};
pub use client::{Client, queue_id};
pub use disk::SmallDisk;
pub use knot::Knot;
pub use mail::{HOST, crlf, html, links, pixel, plain, without_received};
pub use relay::{Ran, Relay, Setup, trackpost};
pub use smarthost::{At, Do, Gate, Smarthost, Taken};
pub use web::{FIREFOX, ask_api, get, request};

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Looks until there is something; panics with `what` at the deadline.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "after {DEADLINE:?} still waiting for: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
