//! Every bad configuration beside its faults: `fixtures/config/bad/NAME.toml` and `NAME.error`, in which `FILE` stands
//! for the path. Files that they point to lie in `fixtures/config/files`.
//!
//! `UPDATE=1 cargo test --test config` writes the errors anew, for a look at what changed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use trackpost::config::{Config, Fault};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn bad() -> PathBuf {
    root().join("fixtures/config/bad")
}

/// Names in the folder of bad files that end in `.EXTENSION`, without it.
fn names(extension: &str) -> BTreeSet<String> {
    let files = fs::read_dir(bad()).unwrap().map(|entry| entry.unwrap().path());
    let named = files.filter(|file| file.extension().is_some_and(|e| e == extension));
    named.map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

fn faults(file: &Path) -> Vec<Fault> {
    match Config::load(file) {
        Ok(_) => panic!("{} was accepted", file.display()),
        Err(faults) => faults,
    }
}

/// One fault a line, as `trackpost check` prints them.
fn shown(file: &Path) -> String {
    let text: String = faults(file).iter().map(|fault| format!("{fault}\n")).collect();
    text.replace(file.to_str().unwrap(), "FILE")
}

#[test]
fn every_bad_file_gives_exactly_its_faults() {
    let names = names("toml");
    assert!(names.len() >= 35);
    let mut wrong = String::new();
    for name in names {
        let got = shown(&bad().join(&name).with_extension("toml"));
        let error = bad().join(&name).with_extension("error");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&error, &got).unwrap();
        }
        let want = fs::read_to_string(&error).unwrap_or_default();
        if got != want {
            wrong += &format!("--- {name}: expected\n{want}--- got\n{got}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn no_fixture_is_without_its_partner() {
    assert_eq!(names("toml"), names("error"));
    let files = fs::read_dir(bad()).unwrap().count();
    assert_eq!(files, names("toml").len() + names("error").len(), "something else lies in {}", bad().display());
}

#[test]
fn ten_faults_are_named_at_once() {
    assert_eq!(faults(&bad().join("ten_at_once.toml")).len(), 10);
}

/// An unknown key is answered with those that are known: each stands in the commented file.
#[test]
fn the_commented_file_has_every_key() {
    let text = fs::read_to_string(root().join("config/trackpost.toml")).unwrap();
    let full: toml::Value = toml::from_str(&text).unwrap();
    let faults = faults(&bad().join("unknown_key_in_every_section.toml"));
    assert!(faults.len() >= 18);
    for fault in faults.iter().filter(|fault| !fault.key.contains("fallback")) {
        let path = fault.key.strip_suffix("colour").unwrap().split_terminator('.');
        let section = path.fold(&full, |at, key| match &at[key] {
            toml::Value::Array(sections) => &sections[0],
            section => section,
        });
        for key in fault.message.strip_prefix("unknown key; known here: ").unwrap().split(", ") {
            // It is there as a comment: a fallback needs an address.
            assert!(section.get(key).is_some() || key == "fallback", "{key} is missing beside {}", fault.key);
        }
    }
}

#[test]
fn a_file_that_is_not_there() {
    let file = root().join("config/nowhere.toml");
    assert_eq!(shown(&file), "FILE: cannot be read: No such file or directory (os error 2)\n");
}

#[test]
fn the_files_we_ship_load() {
    for name in ["config/trackpost.toml", "config/minimal.toml"] {
        let file = root().join(name);
        let config = Config::load(&file).unwrap_or_else(|faults| panic!("{faults:#?}"));
        assert_eq!(config.file, file);
    }
    let minimal = Config::load(&root().join("config/minimal.toml")).unwrap();
    assert_eq!(minimal.warnings, []);
    assert_eq!((&*minimal.smarthosts[0].host, minimal.smarthosts[0].port), ("smtp.example.com", 587));
}

#[test]
fn secrets_are_read_and_hidden() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trackpost.toml");
    fs::write(folder.path().join("password"), "open sesame\n").unwrap();
    let text = "[smarthost]\naddress = \"mail.example.com:587\"\nusername = \"relay\"\npassword_file = \"password\"\n";
    fs::write(&file, text).unwrap();
    let config = Config::load(&file).unwrap();
    let credentials = config.smarthosts[0].credentials.as_ref().unwrap();
    assert_eq!((&*credentials.username, credentials.password.reveal()), ("relay", "open sesame"));
    assert!(!format!("{config:?}").contains("sesame"));
    assert!(config.warnings.iter().any(|warning| warning.key == "smarthost.tls" && warning.line == Some(2)));
    assert_eq!(config.data_dir, folder.path().join("data"));
}

/// A credential is the service's alone: without it `serve` does not start, `check` says so, and commands do not care.
#[test]
fn credentials_outside_of_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trackpost.toml");
    let text =
        "hostname = \"relay.example.net\"\n[smarthost]\nusername = \"u\"\npassword_file = \"credential:smarthost\"\n";
    fs::write(&file, text).unwrap();
    let said = |faults: &[Fault]| faults.iter().map(ToString::to_string).collect::<Vec<_>>();
    let want = [format!(
        "{}:4: smarthost.password_file: \"credential:smarthost\" is there for the service alone, which systemd starts",
        file.display()
    )];
    assert_eq!(said(&Config::load(&file).unwrap_err()), want);
    assert_eq!(said(&Config::check(&file).unwrap().warnings), want);
    assert_eq!(said(&Config::load_alone(&file).unwrap().warnings), [""; 0]);
}
