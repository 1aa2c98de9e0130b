//! Which addresses are anybody's to ask: what strangers may have us connect to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// False for every address that is special: loopback, private, link-local, shared, documentation, benchmarking, multicast,
/// reserved and other networks of IANA's special-purpose registries (RFC 6890), the metadata addresses of clouds, and IPv6
/// forms that lead to an IPv4 address of such a kind, or into somebody's own network.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    let special = match a {
        // "This network", private, loopback; multicast, reserved and broadcast.
        0 | 10 | 127 | 224.. => true,
        // Shared by a provider's customers (RFC 6598); a cloud's metadata is in it too.
        100 => b & 0xc0 == 64,
        // Azure's agent and DNS, from any virtual machine.
        168 => (b, c, d) == (63, 129, 16),
        // Link-local, with the metadata of most clouds.
        169 => b == 254,
        172 => b & 0xf0 == 16,
        192 => match (b, c) {
            // Private; protocol assignments; documentation.
            (168, _) | (0, 0 | 2) => true,
            // AS112 (RFC 7534, RFC 7535), AMT (RFC 7450), relays of 6to4 (RFC 7526).
            (31, 196) | (52, 193) | (88, 99) | (175, 48) => true,
            _ => false,
        },
        // Benchmarking (RFC 2544), documentation.
        198 => b & 0xfe == 18 || (b == 51 && c == 100),
        203 => b == 0 && c == 113,
        _ => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // ISATAP (RFC 5214 §6.1), under whatever prefix: a tunnel into the network of a site. The bits for "universal" and
        // "group" may be set.
        [_, _, _, _, fifth, 0x5efe, _, _] if fifth & !0x300 == 0 => false,
        // IPv4-mapped, and the well-known prefix of NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(v4(high, low)),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => is_public_v4(v4(high, low)),
        // Protocol assignments, among them Teredo, benchmarking, AMT, AS112 and ORCHID; documentation.
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
        // AS112 (RFC 7535).
        [0x2620, 0x4f, 0x8000, ..] => false,
        // The 6bone, given back in 2006 (RFC 3701); documentation (RFC 9637).
        [0x3ffe, ..] => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        // All that is routed between networks so far lies within 2000::/3. Outside of it are NAT64 of a site
        // (64:ff9b:1::/48), discard and dummy addresses (100::/48), SRv6 (5f00::/16), IPv4-compatible and -translated
        // forms, unique local (with the metadata of clouds), link-local, site-local and multicast addresses.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "223.255.255.255",
            "2606:4700::1",
            "2a00::1",
            "2002:808:808::1",
            "168.63.129.15",
            "168.63.128.16",
            "192.31.195.1",
            "192.175.47.1",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2001:db9::1",
            "2620:4f:8001::1",
            "3fff:1000::1",
            // Nothing but the digits of ISATAP, elsewhere.
            "2606:4700::5efe:101:101:101",
            "2606:4700:0:0:1:5efe:101:101",
            "64:ff9b::808:808",
            "::ffff:8.8.8.8",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for special in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "100.100.100.200",
            "169.254.170.2",
            "192.0.0.8",
            "192.0.0.192",
            "192.31.196.1",
            "192.52.193.1",
            "192.175.48.1",
            "239.255.255.250",
            "::ffff:168.63.129.16",
            "64:ff9b::168.63.129.16",
            "64:ff9b::a9fe:a9fe",
            "2002:a83f:8110::1",
            "::ffff:0:7f00:1",
            "fe80::5efe:10.0.0.1",
            "fe80::200:5efe:8.8.8.8",
            "2606:4700::5efe:10.0.0.1",
            "2606:4700::200:5efe:10.0.0.1",
            "2606:4700:1:2:100:5efe:8.8.8.8",
            "2606:4700:1:2:300:5efe:8.8.8.8",
            "64:ff9b:1:1::808:808",
            "100:0:0:1::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:1::1",
            "2001:2::1",
            "2001:3::1",
            "2001:4:112::1",
            "2001:10::1",
            "2001:20::1",
            "2001:30::1",
            "2620:4f:8000::1",
            "3ffe::1",
            "3fff:fff::1",
            "4000::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fec0::5efe:1",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::7f00:1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(special.parse().unwrap()), "{special}");
        }
    }
}
