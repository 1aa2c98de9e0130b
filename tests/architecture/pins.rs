//! The packages that tests bring from elsewhere are pinned by version and hash, and no file names a registry's host.

use std::fs;
use std::path::{Path, PathBuf};

fn files(name: &str) -> Vec<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let folders = fs::read_dir(tests).unwrap().map(|entry| entry.unwrap().path());
    folders.map(|folder| folder.join(name)).filter(|file| file.exists()).collect()
}

fn read(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    assert!(!text.contains("://") && !text.contains("index-url"), "{} names a host", file.display());
    text
}

#[test]
fn python_packages_are_pinned_by_hash() {
    let required = files("requirements.txt");
    assert!(required.len() >= 5, "{required:?}");
    for file in required.iter().chain(&files("build.txt")) {
        let text = read(file);
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
        assert!(lines.contains(&"--require-hashes") && lines.contains(&"--only-binary :all:"), "{}", file.display());
        let packages = lines.iter().enumerate().filter(|(_, line)| line.contains("=="));
        for (number, package) in packages {
            let next = lines.get(number + 1).copied().unwrap_or_default();
            assert!(
                package.ends_with(" \\") && next.starts_with("    --hash=sha256:"),
                "{}: {package}",
                file.display()
            );
        }
    }
}

#[test]
fn node_packages_are_pinned_by_hash() {
    let locks = files("package-lock.json");
    assert!(locks.len() >= 2, "{locks:?}");
    for file in locks {
        let lock: serde_json::Value = serde_json::from_str(&read(&file)).unwrap();
        for (name, package) in lock["packages"].as_object().unwrap() {
            let hashed = package["integrity"].as_str().is_some_and(|hash| hash.starts_with("sha512-"));
            assert!(name.is_empty() || hashed, "{}: {name}", file.display());
        }
    }
}
