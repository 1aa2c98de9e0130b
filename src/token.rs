//! Tracking tokens: what a link or a pixel says about the message, the recipient and the destination, and a MAC that
//! only our keys make.
//!
//! A token is base64url without padding of
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | format version, 1 |
//! | 1 | id of the key |
//! | 16 | queue id |
//! | 1–2 | recipient: index into the envelope's recipients |
//! | 1–2 | link: index into the rewritten links (clicks only) |
//! | – | destination, printable ASCII (clicks only) |
//! | 16 | HMAC-SHA256 cut to 128 bits |
//!
//! An index is one byte below 128, else two: the high bit set, then 15 bits, big-endian. The wide form of a small
//! index is legal, so that all copies of a message can have tokens of one length.
//!
//! The MAC covers the tracking host, a zero byte and all that precedes it, under a key derived for the purpose with
//! HKDF (RFC 5869): a token of one host is refused on another, an open's token is no click's. There is no address in
//! a token and no hash of one. Signing and verifying read no state but the keys.

use crate::mail::{DomainName, QueueId};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const VERSION: u8 = 1;
const MAC_LEN: usize = 16;
const HEAD_LEN: usize = 18;
/// Longer tokens are refused before they are decoded. The longest that we make has about 2,700 characters.
const MAX_TOKEN: usize = 16 * 1024;
/// The largest index that fits in two bytes.
pub const MAX_INDEX: u16 = 0x7fff;

type Keyed = Hmac<Sha256>;

/// A secret from which the keys of all purposes are derived. `id` is part of every token.
#[derive(Clone)]
pub struct TokenKey {
    pub id: u8,
    pub secret: [u8; 32],
}

/// The keyed states of one [`TokenKey`].
#[derive(Clone)]
struct Purposes {
    click: Keyed,
    open: Keyed,
    /// Shows that a host leads to us; no token.
    probe: Keyed,
}

impl Purposes {
    fn derive(key: &TokenKey) -> Self {
        let hkdf = hkdf::Hkdf::<Sha256>::new(None, &key.secret);
        let keyed = |purpose: &str| {
            let mut okm = [0; 32];
            hkdf.expand(purpose.as_bytes(), &mut okm).expect("32 bytes is a legal length for HKDF-SHA256");
            Keyed::new_from_slice(&okm).expect("HMAC takes keys of any length")
        };
        let (click, open) = (keyed("trackpost token 1 click"), keyed("trackpost token 1 open"));
        Self { click, open, probe: keyed("trackpost probe 1") }
    }

    fn bound_to(&self, host: &[u8]) -> Self {
        let bind = |state: &Keyed| state.clone().chain_update(host).chain_update([0]);
        Self { click: bind(&self.click), open: bind(&self.open), probe: bind(&self.probe) }
    }
}

/// Bytes that an index takes in the tokens of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Width {
    recipient: usize,
    link: usize,
}

impl Width {
    /// The least width that holds every index of a message with so many recipients and links, each at most 32,768.
    pub fn for_message(recipients: usize, links: usize) -> Self {
        let width = |count: usize| if count <= 128 { 1 } else { 2 };
        Self { recipient: width(recipients), link: width(links) }
    }
}

/// Signs with the newest key.
#[derive(Clone)]
pub struct Signer {
    id: u8,
    purposes: Purposes,
}

impl Signer {
    pub fn new(key: &TokenKey) -> Self {
        Self { id: key.id, purposes: Purposes::derive(key) }
    }

    /// The answer that only holders of the key have for this host and nonce, as text. Which host leads to us is found
    /// out with it; it opens nothing.
    pub fn probe(&self, host: &str, nonce: &str) -> String {
        let state = self.purposes.probe.clone().chain_update(host).chain_update([0]).chain_update(nonce);
        URL_SAFE_NO_PAD.encode(state.finalize().into_bytes())
    }

    /// Binds the signer to a tracking host; made once and used for many tokens.
    pub fn for_host(&self, host: &DomainName) -> HostSigner {
        HostSigner { id: self.id, purposes: self.purposes.bound_to(host.as_str().as_bytes()) }
    }
}

/// A [`Signer`] for the tokens of one tracking host.
#[derive(Clone)]
pub struct HostSigner {
    id: u8,
    purposes: Purposes,
}

impl HostSigner {
    /// Appends the token of a click; [`click_len`] says how long it is. `url` must be an
    /// [`acceptable_destination`], or the token will be refused.
    pub fn click(&self, id: &QueueId, recipient: u16, link: u16, width: Width, url: &str, out: &mut Vec<u8>) {
        debug_assert!(acceptable_destination(url.as_bytes()), "{url:?}");
        let mut raw = Vec::with_capacity(HEAD_LEN + 4 + url.len() + MAC_LEN);
        self.head(id, recipient, width, &mut raw);
        push_index(&mut raw, link, width.link);
        raw.extend_from_slice(url.as_bytes());
        seal(&self.purposes.click, raw, out);
    }

    /// Appends the token of an open; [`open_len`] says how long it is.
    pub fn open(&self, id: &QueueId, recipient: u16, width: Width, out: &mut Vec<u8>) {
        let mut raw = Vec::with_capacity(HEAD_LEN + 2 + MAC_LEN);
        self.head(id, recipient, width, &mut raw);
        seal(&self.purposes.open, raw, out);
    }

    fn head(&self, id: &QueueId, recipient: u16, width: Width, raw: &mut Vec<u8>) {
        raw.extend_from_slice(&[VERSION, self.id]);
        raw.extend_from_slice(id.as_bytes());
        push_index(raw, recipient, width.recipient);
    }
}

fn push_index(raw: &mut Vec<u8>, index: u16, width: usize) {
    if width == 1 {
        debug_assert!(index < 128);
        raw.push(index as u8 & 0x7f);
    } else {
        raw.extend_from_slice(&(index & MAX_INDEX | 0x8000).to_be_bytes());
    }
}

fn seal(state: &Keyed, mut raw: Vec<u8>, out: &mut Vec<u8>) {
    let mac = state.clone().chain_update(&raw).finalize().into_bytes();
    raw.extend_from_slice(&mac[..MAC_LEN]);
    let start = out.len();
    out.resize(start + encoded_len(raw.len()), 0);
    let written = URL_SAFE_NO_PAD.encode_slice(&raw, &mut out[start..]);
    debug_assert_eq!(written, Ok(out.len() - start));
}

const fn encoded_len(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

/// Characters in the token of a click to a destination of `url_len` bytes.
pub fn click_len(url_len: usize, width: Width) -> usize {
    encoded_len(HEAD_LEN + width.recipient + width.link + url_len + MAC_LEN)
}

/// Characters in the token of an open, without `.gif`.
pub fn open_len(width: Width) -> usize {
    encoded_len(HEAD_LEN + width.recipient + MAC_LEN)
}

/// True for what may stand in a token and later in a `Location` header: http or https in any case, a host, and
/// nothing outside printable ASCII.
pub fn acceptable_destination(url: &[u8]) -> bool {
    let rest = match url {
        [b'h' | b'H', b't' | b'T', b't' | b'T', b'p' | b'P', rest @ ..] => rest,
        _ => return false,
    };
    let rest = match rest {
        [b's' | b'S', rest @ ..] => rest,
        rest => rest,
    };
    matches!(rest, [b':', b'/', b'/', first, ..] if !matches!(first, b'/' | b'\\' | b'?' | b'#'))
        && url.iter().all(|b| matches!(b, 0x21..=0x7e))
}

/// What a valid token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    Click { id: QueueId, recipient: u16, link: u16, url: String },
    Open { id: QueueId, recipient: u16 },
}

/// Verifies tokens made with any of the keys.
pub struct Verifier {
    keys: Box<[Option<Purposes>; 256]>,
}

impl Verifier {
    pub fn new(keys: &[TokenKey]) -> Self {
        let mut slots: Box<[Option<Purposes>; 256]> = Box::new([const { None }; 256]);
        for key in keys {
            slots[usize::from(key.id)] = Some(Purposes::derive(key));
        }
        Self { keys: slots }
    }

    /// The click that `token` stands for on `host` (lower case, no port); `None` for every fault alike.
    pub fn click(&self, host: &str, token: &[u8]) -> Option<Token> {
        let raw = self.unseal(host, token, |purposes| &purposes.click)?;
        let (id, recipient, rest) = split_head(&raw)?;
        let (link, rest) = take_index(rest)?;
        if !acceptable_destination(rest) {
            return None;
        }
        let url = std::str::from_utf8(rest).ok()?.to_owned();
        Some(Token::Click { id, recipient, link, url })
    }

    /// The open that `token` (without `.gif`) stands for on `host`; `None` for every fault alike.
    pub fn open(&self, host: &str, token: &[u8]) -> Option<Token> {
        let raw = self.unseal(host, token, |purposes| &purposes.open)?;
        let (id, recipient, rest) = split_head(&raw)?;
        rest.is_empty().then_some(Token::Open { id, recipient })
    }

    /// The bytes before the MAC, if the MAC is right.
    fn unseal(&self, host: &str, token: &[u8], purpose: fn(&Purposes) -> &Keyed) -> Option<Vec<u8>> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let mut raw = URL_SAFE_NO_PAD.decode(token).ok()?;
        if raw.len() < HEAD_LEN + MAC_LEN || raw[0] != VERSION {
            return None;
        }
        let state = purpose(self.keys[usize::from(raw[1])].as_ref()?);
        let body = raw.len() - MAC_LEN;
        let mac = state.clone().chain_update(host.as_bytes()).chain_update([0]).chain_update(&raw[..body]);
        mac.verify_truncated_left(&raw[body..]).ok()?;
        raw.truncate(body);
        Some(raw)
    }
}

fn split_head(raw: &[u8]) -> Option<(QueueId, u16, &[u8])> {
    let id = QueueId::from_bytes(raw.get(2..HEAD_LEN)?.try_into().ok()?);
    let (recipient, rest) = take_index(&raw[HEAD_LEN..])?;
    Some((id, recipient, rest))
}

fn take_index(raw: &[u8]) -> Option<(u16, &[u8])> {
    match raw {
        [high @ 0x80..=0xff, low, rest @ ..] => Some((u16::from_be_bytes([high & 0x7f, *low]), rest)),
        [small @ 0..=0x7f, rest @ ..] => Some((u16::from(*small), rest)),
        _ => None,
    }
}

/// Entry for fuzzing: whatever the bytes, verifying neither panics nor accepts what was not signed.
#[doc(hidden)]
pub fn fuzz_verify(data: &[u8]) {
    let key = TokenKey { id: 7, secret: [9; 32] };
    let verifier = Verifier::new(std::slice::from_ref(&key));
    assert_eq!(verifier.click("links.example.com", data), None);
    assert_eq!(verifier.open("links.example.com", data), None);
    // A well-formed token with one byte changed must be refused as well.
    let Ok(host) = DomainName::parse("links.example.com") else { return };
    let mut out = Vec::new();
    let width = Width::for_message(1, 1);
    Signer::new(&key).for_host(&host).click(
        &QueueId::from_bytes([3; 16]),
        0,
        0,
        width,
        "https://example.com/",
        &mut out,
    );
    if let [place, value, ..] = data {
        let place = usize::from(*place) % out.len();
        if out[place] != *value {
            out[place] = *value;
            assert_eq!(verifier.click("links.example.com", &out), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> DomainName {
        DomainName::parse(name).unwrap()
    }

    fn key(id: u8) -> TokenKey {
        TokenKey { id, secret: [id; 32] }
    }

    #[test]
    fn what_was_signed_verifies_on_its_host_alone() {
        let signer = Signer::new(&key(4)).for_host(&host("links.example.com"));
        let verifier = Verifier::new(&[key(3), key(4)]);
        let id = QueueId::from_bytes([0x5a; 16]);
        for (recipients, links, recipient, link) in
            [(1, 1, 0, 0), (128, 128, 127, 127), (129, 1, 3, 0), (1000, 5000, 999, 4999)]
        {
            let width = Width::for_message(recipients, links);
            let url = "HTTPS://Example.com/a?b=c&d=%20#frag";
            let mut token = Vec::new();
            signer.click(&id, recipient, link, width, url, &mut token);
            assert_eq!(token.len(), click_len(url.len(), width));
            let want = Token::Click { id, recipient, link, url: url.into() };
            assert_eq!(verifier.click("links.example.com", &token), Some(want));
            assert_eq!(verifier.click("links.example.org", &token), None);
            assert_eq!(verifier.open("links.example.com", &token), None);
            assert_eq!(Verifier::new(&[key(3)]).click("links.example.com", &token), None);

            let mut token = Vec::new();
            signer.open(&id, recipient, width, &mut token);
            assert_eq!(token.len(), open_len(width));
            assert_eq!(verifier.open("links.example.com", &token), Some(Token::Open { id, recipient }));
            assert_eq!(verifier.click("links.example.com", &token), None);
        }
    }

    #[test]
    fn every_changed_character_is_refused() {
        let signer = Signer::new(&key(1)).for_host(&host("links.example.com"));
        let verifier = Verifier::new(&[key(1)]);
        let mut token = Vec::new();
        let width = Width::for_message(1, 1);
        signer.click(&QueueId::from_bytes([1; 16]), 0, 0, width, "https://example.com/x", &mut token);
        for place in 0..token.len() {
            for other in *b"AQgw_-09=\0" {
                let mut changed = token.clone();
                if changed[place] != other {
                    changed[place] = other;
                    assert_eq!(verifier.click("links.example.com", &changed), None, "place {place}");
                }
            }
            assert_eq!(verifier.click("links.example.com", &token[..place]), None);
        }
        token.push(b'A');
        assert_eq!(verifier.click("links.example.com", &token), None);
    }

    #[test]
    fn destinations() {
        for good in ["http://a", "hTTps://[::1]/", "https://user:pw@example.com/\"<>", "http://a.example\\b"] {
            assert!(acceptable_destination(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "http://",
            "https:/a",
            "https:a",
            "http:///a",
            "http://\\a",
            "http://?a",
            "ftp://a",
            "http://a b",
            "http://a\r\nb",
            "javascript:alert(1)//http://",
            "http://ä.example/",
            " http://a",
        ] {
            assert!(!acceptable_destination(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn signed_by_a_key_but_no_destination() {
        // Even a key that signs nonsense opens nothing.
        let purposes = Purposes::derive(&key(1)).bound_to(b"links.example.com");
        let mut raw = vec![VERSION, 1];
        raw.extend_from_slice(&[0; 16]);
        raw.extend_from_slice(&[0, 0]);
        raw.extend_from_slice(b"javascript:alert(1)");
        let mut token = Vec::new();
        seal(&purposes.click, raw, &mut token);
        assert_eq!(Verifier::new(&[key(1)]).click("links.example.com", &token), None);
    }

    #[test]
    fn random_bytes() {
        for seed in 0u32..2_000 {
            let data: Vec<u8> =
                (0..seed % 97).map(|i| (seed.wrapping_mul(2_654_435_761).rotate_left(i)) as u8).collect();
            fuzz_verify(&data);
        }
    }
}
