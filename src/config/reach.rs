//! Who can reach an address, and who is trusted: the rules that keep the relay closed.

use super::section::{Place, Section};
use ipnet::{IpNet, Ipv6Net};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// True where others than this machine can connect to a listener.
pub(super) fn is_reachable(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// The widest of `networks`, joined where they touch, if it is wider than any one network can rightly be.
///
/// 10.0.0.0/8 (RFC 1918) and fc00::/7 (RFC 4193) are the widest in private use, and nobody has more than a /16 of the
/// IPv6 Internet. What is wider holds strangers, whether it is written as a /0, as two halves, or as 2000::/3. So does a
/// network of IPv6 addresses that stand for IPv4 ones, behind a translator or a tunnel, if those are wider.
pub(super) fn too_wide(networks: &[IpNet]) -> Option<IpNet> {
    let joined = IpNet::aggregate(&networks.to_vec());
    joined.into_iter().filter(is_too_wide).min_by_key(IpNet::prefix_len)
}

const WIDEST_IPV4: u8 = 8;
const WIDEST_IPV6: u8 = 7;
const WIDEST_IPV6_INTERNET: u8 = 16;

/// IPv6 addresses that hold an IPv4 address, and the bit at which it begins. Where that is not the same everywhere, the
/// last.
const TRANSLATED: [(Ipv6Net, u8); 7] = [
    // IPv4-compatible (RFC 4291 §2.5.5.1).
    (net([0, 0, 0, 0, 0, 0, 0, 0], 96), 96),
    // IPv4-mapped (RFC 4291 §2.5.5.2), where it is part of something wider.
    (net([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), 96),
    // IPv4-translated (RFC 2765 §2.1).
    (net([0, 0, 0, 0, 0xffff, 0, 0, 0], 96), 96),
    // NAT64 (RFC 6052 §2.1), and for local use (RFC 8215).
    (net([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), 96),
    (net([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), 96),
    // 6to4 (RFC 3056 §2) and Teredo (RFC 4380 §4).
    (net([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), 16),
    (net([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), 96),
];

const INTERNET: Ipv6Net = net([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

const fn net([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

fn is_too_wide(network: &IpNet) -> bool {
    let v6 = match network {
        IpNet::V4(v4) => return v4.prefix_len() < WIDEST_IPV4,
        IpNet::V6(v6) => v6,
    };
    let stands_for_too_much = TRANSLATED.iter().any(|(translated, from)| {
        v6.contains(translated) || translated.contains(v6) && v6.prefix_len() < from + WIDEST_IPV4
    });
    let widest = if INTERNET.contains(v6) { WIDEST_IPV6_INTERNET } else { WIDEST_IPV6 };
    v6.prefix_len() < widest || stands_for_too_much
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
            (&["2400::/12"], Some("2400::/12")),
            (&["2a00::/16", "fd00::/8", "64:ff9b::a00:0/104", "2002:a00::/24", "::ffff:0:a00:0/104", "::1/128"], None),
            // All of IPv4 behind a translator or a tunnel: mapped, translated, compatible, NAT64, 6to4, Teredo.
            (&["::ffff:0:0/96"], Some("::ffff:0.0.0.0/96")),
            (&["::fffe:0:0/95"], Some("::fffe:0:0/95")),
            (&["::/8"], Some("::/8")),
            (&["::/96"], Some("::/96")),
            (&["::ffff:0:0:0/96"], Some("::ffff:0:0:0/96")),
            (&["64:ff9b::/96"], Some("64:ff9b::/96")),
            (&["64:ff9b::/32"], Some("64:ff9b::/32")),
            (&["64:ff9b::/97", "64:ff9b::8000:0/97"], Some("64:ff9b::/96")),
            (&["64:ff9b::8000:0/97"], Some("64:ff9b::8000:0/97")),
            (&["64:ff9b:1::/48"], Some("64:ff9b:1::/48")),
            (&["64:ff9b:1:2::/96"], Some("64:ff9b:1:2::/96")),
            (&["2002::/16"], Some("2002::/16")),
            (&["2002::/17", "2002:8000::/17"], Some("2002::/16")),
            (&["2002:8000::/17"], Some("2002:8000::/17")),
            (&["2001::/32"], Some("2001::/32")),
            (&["2001:0:102:304::/64"], Some("2001:0:102:304::/64")),
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
