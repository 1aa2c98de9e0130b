//! Times of rewriting, with a newsletter of 20 KB and 20 links as the model. Budget in microseconds: scan and decode
//! 30, the parser 90, 21 tokens 8, a copy 15.

use divan::{Bencher, black_box};
use trackpost::mail::{DomainName, QueueId};
use trackpost::mime::{header_facts, scan, transfer};
use trackpost::rewrite::{Limits, OnSigned, Policy, Scheme, Tracking, plan};
use trackpost::token::{HostSigner, Signer, TokenKey, Verifier, Width};

fn main() {
    divan::main();
}

#[derive(Clone, Copy, Debug)]
enum Transfer {
    SevenBit,
    QuotedPrintable,
    Base64,
}

const ALL: [Transfer; 3] = [Transfer::SevenBit, Transfer::QuotedPrintable, Transfer::Base64];

fn newsletter(way: Transfer) -> Vec<u8> {
    let mut html = String::from("<!DOCTYPE html>\r\n<html><head><style>p { margin: 0 }</style></head>\r\n<body>\r\n");
    for index in 0..20 {
        html.push_str("<table role=\"presentation\" width=\"600\" style=\"border-collapse: collapse\"><tr>\r\n");
        for _ in 0..4 {
            html.push_str("<td class=\"cell\" style=\"font: 14px sans-serif; color: #333333; padding: 12px\">\r\n");
            html.push_str("Some words of a letter that many people read, and then more of them.\r\n</td>\r\n");
        }
        html.push_str(&format!(
            "<td><a class=\"button\" href=\"https://www.example.org/offers/{index}?a=1&amp;utm_source=letter\">More\r\n\
             </a></td></tr></table>\r\n<!-- {index} -->\r\n"
        ));
    }
    html.push_str("</body></html>\r\n");
    let (name, body) = match way {
        Transfer::SevenBit => ("7bit", html.into_bytes()),
        Transfer::QuotedPrintable => ("quoted-printable", {
            let mut out = Vec::new();
            transfer::encode_quoted_printable(html.as_bytes(), b"\r\n", &mut out);
            out
        }),
        Transfer::Base64 => ("base64", {
            let mut out = Vec::new();
            transfer::encode_base64(html.as_bytes(), 0, 76, b"\r\n", &mut out);
            out
        }),
    };
    let head = format!(
        "Received: from a.example.com by b.example.com; Tue, 1 Dec 2026 10:00:00 +0000\r\nFrom: News <news@example.com>\r\n\
         To: you@example.org\r\nSubject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <1@example.com>\r\n\
         MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=\"=_x\"\r\n\r\n--=_x\r\n\r\nplain\r\n--=_x\r\n\
         Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: {name}\r\n\r\n"
    );
    [head.as_bytes(), &body, b"\r\n--=_x--\r\n"].concat()
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).expect("a domain name")
}

fn tracking() -> Tracking {
    Tracking::Active(Policy {
        domain: name("example.com"),
        open: true,
        click: true,
        scheme: Scheme::Https,
        host: name("links.example.com"),
        port: 0,
        own_hosts: Vec::new(),
        on_signed: OnSigned::Skip,
        signs: false,
        limits: Limits::default(),
    })
}

fn key() -> TokenKey {
    TokenKey { id: 1, secret: [1; 32] }
}

fn signer() -> HostSigner {
    Signer::new(&key()).for_host(&name("links.example.com"))
}

fn id() -> QueueId {
    QueueId::from_bytes([1; 16])
}

#[divan::bench]
fn facts(bencher: Bencher) {
    let message = newsletter(Transfer::QuotedPrintable);
    bencher.bench(|| header_facts(black_box(&message)));
}

#[divan::bench]
fn structure(bencher: Bencher) {
    let message = newsletter(Transfer::QuotedPrintable);
    bencher.bench(|| scan::scan(black_box(&message)));
}

#[divan::bench(args = [Transfer::QuotedPrintable, Transfer::Base64])]
fn structure_and_decoding(bencher: Bencher, way: Transfer) {
    let message = newsletter(way);
    bencher.bench(|| {
        let parts = scan::scan(black_box(&message)).expect("a sound message");
        let body = &message[parts[2].body.clone()];
        match way {
            Transfer::Base64 => transfer::decode_base64(body),
            _ => transfer::decode_quoted_printable(body),
        }
    });
}

#[divan::bench(args = ALL)]
fn planning(bencher: Bencher, way: Transfer) {
    let (message, tracking) = (newsletter(way), tracking());
    bencher.bench(|| plan(black_box(&message), &tracking, 1));
}

#[divan::bench(args = ALL)]
fn a_copy(bencher: Bencher, way: Transfer) {
    let (message, signer) = (newsletter(way), signer());
    let plan = plan(&message, &tracking(), 1);
    let mut out = Vec::new();
    bencher.bench_local(|| {
        out.clear();
        plan.copy_for(black_box(&message), &id(), 0, Some(&signer), &mut out);
    });
}

#[divan::bench]
fn planning_and_one_copy(bencher: Bencher) {
    let (message, signer, tracking) = (newsletter(Transfer::QuotedPrintable), signer(), tracking());
    let mut out = Vec::new();
    bencher.bench_local(|| {
        out.clear();
        plan(black_box(&message), &tracking, 1).copy_for(&message, &id(), 0, Some(&signer), &mut out);
    });
}

#[divan::bench]
fn planning_and_a_thousand_copies(bencher: Bencher) {
    let (message, signer, tracking) = (newsletter(Transfer::QuotedPrintable), signer(), tracking());
    let mut out = Vec::new();
    bencher.bench_local(|| {
        let plan = plan(black_box(&message), &tracking, 1_000);
        for recipient in 0..1_000 {
            out.clear();
            plan.copy_for(&message, &id(), recipient, Some(&signer), &mut out);
        }
    });
}

const URL: &str = "https://www.example.org/offers/1?a=1&utm_source=letter";

#[divan::bench]
fn signing_21_tokens(bencher: Bencher) {
    let (signer, width) = (signer(), Width::for_message(1, 20));
    let mut out = Vec::with_capacity(8 << 10);
    bencher.bench_local(|| {
        out.clear();
        for link in 0..21 {
            signer.click(&id(), 0, link, width, black_box(URL), &mut out);
        }
    });
}

#[divan::bench]
fn verifying_a_token(bencher: Bencher) {
    let verifier = Verifier::new(&[key()]);
    let mut token = Vec::new();
    signer().click(&id(), 0, 0, Width::for_message(1, 20), URL, &mut token);
    bencher.bench(|| verifier.click("links.example.com", black_box(&token)));
}
