//! Commands that need the running server say that there is none; wrong usage is told apart from failure.

use crate::common::{Ran, Setup, Smarthost, trackpost};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const COMMANDS: &[&[&str]] = &[
    &["domain", "add", "example.com"],
    &["domain", "list"],
    &["domain", "show", "example.com"],
    &["domain", "update", "example.com", "--open", "true"],
    &["domain", "remove", "example.com"],
    &["key", "create", "--name", "x"],
    &["key", "list"],
    &["key", "revoke", "x"],
    &["key", "rotate"],
    &["queue", "list"],
    &["queue", "show", "01900000-0000-7000-8000-000000000000"],
    &["kill", "add", "domain", "example.com"],
    &["kill", "remove", "link", "https://example.com/"],
    &["kill", "list"],
    &["recipient", "opt-out", "ada@example.net"],
    &["recipient", "opt-in", "ada@example.net", "--domain", "example.com"],
    &["tracking", "off"],
    &["tracking", "on", "example.com"],
    &["events", "tail"],
    &["events", "tail", "--follow"],
];

fn assert_all_say_so(run: impl Fn(&[&str]) -> Ran) {
    for command in COMMANDS {
        let ran = run(command);
        assert_eq!((ran.code, &*ran.stdout), (Some(1), ""), "{command:?}");
        assert!(ran.stderr.contains("no server answers on") && ran.stderr.contains("admin.sock"), "{}", ran.stderr);
    }
}

#[test]
fn they_say_so_before_the_first_start() {
    let smarthost = Smarthost::down();
    let setup = Setup::new(smarthost.address);
    let config = setup.write();
    assert_all_say_so(|command| trackpost(&[command, &["--config", config.to_str().unwrap()]].concat()));
    assert!(!config.parent().unwrap().join("data").exists(), "a command makes no folders");
}

#[test]
fn they_say_so_after_a_stop_and_after_a_kill() {
    let smarthost = Smarthost::down();
    let mut relay = Setup::new(smarthost.address).start();
    assert_eq!(fs::metadata(relay.data_dir().join("admin.sock")).unwrap().permissions().mode() & 0o777, 0o600);
    relay.stop();
    assert_all_say_so(|command| relay.run(command));
    relay.start();
    relay.kill();
    assert_all_say_so(|command| relay.run(command));
    // The socket that was left behind is no obstacle.
    relay.start();
    relay.ok(&["domain", "list", "--json"]);
}

#[test]
fn wrong_usage_is_2() {
    let table: &[&[&str]] = &[
        &[],
        &["fly"],
        &["domain"],
        &["domain", "add"],
        &["domain", "update", "example.com", "--open", "maybe"],
        &["key", "create"],
        &["key", "create", "--name", "x", "--permission", "all"],
        &["queue", "show"],
        &["kill", "add", "everything", "x"],
        &["kill", "add", "link"],
        &["recipient", "opt-out"],
        &["tracking"],
        &["events", "tail", "--limit", "many"],
        &["rewrite"],
        &["serve", "--nonsense"],
    ];
    for arguments in table {
        let ran = trackpost(arguments);
        assert_eq!((ran.code, &*ran.stdout), (Some(2), ""), "{arguments:?}: {}", ran.stderr);
        assert!(!ran.stderr.is_empty());
    }
    for arguments in [["--help"], ["--version"]] {
        let ran = trackpost(&arguments);
        assert!(ran.code == Some(0) && !ran.stdout.is_empty(), "{ran:?}");
    }
}

#[test]
fn check_says_that_there_is_no_fault() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/minimal.toml");
    let ran = trackpost(&["check", "--config", config.to_str().unwrap()]);
    assert!(ran.code == Some(0) && ran.stdout.contains("no faults"), "{ran:?}");
}
