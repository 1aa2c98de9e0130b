//! Who sent a request and which host was asked for, with or without a proxy between.

use http::header::{HOST, HeaderMap, HeaderName};
use http::request::Parts;
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The client of one request. Host names are in lower case, without port and final dot; an IPv6 address as a host
/// keeps its brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Who sent the request: the rightmost address in X-Forwarded-For that is no trusted proxy, if the connection
    /// comes from one; else the peer.
    pub address: IpAddr,
    /// The other end of the connection. An IPv4 address is never written as IPv6.
    pub peer: IpAddr,
    /// Whether the peer is a trusted proxy.
    pub from_proxy: bool,
    /// What the request names as host (RFC 9112 §3.2.2: the target's authority, else Host); empty in HTTP/1.0
    /// requests that name none.
    pub host: String,
    /// X-Forwarded-Host from anyone, the first hop first. Empty if one of its names is none, or it has over
    /// [`MAX_FORWARDED_HOSTS`].
    pub forwarded_hosts: Vec<String>,
}

/// More names than this in X-Forwarded-Host are nobody's proxies.
pub const MAX_FORWARDED_HOSTS: usize = 8;

/// A request without a usable Host where it needs one, or with two (RFC 9112 §3.2: to be answered 400).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadHost;

impl Client {
    /// Reads the client off a request's head. X-Forwarded-For counts only from a peer in `trusted_proxies`.
    pub fn of(head: &Parts, peer: SocketAddr, trusted_proxies: &[IpNet]) -> Result<Self, BadHost> {
        let peer = peer.ip().to_canonical();
        let from_proxy = is_trusted(peer, trusted_proxies);
        let address = if from_proxy { forwarded_for(&head.headers, peer, trusted_proxies) } else { peer };
        let host = asked_host(head)?;
        Ok(Self { address, peer, from_proxy, host, forwarded_hosts: forwarded_hosts(&head.headers) })
    }

    /// What limits count it as.
    pub fn counted_as(&self) -> IpAddr {
        counted_as(self.address)
    }

    /// The host that the request is for: what the trusted proxy nearest to us was asked for, else `host`.
    pub fn trusted_host(&self) -> &str {
        match self.forwarded_hosts.last() {
            Some(host) if self.from_proxy => host,
            _ => &self.host,
        }
    }

    /// What the first proxy on the way says it was asked for. Anyone can write this.
    pub fn claimed_host(&self) -> Option<&str> {
        self.forwarded_hosts.first().map(String::as_str)
    }
}

/// What limits count an address as. A client with IPv6 has a /64 to itself.
pub(super) fn counted_as(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !0 << 64).into(),
    }
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

fn asked_host(head: &Parts) -> Result<String, BadHost> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(BadHost);
    }
    if let Some(authority) = head.uri.authority() {
        return normal_host(authority.as_str().rsplit('@').next().unwrap_or("").as_bytes()).ok_or(BadHost);
    }
    match first {
        Some(value) => normal_host(value.as_bytes()).ok_or(BadHost),
        None if head.version < http::Version::HTTP_11 => Ok(String::new()),
        None => Err(BadHost),
    }
}

/// `name`, `name:port`, `[v6]` or `[v6]:port`, made lower case and stripped of the port and one final dot.
fn normal_host(text: &[u8]) -> Option<String> {
    let text = text.trim_ascii();
    let end = match text {
        [b'[', ..] => text.iter().position(|b| *b == b']')? + 1,
        _ => text.iter().position(|b| *b == b':').unwrap_or(text.len()),
    };
    let (name, port) = text.split_at(end);
    if !matches!(port, [] | [b':', ..]) || !port.iter().skip(1).all(u8::is_ascii_digit) || port.len() > 6 {
        return None;
    }
    let name = match name {
        [b'[', inner @ .., b']'] => {
            std::str::from_utf8(inner).ok()?.parse::<std::net::Ipv6Addr>().ok()?;
            name
        }
        [rest @ .., b'.'] => rest,
        _ => name,
    };
    let bracketed = name.starts_with(b"[");
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if name.is_empty() || name.len() > 253 || !(bracketed || name.iter().all(plain)) {
        return None;
    }
    String::from_utf8(name.to_ascii_lowercase()).ok()
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Walks from the nearest hop outwards: each trusted proxy vouches for the entry it appended, so the first entry that
/// is no trusted proxy is the client. What cannot be read ends the walk at the hop that passed it on.
fn forwarded_for(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let mut nearest = peer;
    for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        for entry in value.as_bytes().rsplit(|b| *b == b',') {
            let Some(address) = parse_address(entry) else { return nearest };
            nearest = address;
            if !is_trusted(address, trusted) {
                return nearest;
            }
        }
    }
    nearest
}

/// An address, with or without a port: `192.0.2.1`, `192.0.2.1:5000`, `2001:db8::1`, `[2001:db8::1]:5000`.
fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let address = text.parse::<IpAddr>().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    address.or_else(bracketed).map(|address| address.to_canonical())
}

fn forwarded_hosts(headers: &HeaderMap) -> Vec<String> {
    let mut hosts = Vec::new();
    for value in headers.get_all(X_FORWARDED_HOST) {
        for entry in value.as_bytes().split(|b| *b == b',') {
            match normal_host(entry) {
                Some(host) if hosts.len() < MAX_FORWARDED_HOSTS => hosts.push(host),
                _ => return Vec::new(),
            }
        }
    }
    hosts
}

impl fmt::Display for BadHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("request names no host, two hosts, or a malformed one")
    }
}

impl std::error::Error for BadHost {}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(target: &str, headers: &[(&str, &str)], peer: &str) -> Result<Client, BadHost> {
        let mut request = http::Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, value.as_bytes());
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let trusted: [IpNet; 2] = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        Client::of(&head, SocketAddr::new(peer.parse().unwrap(), 4000), &trusted)
    }

    #[test]
    fn hosts() {
        for (text, want) in [
            ("links.example.com", Some("links.example.com")),
            ("LINKS.Example.com:8080", Some("links.example.com")),
            ("links.example.com.", Some("links.example.com")),
            ("links.example.com.:80", Some("links.example.com")),
            ("links.example.com:", Some("links.example.com")),
            ("a_b.example.com", Some("a_b.example.com")),
            ("127.0.0.1:8080", Some("127.0.0.1")),
            ("[::1]:8080", Some("[::1]")),
            ("[2001:DB8::1]", Some("[2001:db8::1]")),
            ("", None),
            (".", None),
            (":80", None),
            ("a:b", None),
            ("a:80:80", None),
            ("a:1234567", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[evil]", None),
            ("a b", None),
            ("a/b", None),
            ("a@b", None),
            ("a,b", None),
            ("a%00", None),
            ("a\u{e4}.example", None),
            ("a?b#c", None),
        ] {
            let got = client("/", &[("host", text)], "192.0.2.1").map(|c| c.host);
            assert_eq!(got.as_deref().ok(), want, "{text:?}");
        }
    }

    #[test]
    fn the_target_names_the_host_before_the_header_does() {
        let absolute =
            client("http://u:p@Links.example.com:81/c/x", &[("host", "other.example")], "192.0.2.1").unwrap();
        assert_eq!(absolute.host, "links.example.com");
        assert_eq!(client("/", &[], "192.0.2.1"), Err(BadHost));
        assert_eq!(client("/", &[("host", "a.example"), ("host", "a.example")], "192.0.2.1"), Err(BadHost));
        let twice = client("http://a.example/", &[("host", "a.example"), ("host", "b.example")], "192.0.2.1");
        assert_eq!(twice, Err(BadHost));
    }

    #[test]
    fn who_is_believed_about_addresses() {
        let table: &[(&str, &[&str], &str)] = &[
            // A peer that is not trusted is the client, whatever it says.
            ("192.0.2.1", &["198.51.100.7"], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("::ffff:10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            // What a client put in front of it is not believed.
            ("10.0.0.1", &["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["203.0.113.9", "198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["203.0.113.9, 198.51.100.7, 10.0.0.2,2001:db8::5"], "198.51.100.7"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["198.51.100.7:5123"], "198.51.100.7"),
            ("10.0.0.1", &["[2a00::1]:5123"], "2a00::1"),
            ("10.0.0.1", &["[2a00::1]"], "2a00::1"),
            ("10.0.0.1", &["::ffff:198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["203.0.113.9, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9, <script>, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9,"], "10.0.0.1"),
        ];
        for (peer, values, want) in table {
            let mut headers = vec![("host", "links.example.com")];
            headers.extend(values.iter().map(|value| ("x-forwarded-for", *value)));
            let got = client("/", &headers, peer).unwrap();
            assert_eq!(got.address, want.parse::<IpAddr>().unwrap(), "{peer} {values:?}");
            assert_eq!(got.from_proxy, *peer != "192.0.2.1");
        }
    }

    #[test]
    fn who_is_believed_about_hosts() {
        let many = ["a.example"; MAX_FORWARDED_HOSTS + 1].join(",");
        let table: &[(&str, &[&str], &str, Option<&str>)] = &[
            ("192.0.2.1", &[], "edge.example", None),
            ("192.0.2.1", &["links.example.com"], "edge.example", Some("links.example.com")),
            ("10.0.0.1", &["Links.example.com:443"], "links.example.com", Some("links.example.com")),
            ("10.0.0.1", &["links.example.com, cdn.example"], "cdn.example", Some("links.example.com")),
            ("10.0.0.1", &["links.example.com", "cdn.example"], "cdn.example", Some("links.example.com")),
            ("10.0.0.1", &["links.example.com, b/d"], "edge.example", None),
            ("10.0.0.1", &[""], "edge.example", None),
            ("10.0.0.1", &[&many], "edge.example", None),
        ];
        for (peer, values, trusted, claimed) in table {
            let mut headers = vec![("host", "edge.example")];
            headers.extend(values.iter().map(|value| ("x-forwarded-host", *value)));
            let got = client("/", &headers, peer).unwrap();
            assert_eq!((got.trusted_host(), got.claimed_host()), (*trusted, *claimed), "{peer} {values:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_sent_hosts_are_plain(value in "[ -~\u{80}-\u{ff}]{0,80}", forwarded in "[ -~]{0,80}") {
            let headers = [("host", &*value), ("x-forwarded-host", &*forwarded), ("x-forwarded-for", &*forwarded)];
            if let Ok(client) = client("/", &headers, "10.0.0.1") {
                for host in client.forwarded_hosts.iter().chain([&client.host]) {
                    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._[]:".contains(c);
                    proptest::prop_assert!(!host.is_empty() && host.chars().all(plain), "{:?}", host);
                }
            }
        }
    }
}
