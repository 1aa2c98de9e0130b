//! Connecting, greeting, TLS and AUTH.

use super::*;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use std::io::Write;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

const STARTTLS: &str = "S: 220 mx.test\nC: EHLO relay.test\nS: 250-mx.test\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\n";
const QUIT: &str = "C: QUIT\nS: 221 bye\n";

#[tokio::test]
async fn failures() {
    use OpenErrorKind::{Network, Protocol, Refused, Timeout, Tls};
    use TlsMode::{Implicit, Opportunistic, Required};
    let none = TlsMode::None;
    let timeouts = Timeouts { greeting: SHORT, ehlo: SHORT, connect: SHORT, ..Timeouts::default() };
    let ehlo = "S: 220 mx.test\nC: EHLO relay.test\n";
    let starttls = format!("{ehlo}S: 250-mx.test\nS: 250 STARTTLS\nC: STARTTLS\n");
    let table: &[(TlsMode, String, Phase, OpenErrorKind, Option<u16>)] = &[
        (none, "S: 554 go away\n".to_owned(), Phase::Greeting, Refused, Some(554)),
        (none, "S: 421 later\n".to_owned(), Phase::Greeting, Refused, Some(421)),
        (none, "S: 250 hello\n".to_owned(), Phase::Greeting, Protocol, Some(250)),
        (none, "S: SSH-2.0\n".to_owned(), Phase::Greeting, Protocol, None),
        (none, "X: hang".to_owned(), Phase::Greeting, Timeout, None),
        (none, String::new(), Phase::Greeting, Network, None),
        (none, "S: 220 mx.test\nS: 250 early\nX: hang".to_owned(), Phase::Ehlo, Protocol, None),
        (none, format!("{ehlo}X: hang"), Phase::Ehlo, Timeout, None),
        (none, format!("{ehlo}R: 250-mx\nX: hang"), Phase::Ehlo, Timeout, None),
        (none, format!("{ehlo}S: 451 later\n"), Phase::Ehlo, Refused, Some(451)),
        (none, format!("{ehlo}S: 502 what\nC: HELO relay.test\nS: 550 no\n"), Phase::Ehlo, Refused, Some(550)),
        (Implicit, "X: hang".to_owned(), Phase::Tls, Tls, None),
        (Implicit, "S: 220 plain\n".to_owned(), Phase::Tls, Tls, None),
        (Required, format!("{ehlo}S: 250 mx.test\n"), Phase::Tls, Tls, None),
        (Required, format!("{starttls}S: 454 no\n"), Phase::Tls, Tls, Some(454)),
        (Required, format!("{starttls}X: hang"), Phase::Tls, Timeout, None),
        (Required, format!("{starttls}S: 220 go\nS: 250 injected\nX: hang"), Phase::Tls, Protocol, None),
        (Opportunistic, format!("{starttls}S: 220 go\nS: 250 injected\nX: hang"), Phase::Tls, Protocol, None),
    ];
    for (tls, script, phase, kind, code) in table {
        let (to, task) = smarthost(std::slice::from_ref(script)).await;
        let error = Connection::open(&Smarthost { tls: *tls, timeouts, ..to }).await.expect_err(script);
        assert_eq!((error.phase, error.kind), (*phase, *kind), "{script}: {error}");
        assert_eq!(error.reply.map(|reply| reply.code), *code, "{script}");
        task.await.unwrap();
    }

    let (listener, to) = listen().await;
    drop(listener);
    let error = Connection::open(&to).await.unwrap_err();
    assert_eq!((error.phase, error.kind), (Phase::Connect, Network), "{error}");
    let error = Connection::open(&Smarthost { helo: "a\r\nRSET".to_owned(), ..to }).await.unwrap_err();
    assert_eq!(error.kind, OpenErrorKind::Setting);
}

#[tokio::test]
async fn helo_where_ehlo_is_refused() {
    let hello = "S: 220 mx.test\nC: EHLO relay.test\nS: 502 what\nC: HELO relay.test\nS: 250 mx.test\n";
    let (to, task) = smarthost(&[format!("{hello}{QUIT}")]).await;
    let connection = Connection::open(&to).await.unwrap();
    assert_eq!(connection.capabilities(), &Capabilities::default());
    connection.quit().await;
    task.await.unwrap();
}

#[tokio::test]
async fn authentication() {
    let plain = "C: AUTH PLAIN AGFubgBzZWNyZXQ=\n";
    let login = "C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: YW5u\nS: 334 UGFzc3dvcmQ6\nC: c2VjcmV0\n";
    let no = "S: 535 5.7.8 wrong\n";
    // What is offered, the dialogue, and the error with its reply.
    let table: &[(&str, String, Option<Option<u16>>)] = &[
        ("S: 250 AUTH PLAIN LOGIN\n", format!("{plain}S: 235 Ok\n"), None),
        ("S: 250 auth login\n", format!("{login}S: 235 Ok\n"), None),
        ("S: 250 AUTH PLAIN\n", format!("{plain}{no}"), Some(Some(535))),
        ("S: 250 AUTH LOGIN\n", format!("{login}{no}{QUIT}"), Some(Some(535))),
        ("S: 250 AUTH PLAIN\n", format!("{plain}S: 454 4.7.0 later\n"), Some(Some(454))),
        ("S: 250 AUTH CRAM-MD5\n", String::new(), Some(None)),
        ("S: 250 PIPELINING\n", String::new(), Some(None)),
    ];
    for (offer, dialogue, want) in table {
        let hello = "S: 220 mx.test\nC: EHLO relay.test\nS: 250-mx.test\n";
        let (to, task) = smarthost(&[format!("{hello}{offer}{dialogue}X: hang")]).await;
        let credentials = Some(Credentials { username: "ann".to_owned(), password: "secret".to_owned() });
        let result = Connection::open(&Smarthost { credentials, ..to }).await;
        let error = result.err().map(|error| {
            assert_eq!((error.phase, error.kind), (Phase::Auth, OpenErrorKind::Authentication), "{error}");
            error.reply.map(|reply| reply.code)
        });
        assert_eq!(error, *want, "{offer}{dialogue}");
        task.await.unwrap();
    }
}

/// A smarthost's certificate for 127.0.0.1, which is its own root, and the same as a PEM file.
fn certificate() -> (TlsAcceptor, tempfile::NamedTempFile) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(made.cert.pem().as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (Arc::new(config).into(), file)
}

/// Plays `before` in plaintext, does the handshake, and where that succeeds plays `after`.
async fn play_tls(mut socket: TcpStream, acceptor: &TlsAcceptor, before: &str, after: &str) {
    play(&mut socket, before).await;
    if let Ok(mut stream) = acceptor.accept(socket).await {
        play(&mut stream, after).await;
    }
}

#[tokio::test]
async fn mail_over_tls() {
    let (acceptor, root) = certificate();
    let dialogue = format!("{GROUP_OF_ONE}S: 250 Ok\nS: 250 Ok\nS: 354 go\n{BODY}S: 250 Ok\n{QUIT}");
    let encrypted = "C: EHLO relay.test\nS: 250-mx.test\nS: 250 PIPELINING\n";
    let implicit = format!("S: 220 mx.test\n{encrypted}");
    let table = [
        (TlsMode::Implicit, true, "", implicit.as_str()),
        (TlsMode::Required, true, STARTTLS, encrypted),
        (TlsMode::Opportunistic, false, STARTTLS, encrypted),
    ];
    for (tls, verify, before, hello) in table {
        let (listener, to) = listen().await;
        let tls_config = Arc::new(client_tls(Some(root.path()), verify).unwrap());
        let server = async {
            let socket = listener.accept().await.unwrap().0;
            play_tls(socket, &acceptor, before, &format!("{hello}{dialogue}")).await;
        };
        let client = async {
            let mut connection = Connection::open(&Smarthost { tls, tls_config, ..to }).await.unwrap();
            assert!(connection.capabilities().pipelining, "offered only over TLS");
            assert_eq!(codes(&send(&mut connection, 1, MESSAGE).await.unwrap()), [250], "{tls:?}");
            assert!(connection.is_fit(), "{tls:?}");
            connection.quit().await;
        };
        tokio::join!(server, client);
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_believed() {
    let (acceptor, _) = certificate();
    let (_, other_root) = certificate();
    for (tls, before) in [(TlsMode::Implicit, ""), (TlsMode::Required, STARTTLS)] {
        let (listener, to) = listen().await;
        let tls_config = Arc::new(client_tls(Some(other_root.path()), true).unwrap());
        let server = async { play_tls(listener.accept().await.unwrap().0, &acceptor, before, "").await };
        let to = Smarthost { tls, tls_config, ..to };
        let ((), result) = tokio::join!(server, Connection::open(&to));
        let error = result.unwrap_err();
        assert_eq!((error.phase, error.kind), (Phase::Tls, OpenErrorKind::Tls), "{error}");
    }
}

#[tokio::test]
async fn opportunistic_tls_falls_back() {
    let refused = |reply| STARTTLS.replace("220 go", reply);
    let table = [
        // Not offered; refused on the same connection; refused with a close; a handshake that fails.
        vec![format!("{PLAIN}{QUIT}")],
        vec![format!("{}{QUIT}", refused("454 no"))],
        vec![refused("421 no"), format!("{PLAIN}{QUIT}")],
        vec![STARTTLS.to_owned(), format!("{PLAIN}{QUIT}")],
    ];
    for scripts in table {
        let (to, task) = smarthost(&scripts).await;
        let connection = Connection::open(&Smarthost { tls: TlsMode::Opportunistic, ..to }).await.unwrap();
        connection.quit().await;
        task.await.unwrap();
    }
}
