//! Secrets in files of their own under `DATA_DIR/keys` (0600), apart from log and store: they alone decide whether
//! links that were sent go on working, so they are what a backup must hold.
//!
//! Token keys are `token-ID.key`: 32 bytes as 64 hex digits. The highest id signs, all verify for ever. Those of DKIM are
//! opened by [`DkimKeys`]. `privacy.key`, written as they are, is what opt-outs are hashed with.

mod dkim;
mod file;

pub use dkim::{BadDkimKey, DkimKeys, DkimSigningKey, NewDkimKey};

use crate::privacy::PrivacyKey;
use crate::token::{Signer, TokenKey, Verifier};
use arc_swap::ArcSwap;
use file::{Existing, Turn, private_stamp, read_private};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folder of the keys.
#[derive(Clone, Debug)]
pub struct Keys {
    dir: PathBuf,
}

/// Why keys cannot be used. Always the operator's to mend; the text names the file.
#[derive(Debug)]
pub enum KeyError {
    Io(PathBuf, io::Error),
    /// Others than the owner may read the file.
    Exposed(PathBuf, u32),
    Malformed(PathBuf),
    /// It holds no DKIM key that can be used, for this reason.
    BadDkim(PathBuf, String),
    /// It holds another DKIM key than the one whose public half the domain shows.
    OtherDkim(PathBuf),
    /// All 256 ids of token keys are taken.
    Exhausted,
    /// The file is gone that opt-outs were hashed with.
    NoPrivacyKey(PathBuf),
}

impl Keys {
    /// Opens the folder and makes it, with a first token key, where there is none.
    pub fn open(data_dir: &Path) -> Result<(Self, Vec<TokenKey>), KeyError> {
        let keys = Self { dir: data_dir.join("keys") };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&keys.dir)
            .map_err(|e| KeyError::Io(keys.dir.clone(), e))?;
        let turn = keys.turn()?;
        turn.remove_unfinished()?;
        let mut tokens = keys.token_keys()?;
        if tokens.is_empty() {
            tokens.push(keys.new_token_key(&turn)?);
        }
        drop(turn);
        Ok((keys, tokens))
    }

    /// Files of a data folder's keys that others than their owner may read; none where there is no folder yet.
    pub fn exposed(data_dir: &Path) -> Result<Vec<KeyError>, KeyError> {
        let dir = data_dir.join("keys");
        let failed = |e| KeyError::Io(dir.clone(), e);
        let entries = match fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if let Err(exposed @ KeyError::Exposed(..)) = private_stamp(&path)
                && path.is_file()
            {
                found.push(exposed);
            }
        }
        found.sort_by_cached_key(ToString::to_string);
        Ok(found)
    }

    /// All token keys, by id.
    pub fn token_keys(&self) -> Result<Vec<TokenKey>, KeyError> {
        let mut found = Vec::new();
        let entries = fs::read_dir(&self.dir).map_err(|e| KeyError::Io(self.dir.clone(), e))?;
        for entry in entries {
            let path = entry.map_err(|e| KeyError::Io(self.dir.clone(), e))?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
            let Some(id) = name.strip_prefix("token-").and_then(|n| n.strip_suffix(".key")) else { continue };
            let id = id.parse::<u8>().map_err(|_| KeyError::Malformed(path.clone()))?;
            found.push(TokenKey { id, secret: read_secret(&path)? });
        }
        found.sort_by_key(|key| key.id);
        Ok(found)
    }

    /// One change of the folder at a time, whoever makes it.
    fn turn(&self) -> Result<Turn, KeyError> {
        Turn::take(&self.dir)
    }

    /// Adds a token key, with which all links are signed from now on; the earlier ones go on verifying.
    fn new_token_key(&self, turn: &Turn) -> Result<TokenKey, KeyError> {
        let id = match self.token_keys()?.last() {
            Some(newest) => newest.id.checked_add(1).ok_or(KeyError::Exhausted)?,
            None => 1,
        };
        let secret = new_secret(turn, &self.dir.join(format!("token-{id}.key")))?;
        Ok(TokenKey { id, secret })
    }

    /// The key that opt-outs are hashed with. Made where there is none, but not while there are opt-outs (`needed`):
    /// another key would forget them all.
    pub fn privacy_key(&self, needed: bool) -> Result<PrivacyKey, KeyError> {
        let path = self.dir.join("privacy.key");
        let turn = self.turn()?;
        let secret = match read_secret(&path) {
            Err(KeyError::Io(path, e)) if e.kind() == io::ErrorKind::NotFound => match needed {
                true => return Err(KeyError::NoPrivacyKey(path)),
                false => new_secret(&turn, &path)?,
            },
            read => read?,
        };
        Ok(PrivacyKey::new(&secret))
    }
}

/// Files beside the token keys: certificates with their keys, the account at the CA, keys that sign mail. One file each,
/// so that none is ever half new.
impl Keys {
    /// The names of the files that begin with `prefix`, without it, and end with `suffix`, without that.
    pub fn names(&self, prefix: &str, suffix: &str) -> Result<Vec<String>, KeyError> {
        let failed = |e| KeyError::Io(self.dir.clone(), e);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_str().and_then(|n| n.strip_prefix(prefix)?.strip_suffix(suffix));
            names.extend(name.map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// The contents of a file; nothing where it is not there. Refused where others than the owner may read it.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, KeyError> {
        let path = self.dir.join(name);
        match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(KeyError::Io(path, e)),
            Ok(meta) if meta.mode() & 0o077 != 0 => return Err(KeyError::Exposed(path, meta.mode() & 0o777)),
            Ok(_) => {}
        }
        fs::read(&path).map(Some).map_err(|e| KeyError::Io(path, e))
    }

    /// Where the file of this name is, or would be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Whether [`Self::write`] could put a file of some kilobytes there; the error is the one that it would meet.
    pub fn probe(&self, name: &str) -> Result<(), KeyError> {
        const SIZE: usize = 16 * 1024;
        let path = self.dir.join(name);
        file::try_out(&path, &[0; SIZE]).map_err(|e| KeyError::Io(path, e))
    }

    /// Puts a file there, whole or not at all, for its owner's eyes alone; in place of one that is there.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), KeyError> {
        self.turn()?.write(&self.dir.join(name), bytes, Existing::Replaced)
    }

    /// The same, but a file that is there stays, and is the error.
    pub fn write_new(&self, name: &str, bytes: &[u8]) -> Result<(), KeyError> {
        self.turn()?.write(&self.dir.join(name), bytes, Existing::Refused)
    }

    /// Takes a file away.
    pub fn remove(&self, name: &str) -> Result<(), KeyError> {
        let path = self.dir.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(KeyError::Io(path, e)),
            _ => Ok(()),
        }
    }
}

/// The token keys in use: who signs, who verifies. Shared by delivery and the tracking host.
#[derive(Clone)]
pub struct TokenRing {
    pub keys: Keys,
    pub signer: Arc<ArcSwap<Signer>>,
    pub verifier: Arc<ArcSwap<Verifier>>,
}

impl TokenRing {
    /// Opens the keys of a data folder, and makes the first where there is none.
    pub fn open(data_dir: &Path) -> Result<Self, KeyError> {
        let (keys, tokens) = Keys::open(data_dir)?;
        let newest = tokens.last().ok_or(KeyError::Exhausted)?;
        let signer = Arc::new(ArcSwap::from_pointee(Signer::new(newest)));
        let verifier = Arc::new(ArcSwap::from_pointee(Verifier::new(&tokens)));
        Ok(Self { keys, signer, verifier })
    }

    /// Adds a key on disk, then signs with it. Returns its id.
    ///
    /// What signs is what the disk gives back, with the turn held until it signs: of two rotations at once the later
    /// one signs last, and no link is ever signed with a secret that a restart would not find.
    pub fn rotate(&self) -> Result<u8, KeyError> {
        let turn = self.keys.turn()?;
        let made = self.keys.new_token_key(&turn)?;
        let all = self.keys.token_keys()?;
        let newest = all.last().filter(|newest| newest.id == made.id && newest.secret == made.secret);
        let newest = newest.ok_or_else(|| KeyError::Malformed(self.keys.path(&format!("token-{}.key", made.id))))?;
        self.verifier.store(Arc::new(Verifier::new(&all)));
        self.signer.store(Arc::new(Signer::new(newest)));
        Ok(newest.id)
    }
}

fn new_secret(turn: &Turn, path: &Path) -> Result<[u8; 32], KeyError> {
    let failed = |e| KeyError::Io(path.to_owned(), e);
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|e| failed(io::Error::other(e.to_string())))?;
    let text: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    turn.write(path, text.as_bytes(), Existing::Refused)?;
    Ok(secret)
}

fn read_secret(path: &Path) -> Result<[u8; 32], KeyError> {
    let text = read_private(path)?;
    let text = text.trim_ascii();
    let malformed = || KeyError::Malformed(path.to_owned());
    if text.len() != 64 || !text.is_ascii() {
        return Err(malformed());
    }
    let mut secret = [0; 32];
    for (byte, digits) in secret.iter_mut().zip(text.chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| malformed())?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| malformed())?;
    }
    Ok(secret)
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, e) => write!(f, "{}: {e}", path.display()),
            Self::Exposed(path, mode) => {
                write!(f, "{}: mode {mode:04o} lets others read this key; chmod 600 it", path.display())
            }
            Self::Malformed(path) => write!(f, "{}: not a key file: 64 hex digits are expected", path.display()),
            Self::BadDkim(path, why) => write!(f, "{}: no DKIM key that can be used: {why}", path.display()),
            Self::OtherDkim(path) => {
                write!(f, "{}: it is not the DKIM key whose public half the domain shows", path.display())
            }
            Self::NoPrivacyKey(path) => write!(
                f,
                "{}: it is gone, and without it nobody knows who has opted out of tracking or was erased: bring it back \
                 from a backup",
                path.display()
            ),
            Self::Exhausted => f.write_str("all 256 token key ids are in use"),
        }
    }
}

impl std::error::Error for KeyError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_made_once_rotated_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let (keys, first) = Keys::open(dir.path()).unwrap();
        assert_eq!(first.len(), 1);
        let second = keys.new_token_key(&keys.turn().unwrap()).unwrap();
        let (_, both) = Keys::open(dir.path()).unwrap();
        assert_eq!(both.iter().map(|k| k.id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((both[0].secret, both[1].secret), (first[0].secret, second.secret));
        assert_ne!(first[0].secret, second.secret);
    }

    #[test]
    fn of_rotations_at_once_each_makes_a_key_that_the_disk_has() {
        for _ in 0..40 {
            let dir = tempfile::tempdir().unwrap();
            let ring = TokenRing::open(dir.path()).unwrap();
            let both = std::sync::Barrier::new(2);
            let rotate = || {
                both.wait();
                ring.rotate().unwrap()
            };
            let mut ids =
                std::thread::scope(|scope| [scope.spawn(rotate), scope.spawn(rotate)].map(|t| t.join().unwrap()));
            ids.sort_unstable();
            assert_eq!(ids, [2, 3]);
            let after = TokenRing::open(dir.path()).unwrap();
            let proof = |ring: &TokenRing| ring.signer.load().probe("links.example.com", "nonce");
            assert_eq!(proof(&ring), proof(&after), "a restart signs with the same secret");
        }
    }

    #[test]
    fn a_key_is_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let (keys, _) = Keys::open(dir.path()).unwrap();
        keys.write_new("acme-account.json", b"first").unwrap();
        let why = keys.write_new("acme-account.json", b"second").unwrap_err();
        assert!(matches!(&why, KeyError::Io(_, e) if e.kind() == io::ErrorKind::AlreadyExists), "{why}");
        assert_eq!(keys.read("acme-account.json").unwrap().as_deref(), Some(&b"first"[..]));
        keys.write("acme-account.json", b"third").unwrap();
        assert_eq!(keys.read("acme-account.json").unwrap().as_deref(), Some(&b"third"[..]));
        assert_eq!(fs::read_dir(dir.path().join("keys")).unwrap().count(), 2, "nothing unfinished stays");
    }

    #[test]
    fn what_a_crash_left_unfinished_goes_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        Keys::open(dir.path()).unwrap();
        let left = dir.path().join("keys/.unfinished-abc");
        fs::write(&left, "half").unwrap();
        Keys::open(dir.path()).unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn the_privacy_key_is_made_once_and_missed_when_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let (keys, _) = Keys::open(dir.path()).unwrap();
        assert!(matches!(keys.privacy_key(true), Err(KeyError::NoPrivacyKey(_))));
        let ada = crate::mail::Address::parse("ada@example.net").unwrap();
        let made = keys.privacy_key(false).unwrap().opt_out(None, &ada);
        for needed in [true, false] {
            assert_eq!(keys.privacy_key(needed).unwrap().opt_out(None, &ada), made);
        }
        let path = dir.path().join("keys/privacy.key");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::write(&path, "xyz").unwrap();
        assert!(matches!(keys.privacy_key(false), Err(KeyError::Malformed(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(keys.privacy_key(false), Err(KeyError::Exposed(..))));
    }

    #[test]
    fn a_privacy_key_and_a_first_token_key_made_at_once_are_one() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let at_once = std::sync::Barrier::new(4);
            let ada = crate::mail::Address::parse("ada@example.net").unwrap();
            let make = || {
                at_once.wait();
                let ring = TokenRing::open(dir.path()).unwrap();
                let hash = ring.keys.privacy_key(false).unwrap().opt_out(None, &ada);
                (hash, ring.signer.load().probe("links.example.com", "nonce"))
            };
            let made: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let after = TokenRing::open(dir.path()).unwrap();
            let kept = after.keys.privacy_key(true).unwrap().opt_out(None, &ada);
            let kept = (kept, after.signer.load().probe("links.example.com", "nonce"));
            assert!(made.iter().all(|own| *own == kept), "all work with what is on disk");
        }
    }

    #[test]
    fn a_probe_meets_what_writing_would_meet() {
        let dir = tempfile::tempdir().unwrap();
        let (keys, _) = Keys::open(dir.path()).unwrap();
        keys.probe("cert-a.example.com.pem").unwrap();
        assert_eq!(fs::read_dir(dir.path().join("keys")).unwrap().count(), 1);
        keys.write("cert-a.example.com.pem", b"x").unwrap();
        keys.probe("cert-a.example.com.pem").unwrap();
        assert_eq!(keys.read("cert-a.example.com.pem").unwrap().as_deref(), Some(&b"x"[..]));
        fs::create_dir(keys.path("cert-b.example.com.pem")).unwrap();
        for name in ["cert-b.example.com.pem", &format!("cert-{}.pem", "c".repeat(250))] {
            assert!(keys.write(name, b"x").is_err());
            assert!(keys.probe(name).is_err(), "{name}");
        }
    }

    #[test]
    fn exposed_and_malformed_keys_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (keys, _) = Keys::open(dir.path()).unwrap();
        let path = dir.path().join("keys/token-1.key");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(keys.token_keys(), Err(KeyError::Exposed(_, 0o644))));
        assert!(matches!(&Keys::exposed(dir.path()).unwrap()[..], [KeyError::Exposed(of, 0o644)] if *of == path));
        assert!(Keys::exposed(&dir.path().join("none")).unwrap().is_empty());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Keys::exposed(dir.path()).unwrap().is_empty());
        fs::write(&path, "xyz").unwrap();
        assert!(matches!(keys.token_keys(), Err(KeyError::Malformed(_))));
    }
}
