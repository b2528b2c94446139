//! Which networks a bridge gets that has none yet, and for which none was asked: the default bridge mostly the same one,
//! any other one of a pool. Where the search begins follows from the bridge's name, so that a bridge that comes back
//! mostly has its old network; what the host has addresses in or routes to is passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, anyhow};
use netlink::route::Cidr;

use super::observed::Observed;
use super::owner::hash;
use crate::request::NetworkSettings;

/// The bridge that is meant where none is named.
pub(crate) const DEFAULT_BRIDGE: &str = "drayage0";
const DEFAULT: Cidr = ipv4([10, 213, 0, 0], 16);

/// Cut into networks of this prefix length. Who has a route to all of one pool has none to another, mostly.
const POOLS: [(Cidr, u8); 3] =
    [(ipv4([10, 216, 0, 0], 13), 20), (ipv4([172, 16, 0, 0], 12), 20), (ipv4([192, 168, 0, 0], 16), 20)];
/// Local addresses (RFC 4193): fd, and "drayn".
const POOLS_IPV6: [(Cidr, u8); 1] =
    [(Cidr { address: IpAddr::V6(Ipv6Addr::new(0xfd64, 0x7261, 0x796e, 0, 0, 0, 0, 0)), prefix: 48 }, 64)];

/// Tells whether a bridge that has these gets one more network, so that what else the host has matters.
pub(super) fn is_needed(settings: &NetworkSettings, known: &[Cidr]) -> bool {
    let is_known = |subnet: &Cidr| known.iter().any(|known| known.network() == subnet.network());
    let has_all = !known.is_empty() && settings.subnets.iter().all(is_known);
    !has_all || settings.ipv6 && known.iter().all(|known| known.address.is_ipv4())
}

/// Returns the networks of the bridge: those asked for, else those that it has, else new ones.
pub(super) fn networks(name: &str, settings: &NetworkSettings, observed: &Observed) -> Result<Vec<Cidr>> {
    let known = observed.bridge.as_ref().map(|bridge| bridge.addresses.as_slice()).unwrap_or_default();
    let mut networks = match (settings.subnets.as_slice(), known) {
        ([], []) if name == DEFAULT_BRIDGE && !used(observed).any(|used| used.overlaps(DEFAULT)) => vec![DEFAULT],
        ([], []) => vec![free(name, &POOLS, observed)?],
        ([], known) => known.to_vec(),
        (wanted, _) => wanted.to_vec(),
    };
    if settings.ipv6 && networks.iter().all(|network| network.address.is_ipv4()) {
        let present = known.iter().copied().find(|known| known.address.is_ipv6());
        networks.push(present.map_or_else(|| free(name, &POOLS_IPV6, observed), Ok)?);
    }
    Ok(networks)
}

/// Returns what the host has addresses in or routes to.
fn used(observed: &Observed) -> impl Iterator<Item = Cidr> {
    // The two halves of everything are a default route too, as a VPN has it.
    let routes = observed.routes.iter().filter(|route| route.prefix > 1);
    observed.others.iter().map(|(_, address)| *address).chain(routes.copied())
}

/// Finds a network that the host knows nothing of.
fn free(bridge: &str, pools: &[(Cidr, u8)], observed: &Observed) -> Result<Cidr> {
    let used: Vec<Cidr> = used(observed).collect();
    let cut = |(pool, prefix): &(Cidr, u8)| {
        let (pool, prefix) = (*pool, *prefix);
        let count = 1_u128 << (prefix - pool.prefix);
        // The same bridge gets the same network again after a boot, so that what refers to addresses goes on to work.
        let start = u128::from(hash(bridge)) % count;
        let size = 1_u128 << (pool.bits() - prefix);
        (0..count).map(move |step| Cidr { address: pool.nth((start + step) % count * size), prefix })
    };
    pools
        .iter()
        .flat_map(cut)
        .find(|network| !used.iter().any(|used| used.overlaps(*network)))
        .ok_or_else(|| anyhow!("no network is free for {bridge}: --subnet chooses one"))
}

const fn ipv4([a, b, c, d]: [u8; 4], prefix: u8) -> Cidr {
    Cidr { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::observed::Bridge;

    fn chosen(bridge: &str, ipv6: bool, observed: &Observed) -> Result<Vec<Cidr>> {
        networks(bridge, &NetworkSettings { ipv6, ..NetworkSettings::default() }, observed)
    }

    fn observed(others: &[&str], routes: &[&str]) -> Observed {
        let cidr = |text: &&str| text.parse::<Cidr>().unwrap();
        Observed {
            others: others.iter().map(|other| ("x".to_owned(), cidr(other))).collect(),
            routes: routes.iter().map(cidr).collect(),
            ..Observed::default()
        }
    }

    #[test]
    fn a_bridge_gets_the_network_of_its_name_unless_it_is_used() {
        let none = Observed::default();
        assert_eq!(chosen(DEFAULT_BRIDGE, false, &none).unwrap(), [DEFAULT]);
        for taken in [observed(&["10.1.2.3/8"], &[]), observed(&[], &["10.213.4.0/24"])] {
            let other = chosen(DEFAULT_BRIDGE, false, &taken).unwrap()[0];
            assert!(!other.overlaps(DEFAULT) && other.prefix == 20, "{other}");
        }
        let lab = chosen("lab", false, &none).unwrap();
        assert!(POOLS[0].0.overlaps(lab[0]) && lab[0].prefix == 20 && lab[0] == lab[0].network(), "{lab:?}");
        assert_eq!(chosen("lab", false, &observed(&[], &["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1"])).unwrap(), lab);
        assert_ne!(chosen("lab0", false, &none).unwrap(), lab);
        let used = lab[0].to_string();
        for taken in [observed(&[&used], &[]), observed(&[], &[&used])] {
            let other = chosen("lab", false, &taken).unwrap()[0];
            assert!(POOLS[0].0.overlaps(other) && !other.overlaps(lab[0]), "{other}");
        }
        assert!(POOLS[1].0.overlaps(chosen("lab", false, &observed(&[], &["10.0.0.0/8"])).unwrap()[0]));
        let all = observed(&["10.0.0.1/8"], &["172.16.0.0/12", "192.168.0.0/16"]);
        assert_eq!(
            chosen("lab", false, &all).unwrap_err().to_string(),
            "no network is free for lab: --subnet chooses one"
        );
    }

    #[test]
    fn ipv6_is_added_where_there_is_none() {
        let with = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
            Observed {
                bridge: Some(Bridge { mtu: 1500, own: true, addresses, ..Bridge::default() }),
                ..Observed::default()
            }
        };
        let fresh = chosen("lab", true, &Observed::default()).unwrap();
        assert!(fresh.len() == 2 && POOLS_IPV6[0].0.overlaps(fresh[1]) && fresh[1].prefix == 64, "{fresh:?}");
        assert_eq!(chosen("lab", true, &with(&["10.9.0.1/24"])).unwrap()[1], fresh[1]);
        let both = with(&["10.9.0.1/24", "fd00::1/64"]);
        assert_eq!(chosen("lab", true, &both).unwrap(), both.bridge.as_ref().unwrap().addresses);
        assert_eq!(chosen("lab", false, &both).unwrap(), both.bridge.as_ref().unwrap().addresses);
    }
}
