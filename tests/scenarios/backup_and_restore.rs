//! A relay that is lost is made again from its backup: links that were sent go on working, domains and keys are there.

use crate::common::{Client, Setup, Smarthost, get, html, links, trackpost};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

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

#[test]
fn a_restore_that_is_refused_leaves_nothing_behind() {
    let smarthost = Smarthost::start();
    // An absolute data folder, which is still there.
    let elsewhere = tempfile::tempdir().unwrap();
    let data = elsewhere.path().join("data");
    let mut relay = Setup::new(smarthost.address).with("data_dir", &format!("{data:?}")).start();
    relay.track_example_com();
    let archive = relay.folder().join("saved.tar");
    relay.ok(&["backup", archive.to_str().unwrap()]);
    relay.stop();

    let place = tempfile::tempdir().unwrap();
    let config = place.path().join("trackpost.toml");
    let restore = |more: &[&str]| {
        let words = ["restore", archive.to_str().unwrap(), "--config", config.to_str().unwrap()];
        trackpost(&[&words[..], more].concat())
    };
    for _ in 0..2 {
        let refused = restore(&[]);
        assert!(refused.code == Some(1) && refused.stderr.contains("keys is there already"), "{refused:?}");
        assert!(refused.stderr.contains("--data-dir"), "{refused:?}");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "nothing was written");
    }
    // Where the folder cannot be made, nothing is left either.
    fs::write(place.path().join("file"), "").unwrap();
    let blocked = place.path().join("file/data");
    let refused = restore(&["--data-dir", blocked.to_str().unwrap()]);
    assert!(refused.code == Some(1) && !config.exists(), "{refused:?}");

    let new = place.path().join("deep/new");
    let done = restore(&["--data-dir", new.to_str().unwrap()]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains(&format!("data_dir = {new:?}\n")), "{text}");
    let mut left: Vec<_> = fs::read_dir(&new).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["keys", "log"]);
    // The server starts on it, beside the old folder.
    fs::copy(&config, relay.folder().join("trackpost.toml")).unwrap();
    relay.start();
    assert_eq!(relay.json(&["domain", "list"])[0]["tracking"], "opens and clicks, by links.example.com");
    assert!(new.join("store").exists());
    relay.stop();
}

#[test]
fn a_restore_that_was_cut_short_is_done_again() {
    let smarthost = Smarthost::start();
    let mut relay = Setup::new(smarthost.address).start();
    let archive = relay.folder().join("saved.tar");
    relay.ok(&["backup", archive.to_str().unwrap()]);
    relay.stop();
    let place = tempfile::tempdir().unwrap();
    let config = place.path().join("trackpost.toml");
    // As a crash leaves it: the file is there, and of the data a beginning.
    fs::copy(relay.folder().join("trackpost.toml"), &config).unwrap();
    fs::create_dir_all(place.path().join("data/restore.new/keys")).unwrap();
    fs::write(place.path().join("data/restore.new/keys/half"), "").unwrap();
    let done = trackpost(&["restore", archive.to_str().unwrap(), "--config", config.to_str().unwrap()]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(!place.path().join("data/restore.new").exists() && !place.path().join("data/keys/half").exists());
}

#[test]
fn a_backup_goes_through_a_pipe() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    let file = relay.folder().join("saved.tar");
    let program = env!("CARGO_BIN_EXE_trackpost");
    let config = relay.folder().join("trackpost.toml");
    let backup = Command::new(program).arg("--config").arg(&config).args(["backup", "-"]).output().unwrap();
    assert!(backup.status.success());
    assert!(String::from_utf8_lossy(&backup.stderr).contains("keys"), "{backup:?}");
    relay.ok(&["backup", file.to_str().unwrap()]);
    assert_eq!(backup.stdout.len(), fs::read(&file).unwrap().len(), "the archive, and nothing else");

    let place = tempfile::tempdir().unwrap();
    let config = place.path().join("trackpost.toml");
    let mut restore = Command::new(program)
        .arg("--config")
        .arg(&config)
        .args(["restore", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    restore.stdin.take().unwrap().write_all(&backup.stdout).unwrap();
    assert!(restore.wait_with_output().unwrap().status.success());
    assert!(config.exists() && place.path().join("data/keys").exists());
}
