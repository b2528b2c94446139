//! Which address a container gets. There are no leases: what is taken is what the bridge's ports say, and where to begin
//! follows from the id, so that a container that comes back mostly finds its old address free.

use std::net::IpAddr;

use anyhow::{Result, bail, ensure};
use netlink::route::Cidr;

use super::owner::hash;

/// One network's part in a container's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// The container's address, with the network's prefix length.
    pub(crate) address: Cidr,
    /// The bridge's address in the same network.
    pub(crate) gateway: IpAddr,
    /// It leads nowhere but to the bridge.
    pub(crate) internal: bool,
}

/// Says who has an address.
pub(crate) type Holders<'a> = &'a mut dyn FnMut(IpAddr) -> Option<String>;

/// More addresses than this are not tried.
const TRIES: u128 = 1 << 16;

/// Chooses an address in the network of `gateway`: the wanted one, or in the range the first after the id's own place that
/// has no holder.
pub(crate) fn choose(
    id: &str,
    gateway: Cidr,
    range: Cidr,
    wanted: Option<IpAddr>,
    holder: Holders<'_>,
) -> Result<Lease> {
    let network = gateway.network();
    let lease = |address| {
        let address = Cidr { address, prefix: network.prefix };
        Lease { address, gateway: gateway.address, internal: false }
    };
    if let Some(address) = wanted {
        if let Some(holder) = holder(address) {
            bail!("address {address} is taken by {holder}");
        }
        let is_free = address != gateway.address && usable(network, address);
        ensure!(is_free, "address {address} is the gateway's, the network's own or the broadcast address of {network}");
        return Ok(lease(address));
    }
    // The network's own address is number 0; in IPv4 the last one is for broadcasts.
    let first = u128::from(range == network);
    let count = range.size().saturating_add(1).saturating_sub(2 * first);
    // Not the lowest free one: an address that was just given back is not given to another at once, whose neighbours
    // and connections would be taken for the old one's.
    let start = if count == 0 { 0 } else { u128::from(hash(id)) % count };
    (0..count.min(TRIES))
        .map(|step| range.nth(first + (start + step) % count))
        .find(|address| usable(network, *address) && *address != gateway.address && holder(*address).is_none())
        .map(lease)
        .ok_or_else(|| anyhow::anyhow!("no address is free in {range}"))
}

/// Tells whether a host may have the address.
fn usable(network: Cidr, address: IpAddr) -> bool {
    let small = network.bits() - network.prefix < 2;
    network.contains(address)
        && (small || (address != network.address && (address.is_ipv6() || address != network.last())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(id: &str, gateway: Cidr, wanted: Option<IpAddr>, taken: &[IpAddr]) -> Result<Lease> {
        let holder = |address| taken.iter().position(|taken| *taken == address).map(|holder| format!("c{holder}"));
        super::choose(id, gateway, gateway.network(), wanted, &mut { holder })
    }

    fn addresses(addresses: &[&str]) -> Vec<IpAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn every_address_is_given_once_and_then_none() {
        let gateway: Cidr = "10.0.0.1/29".parse().unwrap();
        let mut taken: Vec<IpAddr> = vec![];
        for n in 0..5 {
            let lease = choose(&format!("c{n}"), gateway, None, &taken).unwrap();
            assert!(usable(gateway.network(), lease.address.address) && lease.address.address != gateway.address);
            assert!(!taken.contains(&lease.address.address));
            taken.push(lease.address.address);
        }
        let error = choose("c6", gateway, None, &taken).unwrap_err();
        assert_eq!(error.to_string(), "no address is free in 10.0.0.0/29");
    }

    #[test]
    fn a_range_is_all_that_addresses_are_chosen_from() {
        for (gateway, range, want) in [
            ("10.0.0.1/24", "10.0.0.0/30", 2),
            ("10.0.0.1/24", "10.0.0.252/30", 3),
            ("10.0.0.1/24", "10.0.0.9/32", 1),
            ("fd00::1/64", "fd00::f:0/126", 4),
        ] {
            let (gateway, range): (Cidr, Cidr) = (gateway.parse().unwrap(), range.parse().unwrap());
            let mut taken: Vec<IpAddr> = vec![];
            let free = |taken: &[IpAddr]| {
                super::choose("web", gateway, range, None, &mut |address| {
                    taken.contains(&address).then(|| "db".to_owned())
                })
            };
            while let Ok(lease) = free(&taken) {
                assert!(range.contains(lease.address.address) && lease.address.prefix == gateway.prefix);
                taken.push(lease.address.address);
            }
            assert_eq!(taken.len(), want, "{range}");
        }
    }

    #[test]
    fn an_id_keeps_its_address() {
        let gateway: Cidr = "10.213.0.1/16".parse().unwrap();
        let first = choose("web", gateway, None, &[]).unwrap();
        assert_eq!(choose("web", gateway, None, &addresses(&["10.213.0.9"])).unwrap(), first);
        assert_eq!(first.address.prefix, 16);
    }

    #[test]
    fn a_wanted_address_must_be_free_and_a_hosts() {
        let gateway: Cidr = "10.0.0.1/24".parse().unwrap();
        let taken = addresses(&["10.0.0.7"]);
        for (wanted, want) in [
            ("10.0.0.8", Ok("10.0.0.8/24")),
            ("10.0.0.7", Err("address 10.0.0.7 is taken by c0")),
            (
                "10.0.0.1",
                Err("address 10.0.0.1 is the gateway's, the network's own or the broadcast address of 10.0.0.0/24"),
            ),
            (
                "10.0.0.255",
                Err("address 10.0.0.255 is the gateway's, the network's own or the broadcast address of 10.0.0.0/24"),
            ),
        ] {
            let got = choose("x", gateway, Some(wanted.parse().unwrap()), &taken);
            let got = got.map(|lease| lease.address.to_string()).map_err(|error| error.to_string());
            assert_eq!(got, want.map(str::to_owned).map_err(str::to_owned));
        }
    }

    #[test]
    fn tiny_and_huge_networks() {
        for (gateway, free) in [
            ("10.0.0.1/32", false),
            ("10.0.0.0/31", false),
            ("10.0.0.1/30", true),
            ("fd00::1/64", true),
            ("fd00::1/126", true),
        ] {
            assert_eq!(choose("web", gateway.parse().unwrap(), None, &[]).is_ok(), free, "{gateway}");
        }
    }
}
