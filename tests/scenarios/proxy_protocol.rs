//! Behind a load balancer that says who its clients are.

use crate::common::{Client, Setup, Smarthost, plain, until};

fn header(client: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(client);
    header.extend([127, 0, 0, 1, 0x30, 0x39, 0, 25]);
    header
}

fn setup(smarthost: &Smarthost, proxy: &str) -> Setup {
    Setup::new(smarthost.address)
        .with("listener.proxy_protocol", &format!("[\"{proxy}\"]"))
        .with("listener.trusted_networks", "[\"192.0.2.0/24\"]")
        .with("smtp.timeouts.handshake", "\"500ms\"")
}

#[test]
fn trust_is_about_the_client_that_the_proxy_names() {
    let smarthost = Smarthost::start();
    let relay = setup(&smarthost, "127.0.0.1").start();
    let mut client = Client::connect(relay.smtp());
    client.write(header([192, 0, 2, 7]));
    assert!(client.reply().starts_with("220 "));
    client.expect("EHLO app.example.com", "250-");
    client.send("a@example.com", &["b@example.net"], &plain("example.com", "through-the-proxy"));
    let arrived = smarthost.wait_for_text("through-the-proxy").text();
    assert!(arrived.starts_with("Received: from app.example.com ([192.0.2.7])"), "{arrived}");
    let mut stranger = Client::connect(relay.smtp());
    stranger.write(header([198, 51, 100, 7]));
    assert!(stranger.reply().starts_with("220 "));
    stranger.expect("EHLO app.example.com", "250-");
    stranger.expect("MAIL FROM:<a@example.com>", "550 5.7.1 ");
    // A health check is greeted, and trusted with nothing.
    let mut check = Client::connect(relay.smtp());
    check.write(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    assert!(check.reply().starts_with("220 "));
    check.expect("EHLO balancer.example.com", "250-");
    check.expect("MAIL FROM:<a@example.com>", "550 5.7.1 ");
}

#[test]
fn without_its_header_nothing_is_said() {
    let smarthost = Smarthost::start();
    let relay = setup(&smarthost, "127.0.0.1").start();
    let mut client = Client::connect(relay.smtp());
    client.write("EHLO app.example.com\r\nMAIL FROM:<a@example.com>\r\n");
    assert!(client.is_closed());
    // Nor to one that says nothing.
    let mut silent = Client::connect(relay.smtp());
    until("the silent one to be closed", || silent.is_closed().then_some(()));
    // The banner waits for the header, so talking behind it at once is talking early.
    let mut early = Client::connect(relay.smtp());
    early.write([&header([192, 0, 2, 7])[..], b"EHLO app.example.com\r\n"].concat());
    assert!(early.reply().starts_with("554 5.5.0 "));
}

#[test]
fn others_than_the_proxy_are_refused() {
    let smarthost = Smarthost::start();
    let relay = setup(&smarthost, "127.0.0.2").start();
    for claim in [&b""[..], &header([192, 0, 2, 7])] {
        let mut client = Client::connect(relay.smtp());
        client.write(claim);
        let reply = client.reply();
        assert!(reply.starts_with("554 5.7.1 "), "{reply}");
    }
}
