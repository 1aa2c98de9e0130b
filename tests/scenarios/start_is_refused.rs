//! What keeps the server from starting is named.

use crate::common::{Certificate, Client, Setup, Smarthost, plain, trackpost};
use std::fs;
use std::net::TcpListener;

#[test]
fn a_second_server_on_the_same_folder() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    let second = relay.run(&["serve"]);
    assert_eq!((second.code, &*second.stdout), (Some(1), ""));
    let folder = relay.data_dir();
    assert!(second.stderr.contains(folder.to_str().unwrap()), "{}", second.stderr);
    assert!(second.stderr.contains("in use by another process"), "{}", second.stderr);
    // The first one has come to no harm.
    relay.ok(&["domain", "list", "--json"]);
    Client::greeted(relay.smtp()).send("a@example.com", &["b@example.net"], &plain("example.com", "still"));
    smarthost.wait_for_text("still");
}

#[test]
fn an_address_in_use() {
    let smarthost = Smarthost::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (key, value) in [("listener.address", format!("\"{address}\"")), ("tracking.http", format!("[\"{address}\"]"))]
    {
        let ran = Setup::new(smarthost.address).with(key, &value).fails();
        assert_eq!(ran.code, Some(1));
        assert!(ran.stderr.contains(&format!("cannot listen on {address}")), "{key}: {}", ran.stderr);
    }
}

#[test]
fn a_configuration_with_faults_all_of_which_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    let text = "hostname = \"relay.example.net\"\nunknown_domains = \"maybe\"\n\n[smarthost]\n\
                address = \"mail.example\"\ntsl = \"none\"\n\n[queue]\nretry = []\n";
    fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();
    for command in ["serve", "check"] {
        let ran = trackpost(&[command, "--config", path]);
        assert_eq!((ran.code, &*ran.stdout), (Some(1), ""), "{}", ran.stderr);
        for fault in [":2: unknown_domains", ":5: smarthost.address", ":6: smarthost.tsl", ":9: queue.retry"] {
            assert!(ran.stderr.contains(&format!("{path}{fault}")), "{fault} in {}", ran.stderr);
        }
        assert_eq!(ran.stderr.lines().count(), 4, "{}", ran.stderr);
    }
    assert!(!folder.path().join("data").exists(), "nothing was touched");
    let missing = trackpost(&["serve", "--config", folder.path().join("none.toml").to_str().unwrap()]);
    assert!(missing.code == Some(1) && missing.stderr.contains("none.toml"), "{missing:?}");
}

#[test]
fn a_certificate_that_does_not_go_with_its_key() {
    let smarthost = Smarthost::start();
    let ((one, _), (other, _)) = (Certificate::new(), Certificate::new());
    let folder = one.used_by(Setup::new(smarthost.address).with("listener.tls", "\"starttls\""));
    let mixed = folder.with("smtp.key_file", &format!("\"{}\"", other.path("key.pem").display()));
    let ran = mixed.fails();
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("key.pem: does not go with"), "{}", ran.stderr);
}
