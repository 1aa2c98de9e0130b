//! Recipients who have opted out of tracking, and those whom the history has to forget, kept as keyed hashes of their
//! addresses.
//!
//! Owns: how an address is hashed, and the set of hashes. No address can be read from it, and without the key none can
//! be guessed; so an opt-out may stay when everything else about its recipient is erased. The key is a file of its
//! own, which [`crate::keys`] reads.

use crate::mail::{Address, DomainName};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::collections::HashMap;
use std::fmt;
use uuid::Uuid;

/// The key of the hashes. HMAC-SHA256 (RFC 2104), its state kept for each use.
#[derive(Clone)]
pub struct PrivacyKey {
    opt_outs: Hmac<Sha256>,
    erasures: Hmac<Sha256>,
}

/// The keyed hash of an address that the history is to forget. It tells nothing about an opt-out of the same address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Erased([u8; 32]);

/// The keyed hash of an address, for mail of one sender domain or of all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OptOut([u8; 32]);

/// What is kept of an opt-out beside its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptedOut {
    /// Milliseconds since 1970.
    pub created_at: u64,
    /// The sender domain whose own key has made it, so that a customer can be held to a share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<Uuid>,
}

impl PrivacyKey {
    pub fn new(secret: &[u8; 32]) -> Self {
        let keyed: Hmac<Sha256> = Hmac::new_from_slice(secret).expect("HMAC takes keys of any length");
        let erasures = keyed.clone().chain_update("trackpost erasure 1\0");
        Self { opt_outs: keyed.chain_update("trackpost opt-out 1\0"), erasures }
    }

    /// The erasure of `address`; written in another way it is the same, as for opt-outs.
    pub fn erased(&self, address: &Address) -> Erased {
        Erased(addressed(self.erasures.clone(), address))
    }

    /// The opt-out of `address` from mail of `domain`, or of all domains. Case does not matter, nor how an
    /// internationalised domain is written.
    pub fn opt_out(&self, domain: Option<&DomainName>, address: &Address) -> OptOut {
        let scope = domain.map_or("", DomainName::as_str);
        OptOut(addressed(self.opt_outs.clone().chain_update(scope).chain_update([0]), address))
    }
}

fn addressed(mac: Hmac<Sha256>, address: &Address) -> [u8; 32] {
    let host = address.domain().map(|text| match DomainName::parse(text) {
        Ok(name) => name.to_string(),
        Err(_) => text.to_lowercase(),
    });
    let mac = mac.chain_update(address.local().to_lowercase()).chain_update("@");
    mac.chain_update(host.unwrap_or_default()).finalize().into_bytes().into()
}

/// 64 hex digits in lower case.
fn of_hex(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

impl Erased {
    /// What [`fmt::Display`] has written: 64 hex digits in lower case.
    pub fn parse(hex: &str) -> Option<Self> {
        of_hex(hex).map(Self)
    }
}

impl fmt::Display for Erased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Erased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl OptOut {
    /// What [`fmt::Display`] has written: 64 hex digits in lower case.
    pub fn parse(hex: &str) -> Option<Self> {
        of_hex(hex).map(Self)
    }

    /// A name to speak of it: a UUIDv8 (RFC 9562 §5.8) of the first bytes of the hash.
    pub fn id(&self) -> Uuid {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.0[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }
}

impl fmt::Display for OptOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for OptOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// All opt-outs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OptOuts {
    all: HashMap<OptOut, OptedOut>,
    /// How many a domain's own keys have made.
    of_customers: HashMap<Uuid, usize>,
}

impl OptOuts {
    /// Whether `address` has opted out of mail of `domain`, or of all. Costs nothing while nobody has, else two HMACs.
    pub fn hold(&self, key: &PrivacyKey, domain: Option<&DomainName>, address: &Address) -> bool {
        if self.all.is_empty() {
            return false;
        }
        let held = |scope| self.all.contains_key(&key.opt_out(scope, address));
        held(None) || domain.is_some_and(|domain| held(Some(domain)))
    }

    /// When it was given.
    pub fn get(&self, opt_out: &OptOut) -> Option<u64> {
        self.all.get(opt_out).map(|kept| kept.created_at)
    }

    pub fn insert(&mut self, opt_out: OptOut, kept: OptedOut) {
        self.remove(&opt_out);
        self.all.insert(opt_out, kept);
        if let Some(customer) = kept.customer {
            *self.of_customers.entry(customer).or_default() += 1;
        }
    }

    pub fn remove(&mut self, opt_out: &OptOut) {
        if let Some(customer) = self.all.remove(opt_out).and_then(|kept| kept.customer)
            && let Some(count) = self.of_customers.get_mut(&customer)
        {
            *count -= 1;
            if *count == 0 {
                self.of_customers.remove(&customer);
            }
        }
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many the own keys of this domain have made.
    pub fn of_customer(&self, domain: Uuid) -> usize {
        self.of_customers.get(&domain).copied().unwrap_or(0)
    }

    /// How many have been made by keys that are tied to domains.
    pub fn of_customers(&self) -> usize {
        self.of_customers.values().sum()
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (OptOut, OptedOut)> {
        self.all.iter().map(|(opt_out, kept)| (*opt_out, *kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    #[test]
    fn one_address_has_one_hash_however_it_is_written() {
        let key = PrivacyKey::new(&[7; 32]);
        let hash = |text: &str| key.opt_out(None, &address(text));
        for (one, other, same) in [
            ("ada@example.net", "Ada@EXAMPLE.net", true),
            ("Ünal@bücher.example", "ünal@XN--bcher-kva.example", true),
            ("ada@[192.0.2.1]", "ADA@[192.0.2.1]", true),
            ("postmaster", "Postmaster", true),
            ("ada@example.net", "ada@example.org", false),
            ("ada@example.net", "ada+news@example.net", false),
        ] {
            assert_eq!(hash(one) == hash(other), same, "{one} {other}");
        }
        let ada = address("ada@example.net");
        let of = |scope: &str| key.opt_out(Some(&name(scope)), &ada);
        assert_ne!(of("example.com"), of("example.org"));
        assert_ne!(of("example.com"), key.opt_out(None, &ada));
        assert_ne!(PrivacyKey::new(&[8; 32]).opt_out(None, &ada), key.opt_out(None, &ada));
        assert_eq!(key.erased(&ada), key.erased(&address("ADA@Example.net")));
        assert_eq!(Erased::parse(&key.erased(&ada).to_string()), Some(key.erased(&ada)));
        assert_ne!(key.erased(&ada).to_string(), key.opt_out(None, &ada).to_string());
    }

    #[test]
    fn it_is_read_back_from_its_digits() {
        let opt_out = PrivacyKey::new(&[7; 32]).opt_out(None, &address("ada@example.net"));
        let text = opt_out.to_string();
        assert_eq!(OptOut::parse(&text), Some(opt_out));
        assert_eq!((opt_out.id().get_version_num(), opt_out.id()), (8, OptOut::parse(&text).unwrap().id()));
        for bad in [&text[1..], &text.to_uppercase(), &format!("+{}", &text[1..]), ""] {
            assert_eq!(OptOut::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn who_has_opted_out_of_what() {
        let key = PrivacyKey::new(&[7; 32]);
        let (shop, other) = (name("shop.example"), name("other.example"));
        let mut all = OptOuts::default();
        assert!(!all.hold(&key, Some(&shop), &address("ada@example.net")));
        let at = |created_at| OptedOut { created_at, customer: None };
        all.insert(key.opt_out(None, &address("ada@example.net")), at(1));
        all.insert(key.opt_out(Some(&shop), &address("grace@example.net")), at(2));
        for (domain, who, want) in [
            (Some(&shop), "ADA@example.net", true),
            (None, "ada@example.net", true),
            (Some(&shop), "grace@example.net", true),
            (Some(&other), "grace@example.net", false),
            (None, "grace@example.net", false),
            (Some(&shop), "alan@example.net", false),
        ] {
            assert_eq!(all.hold(&key, domain, &address(who)), want, "{who} {domain:?}");
        }
        assert_eq!(all.get(&key.opt_out(Some(&shop), &address("grace@example.net"))), Some(2));
        all.remove(&key.opt_out(None, &address("ada@example.net")));
        assert!(!all.hold(&key, Some(&shop), &address("ada@example.net")));
    }

    #[test]
    fn whose_they_are_is_counted() {
        let key = PrivacyKey::new(&[7; 32]);
        let hash = |text: &str| key.opt_out(None, &address(text));
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let of = |customer| OptedOut { created_at: 1, customer };
        let mut all = OptOuts::default();
        for (who, customer) in [("a@a.test", Some(one)), ("b@a.test", Some(one)), ("c@a.test", None)] {
            all.insert(hash(who), of(customer));
        }
        assert_eq!((all.len(), all.of_customer(one), all.of_customer(other), all.of_customers()), (3, 2, 0, 2));
        // The same again, and as another's.
        all.insert(hash("a@a.test"), of(Some(one)));
        all.insert(hash("b@a.test"), of(Some(other)));
        assert_eq!((all.len(), all.of_customer(one), all.of_customer(other), all.of_customers()), (3, 1, 1, 2));
        for who in ["a@a.test", "b@a.test", "b@a.test", "c@a.test"] {
            all.remove(&hash(who));
        }
        assert_eq!(all, OptOuts::default());
    }
}
