//! What the host must do beside translating: forward packets, and let 127.0.0.1 be routed to the containers' bridge.

use std::net::IpAddr;

use anyhow::Context;
use netlink::forwarding::{is_set, set, setting};
use netlink::route::{Cidr, Router};

/// The way from the host to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// The interface: a bridge, or the host's end of a pair.
    pub(crate) interface: String,
    /// The network of the host's own that the container is in, where there is one.
    pub(crate) network: Option<Cidr>,
}

/// Finds the way to an address, if it needs no gateway.
pub(crate) fn way_to(address: IpAddr) -> anyhow::Result<Option<Way>> {
    let mut router = Router::open().context("open a routing socket")?;
    // A route by a gateway leads to another machine, where 127.0.0.1 is that machine's own.
    let route = router.route_to(address).context("look for a route")?.filter(|route| route.gateway.is_none());
    let Some(index) = route.and_then(|route| route.index) else { return Ok(None) };
    let Some(link) = router.link_at(index).context("look at the route")? else { return Ok(None) };
    let addresses = router.addresses_of(index).context("list addresses")?;
    let network = addresses.iter().filter(|own| own.address.contains(address));
    // The longest prefix is the most exact network: two of the host's may contain each other.
    let network = network.map(|own| own.address.network()).max_by_key(|network| network.prefix);
    Ok(Some(Way { interface: link.name, network }))
}

/// What turns `route_localnet` on as well as 1 does, and says that it was us.
const OURS: &str = "2";

/// Lets packets from 127.0.0.0/8 leave by an interface, and their answers come in by it. Its guard has to be there before.
pub(crate) fn route_localnet(interface: &str) -> anyhow::Result<()> {
    if is_localnet_routed(interface) { Ok(()) } else { Ok(set(&localnet(interface), OURS)?) }
}

/// Tells whether that is so.
pub(crate) fn is_localnet_routed(interface: &str) -> bool {
    is_set(&localnet(interface))
}

/// Returns the interfaces for which we have turned it on.
pub(crate) fn localnets() -> anyhow::Result<Vec<String>> {
    let look = || -> std::io::Result<Vec<String>> {
        let mut ours = Vec::new();
        for interface in sys::file::entries("/proc/sys/net/ipv4/conf")? {
            let name = interface.file_name().into_string().unwrap_or_default();
            let value = sys::file::known(setting(&localnet(&name)))?;
            ours.extend(value.filter(|value| value == OURS).map(|_| name));
        }
        Ok(ours)
    };
    look().context("look for route_localnet")
}

/// Turns it off wherever it was us who turned it on. Returns where.
pub(crate) fn leave_localnets() -> anyhow::Result<Vec<String>> {
    let interfaces = localnets()?;
    for interface in &interfaces {
        // The interface may have gone meanwhile.
        sys::file::there(set(&localnet(interface), "0"))?;
    }
    Ok(interfaces)
}

fn localnet(interface: &str) -> String {
    format!("ipv4/conf/{interface}/route_localnet")
}
