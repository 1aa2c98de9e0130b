//! Makes RSA signatures of 2,048 bits for a second and prints what one costs of the processor, in microseconds: the
//! measure of `tests/campaign dkim`. It is ring that signs, as in the relay.

use std::error::Error;
use std::time::{Duration, Instant};
use trackpost::domain::Selector;
use trackpost::keys::{DkimKeys, NewDkimKey};
use trackpost::mail::DomainName;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("keys"))?;
    let (keys, new) = (DkimKeys::new(folder.path()), NewDkimKey::generate()?);
    let domain = DomainName::parse("example.com").map_err(|e| e.to_string())?;
    let selector = Selector::parse("trackpost").map_err(|e| e.to_string())?;
    keys.keep(&domain, &selector, &new)?;
    let key = keys.open(&domain, &selector, &new.public)?;
    let text = [b'x'; 1_000];
    for _ in 0..100 {
        key.sign(&text)?;
    }
    let (began, before, mut made) = (Instant::now(), on_processor()?, 0_u32);
    while began.elapsed() < Duration::from_secs(1) {
        key.sign(&text)?;
        made += 1;
    }
    println!("{:.1}", on_processor()?.saturating_sub(before).as_secs_f64() * 1e6 / f64::from(made));
    Ok(())
}

/// How long this thread has run so far (`/proc/PID/schedstat`).
fn on_processor() -> Result<Duration, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let first = text.split_ascii_whitespace().next().ok_or("/proc/thread-self/schedstat is empty")?;
    Ok(Duration::from_nanos(first.parse()?))
}
