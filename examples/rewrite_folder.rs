//! Rewrites every message of a folder, for checking in bulk with `tests/verify/verify.py`.
//!
//! ```text
//! rewrite_folder FROM TO [HOST]
//! ```
//!
//! Reads each `FROM/*.eml`, writes its copy with opens and clicks tracked to the same name in `TO`, and prints a line a
//! message: name, octets, microseconds of planning and of one copy, what became of it. The policy is that of the
//! message's From domain; the tracking host is HOST, links.shop.example.com by default. The token key is fixed: tokens
//! of different runs are equal, and worth nothing.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Instant;
use trackpost::mail::{DomainName, QueueId};
use trackpost::mime::header_facts;
use trackpost::rewrite::{Limits, OnSigned, Pixel, Policy, Report, Scheme, Tracking, plan};
use trackpost::token::{HostSigner, Signer, TokenKey};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (from, to, host) = match arguments.as_slice() {
        [from, to] => (from, to, "links.shop.example.com"),
        [from, to, host] => (from, to, host.as_str()),
        _ => return Err("usage: rewrite_folder FROM TO [HOST]".into()),
    };
    let host = DomainName::parse(host).map_err(|e| format!("{host}: {e}"))?;
    let signer = Signer::new(&TokenKey { id: 1, secret: [7; 32] }).for_host(&host);
    fs::create_dir_all(to)?;
    let mut paths: Vec<_> = fs::read_dir(from)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|end| end == "eml"));
    paths.sort();
    for path in paths {
        let name = path.file_name().ok_or("a file without a name")?;
        let line = rewrite(&path, &Path::new(to).join(name), &host, &signer)?;
        println!("{}\t{line}", name.to_string_lossy());
    }
    Ok(())
}

fn rewrite(from: &Path, to: &Path, host: &DomainName, signer: &HostSigner) -> Result<String, Box<dyn Error>> {
    let message = fs::read(from)?;
    let tracking = Tracking::Active(Policy {
        // Where there is no sender, the relay would not track; here as much as can be is to be seen.
        domain: header_facts(&message).from_domain.unwrap_or_else(|| host.clone()),
        open: true,
        click: true,
        scheme: Scheme::Https,
        host: host.clone(),
        port: 0,
        own_hosts: Vec::new(),
        on_signed: OnSigned::Skip,
        signs: false,
        limits: Limits::default(),
    });
    let start = Instant::now();
    let plan = plan(&message, &tracking, 1);
    let planned = start.elapsed();
    let mut copy = Vec::new();
    plan.copy_for(&message, &QueueId::from_bytes([1; 16]), 0, Some(signer), &mut copy);
    let copied = start.elapsed() - planned;
    fs::write(to, &copy)?;
    let times = format!("{}\t{}\t{}", message.len(), planned.as_micros(), copied.as_micros());
    Ok(format!("{times}\t{}", outcome(plan.report())))
}

fn outcome(report: &Report) -> String {
    let pixel = match report.pixel {
        Pixel::Inserted => "inserted".to_owned(),
        Pixel::Skipped(reason) => reason.to_string(),
    };
    let message = report.skipped.map_or_else(|| "tracked".to_owned(), |reason| reason.to_string());
    let (parts, links) = (&report.parts_skipped, &report.links_skipped);
    format!(
        "{message}\tpixel {pixel}\t{} of {} links\tparts left {parts:?}\tlinks left {links:?}",
        report.links_rewritten, report.links_found
    )
}
