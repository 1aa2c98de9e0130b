//! The private keys of DKIM: RSA, as PKCS#8 in PEM. Owns: making them, taking in those that people bring, and signing
//! with them. Where they lie is [`DkimKeys`]' to know; which one signs is the settings' to say.
//!
//! ring cannot make RSA keys and the `rsa` crate is not what should sign with them, so each does what it is good at.

mod folder;

pub use folder::DkimKeys;

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
use std::fmt;
use std::io;

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

fn open_pem(pem: &[u8]) -> Result<DkimSigningKey, String> {
    let der = PrivateKeyDer::from_pem_slice(pem).map_err(|e| e.to_string())?;
    RsaKey::from_key_der(der).map(DkimSigningKey).map_err(|e| e.to_string())
}

impl DkimSigningKey {
    /// Whether this is its public half: SubjectPublicKeyInfo in base64, where the RSA key stands last (RFC 5280 §4.1).
    fn belongs_to(&self, public: &str) -> bool {
        STANDARD.decode(public).is_ok_and(|public| public.ends_with(&self.0.public_key()))
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use rsa::BoxedUint;
    use rsa::pkcs1::EncodeRsaPrivateKey;
    use std::sync::LazyLock;

    /// Making keys takes its time, so the tests share one.
    pub(super) static KEY: LazyLock<PrivateKey> = LazyLock::new(|| PrivateKey::new(&mut SystemDice, BITS).unwrap());

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
