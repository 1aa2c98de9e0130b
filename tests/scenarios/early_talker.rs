//! A client that speaks before it is greeted is no mail server.

use crate::common::{Client, Setup, Smarthost};

#[test]
fn it_is_refused_before_the_banner() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    // The server is held still until the words are there, so that they are early without doubt.
    relay.hold_still();
    let mut early: Vec<_> = (0..3).map(|_| Client::connect(relay.smtp())).collect();
    early.iter_mut().for_each(|client| client.write("EHLO app.example.com\r\nMAIL FROM:<a@example.com>\r\n"));
    relay.signal(libc::SIGCONT);
    for client in &mut early {
        let reply = client.reply();
        assert!(reply.starts_with("554 5.5.0 "), "{reply}");
        assert!(client.is_closed());
    }
    assert!(Client::connect(relay.smtp()).reply().starts_with("220 "));
}
