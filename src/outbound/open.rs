//! How a connection to the smarthost is opened.
//!
//! Greeting, EHLO and STARTTLS are spoken here, on our own [stream](super::stream), since lettre keeps only some of
//! what EHLO offers and would read across STARTTLS what came before it. Then lettre takes over behind a banner of
//! ours, and authenticates. What follows from a failure is not decided here.

use super::connection::{Capabilities, Connection, Credentials, Phase, Smarthost};
use super::reply;
use super::stream::{SPOKE_UNASKED, Stream, Wire};
use super::tls::TlsMode;
use crate::mail::Reply;
use lettre::transport::smtp::authentication::{Credentials as Login, Mechanism};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenError {
    pub phase: Phase,
    pub kind: OpenErrorKind,
    /// What the smarthost said, where it was that. `is_permanent` of it says whether it refused for good.
    pub reply: Option<Reply>,
    /// What happened, for the log and the queue listing.
    pub text: String,
}

/// Whose fault it is that there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenErrorKind {
    /// No address, no route, nobody listening, or the connection was lost.
    Network,
    Timeout,
    /// The smarthost refused; its reply is there.
    Refused,
    /// TLS is not offered, was refused, or failed: perhaps the certificate.
    Tls,
    /// Wrong credentials, no mechanism in common, or no TLS to send them over. The operator's affair.
    Authentication,
    /// What the smarthost said is no SMTP, or came out of turn.
    Protocol,
    /// The server stops; nothing is wrong with the smarthost.
    Stopping,
    /// The settings cannot be used: `helo` or the credentials hold a control character.
    Setting,
}

impl Connection {
    /// Connects, encrypts as told, says EHLO (HELO where that is refused) and authenticates.
    ///
    /// With [`TlsMode::Opportunistic`], a failed handshake is followed by a second connection in plaintext.
    pub async fn open(to: &Smarthost) -> Result<Self, OpenError> {
        match Self::open_with(to, to.tls).await {
            Err(error) if to.tls == TlsMode::Opportunistic && error.kind == OpenErrorKind::Tls => {
                Self::open_with(to, TlsMode::None).await
            }
            result => result,
        }
    }

    async fn open_with(to: &Smarthost, tls: TlsMode) -> Result<Self, OpenError> {
        if to.helo.is_empty() || !to.helo.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(OpenError::new(Phase::Ehlo, OpenErrorKind::Setting, "own name is empty or not plain ASCII"));
        }
        let mut wire = connect(to).await?;
        if tls == TlsMode::Implicit {
            wire = encrypt(wire, to).await?;
        }
        let greeting = within(Phase::Greeting, to, wire.next_reply()).await?;
        expect(Phase::Greeting, OpenErrorKind::Refused, 220, &greeting)?;
        let mut offer = hello(&mut wire, to).await?;
        if matches!(tls, TlsMode::Opportunistic | TlsMode::Required) {
            (wire, offer) = upgrade(wire, offer, to, tls).await?;
        }
        let may_authenticate = wire.is_encrypted() || wire.is_loopback();
        let (smtp, stream) = hand_over(wire, &offer).await?;
        let mut connection = Self {
            smtp,
            stream,
            capabilities: offer.capabilities,
            timeouts: to.timeouts,
            busy: false,
            needs_reset: false,
            peer: format!("{}:{}", to.host, to.port),
            waits_for_dot: Arc::default(),
            terms: None,
            until: None,
            scratch: Vec::new(),
        };
        if let Some(credentials) = &to.credentials {
            if !may_authenticate {
                let text = "the password is not sent without TLS but to loopback";
                return Err(OpenError::new(Phase::Auth, OpenErrorKind::Authentication, text));
            }
            connection.authenticate(credentials).await?;
        }
        Ok(connection)
    }

    /// AUTH PLAIN or LOGIN (RFC 4954), whichever is offered, in this order.
    async fn authenticate(&mut self, credentials: &Credentials) -> Result<(), OpenError> {
        let fault = |kind, text: String| OpenError { phase: Phase::Auth, kind, reply: None, text };
        // NUL separates the fields of PLAIN (RFC 4616 §2).
        if credentials.username.contains('\0') || credentials.password.contains('\0') {
            return Err(fault(OpenErrorKind::Setting, "user name or password holds a NUL".to_owned()));
        }
        if !self.stream.is_quiet() {
            return Err(fault(OpenErrorKind::Protocol, SPOKE_UNASKED.to_owned()));
        }
        let login = Login::new(credentials.username.clone(), credentials.password.clone());
        let exchange = self.smtp.auth(&[Mechanism::Plain, Mechanism::Login], &login);
        match timeout(self.timeouts.ehlo, exchange).await {
            Ok(Ok(response)) => expect(Phase::Auth, OpenErrorKind::Authentication, 235, &response),
            Ok(Err(error)) => Err(match reply::from_error(&error) {
                Ok(reply) => OpenError::refused(Phase::Auth, OpenErrorKind::Authentication, reply),
                Err(text) if error.is_client() => fault(OpenErrorKind::Authentication, text),
                Err(text) if error.is_response() => fault(OpenErrorKind::Protocol, text),
                Err(text) => fault(OpenErrorKind::Network, text),
            }),
            Err(_) => Err(OpenError::timed_out(Phase::Auth, self.timeouts.ehlo)),
        }
    }
}

/// Tries every address of the host in turn.
async fn connect(to: &Smarthost) -> Result<Wire, OpenError> {
    let look_up = tokio::net::lookup_host((to.host.as_str(), to.port));
    let addresses = within(Phase::Connect, to, look_up).await?;
    let mut last = OpenError::new(Phase::Connect, OpenErrorKind::Network, "the host has no address");
    for address in addresses {
        let attempt = async { TcpStream::connect(address).await.and_then(Wire::new) };
        match within(Phase::Connect, to, attempt).await {
            Ok(wire) => return Ok(wire),
            Err(error) => last = OpenError { text: format!("{address}: {}", error.text), ..error },
        }
    }
    Err(last)
}

/// What the reply to EHLO offers, with what only the opening of a connection has use for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Offer {
    capabilities: Capabilities,
    starttls: bool,
    plain: bool,
    login: bool,
}

/// EHLO, or HELO where the smarthost refuses that for good (RFC 5321 §3.2).
async fn hello(wire: &mut Wire, to: &Smarthost) -> Result<Offer, OpenError> {
    let mut response = within(Phase::Ehlo, to, wire.command(&format!("EHLO {}\r\n", to.helo))).await?;
    let mut offer = Offer::default();
    if reply::from_response(&response).is_permanent() {
        let helo = format!("HELO {}\r\n", to.helo);
        response = within(Phase::Ehlo, to, wire.command(&helo)).await?;
    } else {
        offer = Offer::parse(&response);
    }
    expect(Phase::Ehlo, OpenErrorKind::Refused, 250, &response)?;
    Ok(offer)
}

/// STARTTLS (RFC 3207), where `tls` and the offer want it. What was offered before it is forgotten.
async fn upgrade(mut wire: Wire, offer: Offer, to: &Smarthost, tls: TlsMode) -> Result<(Wire, Offer), OpenError> {
    let required = tls == TlsMode::Required;
    if !offer.starttls {
        let missing = OpenError::new(Phase::Tls, OpenErrorKind::Tls, "the smarthost does not offer STARTTLS");
        return if required { Err(missing) } else { Ok((wire, offer)) };
    }
    let response = within(Phase::Tls, to, wire.command("STARTTLS\r\n")).await?;
    let reply = reply::from_response(&response);
    if !required && reply.code / 100 >= 4 && reply.code != 421 {
        return Ok((wire, offer));
    }
    expect(Phase::Tls, OpenErrorKind::Tls, 220, &response)?;
    if !wire.is_drained() {
        return Err(OpenError::new(Phase::Tls, OpenErrorKind::Protocol, "plaintext after the reply to STARTTLS"));
    }
    let mut wire = encrypt(wire, to).await?;
    let offer = hello(&mut wire, to).await?;
    Ok((wire, offer))
}

async fn encrypt(wire: Wire, to: &Smarthost) -> Result<Wire, OpenError> {
    let handshake = wire.start_tls(to.tls_config.clone().into(), &to.host);
    match timeout(to.timeouts.connect, handshake).await {
        Ok(Ok(wire)) => Ok(wire),
        Ok(Err(error)) => Err(OpenError::new(Phase::Tls, OpenErrorKind::Tls, error.to_string())),
        Err(_) => Err(OpenError::new(
            Phase::Tls,
            OpenErrorKind::Tls,
            format!("no handshake within {:?}", to.timeouts.connect),
        )),
    }
}

/// Gives lettre the session. It insists on a banner and an EHLO of its own; both are played to it, so that the
/// smarthost is not asked twice and a smarthost with HELO alone will do.
async fn hand_over(wire: Wire, offer: &Offer) -> Result<(AsyncSmtpConnection, Stream), OpenError> {
    let auth = match (offer.plain, offer.login) {
        (true, true) => "250-smarthost\r\n250 AUTH PLAIN LOGIN\r\n",
        (true, false) => "250-smarthost\r\n250 AUTH PLAIN\r\n",
        (false, true) => "250-smarthost\r\n250 AUTH LOGIN\r\n",
        (false, false) => "250 smarthost\r\n",
    };
    let stream = Stream::new(wire);
    stream.mute(&format!("220 smarthost\r\n{auth}"));
    let name = ClientId::Domain("relay".to_owned());
    let smtp = AsyncSmtpConnection::connect_with_transport(Box::new(stream.clone()), &name)
        .await
        .map_err(|error| OpenError::new(Phase::Ehlo, OpenErrorKind::Protocol, error.to_string()))?;
    stream.unmute();
    Ok((smtp, stream))
}

impl Offer {
    /// The first line is the smarthost's name; keywords count in any case (RFC 5321 §4.1.1.1).
    fn parse(response: &Response) -> Self {
        let mut offer = Self::default();
        let capabilities = &mut offer.capabilities;
        for line in response.message().skip(1) {
            let mut words = line.split_ascii_whitespace();
            match words.next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "PIPELINING" => capabilities.pipelining = true,
                "SIZE" => capabilities.size = Some(words.next().and_then(|limit| limit.parse().ok()).unwrap_or(0)),
                "8BITMIME" => capabilities.eight_bit_mime = true,
                "SMTPUTF8" => capabilities.smtputf8 = true,
                "DSN" => capabilities.dsn = true,
                "STARTTLS" => offer.starttls = true,
                "AUTH" => {
                    for mechanism in words {
                        offer.plain |= mechanism.eq_ignore_ascii_case("PLAIN");
                        offer.login |= mechanism.eq_ignore_ascii_case("LOGIN");
                    }
                }
                _ => {}
            }
        }
        offer
    }
}

/// Runs a step that reads or writes, within its time-out.
async fn within<T>(phase: Phase, to: &Smarthost, step: impl Future<Output = io::Result<T>>) -> Result<T, OpenError> {
    let limit = to.timeouts.of(phase);
    match timeout(limit, step).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            let garbage = error.kind() == io::ErrorKind::InvalidData;
            let kind = if garbage { OpenErrorKind::Protocol } else { OpenErrorKind::Network };
            Err(OpenError::new(phase, kind, error.to_string()))
        }
        Err(_) => Err(OpenError::timed_out(phase, limit)),
    }
}

/// Takes a reply for an error of `kind` if it refuses, and for out of step if it is anything else but `code`.
fn expect(phase: Phase, kind: OpenErrorKind, code: u16, response: &Response) -> Result<(), OpenError> {
    let reply = reply::from_response(response);
    if reply.code == code {
        Ok(())
    } else if response.is_positive() {
        Err(OpenError {
            text: format!("unexpected reply: {reply}"),
            ..OpenError::refused(phase, OpenErrorKind::Protocol, reply)
        })
    } else {
        Err(OpenError::refused(phase, kind, reply))
    }
}

impl OpenError {
    fn new(phase: Phase, kind: OpenErrorKind, text: impl Into<String>) -> Self {
        Self { phase, kind, reply: None, text: text.into() }
    }

    /// Nothing more is opened, since the server stops.
    pub(super) fn stopping() -> Self {
        Self::new(Phase::Connect, OpenErrorKind::Stopping, "the server stops")
    }

    fn refused(phase: Phase, kind: OpenErrorKind, reply: Reply) -> Self {
        Self { phase, kind, text: reply.to_string(), reply: Some(reply) }
    }

    fn timed_out(phase: Phase, limit: Duration) -> Self {
        Self::new(phase, OpenErrorKind::Timeout, format!("no answer within {limit:?}"))
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.phase, self.text)
    }
}

impl std::error::Error for OpenError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers() {
        let none = Capabilities::default();
        let table: &[(&str, Offer)] = &[
            ("250 mx.example.com PIPELINING\r\n", Offer::default()),
            (
                "250-PIPELINING\r\n250 DSN\r\n",
                Offer { capabilities: Capabilities { dsn: true, ..none }, ..Offer::default() },
            ),
            (
                "250-x\r\n250-pipelining\r\n250-Size 1000\r\n250-8bitmime\r\n250-SMTPUTF8\r\n250-STARTTLS\r\n\
                 250 auth cram-md5 plain LOGIN\r\n",
                Offer {
                    capabilities: Capabilities {
                        pipelining: true,
                        size: Some(1000),
                        eight_bit_mime: true,
                        smtputf8: true,
                        dsn: false,
                    },
                    starttls: true,
                    plain: true,
                    login: true,
                },
            ),
            (
                "250-x\r\n250-SIZE\r\n250 \r\n",
                Offer { capabilities: Capabilities { size: Some(0), ..none }, ..Offer::default() },
            ),
        ];
        for (wire, want) in table {
            assert_eq!(&Offer::parse(&wire.parse().unwrap()), want, "{wire:?}");
        }
    }
}
