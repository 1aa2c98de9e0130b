//! SIGHUP: what may change while mail flows is in force for the next message.

use crate::common::{Certificate, Client, Setup, Smarthost, plain, until};
use std::fs;

#[test]
fn mail_goes_to_the_new_smarthost_also_while_it_flows() {
    let (old, new) = (Smarthost::start(), Smarthost::start());
    let relay = Setup::new(old.address).start();
    let mut client = Client::greeted(relay.smtp());
    client.send("a@example.com", &["b@example.net"], &plain("example.com", "before"));
    old.wait_for_text("before");
    let file = relay.folder().join("trackpost.toml");
    let text = fs::read_to_string(&file).unwrap().replace(&old.address.to_string(), &new.address.to_string());
    fs::write(&file, &text).unwrap();
    relay.signal(libc::SIGHUP);
    relay.wait_for_log("was reloaded");
    // The connection to the old one is still open, and would do.
    for n in 0..3 {
        client.send("a@example.com", &["b@example.net"], &plain("example.com", &format!("after{n}")));
        new.wait_for_text(&format!("after{n}"));
    }
    assert_eq!(old.messages().len(), 1);
}

#[test]
fn a_bad_file_leaves_the_old_settings_in_force_and_says_why() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    let file = relay.folder().join("trackpost.toml");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replace("retry = [\"1s\"]", "retry = \"never\"")).unwrap();
    relay.signal(libc::SIGHUP);
    relay.wait_for_log("what was in force stays in force");
    assert_eq!(relay.logged("queue.retry").len(), 1);
    let mut client = Client::greeted(relay.smtp());
    client.send("a@example.com", &["b@example.net"], &plain("example.com", "still"));
    smarthost.wait_for_text("still");
    fs::write(&file, good.replace("[smarthost]", "[smtp]\nmax_recipients = 1\n[smarthost]")).unwrap();
    relay.signal(libc::SIGHUP);
    relay.wait_for_log("was reloaded");
    // Sessions go on with what they began with.
    until("new terms", || {
        let mut client = Client::greeted(relay.smtp());
        client.expect("MAIL FROM:<a@example.com>", "250 ");
        client.expect("RCPT TO:<b@example.net>", "250 ");
        client.ask("RCPT TO:<c@example.net>").starts_with("452 4.5.3").then_some(())
    });
}

/// TLS needs a restart, whatever the file says in between: nothing is offered that cannot be done.
#[test]
fn tls_is_not_turned_on_while_it_listens() {
    let smarthost = Smarthost::start();
    let (certificate, _) = Certificate::new();
    let relay = certificate.used_by(Setup::new(smarthost.address)).start();
    let file = relay.folder().join("trackpost.toml");
    let text = fs::read_to_string(&file).unwrap().replace("[[smtp.listener]]", "[[smtp.listener]]\ntls = \"starttls\"");
    fs::write(&file, text).unwrap();
    let named = fs::read_to_string(&file).unwrap().replace("relay.example.net\"", "new.example.net\"");
    fs::write(&file, named).unwrap();
    for turn in 1..=2 {
        relay.signal(libc::SIGHUP);
        until("the reload", || (relay.logged("only after a restart: hostname, ").len() == turn).then_some(()));
        assert_eq!(relay.logged("smtp.listener.tls").len(), turn);
        let mut client = Client::connect(relay.smtp());
        assert!(client.reply().starts_with("220 relay.example.net "));
        let offer = client.ask("EHLO app.example.com");
        assert!(!offer.contains("STARTTLS"), "{offer}");
        client.expect("STARTTLS", "502 5.5.1 ");
        client.send("a@example.com", &["b@example.net"], &plain("example.com", &format!("turn{turn}")));
        smarthost.wait_for_text(&format!("turn{turn}"));
    }
}
