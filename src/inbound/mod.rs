//! The SMTP listeners: who may connect, how many at once, and the way down at shutdown.
//!
//! What is said on a connection is [`crate::smtp::Session`]'s; this module moves bytes, watches the clock and the
//! memory, and hands complete messages to [`crate::intake`].

mod auth;
mod connection;
mod memory;
mod stream;
mod throttle;

pub use memory::Memory;

use crate::intake::{Intake, MailFrom};
use crate::mail::{Enhanced, Reply, Role};
use crate::proxy_header::{self, Claim};
use crate::smtp::{Peer, Session, SessionConfig, Timeouts};
use crate::supervise;
use crate::tls::ServerTls;
use arc_swap::ArcSwap;
use auth::Authenticator;
use ipnet::IpNet;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use stream::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// One listener, bound.
#[derive(Clone)]
pub struct Listener {
    pub socket: Arc<TcpListener>,
    /// May be swapped; sessions begun before keep what they began with.
    pub terms: Arc<ArcSwap<Terms>>,
}

/// What a listener offers, and to whom.
pub struct Terms {
    pub session: Arc<SessionConfig>,
    /// Of the clients, as a proxy names them where there is one.
    pub trusted_networks: Vec<IpNet>,
    /// Proxies whose connections begin with a PROXY header. Where there are any, all others are refused.
    pub proxies: Vec<IpNet>,
    pub encryption: Encryption,
    pub role: Role,
    pub mail_from: MailFrom,
}

/// When TLS begins.
#[derive(Clone)]
pub enum Encryption {
    None,
    StartTls(Arc<ServerTls>),
    Implicit(Arc<ServerTls>),
}

/// Limits of all connections; they may be swapped.
#[derive(Clone, Debug)]
pub struct Rules {
    pub timeouts: Timeouts,
    pub max_connections: usize,
    /// Of one IPv4 address, or one IPv6 /64, that is not trusted.
    pub max_connections_per_client: usize,
}

/// What the connections of all listeners share.
pub struct Inbound {
    pub intake: Arc<Intake>,
    pub memory: Memory,
    pub rules: ArcSwap<Rules>,
    authenticator: Authenticator,
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
        let authenticator = Authenticator::new(Arc::clone(&intake.settings));
        Self { intake, memory, rules: ArcSwap::from_pointee(rules), authenticator, connected: Mutex::default() }
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
        while let Some(ended) = sessions.try_join_next() {
            supervise::joined("SMTP session", ended);
        }
        match accepted {
            Ok((stream, address)) => {
                let peer = address.ip().to_canonical();
                let (inbound, terms, stop) = (Arc::clone(&inbound), terms.load_full(), stop.clone());
                sessions.spawn(async move {
                    if let Err(e) = receive(&inbound, &terms, stream, peer, stop).await {
                        tracing::debug!(client = %peer, "connection lost: {e}");
                    }
                });
            }
            Err(e) => {
                tracing::warn!("accepting a connection failed: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Sessions may go on for a while, and nobody is to wait for a banner meanwhile.
    drop(socket);
    while let Some(ended) = sessions.join_next().await {
        supervise::joined("SMTP session", ended);
    }
}

/// From the accepted socket to the end of the session.
async fn receive(
    inbound: &Inbound,
    terms: &Terms,
    mut socket: TcpStream,
    peer: IpAddr,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let handshake = inbound.rules.load().timeouts.handshake;
    let mut admitted = inbound.admit();
    let mut client = peer;
    let mut may_be_trusted = true;
    if !terms.proxies.is_empty() {
        if !holds(&terms.proxies, peer) {
            admitted = Err(Reply::new(554, Enhanced(5, 7, 1), "Connections come through the proxy here"));
        } else {
            let claim = tokio::time::timeout(handshake, proxy_header::read(&mut socket)).await;
            match claim.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? {
                Claim::Client(address) => client = address.ip(),
                // The proxy looks whether we live. It sends no mail, and its address is nobody's reason for trust.
                Claim::Proxy => may_be_trusted = false,
            }
        }
    }
    let trusted = may_be_trusted && holds(&terms.trusted_networks, client);
    // Those whom the operator trusts may have as many as there are.
    let admitted = admitted.and_then(|admitted| if trusted { Ok(admitted) } else { admitted.of_client(client) });
    let mut stream = Stream::Plain(socket);
    let is_tls = matches!(terms.encryption, Encryption::Implicit(_));
    if let Encryption::Implicit(tls) = &terms.encryption {
        // Who is not let in is not worth a handshake, and could not be told anything without one.
        if admitted.is_err() {
            return Ok(());
        }
        stream.start_tls(tls.current(), handshake).await?;
    }
    let mut session = Session::new(Arc::clone(&terms.session), Peer { address: client, trusted, tls: is_tls });
    match &admitted {
        Err(reply) => session.refuse(reply.clone()),
        Ok(_) if matches!(&stream, Stream::Plain(socket) if has_spoken(socket)) => session.early_talker(),
        Ok(_) => session.greet(),
    }
    connection::run(inbound, terms, session, stream, client, stop).await
}

fn holds(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
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
    /// Counts a connection, whoever it is from.
    fn admit(&self) -> Result<Admitted<'_>, Reply> {
        let mut connected = self.connected();
        if connected.all >= self.rules.load().max_connections {
            return Err(Reply::new(421, Enhanced(4, 3, 2), "Too many connections, try again later"));
        }
        connected.all += 1;
        metrics::gauge!("trackpost_connections", "protocol" => "smtp").increment(1.0);
        Ok(Admitted { inbound: self, client: None })
    }

    fn connected(&self) -> MutexGuard<'_, Connected> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is counted until this is dropped.
struct Admitted<'a> {
    inbound: &'a Inbound,
    /// Among whose connections, once that is known.
    client: Option<IpAddr>,
}

impl Admitted<'_> {
    /// Counts it among those of its client.
    fn of_client(mut self, client: IpAddr) -> Result<Self, Reply> {
        let client = counted_as(client);
        let most = self.inbound.rules.load().max_connections_per_client;
        let mut connected = self.inbound.connected();
        let by_client = connected.by_client.entry(client).or_default();
        if *by_client >= most {
            return Err(Reply::new(421, Enhanced(4, 7, 0), "Too many connections from your address"));
        }
        *by_client += 1;
        drop(connected);
        self.client = Some(client);
        Ok(self)
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        let mut connected = self.inbound.connected();
        connected.all = connected.all.saturating_sub(1);
        metrics::gauge!("trackpost_connections", "protocol" => "smtp").decrement(1.0);
        let Some(client) = self.client else { return };
        if let Some(count) = connected.by_client.get_mut(&client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                connected.by_client.remove(&client);
            }
        }
    }
}

/// One client's hosts in IPv6 share a /64.
fn counted_as(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
    }
}
