//! Times of rewriting, with a newsletter of 20 KB and 20 links as the model. Budget in microseconds: scan and decode
//! 30, the parser 90, 21 tokens 8, a copy 15.

mod common;

use common::{ALL, Transfer, id, key, newsletter, signer, tracking};
use divan::{Bencher, black_box};
use trackpost::mime::{header_facts, scan, transfer};
use trackpost::rewrite::plan;
use trackpost::token::{Verifier, Width};

fn main() {
    divan::main();
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
