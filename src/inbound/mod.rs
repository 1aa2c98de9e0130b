//! The SMTP listeners: who may connect, how many at once, and the way down at shutdown.
//!
//! What is said on a connection is [`crate::smtp::Session`]'s; this module moves bytes, watches the clock and the
//! memory, and hands complete messages to [`crate::intake`].

mod connection;
mod memory;

pub use memory::Memory;

use crate::intake::Intake;
use crate::mail::{Enhanced, Reply};
use crate::smtp::{Peer, Session, SessionConfig, Timeouts};
use arc_swap::ArcSwap;
use ipnet::IpNet;
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// One listener, bound.
pub struct Listener {
    pub socket: TcpListener,
    /// May be swapped; sessions begun before keep what they began with.
    pub terms: Arc<ArcSwap<Terms>>,
}

/// What a listener offers, and to whom.
pub struct Terms {
    pub session: Arc<SessionConfig>,
    pub trusted_networks: Vec<IpNet>,
}

/// Limits of all connections; they may be swapped.
#[derive(Clone, Debug)]
pub struct Rules {
    pub timeouts: Timeouts,
    pub max_connections: usize,
    /// Of one IPv4 address, or one IPv6 /64.
    pub max_connections_per_client: usize,
}

/// What the connections of all listeners share.
pub struct Inbound {
    pub intake: Arc<Intake>,
    pub memory: Memory,
    pub rules: ArcSwap<Rules>,
    connected: Mutex<Connected>,
}

#[derive(Default)]
struct Connected {
    all: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// After an accept that failed for want of file descriptors, a pause: trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Inbound {
    pub fn new(intake: Arc<Intake>, memory: Memory, rules: Rules) -> Self {
        Self { intake, memory, rules: ArcSwap::from_pointee(rules), connected: Mutex::default() }
    }
}

/// Serves one listener until `stop`, then waits for its sessions, each of which ends when it is idle.
pub async fn serve(inbound: Arc<Inbound>, listener: Listener, mut stop: watch::Receiver<bool>) {
    let Listener { socket, terms } = listener;
    let mut sessions = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        while sessions.try_join_next().is_some() {}
        match accepted {
            Ok((stream, address)) => {
                let client = address.ip().to_canonical();
                let terms = terms.load();
                let trusted = terms.trusted_networks.iter().any(|network| network.contains(&client));
                let session = Session::new(Arc::clone(&terms.session), Peer { address: client, trusted, tls: false });
                let (inbound, stop) = (Arc::clone(&inbound), stop.clone());
                sessions.spawn(async move { greet_and_run(&inbound, session, stream, client, stop).await });
            }
            Err(e) => {
                tracing::warn!("accepting a connection failed: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Sessions may go on for a while, and nobody is to wait for a banner meanwhile.
    drop(socket);
    while sessions.join_next().await.is_some() {}
}

async fn greet_and_run(
    inbound: &Inbound,
    mut session: Session,
    stream: TcpStream,
    client: IpAddr,
    stop: watch::Receiver<bool>,
) {
    if let Err(e) = stream.set_nodelay(true) {
        return tracing::debug!("a connection was gone before it began: {e}");
    }
    let admitted = inbound.admit(client);
    match &admitted {
        Err(reply) => session.refuse(reply.clone()),
        Ok(_) if has_spoken(&stream) => session.early_talker(),
        Ok(_) => session.greet(),
    }
    connection::run(inbound, session, stream, client, stop).await;
    drop(admitted);
}

/// RFC 5321 §3.1: the server speaks first. Who does not wait is no mail server.
fn has_spoken(stream: &TcpStream) -> bool {
    let mut byte = 0u8;
    // The runtime has not heard yet whether a connection just accepted can be read, so the system is asked.
    // SAFETY: the descriptor is open for as long as `stream` lives, and there is room for the one byte.
    let peeked =
        unsafe { libc::recv(stream.as_raw_fd(), (&raw mut byte).cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT) };
    peeked == 1
}

impl Inbound {
    fn admit(&self, client: IpAddr) -> Result<Admitted<'_>, Reply> {
        let client = counted_as(client);
        let rules = self.rules.load();
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if connected.all >= rules.max_connections {
            return Err(Reply::new(421, Enhanced(4, 3, 2), "Too many connections, try again later"));
        }
        let by_client = connected.by_client.entry(client).or_default();
        if *by_client >= rules.max_connections_per_client {
            return Err(Reply::new(421, Enhanced(4, 7, 0), "Too many connections from your address"));
        }
        *by_client += 1;
        connected.all += 1;
        Ok(Admitted { inbound: self, client })
    }
}

/// One client's hosts in IPv6 share a /64.
fn counted_as(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
    }
}

/// A connection that is counted until this is dropped.
struct Admitted<'a> {
    inbound: &'a Inbound,
    client: IpAddr,
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        let mut connected = self.inbound.connected.lock().unwrap_or_else(PoisonError::into_inner);
        connected.all = connected.all.saturating_sub(1);
        if let Some(count) = connected.by_client.get_mut(&self.client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                connected.by_client.remove(&self.client);
            }
        }
    }
}
