//! Addresses of recipients and of who clicked lie in the data folder: nobody but its owner reads them, whatever the umask
//! of whoever starts the program.

use crate::common::{Client, Setup, Smarthost, get, html, links};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What others may do to what lies in a folder, the folder included.
fn open_to_others(path: &Path, found: &mut Vec<String>) {
    let meta = fs::symlink_metadata(path).unwrap();
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        found.push(format!("{} {mode:o}", path.display()));
    }
    if meta.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| open_to_others(&entry.unwrap().path(), found));
    }
}

#[test]
fn everything_in_the_data_folder() {
    // SAFETY: a plain system call. It is what most systems have, for all tests in this process.
    unsafe { libc::umask(0o022) };
    let smarthost = Smarthost::start();
    let mut relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    let message = html("tracked", &["https://example.net/"]);
    let id = Client::greeted(relay.smtp()).send("news@example.com", &["ada@example.net"], &message);
    let link = links(&smarthost.wait_for_text(&id).body).remove(0);
    assert_eq!(get(relay.web(), &link).status, 302);
    relay.wait_for_events("email.clicked", 1);
    let found = |relay: &crate::common::Relay| {
        let mut found = Vec::new();
        open_to_others(&relay.data_dir(), &mut found);
        found
    };
    assert!(relay.data_dir().join("admin.sock").exists() && relay.data_dir().join("store/db").exists());
    assert_eq!(found(&relay), [""; 0]);
    // As an earlier version left them.
    relay.stop();
    for (name, mode) in [("", 0o755), ("store", 0o755), ("store/db", 0o644), ("log", 0o755)] {
        fs::set_permissions(relay.data_dir().join(name), Permissions::from_mode(mode)).unwrap();
    }
    relay.start();
    relay.wait_for_log("others could read");
    assert_eq!(found(&relay), [""; 0]);
}
