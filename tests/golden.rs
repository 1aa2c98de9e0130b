//! Runs every `fixtures/mail/NAME.eml` through the rewriter and holds what comes out against two files beside it:
//! `NAME.toml`, which says what is to happen (format: top of `tests/verify/fixtures.py`), and `NAME.expected.eml`, the
//! copy of the first recipient, octet by octet. `UPDATE=1` writes the latter anew; look at what changed.
//!
//! Each copy is also undone without the rewriter's help: every token is verified, the destinations are put back, and
//! what is left must be the original. That no unrelated octet changed is shown by that and by `tests/verify`.

use memchr::memmem;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use trackpost::mail::{DomainName, QueueId};
use trackpost::mime::scan::{Part, Transfer, scan};
use trackpost::mime::transfer::{decode_base64, decode_quoted_printable};
use trackpost::rewrite::{Limits, OnSigned, Pixel, Policy, Report, Scheme, SkipReason, Tracking, plan};
use trackpost::token::{Signer, Token, TokenKey, Verifier};

const DOMAIN: &str = "shop.example.com";
const HOST: &str = "links.shop.example.com";
const ID: QueueId = QueueId::from_bytes(*b"a fixed queue id");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    open: bool,
    click: bool,
    on_signed: OnSigned,
    recipients: Vec<String>,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    rewritten: Vec<String>,
    skipped: BTreeMap<String, u32>,
    pixel: bool,
    untouched: Option<String>,
}

#[test]
fn every_fixture() {
    let mut faults = Vec::new();
    let names = names();
    for name in &names {
        let mut fixture = Fixture::load(name);
        fixture.check();
        faults.append(&mut fixture.faults);
    }
    assert!(names.len() >= 90, "only {} fixtures found", names.len());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/mail")
}

fn names() -> Vec<String> {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = files.filter_map(|file| file.strip_suffix(".toml").map(str::to_owned)).collect();
    names.sort();
    names
}

struct Fixture {
    name: String,
    message: Vec<u8>,
    spec: Spec,
    faults: Vec<String>,
}

impl Fixture {
    fn load(name: &str) -> Self {
        let read = |end: &str| fs::read(folder().join(format!("{name}.{end}"))).unwrap();
        let spec = toml::from_str(std::str::from_utf8(&read("toml")).unwrap());
        let spec = spec.unwrap_or_else(|e| panic!("{name}.toml: {e}"));
        Self { name: name.to_owned(), message: read("eml"), spec, faults: Vec::new() }
    }

    /// Notes a fault unless both are equal.
    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, got: T, want: T) {
        if got != want {
            self.faults.push(format!("{}: {what}: {got:?} instead of {want:?}", self.name));
        }
    }

    fn check(&mut self) {
        let policy = Policy {
            domain: DomainName::parse(DOMAIN).unwrap(),
            open: self.spec.open,
            click: self.spec.click,
            scheme: Scheme::Https,
            host: DomainName::parse(HOST).unwrap(),
            port: 0,
            own_hosts: Vec::new(),
            on_signed: self.spec.on_signed,
            signs: false,
            limits: Limits::default(),
        };
        let key = TokenKey { id: 1, secret: [7; 32] };
        let signer = Signer::new(&key).for_host(&policy.host);
        let recipients = self.spec.recipients.len();
        let plan = plan(&self.message, &Tracking::Active(policy), recipients);
        self.check_report(plan.report());
        for recipient in 0..recipients as u16 {
            let mut copy = Vec::new();
            plan.copy_for(&self.message, &ID, recipient, Some(&signer), &mut copy);
            self.check_copy(&copy, recipient, &Verifier::new(std::slice::from_ref(&key)));
            self.same("bytes_out", plan.report().bytes_out, copy.len() as u64);
            if recipient == 0 {
                self.check_golden(&copy);
            }
        }
    }

    fn check_report(&mut self, report: &Report) {
        let mut skipped: BTreeMap<String, u32> = BTreeMap::new();
        for (reason, count) in report.parts_skipped.iter().chain(&report.links_skipped) {
            *skipped.entry(reason.to_string()).or_default() += count;
        }
        self.same("skipped", skipped, self.spec.expect.skipped.clone());
        self.same("pixel", report.pixel == Pixel::Inserted, self.spec.expect.pixel);
        self.same("untouched", report.skipped.map(|reason| reason.to_string()), self.spec.expect.untouched.clone());
        self.same("links_rewritten", report.links_rewritten as usize, self.spec.expect.rewritten.len());
        self.same("panicked", report.skipped == Some(SkipReason::Panicked), false);
    }

    /// The copy undone is the message, and its links are those that the toml lists, in order.
    fn check_copy(&mut self, copy: &[u8], recipient: u16, verifier: &Verifier) {
        let (before, after) = (leaves(&self.message), leaves(copy));
        self.same("parts", after.len(), before.len());
        let (mut links, mut pixels) = (Vec::new(), 0);
        for (index, ((before, body_before), (after, body_after))) in before.into_iter().zip(after).enumerate() {
            let mut undone = Undone {
                verifier,
                recipient,
                original: &before,
                at: 0,
                first: links.len(),
                links: Vec::new(),
                pixels: 0,
            };
            match undone.run(&after) {
                Ok(()) if undone.links.is_empty() && undone.pixels == 0 => {
                    self.same("an untouched part", body_after == body_before, true);
                }
                Ok(()) => {}
                Err(fault) => self.faults.push(format!("{}: part {index}: {fault}", self.name)),
            }
            links.append(&mut undone.links);
            pixels += undone.pixels;
        }
        self.same("links", links, self.spec.expect.rewritten.clone());
        self.same("pixels", pixels, usize::from(self.spec.expect.pixel));
    }

    fn check_golden(&mut self, copy: &[u8]) {
        let path = folder().join(format!("{}.expected.eml", self.name));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, copy).unwrap();
        }
        let expected = fs::read(&path).unwrap_or_default();
        if expected != copy {
            let at = expected.iter().zip(copy).take_while(|(a, b)| a == b).count();
            self.faults.push(format!("{}: differs from {} at octet {at}", self.name, path.display()));
        }
    }
}

/// (text, body as it stands) of each part that is no multipart; of a broken message the whole.
fn leaves(message: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let text = |part: &Part| {
        let body = &message[part.body.clone()];
        let decoded = match part.transfer {
            Transfer::QuotedPrintable => decode_quoted_printable(body).ok(),
            Transfer::Base64 => decode_base64(body).ok(),
            Transfer::Identity | Transfer::Unknown => None,
        };
        (decoded.map_or_else(|| body.to_vec(), |decoded| decoded.bytes), body.to_vec())
    };
    match scan(message) {
        Ok(parts) => parts.iter().filter(|part| !part.is_multipart()).map(text).collect(),
        Err(_) => vec![(message.to_vec(), message.to_vec())],
    }
}

/// A walk through one text of a copy and, beside it, through the original's.
struct Undone<'a> {
    verifier: &'a Verifier,
    recipient: u16,
    original: &'a [u8],
    at: usize,
    /// Index that the first link must have.
    first: usize,
    links: Vec<String>,
    pixels: usize,
}

impl Undone<'_> {
    fn run(&mut self, copy: &[u8]) -> Result<(), String> {
        let base = format!("https://{HOST}/");
        let mut rest = copy;
        let mut from = 0;
        while let Some(found) = memmem::find(&rest[from..], base.as_bytes()).map(|at| from + at) {
            let path = &rest[found + base.len()..];
            let length = path.iter().skip(2).take_while(|b| b.is_ascii_alphanumeric() || b"-_".contains(b)).count();
            let end = found + base.len() + 2 + length;
            let token = rest.get(end - length..end).unwrap_or_default();
            if let Some(Token::Click { id, recipient, link, url }) = self.verifier.click(HOST, token) {
                if (id, recipient, usize::from(link)) != (ID, self.recipient, self.first + self.links.len()) {
                    return Err(format!("the token of {url} is for {id}, {recipient}, {link}"));
                }
                self.keep(&rest[..found])?;
                self.links.push(url);
                rest = &rest[end..];
                self.skip_value(rest)?;
                from = 0;
            } else if let Some(token) = self.verifier.open(HOST, token) {
                if token != (Token::Open { id: ID, recipient: self.recipient }) {
                    return Err(format!("the pixel's token is {token:?}"));
                }
                let tag = memchr::memrchr(b'<', &rest[..found]).ok_or("the pixel has no tag")?;
                self.keep(&rest[..tag])?;
                self.pixels += 1;
                rest = &rest[found + memchr::memchr(b'>', &rest[found..]).ok_or("the pixel's tag is open")? + 1..];
                from = 0;
            } else {
                // One of the fixture's own links to the host.
                from = found + base.len();
            }
        }
        self.keep(rest)?;
        if self.at < self.original.len() { Err("the end is missing".to_owned()) } else { Ok(()) }
    }

    /// `text` stands in the original as well.
    fn keep(&mut self, text: &[u8]) -> Result<(), String> {
        if !self.original[self.at..].starts_with(text) {
            return Err(format!("octets changed before or in {:?}", String::from_utf8_lossy(text)));
        }
        self.at += text.len();
        Ok(())
    }

    /// Moves over the value in place of which the last link stands. ASCII, so it must say the link's destination.
    fn skip_value(&mut self, rest: &[u8]) -> Result<(), String> {
        let value = &self.original[self.at..];
        let quote = self.at.checked_sub(1).map(|at| self.original[at]).filter(|b| matches!(b, b'"' | b'\''));
        let ends = |b: &u8| quote.map_or(b.is_ascii_whitespace() || *b == b'>', |quote| *b == quote);
        let length = value.iter().position(ends).ok_or("a value that does not end")?;
        if rest.first() != value.get(length) {
            return Err("something stands behind a token".to_owned());
        }
        let url = self.links.last().ok_or("no link")?;
        if let Ok(text) = std::str::from_utf8(&value[..length])
            && let text = htmlize::unescape_attribute(text.trim().replace(['\r', '\n', '\t'], ""))
            && text.bytes().all(|b| matches!(b, 0x21..=0x7e))
            && text != *url
        {
            return Err(format!("{text} became {url}"));
        }
        self.at += length;
        Ok(())
    }
}
