//! Accepting connections, within limits and until shutdown.

use super::client::counted_as;
use super::pace::{Paced, Turns};
use super::{Client, Fronts, Handler, Limits, Request, Response, plain};
use crate::proxy_header::{self, Claim};
use crate::supervise;
use crate::tls::ServerTls;
use http::StatusCode;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ipnet::IpNet;
use rustls::server::Acceptor;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// Serves `listener` until `shutdown` turns true or its sender is gone; then accepts no more, lets requests in
/// progress end within `limits.drain_time`, and returns. Never fails: a connection's faults end that connection, and
/// when the system has no descriptor left, accepting pauses.
///
/// Where there are balancers, the PROXY header comes first, before a TLS handshake too; whom it names is the peer from
/// then on, for all that is counted and believed.
pub async fn serve<H: Handler>(
    listener: impl Into<Arc<TcpListener>>,
    tls: Option<Arc<ServerTls>>,
    limits: Limits,
    fronts: Fronts,
    handler: Arc<H>,
    mut shutdown: watch::Receiver<bool>,
) {
    let listener = listener.into();
    let (http, http2) = (protocol(&limits), protocol2(&limits));
    let site = Arc::new(Site { handler, fronts, tls, limits, http, http2 });
    let open = Arc::new(Open::default());
    let (all_closed, mut closed) = tokio::sync::mpsc::channel::<Infallible>(1);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = told(&mut shutdown) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_the_connections_fault(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot accept HTTP connections, pausing");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let is_balanced = !site.fronts.balancers.is_empty();
        if is_balanced && !holds(&site.fronts.balancers, peer.ip()) {
            site.refuse(stream, STRANGER);
            continue;
        }
        let Some(mut place) = open.admit(&site.limits) else {
            site.refuse(stream, BUSY);
            continue;
        };
        if !is_balanced && !place.is_of(peer.ip(), &site) {
            site.refuse(stream, BUSY);
            continue;
        }
        let (site, shutdown, all_closed) = (site.clone(), shutdown.clone(), all_closed.clone());
        tokio::spawn(async move {
            let _counted = supervise::Counted("HTTP connection");
            // Answers are small: Nagle would hold each back until the one before it is acknowledged.
            let _ = stream.set_nodelay(true);
            let (mut stream, mut peer) = (stream, peer);
            if is_balanced {
                match timeout(limits.head_time, proxy_header::read(&mut stream)).await {
                    Ok(Ok(Claim::Client(client))) => peer = client,
                    Ok(Ok(Claim::Proxy)) => {}
                    Ok(Err(error)) => return tracing::debug!(%peer, %error, "no PROXY header"),
                    Err(_) => return tracing::debug!(%peer, "the PROXY header took too long"),
                }
                if !place.is_of(peer.ip(), &site) {
                    return site.refuse(stream, BUSY);
                }
            }
            match &site.tls {
                None => converse(stream, peer, site, shutdown).await,
                Some(tls) => match timeout(limits.head_time, handshake(stream, tls)).await {
                    Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                        converse2(stream, peer, site, shutdown).await;
                    }
                    Ok(Ok(stream)) => converse(stream, peer, site, shutdown).await,
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                },
            }
            drop((place, all_closed));
        });
    }
    drop((listener, all_closed));
    // The channel ends with the last connection; each of them keeps the same time.
    let _ = timeout(limits.drain_time, closed.recv()).await;
}

/// Says for which host there is nothing (RFC 6066 §3), before anything is computed for it.
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 112];

async fn handshake(stream: TcpStream, tls: &ServerTls) -> io::Result<TlsStream<TcpStream>> {
    let mut started = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    if !tls.knows(started.client_hello().server_name()) {
        started.io.write_all(&UNRECOGNIZED_NAME).await?;
        started.io.shutdown().await?;
        return Err(io::Error::other("no certificate for the name that was asked for"));
    }
    started.into_stream(tls.current()).await
}

async fn told(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which asks for the same.
    let _ = shutdown.wait_for(|down| *down).await;
}

/// What all connections of a listener share.
struct Site<H> {
    handler: Arc<H>,
    fronts: Fronts,
    tls: Option<Arc<ServerTls>>,
    limits: Limits,
    http: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

/// Requests of one HTTP/2 connection that are answered at once: more than a page of ours needs, and few enough that a
/// client which reads none of the answers holds little (some 4 KB for each).
const MAX_STREAMS: u32 = 24;

fn protocol2(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    // Time-outs are `Paced`'s; hyper itself ends connections that reset their streams too fast.
    let head = u32::try_from(limits.head_bytes).unwrap_or(u32::MAX);
    http.max_concurrent_streams(MAX_STREAMS).max_header_list_size(head).max_send_buf_size(64 * 1024);
    http
}

fn protocol(limits: &Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    // Time-outs are `Paced`'s. hyper panics at a buffer below 8 KiB; a smaller head is bounded by its own limit.
    http.header_read_timeout(None).max_header_size(limits.head_bytes).max_buf_size(limits.head_bytes.max(8_192));
    http
}

async fn converse<H: Handler>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    site: Arc<Site<H>>,
    shutdown: watch::Receiver<bool>,
) {
    let turns = Turns::default();
    let io = TokioIo::new(Paced::new(stream, site.limits, turns.clone()));
    let service = {
        let site = site.clone();
        service_fn(move |request: Request| {
            let (site, turn) = (site.clone(), turns.answering());
            async move {
                let response = site.answer(request, peer).await;
                drop(turn);
                Ok::<Response, Infallible>(response)
            }
        })
    };
    let connection = site.http.serve_connection(io, service);
    until_told(connection, http1::Connection::graceful_shutdown, peer, site.limits.drain_time, shutdown).await;
}

/// HTTP/2 (RFC 9113): requests cross each other, so that a connection as a whole is idle or not, and has the time for
/// it; a head that comes slowly has no more.
async fn converse2<H: Handler>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    site: Arc<Site<H>>,
    shutdown: watch::Receiver<bool>,
) {
    let limits = Limits { head_time: site.limits.idle_time, ..site.limits };
    let turns = Turns::default();
    let io = TokioIo::new(Paced::new(stream, limits, turns.clone()));
    let service = {
        let site = site.clone();
        service_fn(move |request: Request| {
            let site = site.clone();
            turns.pass();
            async move { Ok::<Response, Infallible>(site.answer(request, peer).await) }
        })
    };
    let connection = site.http2.serve_connection(io, service);
    until_told(connection, http2::Connection::graceful_shutdown, peer, site.limits.drain_time, shutdown).await;
}

/// Runs a connection to its end; once `shutdown` says so, within `drain`.
async fn until_told<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    wind_up: impl FnOnce(Pin<&mut C>),
    peer: SocketAddr,
    drain: Duration,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = told(&mut shutdown) => {
            wind_up(connection.as_mut());
            match timeout(drain, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "HTTP connection ended");
    }
}

impl<H: Handler> Site<H> {
    async fn answer(&self, request: Request, peer: SocketAddr) -> Response {
        let (head, body) = request.into_parts();
        match Client::of(&head, peer, &self.fronts.trusted_proxies) {
            Ok(client) => self.handler.handle(Request::from_parts(head, body), client).await,
            Err(_) => plain(StatusCode::BAD_REQUEST, "The request names no valid host.\n"),
        }
    }

    /// Ends a connection that is not served, on the plain listeners with this answer as far as the socket takes it at
    /// once: nobody waits for its client.
    fn refuse(&self, stream: TcpStream, answer: &[u8]) {
        metrics::counter!("trackpost_http_refused_connections_total").increment(1);
        if self.tls.is_none()
            && let Ok(mut stream) = stream.into_std()
        {
            let _ = stream.write(answer);
        }
    }
}

/// Open connections.
#[derive(Default)]
struct Open(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    all: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// One connection's place among the open ones, given back on drop.
struct Place {
    open: Arc<Open>,
    /// `None` for a trusted proxy, which brings many clients, and as long as nobody knows.
    client: Option<IpAddr>,
}

impl Open {
    /// Counts a connection, whoever it is from.
    fn admit(self: &Arc<Self>, limits: &Limits) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= limits.connections {
            return None;
        }
        counts.all += 1;
        metrics::gauge!("trackpost_connections", "protocol" => "http").increment(1.0);
        Some(Place { open: self.clone(), client: None })
    }
}

impl Place {
    /// Counts it among those of its peer; false where that has as many as it may have.
    fn is_of<H>(&mut self, peer: IpAddr, site: &Site<H>) -> bool {
        let (peer, fronts) = (peer.to_canonical(), &site.fronts);
        let is_proxy = holds(&fronts.trusted_proxies, peer) || holds(&fronts.balancers, peer);
        if is_proxy || site.limits.loopback_is_many && peer.is_loopback() {
            return true;
        }
        let client = counted_as(peer);
        let mut counts = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = counts.by_client.entry(client).or_insert(0);
        if *held >= site.limits.connections_per_client {
            return false;
        }
        *held += 1;
        drop(counts);
        self.client = Some(client);
        true
    }
}

fn holds(networks: &[IpNet], peer: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&peer.to_canonical()))
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        metrics::gauge!("trackpost_connections", "protocol" => "http").decrement(1.0);
        if let Some(client) = self.client
            && let Some(held) = counts.by_client.get_mut(&client)
        {
            *held -= 1;
            if *held == 0 {
                counts.by_client.remove(&client);
            }
        }
    }
}

/// There are too many connections.
const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 5\r\ncontent-length: 0\r\n\r\n";
/// Connections come through the balancer here.
const STRANGER: &[u8] = b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

fn is_the_connections_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// After an error such as too many open files, which ends when connections do.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
