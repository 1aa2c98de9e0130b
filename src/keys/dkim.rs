//! The private keys of DKIM: `dkim-DOMAIN-SELECTOR.key`, one RSA key each, as PKCS#8 in PEM. Owns: making them, taking
//! in those that people bring, and opening them for signing. Which one signs is the settings' to say.
//!
//! A hyphen inside a selector is an underscore in the file's name, so that no two keys share one.
//!
//! ring cannot make RSA keys and the `rsa` crate is not what should sign with them, so each does what it is good at.

use super::{Existing, KeyError, Stamp, Turn, private_stamp, read_private};
use crate::domain::Selector;
use crate::mail::DomainName;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail_auth::common::crypto::{RsaKey, Sha256, SigningKey};
use rsa::PrivateKey;
use rsa::pkcs1::DecodeRsaPrivateKey;
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use rsa::rand_core::{TryCryptoRng, TryRng};
use rsa::traits::PublicKeyParts;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Bits of a key that is made here: what every verifier takes (RFC 8301 §3.2), and what fits into a TXT record.
const BITS: usize = 2048;

/// A key that is not kept yet.
pub struct NewDkimKey {
    /// PKCS#8 in PEM.
    pem: String,
    /// SubjectPublicKeyInfo in base64, as the DNS record has it.
    pub public: String,
}

/// A key that signs.
pub struct DkimSigningKey(RsaKey<Sha256>);

/// The keys in their folder, each read once, and again when its file has changed.
pub struct DkimKeys {
    dir: PathBuf,
    open: Mutex<HashMap<PathBuf, Opened>>,
}

struct Opened {
    /// The public key under which it was opened.
    public: String,
    stamp: Stamp,
    key: Arc<DkimSigningKey>,
}

/// Why a key that somebody brought is not taken. Theirs to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadDkimKey {
    NotPem,
    Encrypted,
    NotRsa,
    TooShort(usize),
    TooLong(usize),
    /// The parts do not belong together, or the key is of a kind that nobody signs with.
    Unusable(String),
}

impl NewDkimKey {
    /// Makes a key. Takes some tenths of a second of the processor: not for a thread that others wait for.
    pub fn generate() -> io::Result<Self> {
        let key = PrivateKey::new(&mut SystemDice, BITS).map_err(|e| io::Error::other(e.to_string()))?;
        Self::of(&key).map_err(io::Error::other)
    }

    /// Takes a key as PKCS#8 or PKCS#1 in PEM, not encrypted.
    pub fn import(pem: &[u8]) -> Result<Self, BadDkimKey> {
        let holds = |text: &[u8]| memchr::memmem::find(pem, text).is_some();
        if holds(b"BEGIN ENCRYPTED PRIVATE KEY") || holds(b"Proc-Type: 4,ENCRYPTED") {
            return Err(BadDkimKey::Encrypted);
        }
        let key = match PrivateKeyDer::from_pem_slice(pem).map_err(|_| BadDkimKey::NotPem)? {
            PrivateKeyDer::Pkcs1(der) => {
                PrivateKey::from_pkcs1_der(der.secret_pkcs1_der()).map_err(|e| BadDkimKey::Unusable(e.to_string()))?
            }
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                let info = rsa::pkcs8::PrivateKeyInfoRef::try_from(der).map_err(|_| BadDkimKey::NotPem)?;
                if info.algorithm.oid != rsa::pkcs1::ALGORITHM_OID {
                    return Err(BadDkimKey::NotRsa);
                }
                PrivateKey::from_pkcs8_der(der).map_err(|e| BadDkimKey::Unusable(e.to_string()))?
            }
            _ => return Err(BadDkimKey::NotRsa),
        };
        match key.n().bit_width() as usize {
            bits if bits < BITS => return Err(BadDkimKey::TooShort(bits)),
            bits if bits > 2 * BITS => return Err(BadDkimKey::TooLong(bits)),
            _ => {}
        }
        let new = Self::of(&key).map_err(BadDkimKey::Unusable)?;
        // What signs has the last word: it takes no odd sizes and no small exponents.
        open_pem(new.pem.as_bytes()).map_err(BadDkimKey::Unusable)?;
        Ok(new)
    }

    fn of(key: &PrivateKey) -> Result<Self, String> {
        let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|e| e.to_string())?;
        let public = key.to_public_key().to_public_key_der().map_err(|e| e.to_string())?;
        Ok(Self { pem: pem.to_string(), public: STANDARD.encode(public.as_bytes()) })
    }
}

impl DkimKeys {
    /// The keys of a data folder. Nothing is read yet: one bad file is one domain's affair.
    pub fn new(data_dir: &Path) -> Self {
        Self { dir: data_dir.join("keys"), open: Mutex::default() }
    }

    fn path(&self, domain: &DomainName, selector: &Selector) -> PathBuf {
        self.dir.join(format!("dkim-{domain}-{}.key", selector.as_str().replace('-', "_")))
    }

    /// Puts a key on disk, in place of another one of that selector.
    pub fn keep(&self, domain: &DomainName, selector: &Selector, key: &NewDkimKey) -> Result<(), KeyError> {
        Turn::take(&self.dir)?.write(&self.path(domain, selector), key.pem.as_bytes(), Existing::Replaced)
    }

    /// Takes a key from the disk; one that is not there is none the less gone.
    pub fn remove(&self, domain: &DomainName, selector: &Selector) -> Result<(), KeyError> {
        let path = self.path(domain, selector);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&path);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(KeyError::Io(path, e)),
            _ => Ok(()),
        }
    }

    /// Takes the keys from the disk whose domain is not one of these: what a crash has left there, as the settings let go
    /// of a key first. Returns their files. One that cannot be removed stays, and is no more than litter.
    pub fn sweep(&self, is_known: impl Fn(&DomainName) -> bool) -> io::Result<Vec<PathBuf>> {
        let mut gone = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let is_unknown =
                path.file_name().and_then(OsStr::to_str).and_then(domain_of).is_some_and(|of| !is_known(&of));
            if is_unknown && fs::remove_file(&path).is_ok() {
                gone.push(path);
            }
        }
        Ok(gone)
    }

    /// The key to sign with. It must be the one whose public half the settings have, or nobody could verify. Its file
    /// is looked at each time, so that what is said of a key is what a restart would find.
    pub fn open(
        &self,
        domain: &DomainName,
        selector: &Selector,
        public: &str,
    ) -> Result<Arc<DkimSigningKey>, KeyError> {
        let path = self.path(domain, selector);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = private_stamp(&path).inspect_err(|_| drop(open.remove(&path)))?;
        if let Some(opened) = open.get(&path)
            && opened.public == public
            && opened.stamp == stamp
        {
            return Ok(Arc::clone(&opened.key));
        }
        let key = open_pem(&read_private(&path)?).map_err(|why| KeyError::BadDkim(path.clone(), why))?;
        // In a SubjectPublicKeyInfo the RSA key stands last (RFC 5280 §4.1).
        let belongs = STANDARD.decode(public).is_ok_and(|public| public.ends_with(&key.0.public_key()));
        if !belongs {
            return Err(KeyError::OtherDkim(path));
        }
        let key = Arc::new(key);
        open.insert(path, Opened { public: public.to_owned(), stamp, key: Arc::clone(&key) });
        Ok(key)
    }
}

/// Whose key is in a file of this name; nobody's in one of another form.
fn domain_of(file: &str) -> Option<DomainName> {
    // A selector has no hyphen here.
    let (domain, selector) = file.strip_prefix("dkim-")?.strip_suffix(".key")?.rsplit_once('-')?;
    Selector::parse(&selector.replace('_', "-")).ok()?;
    DomainName::parse(domain).ok()
}

fn open_pem(pem: &[u8]) -> Result<DkimSigningKey, String> {
    let der = PrivateKeyDer::from_pem_slice(pem).map_err(|e| e.to_string())?;
    RsaKey::from_key_der(der).map(DkimSigningKey).map_err(|e| e.to_string())
}

impl DkimSigningKey {
    /// RSASSA-PKCS1-v1_5 over the SHA-256 of `text` (RFC 6376 §3.3.1). Takes a millisecond and more.
    pub fn sign(&self, text: &[u8]) -> Result<Vec<u8>, String> {
        self.0.sign(text).map_err(|e| e.to_string())
    }
}

/// The system's random numbers, for making keys.
struct SystemDice;

impl TryRng for SystemDice {
    type Error = getrandom::Error;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        getrandom::u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        getrandom::u64()
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        getrandom::fill(out)
    }
}

impl TryCryptoRng for SystemDice {}

impl fmt::Display for BadDkimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPem => f.write_str("there is no private key in PEM form in it (PKCS#8 or PKCS#1)"),
            Self::Encrypted => f.write_str("the private key is encrypted: give it without its passphrase"),
            Self::NotRsa => f.write_str("the private key is not RSA"),
            Self::TooShort(bits) => write!(f, "the key has {bits} bits, and under {BITS} is too few"),
            Self::TooLong(bits) => write!(f, "the key has {bits} bits, and over {} is too many", 2 * BITS),
            Self::Unusable(why) => write!(f, "the key cannot be used: {why}"),
        }
    }
}

impl std::error::Error for BadDkimKey {}

impl fmt::Debug for NewDkimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewDkimKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl fmt::Debug for DkimSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DkimSigningKey").finish_non_exhaustive()
    }
}

impl fmt::Debug for DkimKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DkimKeys").field("dir", &self.dir).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rsa::BoxedUint;
    use rsa::pkcs1::EncodeRsaPrivateKey;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::sync::LazyLock;

    /// Making keys takes its time, so the tests share one.
    static KEY: LazyLock<PrivateKey> = LazyLock::new(|| PrivateKey::new(&mut SystemDice, BITS).unwrap());

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn selector(text: &str) -> Selector {
        Selector::parse(text).unwrap()
    }

    fn folder() -> (tempfile::TempDir, DkimKeys) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("keys")).unwrap();
        let keys = DkimKeys::new(dir.path());
        (dir, keys)
    }

    #[test]
    fn a_key_is_kept_opened_replaced_and_removed() {
        let (dir, keys) = folder();
        let (domain, selector) = (name("example.com"), selector("track-post"));
        let first = NewDkimKey::of(&KEY).unwrap();
        assert!(first.public.starts_with("MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A") && first.public.ends_with("IDAQAB"));
        keys.keep(&domain, &selector, &first).unwrap();
        let path = dir.path().join("keys/dkim-example.com-track_post.key");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(fs::read_to_string(&path).unwrap().starts_with("-----BEGIN PRIVATE KEY-----\n"));
        keys.open(&domain, &selector, &first.public).unwrap();
        let second = NewDkimKey::generate().unwrap();
        keys.keep(&domain, &selector, &second).unwrap();
        keys.open(&domain, &selector, &second.public).unwrap();
        let why = keys.open(&domain, &selector, &first.public).unwrap_err();
        assert!(matches!(why, KeyError::OtherDkim(_)), "{why}");
        keys.remove(&domain, &selector).unwrap();
        keys.remove(&domain, &selector).unwrap();
        let why = keys.open(&domain, &selector, &second.public).unwrap_err();
        assert!(matches!(why, KeyError::Io(..)) && !path.exists(), "{why}");
    }

    #[test]
    fn keys_of_domains_that_are_gone_are_swept() {
        let (dir, keys) = folder();
        let new = NewDkimKey::of(&KEY).unwrap();
        for (domain, text) in [("example.com", "track-post"), ("gone.example.com", "a.b-c"), ("x-y.test", "trackpost")]
        {
            keys.keep(&name(domain), &selector(text), &new).unwrap();
        }
        let others =
            ["active", "dkim-x.key", "dkim--.key", "dkim-gone.test-a.pem", "dkim-gone.test-a b.key", "token-1.key"];
        for other in others {
            fs::write(dir.path().join("keys").join(other), "x").unwrap();
        }
        let known = |domain: &DomainName| domain.as_str() == "example.com";
        let mut gone = keys.sweep(known).unwrap();
        gone.sort();
        let path = |file: &str| dir.path().join("keys").join(file);
        let want = ["dkim-gone.example.com-a.b_c.key", "dkim-x-y.test-trackpost.key"];
        assert_eq!(gone, want.map(path));
        assert!(want.iter().all(|file| !path(file).exists()) && others.iter().all(|file| path(file).exists()));
        keys.open(&name("example.com"), &selector("track-post"), &new.public).unwrap();
        assert_eq!(keys.sweep(known).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_file_that_others_read_or_that_is_no_key_is_refused() {
        let (dir, keys) = folder();
        let (domain, selector) = (name("example.com"), selector("trackpost"));
        let new = NewDkimKey::of(&KEY).unwrap();
        keys.keep(&domain, &selector, &new).unwrap();
        let path = dir.path().join("keys/dkim-example.com-trackpost.key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let why = keys.open(&domain, &selector, &new.public).unwrap_err().to_string();
        assert!(why.contains("trackpost.key: mode 0640 lets others read this key"), "{why}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for bad in ["", "xyz", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            fs::write(&path, bad).unwrap();
            let why = keys.open(&domain, &selector, &new.public).unwrap_err();
            assert!(matches!(why, KeyError::BadDkim(..)), "{bad:?} {why}");
        }
    }

    #[test]
    fn a_file_is_looked_at_again_while_its_key_is_in_use() {
        let (dir, keys) = folder();
        let (domain, selector) = (name("example.com"), selector("trackpost"));
        let new = NewDkimKey::of(&KEY).unwrap();
        keys.keep(&domain, &selector, &new).unwrap();
        let open = || keys.open(&domain, &selector, &new.public);
        let first = open().unwrap();
        assert!(Arc::ptr_eq(&first, &open().unwrap()), "it is not read again for nothing");
        let path = dir.path().join("keys/dkim-example.com-trackpost.key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(open(), Err(KeyError::Exposed(_, 0o644))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        open().unwrap();
        fs::remove_file(&path).unwrap();
        assert!(matches!(open(), Err(KeyError::Io(..))));
        keys.keep(&domain, &selector, &NewDkimKey::generate().unwrap()).unwrap();
        assert!(matches!(open(), Err(KeyError::OtherDkim(_))));
        keys.keep(&domain, &selector, &new).unwrap();
        open().unwrap();
    }

    #[test]
    fn no_two_keys_share_a_file() {
        let (_dir, keys) = folder();
        let path = |domain: &str, text: &str| keys.path(&name(domain), &selector(text));
        assert_ne!(path("example.com", "x-trackpost"), path("example.com-x", "trackpost"));
        assert_ne!(path("example.com", "a.b"), path("b.example.com", "a"));
    }

    #[test]
    fn keys_of_others() {
        let pkcs8 = KEY.to_pkcs8_pem(LineEnding::CRLF).unwrap();
        let pkcs1 = KEY.to_pkcs1_pem(LineEnding::LF).unwrap();
        let public = NewDkimKey::of(&KEY).unwrap().public;
        for pem in [pkcs8.to_string(), pkcs1.to_string(), format!("subject=x\n{}\ntrailer", pkcs1.as_str())] {
            let new = NewDkimKey::import(pem.as_bytes()).unwrap();
            assert_eq!(new.public, public);
            assert!(new.pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        }
    }

    #[test]
    fn keys_that_are_not_taken() {
        let short = PrivateKey::new(&mut SystemDice, 1024).unwrap().to_pkcs8_pem(LineEnding::LF).unwrap();
        let small = PrivateKey::new_with_exp(&mut SystemDice, BITS, BoxedUint::from(3u8)).unwrap();
        let small = small.to_pkcs8_pem(LineEnding::LF).unwrap();
        let public = KEY.to_public_key().to_public_key_pem(LineEnding::LF).unwrap();
        let broken = KEY.to_pkcs1_pem(LineEnding::LF).unwrap().replacen("MII", "AII", 1);
        let section = |label: &str, text: &str| format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n");
        let encrypted =
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"
                .to_owned();
        let table: Vec<(String, &str)> = vec![
            (String::new(), "no private key in PEM"),
            ("hello".into(), "no private key in PEM"),
            (public, "no private key in PEM"),
            (section("PRIVATE KEY", "AAAA"), "no private key in PEM"),
            (section("PRIVATE KEY", "!"), "no private key in PEM"),
            (section("ENCRYPTED PRIVATE KEY", "AAAA"), "is encrypted"),
            (encrypted, "is encrypted"),
            (section("EC PRIVATE KEY", "AAAA"), "is not RSA"),
            // RFC 8410 §10.3, an Ed25519 key of zeros.
            (section("PRIVATE KEY", "MC4CAQAwBQYDK2VwBCIEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), "is not RSA"),
            (short.to_string(), "1024 bits, and under 2048 is too few"),
            (small.to_string(), "cannot be used"),
            (broken, "cannot be used"),
        ];
        for (pem, want) in table {
            let why = NewDkimKey::import(pem.as_bytes()).unwrap_err().to_string();
            assert!(why.contains(want), "{want}: {why}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let new = NewDkimKey::of(&KEY).unwrap();
        assert!(!format!("{new:?}").contains("PRIVATE"));
    }
}
