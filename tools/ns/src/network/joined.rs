//! The network of another container, described for one that shares it: read back from the kernel.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result};
use netlink::route::{Cidr, Link, Router};
use record::Network;

use super::ipam::Lease;
use super::named;
use super::owner::PortAlias;
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
    let is_port = |link: &Link| {
        let port = PortAlias::of(link);
        own.as_ref().zip(port).is_some_and(|(own, port)| (&own.id, own.owner) == (&port.id, port.owner))
    };
    let on_the_host = host.links(None)?;
    if let Some(port) = on_the_host.iter().find(|link| is_port(link)) {
        let bridge = on_the_host.iter().find(|link| Some(link.index) == port.controller);
        interfaces.extend(bridge.map(on_host));
        interfaces.push(on_host(port));
    }
    interfaces.push(Interface { sandbox, ..on_host(main) });
    Ok(network(&interfaces, &leases))
}
