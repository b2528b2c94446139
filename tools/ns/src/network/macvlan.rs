//! A container directly on the network of one of the host's interfaces, by a macvlan link: no bridge, no rules. The host
//! itself cannot be reached over it, which is the kernel's way.

use anyhow::{Result, anyhow, ensure};
use netlink::route::{Cidr, NewLink};

use super::ipam::Lease;
use super::plan::{Plan, Request, Step};
use super::result::{Interface, network};

/// Computes what to do for a link over the host's link `parent`. Nothing on the host knows who has which address in that
/// network, so it must be given.
pub(crate) fn plan(request: &Request, parent: &str) -> Result<Plan> {
    let has_addresses = !request.addresses.is_empty();
    ensure!(has_addresses, "macvlan {parent}: --ip and --subnet are needed: who gives addresses there?");
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
    steps.extend(leases.iter().map(|lease| Step::Address { link: name.clone(), address: lease.address }));
    steps.push(Step::Up(name.clone()));
    steps.push(Step::Announce { link: name.clone(), mac: request.mac, way: vec![] });
    steps.extend(leases.iter().map(|lease| request.way(lease)));
    let result = network(&[Interface { name, mac: request.mac, sandbox }], &leases);
    Ok(Plan { steps, network: result, addresses: request.addresses.clone() })
}
