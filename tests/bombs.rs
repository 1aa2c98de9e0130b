//! Messages made to hurt, through the rewriter: memory is counted by an allocator of our own and bounded by the size of
//! the message; time has a bound so wide that only a cost beyond linear can pass it, unoptimised and on a busy machine.
//! What cannot be rewritten within bounds must leave as it came, with the reason.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use trackpost::mail::{DomainName, QueueId};
use trackpost::mime::header_facts;
use trackpost::rewrite::{Limits, OnSigned, Policy, Scheme, SkipReason, Tracking, plan};
use trackpost::token::{Signer, TokenKey};

/// Counts what is allocated, and the most at a time.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Octets of memory that planning and one copy may take, beside 8 for each of the message: the parser's own bound for
/// one part is 32 MiB.
const MEMORY: usize = 48 << 20;
const TIME: Duration = Duration::from_secs(20);

/// One test, not one a bomb: the allocator counts for the whole process.
#[test]
fn bounded() {
    use SkipReason::*;
    type Bomb = (&'static str, fn() -> Vec<u8>, Option<SkipReason>);
    let bombs: &[Bomb] = &[
        ("depth 10,000", || nested(10_000), Some(TooDeep)),
        ("10^6 parts", || multi("mixed", &"--b\r\n\r\n".repeat(1_000_000)), Some(TooManyParts)),
        ("a root for each part", || multi("related", &related(9_000)), None),
        ("100 MB of header", || [b"A: b\r\n".repeat(17_000_000), html(LINK)].concat(), Some(BrokenStructure)),
        ("a header line of 100 MB", || [b"A: ".to_vec(), vec![b'b'; 100_000_000]].concat(), Some(BrokenStructure)),
        (
            "unclosed comments in a field",
            || format!("Content-Type: text/html{}\r\n\r\n", "(".repeat(900_000)).into(),
            None,
        ),
        ("10^6 links", || html(&LINK.repeat(1_000_000)), Some(TooLarge)),
        ("as many links as fit", || html(&LINK.repeat(200_000)), Some(TooManyLinks)),
        ("a line of 1 MB", || html(&format!("{}{LINK}", "x".repeat(1_000_000))), None),
        ("a line of 2 MB with links", || html(&format!("{}{}", LINK.repeat(4_900), "x".repeat(2_000_000))), None),
        ("stray end tags", || html(&"</p>".repeat(175_000)), None),
        ("end tags of the body", || html(&"</body>".repeat(100_000)), None),
        ("false ends of the body", || html(&"<!--</body>-->".repeat(50_000)), None),
        ("open tags", || html(&"<div><b>".repeat(60_000)), None),
        ("one tag of many attributes", || html(&format!("<a {}>", "href=http://a.example/ ".repeat(20_000))), None),
        (
            "many conditional comments",
            || html(&format!("<!--[if a]>{LINK}<![endif]-->").repeat(10_000)),
            Some(AmbiguousHtml),
        ),
        ("a long href", || html(&format!("<a href='http://a.example/{}'>", "\u{fc}&amp;".repeat(80_000))), None),
        (
            "many hosts to convert",
            || html(&format!("<a href='http://{}example/'>", "\u{fc}.".repeat(300)).repeat(100)),
            None,
        ),
        ("one encoded line", || part("quoted-printable", &LINK.replace('=', "=3D").repeat(4_900)), None),
        ("soft breaks alone", || part("quoted-printable", &"=\r\n".repeat(500_000)), Some(Undecodable)),
        ("blanks alone", || part("quoted-printable", &" ".repeat(1_000_000)), None),
        ("quoted-printable junk", || part("quoted-printable", &"=zz=\r\n".repeat(200_000)), Some(Undecodable)),
        ("base64 in words", || part("base64", &"YWJj YWJj ".repeat(100_000)), None),
        ("base64 in letters", || part("base64", &"Y W J j ".repeat(100_000)), Some(Undecodable)),
        ("base64 junk", || part("base64", &"=Y?".repeat(300_000)), Some(Undecodable)),
        (
            "charset junk",
            || {
                [
                    b"Content-Type: text/html; charset=gb18030\r\n\r\n<a href=\"http://a.example/".to_vec(),
                    (0x80..=0xff).cycle().take(500_000).collect(),
                    b"\">".to_vec(),
                ]
                .concat()
            },
            None,
        ),
    ];
    for (name, make, reason) in bombs {
        let message = make();
        let before = NOW.load(Relaxed);
        PEAK.store(before, Relaxed);
        let start = Instant::now();
        assert_eq!(send(&message), *reason, "{name}");
        let (memory, time) = (PEAK.load(Relaxed) - before, start.elapsed());
        println!("{name}: {} octets, {memory} of memory, {time:?}", message.len());
        assert!(memory <= MEMORY + 8 * message.len(), "{name}: {memory} octets for {}", message.len());
        assert!(time <= TIME, "{name}: {time:?}");
    }
}

const LINK: &str = "<a href=\"http://a.example/\">x</a>";

fn html(body: &str) -> Vec<u8> {
    part("8bit", body)
}

fn part(encoding: &str, body: &str) -> Vec<u8> {
    let head = format!("Content-Type: text/html\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n");
    format!("From: a@example.com\r\n{head}{body}\r\n").into_bytes()
}

fn multi(kind: &str, body: &str) -> Vec<u8> {
    format!("Content-Type: multipart/{kind}; boundary=b\r\n\r\n{body}--b--\r\n").into_bytes()
}

/// Plans and makes one copy; what is left alone must leave as it came.
fn send(message: &[u8]) -> Option<SkipReason> {
    let host = DomainName::parse("links.example.com").unwrap();
    let policy = Policy {
        domain: DomainName::parse("example.com").unwrap(),
        open: true,
        click: true,
        scheme: Scheme::Https,
        host: host.clone(),
        port: 0,
        own_hosts: Vec::new(),
        on_signed: OnSigned::Skip,
        signs: false,
        limits: Limits::default(),
    };
    header_facts(message);
    let plan = plan(message, &Tracking::Active(policy), 1);
    let mut copy = Vec::new();
    let signer = Signer::new(&TokenKey { id: 1, secret: [7; 32] }).for_host(&host);
    plan.copy_for(message, &QueueId::from_bytes([1; 16]), 0, Some(&signer), &mut copy);
    let skipped = plan.report().skipped;
    assert!(skipped.is_none() || copy == message, "left alone, yet changed");
    skipped
}

fn nested(depth: usize) -> Vec<u8> {
    let part = |i| format!("Content-Type: multipart/mixed; boundary=b{i}\r\n\r\n--b{i}\r\n");
    (0..depth).map(part).collect::<String>().into_bytes()
}

/// Parts without a place for the pixel, so that each is tried.
fn related(count: usize) -> String {
    "--b\r\nContent-Type: text/html\r\nContent-ID: <x>\r\n\r\n<title>x\r\n".repeat(count)
}
