//! The networks of a container, read back from the kernel: for one that shares them, or that has got one more.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result};
use netlink::route::{Address, Link, Route, Router};
use record::Network;

use super::ipam::Lease;
use super::named;
use super::owner::{self, PortAlias};
use super::result::{Interface, loopback, network_of};

/// Describes the networks of a namespace: the one that leads outwards first.
pub(crate) fn describe(host: &mut Router, path: &Path) -> Result<Network> {
    let netns = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut inside = named::router(netns.as_fd()).with_context(|| format!("enter {}", path.display()))?;
    let links = inside.links(None)?;
    let own = inside.addresses()?;
    let hosts = host.addresses()?;
    let mut defaults: Vec<Route> = inside.routes()?.into_iter().filter(|way| way.destination.prefix == 0).collect();
    defaults.sort_by_key(|way| way.metric);
    let place = |link: &Link| defaults.iter().position(|way| way.index == Some(link.index)).unwrap_or(defaults.len());
    let alias = links.iter().find(|link| link.index == 1).and_then(PortAlias::of);
    let mut others: Vec<&Link> = links.iter().filter(|link| link.index != 1).collect();
    others.sort_by_key(|link| place(link));
    let (mut interfaces, mut leases) = (vec![], vec![]);
    for link in others {
        let port = link.peer.map(|index| host.link_at(index)).transpose()?.flatten();
        let port = port.filter(|port| {
            PortAlias::of(port).is_some_and(|port| Some(port.owner) == alias.as_ref().map(|own| own.owner))
        });
        let bridge = port.as_ref().map(|port| owner::bridge_at(host, port)).transpose()?.flatten();
        interfaces.extend(bridge.iter().chain(&port).map(|link| interface(link, None)));
        interfaces.push(interface(link, Some(path)));
        let internal = bridge.as_ref().filter(|bridge| owner::is_internal(bridge)).map(|bridge| bridge.index);
        let of_bridge = hosts.iter().filter(|own| Some(own.index) == internal).map(|own| own.address.address);
        let gateways: Vec<IpAddr> = defaults.iter().filter_map(|way| way.gateway).chain(of_bridge).collect();
        for Address { address, .. } in own.iter().filter(|own| own.index == link.index) {
            let gateway = gateways.iter().find(|gateway| address.contains(**gateway)).copied();
            let internal = internal.is_some();
            let lease = gateway.map(|gateway| Lease { address: *address, gateway, internal });
            leases.extend(lease.map(|lease| (lease, interfaces.len() - 1)));
        }
    }
    if interfaces.is_empty() {
        return Ok(loopback(path));
    }
    Ok(network_of(&interfaces, &leases))
}

fn interface(link: &Link, netns: Option<&Path>) -> Interface {
    let sandbox = netns.map(|netns| netns.display().to_string());
    Interface { name: link.name.clone(), mac: link.mac.as_slice().try_into().ok(), sandbox }
}
