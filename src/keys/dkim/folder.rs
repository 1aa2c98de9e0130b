//! Where the private keys of DKIM lie: `dkim-DOMAIN-SELECTOR.key`, one each. A hyphen inside a selector is an underscore
//! in the file's name, so that no two keys share one.
//!
//! A key never goes over another one of its selector, since the settings name that until they are on disk with the new
//! one. It lies in `new-dkim-DIGEST.key` meanwhile, from where it signs as well, and is moved once they are.

use super::super::KeyError;
use super::super::file::{Existing, Stamp, Turn, private_stamp, read_private};
use super::{DkimSigningKey, NewDkimKey, open_pem};
use crate::domain::Selector;
use crate::mail::DomainName;
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fmt;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// Before the digest in the name of a key that has not its place yet.
const BEGUN: &str = "new-dkim-";

impl DkimKeys {
    /// The keys of a data folder. Nothing is read yet: one bad file is one domain's affair.
    pub fn new(data_dir: &Path) -> Self {
        Self { dir: data_dir.join("keys"), open: Mutex::default() }
    }

    fn path(&self, domain: &DomainName, selector: &Selector) -> PathBuf {
        self.dir.join(format!("dkim-{domain}-{}.key", selector.as_str().replace('-', "_")))
    }

    /// Where a key lies while another file has its place. Both names together would be too long for a file's.
    fn begun(&self, domain: &DomainName, selector: &Selector, public: &str) -> PathBuf {
        let digest = Sha256::digest(format!("{domain} {selector} {public}"));
        let mut name = BEGUN.to_owned();
        digest[..16].iter().for_each(|byte| write!(name, "{byte:02x}").expect("a string takes all"));
        self.dir.join(name + ".key")
    }

    /// Puts a key on disk. Another file that has its place stays there until [`Self::settle`].
    pub fn keep(&self, domain: &DomainName, selector: &Selector, key: &NewDkimKey) -> Result<(), KeyError> {
        let turn = Turn::take(&self.dir)?;
        let (place, bytes) = (self.path(domain, selector), key.pem.as_bytes());
        match turn.write(&place, bytes, Existing::Refused) {
            Err(KeyError::Io(_, e)) if e.kind() == io::ErrorKind::AlreadyExists => {}
            done => return done,
        }
        match read_private(&place) {
            Ok(there) if there == bytes => Ok(()),
            // What has this name is this very key, or was.
            _ => turn.write(&self.begun(domain, selector, &key.public), bytes, Existing::Replaced),
        }
    }

    /// Moves a key to its place where it is not there yet. For the key of that selector which the settings have on disk:
    /// what has its place so far is lost.
    pub fn settle(&self, domain: &DomainName, selector: &Selector, public: &str) -> Result<(), KeyError> {
        let turn = Turn::take(&self.dir)?;
        let begun = self.begun(domain, selector, public);
        if !is_there(&begun) {
            return Ok(());
        }
        read_key(&begun, public)?;
        let mut open = self.opened();
        open.remove(&begun);
        turn.rename(&begun, &self.path(domain, selector))
    }

    /// Takes a key from the disk; one that is not there is none the less gone. Another one of its selector stays.
    pub fn remove(&self, domain: &DomainName, selector: &Selector, public: &str) -> Result<(), KeyError> {
        let _turn = Turn::take(&self.dir)?;
        let place = self.path(domain, selector);
        let is_anothers = matches!(read_key(&place, public), Err(KeyError::OtherDkim(_)));
        let own = [self.begun(domain, selector, public)].into_iter().chain((!is_anothers).then_some(place));
        for path in own {
            self.opened().remove(&path);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(KeyError::Io(path, e)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes the keys from the disk whose domain is not one of these: what a crash has left there, as the settings let go
    /// of a key first. Returns their files. One that cannot be removed stays, and is no more than litter.
    pub fn sweep(&self, is_known: impl Fn(&DomainName) -> bool) -> io::Result<Vec<PathBuf>> {
        let is_unknown = |path: &PathBuf| name_of(path).and_then(domain_of).is_some_and(|of| !is_known(&of));
        Ok(self.files()?.into_iter().filter(is_unknown).filter(|path| fs::remove_file(path).is_ok()).collect())
    }

    /// After a crash: moves those of all keys to their places that lie elsewhere, and takes away what is there of keys
    /// that the settings never named. Returns the files that were taken away.
    pub fn settle_all<'a>(
        &self,
        keys: impl Iterator<Item = (&'a DomainName, &'a Selector, &'a str)>,
    ) -> io::Result<Vec<PathBuf>> {
        let is_begun = |path: &PathBuf| name_of(path).is_some_and(|name| name.starts_with(BEGUN));
        let mut begun: BTreeSet<_> = self.files()?.into_iter().filter(is_begun).collect();
        if begun.is_empty() {
            return Ok(Vec::new());
        }
        for (domain, selector, public) in keys {
            if begun.remove(&self.begun(domain, selector, public))
                && let Err(e) = self.settle(domain, selector, public)
            {
                tracing::warn!(%domain, "a DKIM key stays where it was made: {e}");
            }
        }
        Ok(begun.into_iter().filter(|path| fs::remove_file(path).is_ok()).collect())
    }

    fn files(&self) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn opened(&self) -> MutexGuard<'_, HashMap<PathBuf, Opened>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key to sign with. It must be the one whose public half the settings have, or nobody could verify. Its file
    /// is looked at each time, so that what is said of a key is what a restart would find.
    pub fn open(
        &self,
        domain: &DomainName,
        selector: &Selector,
        public: &str,
    ) -> Result<Arc<DkimSigningKey>, KeyError> {
        // Held throughout, so that no file is moved meanwhile.
        let mut open = self.opened();
        let in_place = open_at(&mut open, self.path(domain, selector), public);
        if in_place.is_ok() {
            return in_place;
        }
        let begun = self.begun(domain, selector, public);
        if is_there(&begun) { open_at(&mut open, begun, public) } else { in_place }
    }
}

fn open_at(open: &mut HashMap<PathBuf, Opened>, path: PathBuf, public: &str) -> Result<Arc<DkimSigningKey>, KeyError> {
    let stamp = private_stamp(&path).inspect_err(|_| drop(open.remove(&path)))?;
    if let Some(opened) = open.get(&path)
        && opened.public == public
        && opened.stamp == stamp
    {
        return Ok(Arc::clone(&opened.key));
    }
    let key = Arc::new(read_key(&path, public)?);
    open.insert(path, Opened { public: public.to_owned(), stamp, key: Arc::clone(&key) });
    Ok(key)
}

fn read_key(path: &Path, public: &str) -> Result<DkimSigningKey, KeyError> {
    let key = open_pem(&read_private(path)?).map_err(|why| KeyError::BadDkim(path.to_owned(), why))?;
    if key.belongs_to(public) { Ok(key) } else { Err(KeyError::OtherDkim(path.to_owned())) }
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn name_of(path: &Path) -> Option<&str> {
    path.file_name().and_then(OsStr::to_str)
}

/// Whose key is in a file of this name; nobody's in one of another form.
fn domain_of(file: &str) -> Option<DomainName> {
    // A selector has no hyphen here.
    let (domain, selector) = file.strip_prefix("dkim-")?.strip_suffix(".key")?.rsplit_once('-')?;
    Selector::parse(&selector.replace('_', "-")).ok()?;
    DomainName::parse(domain).ok()
}

impl fmt::Debug for DkimKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DkimKeys").field("dir", &self.dir).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::KEY;
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::sync::LazyLock;

    static OTHER: LazyLock<NewDkimKey> = LazyLock::new(|| NewDkimKey::generate().unwrap());

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
        let second = &*OTHER;
        // Both sign until the settings have decided.
        keys.keep(&domain, &selector, second).unwrap();
        keys.keep(&domain, &selector, second).unwrap();
        assert_eq!(keys.files().unwrap().len(), 2);
        keys.open(&domain, &selector, &first.public).unwrap();
        keys.open(&domain, &selector, &second.public).unwrap();
        for _ in 0..2 {
            keys.settle(&domain, &selector, &second.public).unwrap();
            keys.open(&domain, &selector, &second.public).unwrap();
            let why = keys.open(&domain, &selector, &first.public).unwrap_err();
            assert!(matches!(why, KeyError::OtherDkim(_)), "{why}");
            assert_eq!(&keys.files().unwrap()[..], std::slice::from_ref(&path));
        }
        keys.remove(&domain, &selector, &first.public).unwrap();
        keys.open(&domain, &selector, &second.public).unwrap();
        keys.remove(&domain, &selector, &second.public).unwrap();
        keys.remove(&domain, &selector, &second.public).unwrap();
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
        keys.keep(&domain, &selector, &OTHER).unwrap();
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
    fn after_a_crash_keys_have_their_places_and_others_are_gone() {
        let (dir, keys) = folder();
        let (domain, selector) = (name("example.com"), selector("trackpost"));
        let first = NewDkimKey::of(&KEY).unwrap();
        keys.keep(&domain, &selector, &first).unwrap();
        keys.keep(&domain, &selector, &OTHER).unwrap();
        let begun = keys.begun(&domain, &selector, &OTHER.public);
        // Before the settings had it: the one before it is as it was.
        let known = [(&domain, &selector, &first.public[..])];
        assert_eq!(keys.settle_all(known.into_iter()).unwrap(), [begun]);
        keys.open(&domain, &selector, &first.public).unwrap();
        // After.
        keys.keep(&domain, &selector, &OTHER).unwrap();
        let known = [(&domain, &selector, &OTHER.public[..])];
        assert_eq!(keys.settle_all(known.into_iter()).unwrap(), Vec::<PathBuf>::new());
        keys.open(&domain, &selector, &OTHER.public).unwrap();
        assert_eq!(keys.files().unwrap(), [dir.path().join("keys/dkim-example.com-trackpost.key")]);
    }

    #[test]
    fn a_broken_file_is_replaced_by_the_same_key() {
        let (_dir, keys) = folder();
        let (domain, selector) = (name("example.com"), selector("trackpost"));
        let new = NewDkimKey::of(&KEY).unwrap();
        for mode in [0o600, 0o644] {
            let path = keys.path(&domain, &selector);
            fs::write(&path, "nothing").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            keys.keep(&domain, &selector, &new).unwrap();
            keys.settle(&domain, &selector, &new.public).unwrap();
            keys.open(&domain, &selector, &new.public).unwrap();
            assert_eq!(keys.files().unwrap(), [path]);
        }
    }

    #[test]
    fn of_keys_made_at_once_each_signs_as_long_as_the_settings_may_name_it() {
        let both = [NewDkimKey::of(&KEY).unwrap(), NewDkimKey::import(OTHER.pem.as_bytes()).unwrap()];
        for round in 0..20 {
            let (dir, keys) = folder();
            let (domain, selector) = (name("example.com"), selector("trackpost"));
            let at_once = std::sync::Barrier::new(8);
            // Half of them through another opening of the folder, as another program has it.
            let other = DkimKeys::new(dir.path());
            std::thread::scope(|scope| {
                for n in 0..8 {
                    let (keys, new) = (if n % 4 < 2 { &keys } else { &other }, &both[n % 2]);
                    let (at_once, domain, selector) = (&at_once, &domain, &selector);
                    scope.spawn(move || {
                        at_once.wait();
                        keys.keep(domain, selector, new).unwrap();
                        keys.open(domain, selector, &new.public).unwrap();
                    });
                }
            });
            let (named, dropped) = (&both[round % 2], &both[(round + 1) % 2]);
            for new in &both {
                DkimKeys::new(dir.path()).open(&domain, &selector, &new.public).unwrap();
            }
            keys.settle(&domain, &selector, &named.public).unwrap();
            keys.remove(&domain, &selector, &dropped.public).unwrap();
            let signs = |keys: &DkimKeys| keys.open(&domain, &selector, &named.public).unwrap().sign(b"x").unwrap();
            assert_eq!(signs(&keys), signs(&DkimKeys::new(dir.path())), "a restart signs alike");
            assert_eq!(keys.files().unwrap(), [keys.path(&domain, &selector)]);
        }
    }
}
