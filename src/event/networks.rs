//! Values by network: which networks hold an address, the narrowest first, by one binary search.
//!
//! Two networks are either one inside the other or apart. So the last of the sorted networks that begins at or before
//! an address either holds it, or one of those around it does, and each network knows the next one around it.

use ipnet::IpNet;
use std::net::IpAddr;

/// Sorted once, then only asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Networks<T> {
    v4: Box<[Network<T>]>,
    v6: Box<[Network<T>]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Network<T> {
    first: u128,
    last: u128,
    /// Place of the narrowest network around this one.
    around: Option<u32>,
    value: T,
}

impl<T> Networks<T> {
    /// Of equal networks, the one that comes first in `list` is found first.
    pub fn new(list: impl IntoIterator<Item = (IpNet, T)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (network, value) in list {
            let (first, last) = (number(network.network()), number(network.broadcast()));
            let family = if matches!(network, IpNet::V4(_)) { &mut v4 } else { &mut v6 };
            family.push(Network { first, last, around: None, value });
        }
        Self { v4: sorted(v4), v6: sorted(v6) }
    }

    /// The values of all networks that hold `address`. An IPv4 address inside an IPv6 one is looked up as what it is.
    pub fn holding(&self, address: IpAddr) -> impl Iterator<Item = &T> {
        let address = address.to_canonical();
        let family = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let address = number(address);
        let nearest = family.partition_point(|network| network.first <= address).checked_sub(1);
        let next = |network: &&Network<T>| family.get(usize::try_from(network.around?).ok()?);
        std::iter::successors(nearest.and_then(|place| family.get(place)), next)
            .filter(move |network| address <= network.last)
            .map(|network| &network.value)
    }
}

fn sorted<T>(mut list: Vec<Network<T>>) -> Box<[Network<T>]> {
    // Wide before narrow, and of equals the first behind the others: the search begins at the end.
    list.reverse();
    list.sort_by_key(|network| (network.first, std::cmp::Reverse(network.last)));
    let mut open: Vec<usize> = Vec::new();
    for place in 0..list.len() {
        while open.last().is_some_and(|outer| list[*outer].last < list[place].first) {
            open.pop();
        }
        list[place].around = open.last().and_then(|outer| u32::try_from(*outer).ok());
        open.push(place);
    }
    list.into()
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn found(networks: &Networks<usize>, address: IpAddr) -> Vec<usize> {
        networks.holding(address).copied().collect()
    }

    #[test]
    fn the_narrowest_comes_first() {
        let list = ["10.0.0.0/8", "0.0.0.0/0", "10.1.0.0/16", "10.1.0.0/16", "::/0", "2001:db8::/32", "10.1.2.3/32"];
        let networks = Networks::new(list.iter().enumerate().map(|(n, text)| (text.parse().unwrap(), n)));
        for (address, want) in [
            ("10.1.2.3", &[6, 2, 3, 0, 1][..]),
            ("10.1.2.4", &[2, 3, 0, 1]),
            ("10.2.0.0", &[0, 1]),
            ("::ffff:10.2.0.0", &[0, 1]),
            ("255.255.255.255", &[1]),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", &[5, 4]),
            ("2001:db9::", &[4]),
        ] {
            assert_eq!(found(&networks, address.parse().unwrap()), want, "{address}");
        }
        assert_eq!(found(&Networks::new([]), Ipv4Addr::LOCALHOST.into()), [0usize; 0]);
    }

    fn network() -> impl Strategy<Value = IpNet> {
        let v4 = (0u32..64, 20u8..=32).prop_map(|(n, bits)| IpNet::new(Ipv4Addr::from(n << 4).into(), bits));
        let v6 = (0u128..64, 100u8..=128).prop_map(|(n, bits)| IpNet::new(Ipv6Addr::from(n << 20).into(), bits));
        prop_oneof![v4, v6].prop_map(|made| made.unwrap().trunc())
    }

    proptest! {
        #[test]
        fn as_looking_at_each(list in prop::collection::vec(network(), 0..40), n in 0u32..1100, v6: bool) {
            let address = if v6 { IpAddr::V6(Ipv6Addr::from(u128::from(n) << 16)) } else { Ipv4Addr::from(n).into() };
            let mut want: Vec<_> =
                list.iter().enumerate().filter(|(_, one)| one.contains(&address)).map(|(n, one)| (one, n)).collect();
            want.sort_by_key(|(one, n)| (std::cmp::Reverse(one.prefix_len()), *n));
            let networks = Networks::new(list.iter().enumerate().map(|(n, one)| (*one, n)));
            prop_assert_eq!(found(&networks, address), want.into_iter().map(|(_, n)| n).collect::<Vec<_>>());
        }
    }
}
