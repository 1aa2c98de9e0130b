//! What systemd gives and wants: sockets that it has bound, and word of being ready, reloading, stopping and alive.
//!
//! All of it does nothing where systemd does not ask for it.

use super::StartError;
use crate::health::Watch;
use sd_notify::NotifyState;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The sockets of a socket unit, by their address. Each takes the place of the listener that the configuration has for
/// that address; one that has no such listener keeps the server from starting.
pub struct Sockets(Vec<(SocketAddr, TcpListener)>);

impl Sockets {
    pub fn take() -> Result<Self, StartError> {
        let passed = sd_notify::listen_fds().map_err(|e| StartError::Sockets(format!("cannot be taken: {e}")))?;
        let mut sockets = Vec::new();
        for descriptor in passed {
            // SAFETY: systemd opened it for this process, LISTEN_PID has been seen to name us, and nobody else here
            // takes what is passed: `listen_fds` is called this once.
            let socket = TcpListener::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
            let address = socket
                .local_addr()
                .map_err(|e| StartError::Sockets(format!("number {descriptor} is of no use: {e}")))?;
            socket.set_nonblocking(true).map_err(|e| StartError::Sockets(format!("{address}: {e}")))?;
            sockets.push((address, socket));
        }
        Ok(Self(sockets))
    }

    /// The one for this address, if there is one.
    pub fn for_address(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let place = self.0.iter().position(|(other, _)| *other == address)?;
        Some(self.0.swap_remove(place).1)
    }

    /// Says so when one is left that nothing in the configuration goes with.
    pub fn all_taken(self) -> Result<(), StartError> {
        match self.0.first() {
            None => Ok(()),
            Some((address, _)) => Err(StartError::Sockets(format!("{address} is no listener of the configuration"))),
        }
    }
}

pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("taking mail")]);
}

/// Stopping begins, and may take so long.
pub fn stopping(time: Duration) {
    let time = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::Status("draining"), NotifyState::ExtendTimeoutUsec(time)]);
}

/// Says that a reload begins; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        tracing::debug!("systemd was not told: {e}");
    }
}

/// Tells the watchdog that we live for as long as log and store answer and mail goes out, half of its time apart. A log
/// that cannot be written is no reason for a restart, which would deliver again what is known to this process alone.
pub async fn feed_watchdog(watched: Arc<Watch>, mut stop: watch::Receiver<bool>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let pause = (limit / 2).max(Duration::from_millis(100));
    loop {
        let (health, progress) = (watched.check(pause / 2).await, watched.progress());
        match health.is_alive() && !progress.asks_for_a_restart() {
            true => tell(&[NotifyState::Watchdog]),
            false => tracing::error!("the watchdog is not fed: {health:?}, {}", progress.in_one_line()),
        }
        if tokio::time::timeout(pause / 2, stop.wait_for(|stop| *stop)).await.is_ok() {
            // Draining has its own time limit.
            tell(&[NotifyState::Watchdog]);
            return;
        }
    }
}

/// A file that may not grow (`ulimit -f`) is an error like a full disk, and not the end of the process.
pub fn ignore_file_size_signal() {
    // SAFETY: no handler runs; the disposition alone is set.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Raises the limit of open files to what the system allows; returns that.
pub fn raise_file_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain system calls on a struct of ours.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) != 0 {
            return 0;
        }
        let wanted = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        if limit.rlim_cur < limit.rlim_max && libc::setrlimit(libc::RLIMIT_NOFILE, &wanted) == 0 {
            return wanted.rlim_cur;
        }
    }
    limit.rlim_cur
}
