//! IP allow lists: which addresses may use a key, and how many there are.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// How many addresses there are in IPv4.
const IPV4_ADDRESSES: u64 = 1 << 32;

/// The networks that may use a key. Built once from the API's entries, with the results of all
/// queries precomputed.
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
    /// A list without entries, which allows every address. The API's `null` means the same.
    pub fn unrestricted() -> Self {
        Self::parse(std::iter::empty())
    }

    /// Parses the API's entries: addresses (`10.0.0.1`, `::1`) and networks (`10.0.0.0/8`, host
    /// bits are dropped). `None` is an entry that is not a string. An unreadable entry is counted
    /// and allows no address; a list of such entries only is *not* unrestricted.
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
            count(&networks)
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

    /// Whether this key also allows every address that `other` allows.
    pub fn covers(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.aggregated(), other.aggregated());
        // Aggregated networks never combine into a larger one, so each of theirs must fit into one.
        theirs
            .iter()
            .all(|network| ours.iter().any(|covering| covering.contains(network)))
    }

    /// The allowed addresses as the fewest possible networks.
    fn aggregated(&self) -> Vec<IpNet> {
        if self.networks.is_empty() && self.is_unrestricted {
            return vec![Ipv4Net::default().into(), Ipv6Net::default().into()];
        }
        aggregated(&self.networks)
    }

    /// Whether the list is empty, or allows all of IPv4 or all of IPv6.
    pub fn is_unrestricted(&self) -> bool {
        self.is_unrestricted
    }
}

/// Parses one entry. An IPv4-mapped IPv6 address (`::ffff:10.0.0.1`) is treated as the IPv4
/// address.
fn network(entry: &str) -> Option<IpNet> {
    // ipnet accepts `/08`, which other parsers read as octal or reject.
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

/// The same addresses as the fewest possible networks. A list of one, the most common case, takes a
/// shortcut.
fn aggregated(networks: &[IpNet]) -> Vec<IpNet> {
    let networks = networks.to_vec();
    if networks.len() < 2 {
        return networks;
    }
    IpNet::aggregate(&networks)
}

/// How many addresses the networks contain, each counted once.
fn count(networks: &[IpNet]) -> (u64, Ipv6Count) {
    let (mut ipv4, mut ipv6) = (0, 0);
    for network in aggregated(networks) {
        let host_bits = u32::from(network.max_prefix_len() - network.prefix_len());
        match network {
            IpNet::V4(_) => ipv4 += 1 << host_bits,
            IpNet::V6(_) => match 1_u128.checked_shl(host_bits) {
                Some(addresses) => ipv6 += addresses,
                // The whole address family; no other IPv6 network is left.
                None => return (ipv4, Ipv6Count::All),
            },
        }
    }
    (ipv4, Ipv6Count::Some(ipv6))
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

    /// Addresses of a universe of 64, at the start, in the middle or at the end of a family.
    fn universe(family: usize, place: usize) -> Vec<IpAddr> {
        let v4 = [0, 0x0a00_0000, u32::MAX - 63][place];
        let v6 = [0, 0x2001 << 112, u128::MAX - 63][place];
        (0..64)
            .map(|at| match family {
                0 => IpAddr::V4((v4 + at).into()),
                _ => IpAddr::V6((v6 + u128::from(at)).into()),
            })
            .collect()
    }

    /// A list of up to eight random networks out of the last seven prefix lengths.
    fn random_list(random: &mut fastrand::Rng, universe: &[IpAddr]) -> AllowList {
        let entries: Vec<String> = (0..random.usize(1..=8))
            .map(|_| {
                let address = random.choice(universe).unwrap();
                let longest = if address.is_ipv4() { 32 } else { 128 };
                format!("{address}/{}", longest - random.u8(0..=6))
            })
            .collect();
        AllowList::parse(entries.iter().map(|entry| Some(entry.as_str())))
    }

    #[test]
    fn counts_and_covers_agree_with_looking_at_each_address() {
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..6_000 {
            let universe = universe(round % 2, round / 2 % 3);
            let lists = [(); 2].map(|()| random_list(&mut random, &universe));
            let lets_in = |list: &AllowList, address: &IpAddr| {
                list.networks().iter().any(|it| it.contains(address))
            };
            for list in &lists {
                let count = universe.iter().filter(|it| lets_in(list, it)).count();
                let (ipv4, ipv6) = (list.ipv4_addresses(), list.ipv6_addresses());
                let expected = match round % 2 {
                    0 => (count as u64, Ipv6Count::Some(0)),
                    _ => (0, Ipv6Count::Some(count as u128)),
                };
                assert_eq!((ipv4, ipv6), expected, "{:?}", list.networks());
            }
            let [ours, theirs] = &lists;
            let expected = universe
                .iter()
                .all(|it| lets_in(ours, it) || !lets_in(theirs, it));
            assert_eq!(ours.covers(theirs), expected, "{ours:?} {theirs:?}");
            assert!(AllowList::unrestricted().covers(ours));
            assert!(!ours.covers(&AllowList::unrestricted()));
        }
    }

    #[test]
    fn a_whole_family_in_random_pieces_is_unrestricted_and_one_address_less_is_not() {
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..200 {
            let whole: IpNet = ["0.0.0.0/0", "::/0"][round % 2].parse().unwrap();
            let mut pieces = vec![whole];
            for _ in 0..random.usize(1..300) {
                let at = random.usize(..pieces.len());
                let prefix_len = pieces[at].prefix_len() + 1;
                // A single address cannot be split.
                if let Ok(halves) = pieces[at].subnets(prefix_len) {
                    pieces.splice(at..=at, halves);
                }
            }
            random.shuffle(&mut pieces);
            let list = |pieces: &[IpNet]| {
                let entries: Vec<String> = pieces.iter().map(ToString::to_string).collect();
                AllowList::parse(entries.iter().map(|entry| Some(entry.as_str())))
            };
            assert!(list(&pieces).is_unrestricted(), "{pieces:?}");
            assert!(!list(&pieces[1..]).is_unrestricted(), "{pieces:?}");
        }
    }
}
