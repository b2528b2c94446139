//! A container directly on the network of one of the host's interfaces, by a macvlan link: no bridge, no rules. The host
//! itself cannot be reached over it, which is the kernel's way.
//!
//! Its notes are the links themselves, seen from inside: a macvlan link has no end on the host that could have an
//! alias.

use std::os::fd::AsFd;

use anyhow::{Result, anyhow, ensure};
use container::ContainerId;
use netlink::route::{Cidr, Link, NewLink, Router};

use super::ipam::Lease;
use super::named;
use super::owner::PortAlias;
use super::plan::{NetworkRequest, Plan, Step};
use super::result::{Interface, network};
use crate::request::NetworkSettings;

/// Computes what to do for a link over the host's link `parent`. Nothing on the host knows who has which address in that
/// network, so it must be given.
pub(crate) fn plan(request: &NetworkRequest, parent: &str) -> Result<Plan> {
    let has_addresses = !request.addresses.is_empty();
    ensure!(has_addresses, "macvlan {parent}: --ip and --subnet are needed, because ns cannot know its free addresses");
    let sandbox = Some(container::namespace(&request.id).display().to_string());
    let name = request.interface.clone();
    let link = NewLink { name: name.clone(), mac: request.mac, mtu: request.settings.mtu, group: None };
    let mut steps = vec![Step::Macvlan { link, parent: parent.to_owned() }];
    let mut leases = vec![];
    for address in &request.addresses {
        let subnet = request.settings.subnets.iter().find(|subnet| subnet.contains(*address));
        let subnet = subnet.ok_or_else(|| anyhow!("address {address} is in none of the networks given by --subnet"))?;
        let gateway = request.settings.gateways.iter().find(|gateway| subnet.contains(**gateway)).copied();
        let gateway = gateway.unwrap_or_else(|| subnet.nth(1));
        ensure!(gateway != *address, "address {address} is the gateway's: --gateway names another one");
        let address = Cidr { address: *address, prefix: subnet.prefix };
        leases.push(Lease { address, gateway, internal: false });
    }
    let address = |lease: &Lease| Step::Address { link: name.clone(), address: lease.address, on_link: true };
    steps.extend(leases.iter().map(address));
    steps.push(Step::Up(name.clone()));
    steps.push(Step::Announce { link: name.clone(), mac: request.mac, way: vec![] });
    steps.extend(leases.iter().map(|lease| request.way(lease)));
    let result = network(&[Interface { name, mac: request.mac, sandbox }], &leases);
    Ok(Plan { steps, network: result, addresses: request.addresses.clone() })
}

/// A container in a macvlan network.
#[derive(Debug)]
pub(super) struct Member {
    /// Whose it is, and its addresses in that network.
    pub(super) port: PortAlias,
    /// A socket in its namespace.
    pub(super) inside: Router,
    /// Its link there.
    pub(super) link: Link,
}

/// Looks whether a container is in a macvlan network. Nothing on the host says so: one has to look inside.
pub(super) fn member(host: &mut Router, settings: &NetworkSettings, id: &ContainerId) -> Result<Option<Member>> {
    let parent = settings.macvlan.as_deref().map(|parent| host.link(parent)).transpose()?.flatten();
    let Some(parent) = parent.filter(|_| named::exists(id)) else { return Ok(None) };
    let mut inside = named::router(named::open(id)?.as_fd())?;
    let (links, addresses) = (inside.links(None)?, inside.addresses()?);
    let lo = links.iter().find(|link| link.index == 1);
    let Some(own) = lo.and_then(PortAlias::of).filter(|own| own.id == *id) else { return Ok(None) };
    let is_on = |link: &&Link| link.kind.as_deref() == Some("macvlan") && link.peer == Some(parent.index);
    for link in links.iter().filter(is_on) {
        let of_link = addresses.iter().filter(|own| own.index == link.index).map(|own| own.address.address);
        let is_there = |address: &_| settings.subnets.iter().any(|subnet| subnet.contains(*address));
        let addresses: Vec<_> = of_link.filter(is_there).collect();
        if !addresses.is_empty() {
            return Ok(Some(Member { port: PortAlias { addresses, ..own }, inside, link: link.clone() }));
        }
    }
    Ok(None)
}
