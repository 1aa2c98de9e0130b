//! One request: signed, to an address that anybody may be sent to, and no further.
//!
//! A name is resolved once for a connection; if one of its addresses is not public, none is connected to, else the
//! connection goes to one of these very addresses. So a name that leads elsewhere at the next question leads nowhere.

use crate::config::{WebhookPorts, Webhooks};
use crate::domain::is_public;
use crate::http::innermost;
use crate::settings::Webhook;
use crate::store::{Attempt, Delivery, MAX_RESPONSE};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// For the whole of a request.
const PATIENCE: Duration = Duration::from_secs(15);
/// Of that, for a connection to be there.
const CONNECT: Duration = Duration::from_secs(8);
/// Of that, for a name server to answer one question.
const LOOK_UP: Duration = Duration::from_secs(3);
/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 64 * 1024;

/// What posts. Cloning it is cheap.
#[derive(Clone)]
pub struct Poster {
    client: reqwest::Client,
    allow_private: bool,
    ports: WebhookPorts,
}

/// The names that receivers may look for: Svix's, and those of Standard Webhooks.
const ID: [&str; 2] = ["svix-id", "webhook-id"];
const TIMESTAMP: [&str; 2] = ["svix-timestamp", "webhook-timestamp"];
const SIGNATURE: [&str; 2] = ["svix-signature", "webhook-signature"];

impl Poster {
    /// Asks `servers` for addresses, or those of the system where there are none. The text says what is wrong.
    pub fn new(servers: &[SocketAddr], config: &Webhooks) -> Result<Self, String> {
        let allow_private = config.allow_private;
        let mut builder = reqwest::Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            .https_only(!allow_private)
            .timeout(PATIENCE)
            .connect_timeout(CONNECT)
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(super::IN_FLIGHT)
            .user_agent(concat!("trackpost/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(Resolver::new(servers, allow_private)?));
        if let Some(path) = &config.ca_file {
            let pem = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
            let roots = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| format!("{}: {e}", path.display()))?;
            for root in roots {
                builder = builder.add_root_certificate(root);
            }
        }
        let client = builder.build().map_err(|e| reason(&e))?;
        Ok(Self { client, allow_private, ports: config.ports.clone() })
    }

    /// Tells `webhook` of an event at `now`, and says what came back. Any 2xx is well (contract, section 7).
    pub async fn post(&self, webhook: &Webhook, delivery: &Delivery, now: u64) -> Attempt {
        match self.answer(webhook, delivery, now).await {
            Ok((status, response)) => Attempt { status, response, sent_at: now },
            Err(why) => Attempt { status: 0, response: cut(why), sent_at: now },
        }
    }

    async fn answer(&self, webhook: &Webhook, delivery: &Delivery, now: u64) -> Result<(u16, String), String> {
        let url = Url::parse(&webhook.endpoint).map_err(|e| e.to_string())?;
        // Endpoints that were made under another list are still there.
        if let Some(port) = url.port_or_known_default().filter(|port| !self.ports.hold(*port)) {
            return Err(format!("port {port} is closed to webhooks, which may have {}", self.ports));
        }
        // A name is looked at when it is resolved; an address never is.
        let literal = match url.host() {
            Some(url::Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(url::Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        if let Some(address) = literal.filter(|address| !self.allow_private && !is_public(*address)) {
            return Err(format!("{address} is no public address"));
        }
        let seconds = now / 1_000;
        let signatures: Vec<_> =
            webhook.secrets(now).map(|secret| secret.sign(&delivery.id, seconds, &delivery.payload)).collect();
        let values = [(ID, delivery.id.clone()), (TIMESTAMP, seconds.to_string()), (SIGNATURE, signatures.join(" "))];
        let mut request = self.client.post(url).header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (names, value) in values {
            let value = HeaderValue::try_from(value).map_err(|e| e.to_string())?;
            for name in names {
                request = request.header(HeaderName::from_static(name), value.clone());
            }
        }
        let mut response = request.body(delivery.payload.clone()).send().await.map_err(|e| reason(&e))?;
        let status = response.status().as_u16();
        let (mut body, mut read) = (Vec::new(), 0);
        // What is said decides, not how it ends.
        while let Ok(Some(chunk)) = response.chunk().await {
            read += chunk.len();
            let room = (MAX_RESPONSE + 4).saturating_sub(body.len());
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if read > MAX_ANSWER {
                break;
            }
        }
        Ok((status, cut(String::from_utf8_lossy(&body).into_owned())))
    }
}

fn cut(mut text: String) -> String {
    let mut end = text.len().min(MAX_RESPONSE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// Gives addresses out that may be connected to, all of a name's or none.
struct Resolver {
    resolver: Arc<TokioResolver>,
    allow_private: bool,
}

impl Resolver {
    fn new(servers: &[SocketAddr], allow_private: bool) -> Result<Self, String> {
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio().map_err(|e| format!("the system's name servers cannot be read: {e}"))?
        } else {
            let servers = servers.iter().map(|address| {
                let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
                (udp.port, tcp.port) = (address.port(), address.port());
                NameServerConfig::new(address.ip(), true, vec![udp, tcp])
            });
            let config = ResolverConfig::from_name_servers(servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        // All of them, since all of them are looked at.
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        (options.timeout, options.attempts) = (LOOK_UP, 2);
        Ok(Self { resolver: Arc::new(builder.build().map_err(|e| e.to_string())?), allow_private })
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (resolver, allow_private) = (Arc::clone(&self.resolver), self.allow_private);
        Box::pin(async move {
            let found = resolver.lookup_ip(name.as_str()).await;
            let found = found.map_err(|e| format!("the address of {} is not known: {e}", name.as_str()))?;
            Ok(checked(name.as_str(), found.iter().collect(), allow_private)?)
        })
    }
}

fn checked(name: &str, addresses: Vec<IpAddr>, allow_private: bool) -> Result<Addrs, String> {
    if addresses.is_empty() {
        return Err(format!("{name} has no address"));
    }
    if let Some(private) = addresses.iter().find(|address| !allow_private && !is_public(**address)) {
        return Err(format!("{name} leads to {private}, which is no public address"));
    }
    // Port 0 stands for the URL's.
    Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0))))
}

/// The innermost reason, which is the one that says something.
fn reason(error: &reqwest::Error) -> String {
    if error.is_connect() && error.is_timeout() {
        return format!("no connection in {} s", CONNECT.as_secs());
    }
    if error.is_timeout() {
        return format!("no answer in {} s", PATIENCE.as_secs());
    }
    innermost(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_private_address_is_enough_to_refuse_a_name() {
        let check = |all: &[&str], private| {
            let all = all.iter().map(|address| address.parse().unwrap()).collect();
            checked("hook.example.com", all, private).map(|all| all.map(|to| to.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(check(&["8.8.8.8", "2606:4700::1"], false).unwrap(), ["8.8.8.8:0", "[2606:4700::1]:0"]);
        for private in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00::1", "::ffff:10.0.0.1", "0.0.0.0"] {
            let refused = check(&["8.8.8.8", private], false).unwrap_err();
            assert!(refused.contains("no public address"), "{refused}");
            assert_eq!(check(&[private], true).unwrap().len(), 1);
        }
        assert!(check(&[], true).is_err());
    }

    #[test]
    fn what_is_kept_of_an_answer_ends_at_a_character() {
        assert_eq!(cut("ä".repeat(600)).len(), 1_000);
        assert_eq!(cut(format!("a{}", "ä".repeat(600))).len(), 999);
        assert_eq!(cut("short".into()), "short");
    }
}
