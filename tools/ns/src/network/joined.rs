//! The network of another container, described for one that shares it: read back from the kernel.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result};
use netlink::route::{Cidr, Link, Router};
use record::Network;

use super::ipam::Lease;
use super::named;
use super::owner::{PortAlias, name_of_container};
use super::result::{Interface, network};

/// Describes the network of a namespace.
pub(crate) fn describe(host: &mut Router, path: &Path) -> Result<Network> {
    let netns = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut inside = named::router(netns.as_fd()).with_context(|| format!("enter {}", path.display()))?;
    let links = inside.links(None)?;
    let addresses = inside.addresses()?;
    let routes = inside.routes()?;
    let sandbox = Some(path.display().to_string());
    let Some(main) = links.iter().find(|link| link.index != 1) else {
        return Ok(network(&[Interface { name: "lo".to_owned(), mac: None, sandbox }], &[]));
    };
    let own = addresses.iter().filter(|own| own.index == main.index).map(|own| own.address);
    let leases: Vec<Lease> = own
        .filter_map(|address: Cidr| {
            let default = routes.iter().find(|route| {
                route.destination.prefix == 0 && route.gateway.is_some_and(|gateway| address.contains(gateway))
            });
            Some(Lease { address, gateway: default?.gateway? })
        })
        .collect();
    let on_host =
        |link: &Link| Interface { name: link.name.clone(), mac: link.mac.as_slice().try_into().ok(), sandbox: None };
    let mut interfaces = vec![];
    let own = links.iter().find(|link| link.index == 1).and_then(PortAlias::of);
    let port = own.as_ref().map(|own| host.link(&name_of_container(&own.id))).transpose()?.flatten();
    let port = port.filter(|port| PortAlias::of(port).map(|port| port.owner) == own.map(|own| own.owner));
    if let Some(port) = port {
        let bridge = port.controller.map(|index| host.link_at(index)).transpose()?.flatten();
        interfaces.extend(bridge.as_ref().map(on_host));
        interfaces.push(on_host(&port));
    }
    interfaces.push(Interface { sandbox, ..on_host(main) });
    Ok(network(&interfaces, &leases))
}
