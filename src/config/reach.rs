//! Who can reach an address, and who is trusted: the rules that keep the relay closed.

use super::section::{Place, Section};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// True where others than this machine can connect to a listener.
pub(super) fn is_reachable(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// The widest of `networks`, joined where they touch, if it is wider than any one network can rightly be.
///
/// 10.0.0.0/8 (RFC 1918) and fc00::/7 (RFC 4193) are the widest in private use. What is wider holds strangers, whether
/// it is written as a /0, as two halves, or as 2000::/3, which is all of today's IPv6 Internet.
pub(super) fn too_wide(networks: &[IpNet]) -> Option<IpNet> {
    let limit = |network: &IpNet| match network {
        IpNet::V4(_) => 8,
        IpNet::V6(_) => 7,
    };
    let joined = IpNet::aggregate(&networks.to_vec());
    joined.into_iter().filter(|network| network.prefix_len() < limit(network)).min_by_key(IpNet::prefix_len)
}

/// The addresses that the file gives to listeners, to find those that cannot all be bound.
#[derive(Default)]
pub(super) struct Bound(Vec<(SocketAddr, Place)>);

impl Bound {
    /// Notes the addresses of `key`; one that is taken is a fault.
    pub fn claim(&mut self, section: &mut Section<'_>, key: &'static str, addresses: &[SocketAddr]) {
        if section.is_bad(&[key]) {
            return;
        }
        for &address in addresses {
            let Some((other, place)) = self.0.iter().find(|(other, _)| collide(*other, address)) else {
                self.0.push((address, section.place(key)));
                continue;
            };
            section.refuse(true, &[key], format_args!("\"{address}\" is taken by \"{other}\", {place}"));
        }
    }

    /// The listener that a connection to `host` and `port` from this machine would end at, as far as one can tell
    /// without a look-up.
    pub fn answering(&self, host: &str, port: u16) -> Option<&Place> {
        let address = if host == "localhost" { Some(IpAddr::from([127, 0, 0, 1])) } else { host.parse().ok() };
        let address = address?.to_canonical();
        let reaches = |listener: &SocketAddr| {
            let any = listener.ip().is_unspecified() && address.is_loopback();
            listener.port() == port && (any || listener.ip().to_canonical() == address)
        };
        self.0.iter().find(|(listener, _)| reaches(listener)).map(|(_, place)| place)
    }
}

/// Port 0 is any free port. The wildcard address takes the port of every address of its family, and of that alone.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let any = a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified());
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_too_wide() {
        let table: &[(&[&str], Option<&str>)] = &[
            (&[], None),
            (&["10.0.0.0/8", "127.0.0.0/8", "::1/128", "fc00::/7", "fe80::/10"], None),
            (&["0.0.0.0/0"], Some("0.0.0.0/0")),
            (&["::/0"], Some("::/0")),
            (&["0.0.0.0/1", "128.0.0.0/1"], Some("0.0.0.0/0")),
            (&["128.0.0.0/1"], Some("128.0.0.0/1")),
            (&["192.0.0.0/2", "128.0.0.0/2", "0.0.0.0/1", "10.0.0.0/8"], Some("0.0.0.0/0")),
            (&["10.0.0.0/8", "11.0.0.0/8"], Some("10.0.0.0/7")),
            (&["2000::/3"], Some("2000::/3")),
            (&["2001:db8::/32", "8.0.0.0/6"], Some("8.0.0.0/6")),
        ];
        for (networks, want) in table {
            let networks: Vec<IpNet> = networks.iter().map(|n| n.parse().unwrap()).collect();
            assert_eq!(too_wide(&networks).map(|n| n.to_string()).as_deref(), *want, "{networks:?}");
        }
    }

    #[test]
    fn addresses_that_collide() {
        let table = [
            ("127.0.0.1:25", "127.0.0.1:25", true),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("0.0.0.0:25", "127.0.0.1:25", true),
            ("127.0.0.1:25", "0.0.0.0:26", false),
            ("[::]:25", "[::1]:25", true),
            ("[::]:25", "0.0.0.0:25", false),
        ];
        for (a, b, want) in table {
            assert_eq!(collide(a.parse().unwrap(), b.parse().unwrap()), want, "{a} {b}");
        }
    }

    #[test]
    fn reachable_from_outside() {
        let table = [("127.0.0.1:25", false), ("127.8.8.8:25", false), ("[::1]:25", false)];
        let table =
            table.into_iter().chain([("[::ffff:127.0.0.1]:25", false), ("0.0.0.0:25", true), ("[::]:25", true)]);
        for (address, want) in table.chain([("192.0.2.1:25", true), ("10.0.0.1:25", true)]) {
            assert_eq!(is_reachable(address.parse().unwrap()), want, "{address}");
        }
    }
}
