//! Whether a browser would reach us at a tracking host whose TLS somebody else ends: a question that only we can answer
//! is sent there, and must come back answered.

use super::dns::Dns;
use crate::clock;
use crate::domain::Browser;
use crate::http::{PROBE_PATH, innermost, is_public};
use crate::mail::DomainName;
use crate::token::Signer;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::redirect::Policy;
use std::net::SocketAddr;
use std::time::Duration;

/// For the whole of it.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than any answer of ours has.
const MAX_ANSWER: usize = 256;

/// Asks `https://HOST[:PORT]` (port 0: the usual one) whether we are behind it. No redirect is followed; an address
/// within a network of our own is asked only with `allow_private`, since customers choose where this goes.
pub async fn ask(dns: &Dns, host: &DomainName, port: u16, signer: &Signer, allow_private: bool) -> Browser {
    match tokio::time::timeout(PATIENCE, fetch(dns, host, port, signer, allow_private)).await {
        Ok(Ok(())) => Browser::Accepts,
        Ok(Err(why)) => Browser::Refuses(why),
        Err(_) => Browser::Refuses(format!("no answer in {} s", PATIENCE.as_secs())),
    }
}

async fn fetch(dns: &Dns, host: &DomainName, port: u16, signer: &Signer, allow_private: bool) -> Result<(), String> {
    let addresses = dns.addresses(host.as_str()).await.map_err(|e| format!("its address is not known: {e}"))?;
    if addresses.is_empty() {
        return Err("it has no address".to_owned());
    }
    if let Some(private) = addresses.iter().find(|address| !allow_private && !is_public(**address)) {
        return Err(format!(
            "{private} is no public address: it is asked only with webhooks.allow_private in the configuration"
        ));
    }
    let port = if port == 0 { 443 } else { port };
    let addresses: Vec<_> = addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect();
    let client = reqwest::Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .https_only(true)
        .connect_timeout(PATIENCE / 2)
        .user_agent(concat!("trackpost/", env!("CARGO_PKG_VERSION")))
        .resolve_to_addrs(host.as_str(), &addresses)
        .build()
        .map_err(|e| innermost(&e))?;
    let nonce = URL_SAFE_NO_PAD.encode(clock::random::<18>());
    let url = format!("https://{host}:{port}{PROBE_PATH}{nonce}");
    let mut response = client.get(url).send().await.map_err(|e| innermost(&e))?;
    let status = response.status();
    if status.is_redirection() {
        return Err("it redirects elsewhere".to_owned());
    }
    if !status.is_success() {
        return Err(format!("it answers {status}"));
    }
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| innermost(&e))? {
        answer.extend_from_slice(&chunk);
        if answer.len() > MAX_ANSWER {
            break;
        }
    }
    match answer.trim_ascii() == signer.probe(host.as_str(), &nonce).as_bytes() {
        true => Ok(()),
        false => Err("what answers there is not this relay, or is not told which host was asked for".to_owned()),
    }
}
