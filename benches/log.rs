//! The log: what an accepted message costs, and how long a full queue takes to come back.
//!
//! `cargo bench --bench log`. Recovery wants 2 GB in the folder for temporary files.

use bytes::Bytes;
use divan::counter::ItemsCount;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tempfile::TempDir;
use trackpost::mail::{Address, Body, Envelope, QueueId, Recipient};
use trackpost::spool::{Entry, Log, MessageHead, Options};

fn main() {
    divan::main();
}

const BODY: usize = 20 * 1024;
const QUEUED: usize = 100_000;

fn messages(first: usize) -> impl Iterator<Item = Entry> {
    let to = Address::parse("user@example.net").expect("a good address");
    let head = Arc::new(MessageHead {
        envelope: Envelope {
            sender: Address::parse("news@example.com").ok(),
            recipients: vec![Recipient::from(to)],
            body: Body::SevenBit,
            smtputf8: false,
            ret: None,
            envid: None,
        },
        accepted_at: 1_700_000_000_000,
        from_domain: Some("example.com".into()),
        from: "News <news@example.com>".into(),
        subject: "What is new this week".into(),
        message_id: "<20261123100000.1@example.com>".into(),
        size: BODY as u64,
        tags: Vec::new(),
        role: trackpost::mail::Role::Submission,
    });
    let body = Bytes::from(vec![b'x'; BODY]);
    (first..).map(move |n| {
        let mut random = [0; 10];
        // In front of these, bits of a UUID's version and variant go over what is given.
        random[3..].copy_from_slice(&n.to_be_bytes()[1..]);
        Entry::Message { id: QueueId::new(1_700_000_000_000, random), head: head.clone(), body: vec![body.clone()] }
    })
}

fn open(dir: &Path) -> (Log, usize) {
    let (log, recovered) = Log::open(Options::new(dir)).expect("a log");
    (log, recovered.messages.len())
}

/// Messages of 20 KB, so many at a time, each time until the last is durable.
#[divan::bench(args = [1, 4, 16, 50, 200], sample_count = 50)]
fn append(bencher: divan::Bencher<'_, '_>, together: usize) {
    let dir = TempDir::new().expect("a folder");
    let (log, _) = open(dir.path());
    let mut entries = messages(0);
    bencher.counter(ItemsCount::new(together)).bench_local(|| {
        let waiting: Vec<_> = entries.by_ref().take(together).map(|entry| log.append(entry)).collect();
        waiting.into_iter().for_each(|durable| durable.wait().expect("durable"));
    });
}

/// 100,000 queued messages of 20 KB.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn recovery(bencher: divan::Bencher<'_, '_>) {
    static FULL: OnceLock<TempDir> = OnceLock::new();
    let dir = FULL.get_or_init(|| {
        let dir = TempDir::new().expect("a folder");
        let (log, _) = open(dir.path());
        let mut entries = messages(0);
        for _ in 0..QUEUED / 100 {
            let waiting: Vec<_> = entries.by_ref().take(100).map(|entry| log.append(entry)).collect();
            waiting.into_iter().for_each(|durable| durable.wait().expect("durable"));
        }
        dir
    });
    bencher.counter(ItemsCount::new(QUEUED)).bench_local(|| {
        let (log, found) = open(dir.path());
        assert_eq!(found, QUEUED);
        log.close();
    });
}
