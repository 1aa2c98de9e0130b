//! A relay that is lost is made again from its backup: links that were sent go on working, domains and keys are there.

use crate::common::{Client, Setup, Smarthost, get, html, links, trackpost};
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn links_domains_and_keys_come_back() {
    let smarthost = Smarthost::start();
    let mut relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    relay.ok(&["key", "create", "--name", "app"]);
    relay.ok(&["key", "rotate"]);
    relay.ok(&["tracking", "off", "example.org"]);
    Client::greeted(relay.smtp()).send(
        "a@example.com",
        &["b@example.net"],
        &html("letter", &["https://example.com/offer"]),
    );
    let link = links(&smarthost.wait_for_text("letter").body).remove(0);
    let file = relay.folder().join("saved.tar");
    let saved = relay.ok(&["backup", file.to_str().unwrap()]);
    assert!(saved.contains("3 keys, 3 settings"), "{saved}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = relay.run(&["backup", file.to_str().unwrap()]);
    assert!(again.code == Some(1) && again.stderr.contains("saved.tar: it is there already"), "{again:?}");
    relay.stop();
    // Without a server it is the same.
    let cold = relay.folder().join("cold.tar");
    assert!(relay.ok(&["backup", cold.to_str().unwrap()]).contains("3 keys, 3 settings"));

    let refused = relay.run(&["restore", file.to_str().unwrap()]);
    assert!(refused.code == Some(1) && refused.stderr.contains("keys is there already"), "{refused:?}");
    for archive in [&file, &cold] {
        let elsewhere = tempfile::tempdir().unwrap();
        let config = elsewhere.path().join("trackpost.toml");
        let ran = trackpost(&["restore", archive.to_str().unwrap(), "--config", config.to_str().unwrap()]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(fs::read(&config).unwrap(), fs::read(relay.folder().join("trackpost.toml")).unwrap());
        fs::remove_dir_all(relay.data_dir()).unwrap();
        fs::rename(elsewhere.path().join("data"), relay.data_dir()).unwrap();
        relay.start();
        assert_eq!(relay.json(&["domain", "list"])[0]["tracking"], "opens and clicks, by links.example.com");
        assert_eq!(relay.json(&["key", "list"])[0]["name"], "app");
        let answer = get(relay.web(), &link);
        assert_eq!((answer.status, answer.header("Location")), (302, "https://example.com/offer"));
        relay.stop();
    }
}

#[test]
fn what_is_no_backup_is_named() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    let file = relay.folder().join("trackpost.toml");
    let other = relay.folder().join("new.toml");
    for archive in [file.to_str().unwrap(), "/nonexistent.tar"] {
        let ran = trackpost(&["restore", archive, "--config", other.to_str().unwrap()]);
        assert!(ran.code == Some(1) && ran.stderr.contains(archive), "{ran:?}");
        assert!(!other.exists());
    }
}
