//! What the TXT records at a DKIM key's name say (RFC 6376 §3.6.1), held against the key that we have.

use super::finding::NotKnown;
use super::record::Evidence;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::fmt;

/// What one look at a key's name brought.
pub type TxtFinding = Result<TxtFound, NotKnown>;

/// What stands at a DKIM key's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxtFound {
    /// The TXT records, the strings of each joined (RFC 6376 §3.6.2.2). There is at least one.
    Records(Vec<Vec<u8>>),
    /// Nothing; but there are some at this name, to which the provider's form has added the domain once more.
    Doubled(String),
    Nothing,
}

/// Why what stands at a key's name does not let anybody verify our signatures. The customer's to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxtFault {
    Nothing,
    Doubled(String),
    /// More than one record: which one is taken is undefined (RFC 6376 §3.6.2.2).
    Several(usize),
    /// Quotation marks have become part of the text.
    Quoted,
    /// No list of tags, or one that verifiers refuse (§3.2).
    NoTagList,
    /// Another version, or one that does not stand first (§3.6.1).
    Version,
    KeyType(String),
    /// SHA-256 is not among the hashes that the record allows.
    Hash(String),
    /// The key is not for mail.
    Service(String),
    NoKey,
    /// An empty key: it has been revoked.
    Revoked,
    Undecodable,
    /// The right key, but only so many of so many characters of it.
    CutOff(usize, usize),
    OtherKey,
}

/// The text of the record that publishes a key: `public` is its SubjectPublicKeyInfo in base64.
pub fn expected_txt(public: &str) -> String {
    format!("v=DKIM1; k=rsa; p={public}")
}

/// What a finding says of the record.
pub fn txt_evidence(finding: &TxtFinding, public: &str) -> Evidence {
    match finding {
        Err(_) => Evidence::Unknown,
        Ok(found) => match read(found, public) {
            Ok(()) => Evidence::Good,
            Err(_) => Evidence::Bad,
        },
    }
}

/// What is there instead of the record, in a sentence without its end; nothing where it is right.
pub fn txt_text(finding: &TxtFinding, name: &str, selector: &str, public: &str) -> Option<String> {
    let found = match finding {
        Ok(found) => found,
        Err(NotKnown(why)) => return Some(format!("not known: {why}")),
    };
    Some(match read(found, public).err()? {
        TxtFault::Nothing => format!("found nothing at {name}"),
        TxtFault::Doubled(at) => format!(
            "found the record at {at}: the provider's form adds the domain by itself, so enter {selector}._domainkey alone"
        ),
        fault => fault.to_string(),
    })
}

/// Whether `found` publishes the key `public`.
pub fn read(found: &TxtFound, public: &str) -> Result<(), TxtFault> {
    let text = match found {
        TxtFound::Nothing => return Err(TxtFault::Nothing),
        TxtFound::Doubled(name) => return Err(TxtFault::Doubled(name.clone())),
        TxtFound::Records(records) => match &records[..] {
            [] => return Err(TxtFault::Nothing),
            [one] => one,
            several => return Err(TxtFault::Several(several.len())),
        },
    };
    if text.trim_ascii().starts_with(b"\"") {
        return Err(TxtFault::Quoted);
    }
    let text = std::str::from_utf8(text).map_err(|_| TxtFault::NoTagList)?;
    let tags = tags(text).ok_or(TxtFault::NoTagList)?;
    let value = |name: &str| tags.iter().find(|(tag, _)| *tag == name).map(|(_, value)| *value);
    let lists = |value: &str, wanted: &[&str]| value.split(':').any(|word| wanted.contains(&word.trim_matches(FWS)));
    match tags.iter().position(|(tag, _)| *tag == "v") {
        Some(0) if tags[0].1 == "DKIM1" => {}
        None => {}
        Some(_) => return Err(TxtFault::Version),
    }
    let shown = |value: &str| super::name::shortened(value);
    match value("k") {
        Some(kind) if kind != "rsa" => return Err(TxtFault::KeyType(shown(kind))),
        _ => {}
    }
    match value("h") {
        Some(hashes) if !lists(hashes, &["sha256"]) => return Err(TxtFault::Hash(shown(hashes))),
        _ => {}
    }
    match value("s") {
        Some(services) if !lists(services, &["*", "email"]) => return Err(TxtFault::Service(shown(services))),
        _ => {}
    }
    compare(value("p").ok_or(TxtFault::NoKey)?, public)
}

/// White space inside a key does not count (RFC 6376 §3.2, base64string).
fn compare(found: &str, public: &str) -> Result<(), TxtFault> {
    let found: String = found.split(FWS).collect();
    if found.is_empty() {
        return Err(TxtFault::Revoked);
    }
    let strip = |text: &str| text.trim_end_matches('=').len();
    let (have, want) = (&found[..strip(&found)], &public[..strip(public)]);
    if have == want {
        return Ok(());
    }
    // A cut is named before it is decoded: it may have been made anywhere.
    if want.starts_with(have) {
        return Err(TxtFault::CutOff(have.len(), want.len()));
    }
    LENIENT.decode(have).map_err(|_| TxtFault::Undecodable)?;
    Err(TxtFault::OtherKey)
}

/// The tags of a list with their values, in order (RFC 6376 §3.2). `None` for what is no such list: verifiers take
/// nothing from it.
fn tags(text: &str) -> Option<Vec<(&str, &str)>> {
    let text = text.trim_matches(FWS);
    let text = text.strip_suffix(';').unwrap_or(text);
    let mut tags: Vec<(&str, &str)> = Vec::new();
    for tag in text.split(';') {
        let (name, value) = tag.split_once('=')?;
        let (name, value) = (name.trim_matches(FWS), value.trim_matches(FWS));
        let named = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !named || tags.iter().any(|(other, _)| *other == name) {
            return None;
        }
        tags.push((name, value));
    }
    Some(tags)
}

const FWS: [char; 4] = [' ', '\t', '\r', '\n'];

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

impl fmt::Display for TxtFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("found nothing"),
            Self::Doubled(name) => write!(f, "found the record at {name}"),
            Self::Several(count) => write!(f, "found {count} TXT records: leave the one that is shown here"),
            Self::Quoted => f.write_str("found quotation marks around the value: enter it without them"),
            Self::NoTagList => f.write_str("found a TXT record that is no DKIM key"),
            Self::Version => f.write_str("found a record that does not begin with v=DKIM1"),
            Self::KeyType(kind) => write!(f, "found a key of the type {kind:?}, expected rsa"),
            Self::Hash(hashes) => write!(f, "found h={hashes:?}, which does not allow sha256"),
            Self::Service(services) => write!(f, "found s={services:?}, which does not allow mail"),
            Self::NoKey => f.write_str("found a key record without a key (p=)"),
            Self::Revoked => f.write_str("found an empty key (p=): it is revoked"),
            Self::Undecodable => f.write_str("found a key that is not base64"),
            Self::CutOff(found, expected) => write!(
                f,
                "found the first {found} of the {expected} characters of the key: enter all of it, as one value or as several \
                 strings of up to 255 characters"
            ),
            Self::OtherKey => f.write_str("found another public key"),
        }
    }
}

impl std::error::Error for TxtFault {}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA1234567890ab/+CdIDAQAB";
    const OTHER: &str = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAzzzz567890ab/+CdIDAQAB";

    fn records(texts: &[&str]) -> TxtFound {
        TxtFound::Records(
            texts.iter().map(|text| text.replace("KEY", KEY).replace("OTHER", OTHER).into_bytes()).collect(),
        )
    }

    #[test]
    fn verdicts() {
        use TxtFault::*;
        let table: &[(&[&str], Result<(), TxtFault>)] = &[
            (&["v=DKIM1; k=rsa; p=KEY"], Ok(())),
            (&["v=DKIM1;k=rsa;p=KEY;"], Ok(())),
            (&["  v = DKIM1 ; p = KEY ; k = rsa ; "], Ok(())),
            (&["v=DKIM1; p=KEY"], Ok(())),
            (&["p=KEY"], Ok(())),
            (&["k=rsa; p=KEY; t=s; n=a note; x=unknown"], Ok(())),
            (&["v=DKIM1; t=y; h=sha1:sha256; s=tlsrpt : email; p=KEY"], Ok(())),
            (&["v=DKIM1; h= sha256; s=*; p=KEY"], Ok(())),
            (&["v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEF AAOCAQ8AMIIBCgKCAQEA1234\r\n\t567890ab/+CdIDAQAB"], Ok(())),
            (&["v=DKIM1; p=KEY=="], Ok(())),
            // Versions.
            (&["v=DKIM2; p=KEY"], Err(Version)),
            (&["v=dkim1; p=KEY"], Err(Version)),
            (&["v=; p=KEY"], Err(Version)),
            (&["p=KEY; v=DKIM1"], Err(Version)),
            // Not for us.
            (&["v=DKIM1; k=ed25519; p=KEY"], Err(KeyType("ed25519".into()))),
            (&["v=DKIM1; h=sha1; p=KEY"], Err(Hash("sha1".into()))),
            (&["v=DKIM1; s=tlsrpt; p=KEY"], Err(Service("tlsrpt".into()))),
            // The key.
            (&["v=DKIM1; k=rsa"], Err(NoKey)),
            (&["v=DKIM1; p="], Err(Revoked)),
            (&["v=DKIM1; p= ;"], Err(Revoked)),
            (&["v=DKIM1; p=OTHER"], Err(OtherKey)),
            (&["v=DKIM1; p=KEYAA"], Err(OtherKey)),
            (&["v=DKIM1; p=!KEY"], Err(Undecodable)),
            (&["v=DKIM1; p=MIIBIjANBgkq"], Err(CutOff(12, KEY.len()))),
            // No such list at all.
            (&["v=spf1 -all"], Err(Version)),
            (&["hello"], Err(NoTagList)),
            (&[""], Err(NoTagList)),
            (&["v=DKIM1;; p=KEY"], Err(NoTagList)),
            (&["v=DKIM1; p=KEY; p=KEY"], Err(NoTagList)),
            (&["v=DKIM1; k; p=KEY"], Err(NoTagList)),
            (&["v=DKIM1; 1k=a; p=KEY"], Err(NoTagList)),
            (&["\"v=DKIM1; p=KEY\""], Err(Quoted)),
            // More than one.
            (&["v=DKIM1; p=KEY", "v=DKIM1; p=OTHER"], Err(Several(2))),
            (&["v=DKIM1; p=KEY", "v=DKIM1; p=KEY"], Err(Several(2))),
            (&["v=DKIM1; p=KEY", "something else", "more"], Err(Several(3))),
        ];
        for (texts, want) in table {
            let found = records(texts);
            assert_eq!(read(&found, KEY), *want, "{texts:?}");
            let evidence = if want.is_ok() { Evidence::Good } else { Evidence::Bad };
            assert_eq!(txt_evidence(&Ok(found.clone()), KEY), evidence);
            let text = txt_text(&Ok(found), "a._domainkey.example.com", "a", KEY);
            assert_eq!(text.is_none(), want.is_ok(), "{texts:?} {text:?}");
        }
        assert_eq!(read(&TxtFound::Records(vec![b"v=DKIM1; p=\xff".to_vec()]), KEY), Err(NoTagList));
        assert_eq!(read(&TxtFound::Nothing, KEY), Err(Nothing));
    }

    #[test]
    fn the_record_that_is_asked_for_is_right() {
        assert_eq!(read(&records(&[&expected_txt(KEY)]), KEY), Ok(()));
    }

    #[test]
    fn words() {
        let text = |finding: &TxtFinding| txt_text(finding, "a._domainkey.example.com", "a", KEY).unwrap();
        assert_eq!(text(&Ok(TxtFound::Nothing)), "found nothing at a._domainkey.example.com");
        let doubled = text(&Ok(TxtFound::Doubled("a._domainkey.example.com.example.com".into())));
        assert!(doubled.ends_with("so enter a._domainkey alone"), "{doubled}");
        assert_eq!(text(&Err(NotKnown("SERVFAIL".into()))), "not known: SERVFAIL");
        assert_eq!(txt_evidence(&Err(NotKnown("SERVFAIL".into())), KEY), Evidence::Unknown);
        assert!(text(&Ok(records(&["v=DKIM1; p=MIIB"]))).starts_with("found the first 4 of the"));
    }

    proptest::proptest! {
        #[test]
        fn any_record_is_read(text in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let _ = read(&TxtFound::Records(vec![text]), KEY);
        }
    }
}
