//! Signing what leaves (DKIM, RFC 6376): rsa-sha256 and relaxed/relaxed, over the octets that go to the smarthost.
//!
//! In doubt a message is not signed: a header that readers take apart in different ways would make a signature that
//! some of them call broken. Which key signs is the domain's affair; whether links were put in, the caller's.

mod relaxed;
#[cfg(test)]
mod tests;

use crate::clock;
use crate::domain::Selector;
use crate::keys::DkimSigningKey;
use crate::mail::DomainName;
use crate::mime::header::{fields, unfold};
use crate::mime::scan::header_block;
use crate::queue::HOT_MESSAGE;
use crate::rewrite::signing_domain;
use crate::supervise::out_of_the_way;
use mail_auth::common::crypto::Algorithm;
use mail_auth::dkim::{Canonicalization, Signature};
use relaxed::{body_hash, push_field};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What signs the mail of one domain.
#[derive(Debug)]
pub struct Signer {
    pub domain: DomainName,
    pub selector: Selector,
    pub key: Arc<DkimSigningKey>,
}

/// Why a message leaves without a signature of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsigned {
    /// Its domain has signed it, and nothing was changed since.
    HasOne,
    /// No From, or more than one.
    From,
    /// A line that is no field, a field that readers do not agree about, or more header than is read.
    Header,
    /// A fault of ours.
    Failed(String),
}

/// The processor time that signatures take at once: as much as there is, but in an orderly way.
pub struct Pool(Semaphore);

impl Pool {
    pub fn new() -> Self {
        Self(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)))
    }
}

/// The fields that RFC 6376 §5.4.1 recommends, and List-Unsubscribe-Post: without a signature over it nobody honours
/// one-click unsubscription (RFC 8058 §4). In the order in which they are listed.
const SIGNED: [&str; 20] = [
    "from",
    "reply-to",
    "subject",
    "date",
    "to",
    "cc",
    "resent-date",
    "resent-from",
    "resent-to",
    "resent-cc",
    "in-reply-to",
    "references",
    "list-id",
    "list-help",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "list-subscribe",
    "list-post",
    "list-owner",
    "list-archive",
];

const FROM: &str = SIGNED[0];

/// Of one name no more fields are signed, from the last one up: the list of names has to stay a line that is read.
const MOST_OF_A_NAME: usize = 20;

/// Why the message cannot be signed as it is, if so. What planning does to it changes nothing of that.
pub(super) fn refusal(message: &[u8]) -> Option<Unsigned> {
    read(message).err()
}

/// The message with a signature before it. Where it was `changed` on its way through us, signatures that its domain
/// made before are taken out, since they no longer hold; where it was not, one that is there stays the only one.
pub(super) async fn sign(
    pool: &Pool,
    signer: &Arc<Signer>,
    message: &[u8],
    changed: bool,
) -> Result<Vec<u8>, Unsigned> {
    let header = read(message)?;
    let own = header.signatures_of(message, &signer.domain);
    if !changed && !own.is_empty() {
        return Err(Unsigned::HasOne);
    }
    let (signature, text) = apart(message.len(), || {
        let signature = unsigned(signer, &header, message, clock::unix_ms() / 1000);
        let mut text = header.relaxed(message);
        signature.write(&mut text, false);
        (signature, text)
    });
    let failed = |why: String| Unsigned::Failed(why);
    let _turn = pool.0.acquire().await.map_err(|e| failed(e.to_string()))?;
    let key = Arc::clone(&signer.key);
    let made = tokio::task::spawn_blocking(move || key.sign(&text)).await;
    let b = made.map_err(|e| failed(e.to_string()))?.map_err(failed)?;
    let mut out = Vec::with_capacity(message.len() + 1024);
    write_field(&Signature { b, ..signature }, &mut out);
    let mut from = 0;
    for span in own {
        out.extend_from_slice(&message[from..span.start]);
        from = span.end;
    }
    out.extend_from_slice(&message[from..]);
    Ok(out)
}

/// Runs what takes long for a large message where it keeps no other task waiting.
fn apart<T>(octets: usize, work: impl FnOnce() -> T) -> T {
    if octets > HOT_MESSAGE { out_of_the_way(work) } else { work() }
}

/// All but the signature itself.
fn unsigned(signer: &Signer, header: &Header, message: &[u8], now: u64) -> Signature {
    Signature {
        v: 1,
        a: Algorithm::RsaSha256,
        d: signer.domain.to_string(),
        s: signer.selector.to_string(),
        h: header.names(),
        bh: body_hash(&message[header.body..]).to_vec(),
        t: now,
        ch: Canonicalization::Relaxed,
        cb: Canonicalization::Relaxed,
        ..Signature::default()
    }
}

/// Appends the field. Where the last line of the signature is full, mail-auth begins another one before the semicolon;
/// some verifiers count that white space, so there is none.
fn write_field(signature: &Signature, out: &mut Vec<u8>) {
    let start = out.len();
    signature.write(out, true);
    const ODD: &[u8] = b"\r\n\t;\r\n";
    if out[start..].ends_with(ODD) {
        out.truncate(out.len() - ODD.len());
        out.extend_from_slice(b";\r\n");
    }
}

/// What of a header matters to a signature.
struct Header {
    /// The fields to be signed: place in [`SIGNED`], and where the value stands. In the order in which they are listed.
    signed: Vec<(usize, Range<usize>)>,
    /// DKIM-Signature fields: all of each, and the value.
    signatures: Vec<(Range<usize>, Range<usize>)>,
    /// Where the body begins.
    body: usize,
}

fn read(message: &[u8]) -> Result<Header, Unsigned> {
    let (block, body) = header_block(message, 0, |_| false).ok_or(Unsigned::Header)?;
    let mut header = Header { signed: Vec::new(), signatures: Vec::new(), body };
    let mut at = block.start;
    for field in fields(message, block.clone()) {
        // A gap is a line that is no field. White space before the colon is of old, and some call it an error.
        if field.span.start != at || message.get(field.name.end) != Some(&b':') {
            return Err(Unsigned::Header);
        }
        at = field.span.end;
        if let Some(place) = SIGNED.iter().position(|name| field.is(message, name)) {
            header.signed.push((place, field.value));
        } else if field.is(message, "DKIM-Signature") {
            header.signatures.push((field.span, field.value));
        }
    }
    if at != block.end {
        return Err(Unsigned::Header);
    }
    if header.signed.iter().filter(|(place, _)| SIGNED[*place] == FROM).count() != 1 {
        return Err(Unsigned::From);
    }
    header.leave_out_what_is_read_differently(message)?;
    // Of fields with one name the last one is taken first (RFC 6376 §5.4.2).
    header.signed.reverse();
    header.signed.sort_by_key(|(place, _)| *place);
    let mut run = (usize::MAX, 0);
    header.signed.retain(|(place, _)| {
        run = if run.0 == *place { (*place, run.1 + 1) } else { (*place, 1) };
        run.1 <= MOST_OF_A_NAME
    });
    Ok(header)
}

impl Header {
    /// Vertical tab and form feed are no white space to RFC 6376, but to OpenDKIM and dkimpy they are. Without these
    /// fields the signature holds for all; of a name all or none, since readers count them from the last one up.
    fn leave_out_what_is_read_differently(&mut self, message: &[u8]) -> Result<(), Unsigned> {
        let odd = |value: &Range<usize>| memchr::memchr2(0x0b, 0x0c, &message[value.clone()]).is_some();
        let odd: Vec<usize> = self.signed.iter().filter(|(_, value)| odd(value)).map(|(place, _)| *place).collect();
        if odd.iter().any(|place| SIGNED[*place] == FROM) {
            return Err(Unsigned::Header);
        }
        self.signed.retain(|(place, _)| !odd.contains(place));
        Ok(())
    }

    /// From is listed once more than it is there, so that nobody can add one (RFC 6376 §8.15).
    fn names(&self) -> Vec<String> {
        self.signed.iter().map(|(place, _)| SIGNED[*place]).chain([FROM]).map(str::to_owned).collect()
    }

    fn relaxed(&self, message: &[u8]) -> Vec<u8> {
        let mut text = Vec::with_capacity(2048);
        for (place, value) in &self.signed {
            push_field(SIGNED[*place], &message[value.clone()], &mut text);
        }
        text
    }

    fn signatures_of(&self, message: &[u8], domain: &DomainName) -> Vec<Range<usize>> {
        let of_domain = |value: &Range<usize>| {
            signing_domain(&unfold(&message[value.clone()])).is_some_and(|signed| signed == domain.as_str())
        };
        self.signatures.iter().filter(|(_, value)| of_domain(value)).map(|(span, _)| span.clone()).collect()
    }
}

impl Unsigned {
    /// For metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::HasOne => "has-one",
            Self::From => "from",
            Self::Header => "header",
            Self::Failed(_) => "failed",
        }
    }
}

impl fmt::Display for Unsigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HasOne => f.write_str("its domain has signed it already"),
            Self::From => f.write_str("it has not exactly one From field"),
            Self::Header => f.write_str("its header can be read in more than one way"),
            Self::Failed(why) => write!(f, "signing failed: {why}"),
        }
    }
}

impl std::error::Error for Unsigned {}
