//! IP allow lists: which addresses may use a key, and how many they are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// How many addresses there are in IPv4.
const IPV4_ADDRESSES: u64 = 1 << 32;

/// The networks that may use a key. Built once from the API's entries; every question has its
/// answer ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowList {
    networks: Box<[IpNet]>,
    invalid_entries: u32,
    ipv4: u64,
    ipv6: Ipv6Count,
    is_unrestricted: bool,
}

/// A number of IPv6 addresses, 0 to 2^128; the largest does not fit a `u128`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6Count {
    /// Fewer than 2^128.
    Some(u128),
    /// 2^128: every address.
    All,
}

impl AllowList {
    /// A list without entries, which lets in every address. The API's `null` means the same.
    pub fn unrestricted() -> Self {
        Self::parse(std::iter::empty())
    }

    /// Reads the API's entries: addresses (`10.0.0.1`, `::1`) and networks (`10.0.0.0/8`, host bits
    /// are dropped). `None` is an entry that is not even text. An entry that cannot be read is
    /// counted and lets nobody in; a list of such entries only is *not* unrestricted.
    pub fn parse<'a>(entries: impl Iterator<Item = Option<&'a str>>) -> Self {
        let mut invalid_entries = 0;
        let mut is_empty = true;
        let mut networks = Vec::with_capacity(entries.size_hint().0);
        for entry in entries {
            is_empty = false;
            match entry.and_then(network) {
                Some(network) => networks.push(network),
                None => invalid_entries += 1,
            }
        }
        networks.sort_unstable();
        networks.dedup();
        let (ipv4, ipv6) = if is_empty {
            (IPV4_ADDRESSES, Ipv6Count::All)
        } else {
            (count_ipv4(&networks), count_ipv6(&networks))
        };
        let is_unrestricted = ipv4 == IPV4_ADDRESSES || ipv6 == Ipv6Count::All;
        Self {
            networks: networks.into(),
            invalid_entries,
            ipv4,
            ipv6,
            is_unrestricted,
        }
    }

    /// The distinct networks, sorted; a single address is a network of one.
    pub fn networks(&self) -> &[IpNet] {
        &self.networks
    }

    /// Entries that are neither an address nor a network.
    pub fn invalid_entries(&self) -> u32 {
        self.invalid_entries
    }

    /// How many IPv4 addresses may use the key, 0 to 2^32; overlapping networks count once.
    pub fn ipv4_addresses(&self) -> u64 {
        self.ipv4
    }

    /// How many IPv6 addresses may use the key; overlapping networks count once.
    pub fn ipv6_addresses(&self) -> Ipv6Count {
        self.ipv6
    }

    /// Whether every address that `other` lets in may use this key too.
    pub fn covers(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.ranges(), other.ranges());
        ours.into_iter().zip(theirs).all(|(ours, theirs)| {
            // Ranges that are merged never touch, so each of theirs must fit into one of ours.
            theirs
                .iter()
                .all(|(from, to)| ours.iter().any(|(first, last)| first <= from && to <= last))
        })
    }

    /// The addresses let in, as merged ranges: of IPv4, then of IPv6.
    fn ranges(&self) -> [Vec<(u128, u128)>; 2] {
        if self.networks.is_empty() && self.is_unrestricted {
            return [vec![(0, u32::MAX.into())], vec![(0, u128::MAX)]];
        }
        [
            merge(ranges_v4(&self.networks)).collect(),
            merge(ranges_v6(&self.networks)).collect(),
        ]
    }

    /// Whether the list is empty, or lets in all of IPv4 or all of IPv6.
    pub fn is_unrestricted(&self) -> bool {
        self.is_unrestricted
    }
}

/// Reads one entry. An IPv4 address written as IPv6 (`::ffff:10.0.0.1`) is the IPv4 address that it
/// stands for.
fn network(entry: &str) -> Option<IpNet> {
    // ipnet takes `/08`, which others read as octal or not at all.
    if entry
        .split_once('/')
        .is_some_and(|(_, length)| length.len() > 1 && length.starts_with('0'))
    {
        return None;
    }
    let network = match entry.parse::<IpNet>() {
        Ok(network) => network.trunc(),
        Err(_) => IpNet::from(entry.parse::<IpAddr>().ok()?),
    };
    let IpNet::V6(v6) = network else {
        return Some(network);
    };
    match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
        (Some(address), Some(prefix_len)) => Ipv4Net::new(address, prefix_len).ok().map(IpNet::V4),
        _ => Some(network),
    }
}

fn count_ipv4(networks: &[IpNet]) -> u64 {
    merge(ranges_v4(networks))
        .map(|(first, last)| u64::try_from(last - first).unwrap_or(u64::MAX) + 1)
        .sum()
}

fn count_ipv6(networks: &[IpNet]) -> Ipv6Count {
    let mut sum = 0;
    for (first, last) in merge(ranges_v6(networks)) {
        if (first, last) == (0, u128::MAX) {
            return Ipv6Count::All;
        }
        // Short of everything, the sum fits: the ranges are disjoint.
        sum += last - first + 1;
    }
    Ipv6Count::Some(sum)
}

fn ranges_v4(networks: &[IpNet]) -> impl Iterator<Item = (u128, u128)> {
    networks.iter().filter_map(|network| match network {
        IpNet::V4(v4) => Some((as_number(v4.network()), as_number(v4.broadcast()))),
        IpNet::V6(_) => None,
    })
}

fn ranges_v6(networks: &[IpNet]) -> impl Iterator<Item = (u128, u128)> {
    networks.iter().filter_map(|network| match network {
        IpNet::V6(v6) => Some((number_v6(v6.network()), number_v6(v6.broadcast()))),
        IpNet::V4(_) => None,
    })
}

fn as_number(address: Ipv4Addr) -> u128 {
    u128::from(u32::from(address))
}

fn number_v6(address: Ipv6Addr) -> u128 {
    u128::from(address)
}

/// Joins ranges that overlap or touch. The networks come sorted by address, so one pass is enough.
fn merge(ranges: impl Iterator<Item = (u128, u128)>) -> impl Iterator<Item = (u128, u128)> {
    let mut ranges = ranges.peekable();
    std::iter::from_fn(move || {
        let (first, mut last) = ranges.next()?;
        while let Some((_, end)) = ranges.next_if(|(next, _)| *next <= last.saturating_add(1)) {
            last = last.max(end);
        }
        Some((first, last))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> AllowList {
        AllowList::parse(entries.iter().map(|entry| Some(*entry)))
    }

    #[test]
    fn counts_addresses_with_overlaps_once() {
        let cases: [(&[&str], u64, u128); 11] = [
            (&["127.0.0.1"], 1, 0),
            (&["127.0.0.1", "127.0.0.1/32"], 1, 0),
            (&["192.168.1.0/24"], 256, 0),
            (&["192.168.1.77/24"], 256, 0),
            (
                &["192.168.0.0/16", "192.168.1.0/24", "192.168.1.7"],
                65_536,
                0,
            ),
            (&["10.0.0.0/25", "10.0.0.128/25"], 256, 0),
            (&["10.0.0.0/8", "11.0.0.0/8", "13.0.0.1"], (1 << 25) + 1, 0),
            (&["::1", "fe80::/64"], 0, (1 << 64) + 1),
            (&["10.0.0.1", "2001:db8::/127"], 1, 2),
            (&["::ffff:10.0.0.1", "10.0.0.1"], 1, 0),
            (&["::/1"], 0, 1 << 127),
        ];
        for (entries, ipv4, ipv6) in cases {
            let list = list(entries);
            assert_eq!(list.ipv4_addresses(), ipv4, "{entries:?}");
            assert_eq!(list.ipv6_addresses(), Ipv6Count::Some(ipv6), "{entries:?}");
            assert!(!list.is_unrestricted(), "{entries:?}");
        }
    }

    #[test]
    fn an_empty_list_lets_everybody_in() {
        let list = AllowList::unrestricted();
        assert!(list.is_unrestricted());
        assert_eq!(list.ipv4_addresses(), 4_294_967_296);
        assert_eq!(list.ipv6_addresses(), Ipv6Count::All);
        assert_eq!(list.networks().len(), 0);
    }

    #[test]
    fn all_of_one_family_is_unrestricted_even_in_pieces() {
        for entries in [
            &["0.0.0.0/0"][..],
            &["0.0.0.0/1", "128.0.0.0/1"],
            &["::/0"],
            &["::/1", "8000::/1"],
        ] {
            assert!(list(entries).is_unrestricted(), "{entries:?}");
        }
        assert_eq!(list(&["0.0.0.0/0"]).ipv6_addresses(), Ipv6Count::Some(0));
        assert_eq!(list(&["::/0"]).ipv4_addresses(), 0);
        assert_eq!(list(&["::ffff:0:0/96"]).ipv4_addresses(), 4_294_967_296);
    }

    #[test]
    fn invalid_entries_are_counted_and_let_nobody_in() {
        let entries = [
            "",
            " 10.0.0.1",
            "10.0.0.256",
            "10.0.0.0/33",
            "::/129",
            "localhost",
            "010.0.0.1",
            "fe80::1%eth0",
            "10.0.0.0/08",
        ];
        let list = list(&entries);
        assert_eq!(list.invalid_entries(), 9);
        assert_eq!(list.networks().len(), 0);
        assert_eq!(list.ipv4_addresses(), 0);
        assert!(!list.is_unrestricted());
        assert_eq!(
            AllowList::parse([None, Some("10.0.0.1")].into_iter()).invalid_entries(),
            1
        );
    }
}
