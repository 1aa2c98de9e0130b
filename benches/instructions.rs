//! Instructions that each step of the hot paths takes, counted by callgrind: the same on a busy machine as on a quiet
//! one. `tests/instructions` compares them with benches/baseline.
//!
//! Only the thread that calls is counted: not the log's writer, nor the view's own threads.

mod common;

use arc_swap::ArcSwap;
use bytes::Bytes;
use common::{ALL, id, key, newsletter, signer, tracking};
use gungraun::{library_benchmark, library_benchmark_group, main};
use http::Method;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{broadcast, mpsc, watch};
use trackpost::event::MachineList;
use trackpost::http::Client;
use trackpost::mail::{Address, Body, DomainName, Envelope, Outcome, QueueId, Recipient, Status};
use trackpost::mime::{header_facts, scan, transfer};
use trackpost::recorder::{self, Keeping, Recorder, Webhooks};
use trackpost::rewrite::{Plan, plan};
use trackpost::settings::Settings;
use trackpost::spool::{Entry, Log, MessageHead, Options};
use trackpost::store::MaybeStore;
use trackpost::tls::Challenges;
use trackpost::token::{HostSigner, Signer, Verifier, Width};
use trackpost::track::{HostState, Hosts, Tracker, hits};

const HOST: &str = "links.example.com";
const URL: &str = "https://www.example.org/offers/1?a=1&utm_source=letter";
const NOW: u64 = 1_700_000_000_000;

fn letter(way: usize) -> Vec<u8> {
    newsletter(ALL[way])
}

// Header facts, structure and the decoding of the HTML part.
#[library_benchmark]
#[bench::quoted_printable(args = (1), setup = letter)]
#[bench::base64(args = (2), setup = letter)]
fn scanning(message: Vec<u8>) -> Vec<u8> {
    black_box(header_facts(black_box(&message)));
    let parts = scan::scan(black_box(&message)).expect("a sound message");
    let body = &message[parts[2].body.clone()];
    // No closures here: callgrind would take one that is not inlined for the end of what is counted.
    match transfer::decode_quoted_printable(body) {
        Ok(decoded) => drop(black_box(decoded)),
        Err(_) => drop(black_box(transfer::decode_base64(body))),
    }
    message
}

// What is to be done to a message, found once for all its recipients.
#[library_benchmark]
#[bench::seven_bit(args = (0), setup = letter)]
#[bench::quoted_printable(args = (1), setup = letter)]
#[bench::base64(args = (2), setup = letter)]
fn planning(message: Vec<u8>) -> Vec<u8> {
    black_box(plan(black_box(&message), &tracking(), 1));
    message
}

fn planned(way: usize) -> (Vec<u8>, Plan, HostSigner, Vec<u8>) {
    let message = letter(way);
    let plan = plan(&message, &tracking(), 1);
    let room = Vec::with_capacity(2 * message.len());
    (message, plan, signer(), room)
}

// One recipient's copy.
#[library_benchmark]
#[bench::seven_bit(args = (0), setup = planned)]
#[bench::quoted_printable(args = (1), setup = planned)]
#[bench::base64(args = (2), setup = planned)]
fn copying((message, plan, signer, mut out): (Vec<u8>, Plan, HostSigner, Vec<u8>)) -> (Vec<u8>, Plan, Vec<u8>) {
    plan.copy_for(black_box(&message), &id(), 0, Some(&signer), &mut out);
    (message, plan, out)
}

// The 21 tokens of a copy.
#[library_benchmark]
#[bench::signed(args = (), setup = signer)]
fn tokens(signer: HostSigner) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 << 10);
    for link in 0..21 {
        signer.click(&id(), 0, link, Width::for_message(1, 20), black_box(URL), &mut out);
    }
    out
}

fn address(text: &str) -> Address {
    Address::parse(text).expect("a good address")
}

fn queue_id(n: u64) -> QueueId {
    let mut random = [0; 10];
    // In front of these, bits of a UUID's version and variant go over what is given.
    random[3..].copy_from_slice(&n.to_be_bytes()[1..]);
    QueueId::new(NOW + n, random)
}

fn message(n: u64, body: &Bytes) -> Entry {
    let head = MessageHead {
        envelope: Envelope {
            sender: Some(address("news@example.com")),
            recipients: vec![Recipient::from(address("user@example.net"))],
            body: Body::SevenBit,
            smtputf8: false,
            ret: None,
            envid: None,
        },
        accepted_at: NOW + n,
        from_domain: Some("example.com".into()),
        from: "News <news@example.com>".into(),
        subject: "What is new this week".into(),
        message_id: "<20261123100000.1@example.com>".into(),
        size: body.len() as u64,
        tags: Vec::new(),
        role: trackpost::mail::Role::Submission,
    };
    Entry::Message { id: queue_id(n), head: Arc::new(head), body: vec![body.clone()] }
}

fn delivered(n: u64) -> Entry {
    let outcome = Outcome { recipient: 0, status: Status::Delivered, reply: "250 2.0.0 Ok".into(), at: NOW + n + 1 };
    Entry::Outcomes { id: queue_id(n), outcomes: vec![outcome], report: None }
}

fn a_log() -> (TempDir, Log, Vec<Entry>) {
    let dir = TempDir::new().expect("a folder");
    let (log, _) = Log::open(Options::new(dir.path())).expect("a log");
    // On a full disk messages would be refused, and that costs little.
    log.append(Entry::Hits(Vec::new())).wait().expect("there is room for messages");
    let body = Bytes::from(vec![b'x'; 20 << 10]);
    let entries = (0..64).flat_map(|n| [message(n, &body), delivered(n)]).collect();
    (dir, log, entries)
}

// 64 messages of 20 KB and their outcomes, on their way into the log.
#[library_benchmark]
#[bench::messages_and_outcomes(args = (), setup = a_log)]
fn appending((dir, log, entries): (TempDir, Log, Vec<Entry>)) -> (TempDir, Log) {
    let mut waiting = Vec::with_capacity(entries.len());
    for entry in entries {
        waiting.push(log.append(entry));
    }
    drop(black_box(waiting));
    (dir, log)
}

fn a_full_log() -> (TempDir, Log, Runtime) {
    let (dir, log, entries) = a_log();
    let waiting: Vec<_> = entries.into_iter().map(|entry| log.append(entry)).collect();
    waiting.into_iter().for_each(|durable| durable.wait().expect("durable"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    (dir, log, runtime)
}

// 64 messages and their outcomes, on their way from the log into the view.
#[library_benchmark]
#[bench::messages_and_outcomes(args = (), setup = a_full_log)]
fn folding((dir, log, runtime): (TempDir, Log, Runtime)) -> (TempDir, Log, Runtime) {
    let forever = Duration::from_hours(1 << 20);
    let (settings, _) = Settings::new(log.clone(), &BTreeMap::new());
    let (_forget, asked) = mpsc::channel(1);
    let recorder = Recorder {
        data_dir: dir.path().to_owned(),
        log: log.clone(),
        store: MaybeStore::default(),
        events: broadcast::channel(1).0,
        machines: Arc::new(ArcSwap::from_pointee(MachineList::builtin())),
        left_alone: Box::new(|_, _| false),
        webhooks: Webhooks { settings: Arc::new(settings), kick: Arc::default() },
        keeping: Arc::new(ArcSwap::from_pointee(Keeping { all: forever, traces: forever, size: u64::MAX })),
        limits: recorder::Limits::default(),
        asked,
    };
    let (_, stopped) = watch::channel(true);
    runtime.block_on(recorder::run(recorder, stopped));
    (dir, log, runtime)
}

fn a_tracker() -> (Tracker, Client, String, Runtime) {
    let (signer, verifier) = (Signer::new(&key()), Verifier::new(&[key()]));
    let host = DomainName::parse(HOST).expect("a name");
    let mut path = b"/c/".to_vec();
    signer.for_host(&host).click(&id(), 0, 0, Width::for_message(1, 20), URL, &mut path);
    let (queue, _writer) = hits(64);
    let tracker = Tracker::new(
        Arc::new(ArcSwap::from_pointee(signer)),
        Arc::new(ArcSwap::from_pointee(verifier)),
        Arc::new(ArcSwap::from_pointee(Hosts::new([(host, HostState::Active)]))),
        queue,
        DomainName::parse("track.example.net").expect("a name"),
        Challenges::default(),
    );
    let peer = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let client = Client { address: peer, peer, from_proxy: false, host: HOST.to_owned(), forwarded_hosts: Vec::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    (tracker, client, String::from_utf8(path).expect("a path"), runtime)
}

// One click, from the request's path to the answer.
#[library_benchmark]
#[bench::click(args = (), setup = a_tracker)]
fn redirecting((tracker, client, path, runtime): (Tracker, Client, String, Runtime)) -> (Tracker, Runtime) {
    let agent = b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
    let response = runtime.block_on(tracker.answer(&Method::GET, black_box(&path), &client, agent, NOW));
    black_box(response.status());
    (tracker, runtime)
}

library_benchmark_group!(
    name = paths,
    benchmarks = [scanning, planning, copying, tokens, appending, folding, redirecting]
);

main!(library_benchmark_groups = paths);
