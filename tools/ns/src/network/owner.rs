//! Whose a link is: written into its alias, so that the kernel is the state and nothing can go stale.

use std::net::IpAddr;

use container::{ContainerId, Owner, Ownership};
use netlink::route::{Link, Router};

/// The group that our links are made in: "dray". It is there from their birth on, the alias only a moment later.
pub(crate) const GROUP: u32 = 0x6472_6179;

/// A link's name has no more bytes; further ones may have.
const LONGEST: usize = 15;

/// How the names of bridges' ports begin, and those of routed networks, behind which the network's number stands.
pub(crate) const VETH: &str = "veth";
const ROUTED: &str = "dr";

/// The alias of a bridge that we have made, and so may remove.
const BRIDGE: &str = "drayage";

/// That of one which no packet leaves or enters.
const INTERNAL: &str = "drayage internal";

/// What the alias of a bridge's port says, and that of a namespace's loopback interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortAlias {
    /// The container's id.
    pub(crate) id: ContainerId,
    /// Whose it is; earlier versions did not write that.
    pub(crate) owner: Option<Owner>,
    /// The addresses that the container has on this bridge.
    pub(crate) addresses: Vec<IpAddr>,
}

impl PortAlias {
    /// Reads an alias.
    pub(crate) fn parse(alias: &str) -> Option<Self> {
        let mut words = alias.split(' ');
        let id = words.next()?.strip_prefix("ctr=")?.parse().ok()?;
        let owner = words.clone().find_map(|word| word.strip_prefix("own=")?.parse().ok());
        let addresses = words.filter_map(|word| word.strip_prefix("ip=")?.parse().ok()).collect();
        Some(Self { id, owner, addresses })
    }

    /// Returns further names of the container's port, by which it is found among thousands: the kernel gives none twice.
    pub(crate) fn names(&self) -> Vec<String> {
        let addresses = self.addresses.iter().map(|address| name_of_address(*address));
        std::iter::once(name_of_container(&self.id)).chain(addresses).collect()
    }

    /// Returns what the alias of a link says, unless the link is going already.
    pub(crate) fn of(link: &Link) -> Option<Self> {
        Self::parse(link.alias.as_deref()?)
    }
}

impl std::fmt::Display for PortAlias {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ctr={}", self.id)?;
        self.owner.map_or(Ok(()), |owner| write!(f, " own={owner}"))?;
        self.addresses.iter().try_for_each(|address| write!(f, " ip={address}"))
    }
}

/// Returns whose a namespace is, as its loopback interface says.
pub(crate) fn of_namespace(lo: &Link, id: &ContainerId) -> Option<Owner> {
    PortAlias::of(lo).filter(|own| own.id == *id)?.owner
}

/// Returns the further name of the port of a container: no longer than 127 bytes.
pub(crate) fn name_of_container(id: &str) -> String {
    format!("ctr={}", id.get(..123).unwrap_or(id))
}

/// Returns the further name of the port that has an address. A name has no colon.
pub(crate) fn name_of_address(address: IpAddr) -> String {
    format!("ip={address}").replace(':', "-")
}

/// Returns the alias of a port whose container's network is deleted, until the kernel has removed the port.
pub(crate) fn gone(id: &str) -> String {
    format!("gone={id}")
}

/// Returns the link that the bridge of a network is: by the network's name, where a link may have it.
pub(crate) fn bridge_of(network: &str) -> String {
    // `br-` and twelve digits are the fifteen bytes of a link's name (`IFNAMSIZ` less the NUL).
    if network.len() > LONGEST { format!("br-{:012x}", hash(network) >> 16) } else { network.to_owned() }
}

/// Returns the further names of that link. That of a routed network has how its ports' names begin, too: by that they are
/// known, since they are no ports of it.
pub(crate) fn names_of(network: &str, routed: bool) -> Vec<String> {
    let long = Some(network.to_owned()).filter(|network| network.len() > LONGEST);
    long.into_iter().chain(routed.then(|| routed_ports(&bridge_of(network)))).collect()
}

/// Returns the network's name.
pub(crate) fn network_of(bridge: &Link) -> &str {
    bridge.names.iter().find(|name| name.len() > LONGEST).unwrap_or(&bridge.name)
}

/// Returns how the names of a routed network's ports begin.
pub(crate) fn routed_ports(bridge: &str) -> String {
    // Eight of fifteen bytes, so that seven are left for the port's own. Two networks of one hash exclude each other,
    // since the kernel gives a further name once.
    format!("{ROUTED}{:06x}", hash(bridge) >> 40)
}

/// Returns how the names of the links to a network's containers begin, where these are no ports of its bridge.
pub(crate) fn routed_ports_of(bridge: &Link) -> Option<String> {
    Some(routed_ports(&bridge.name)).filter(|ports| bridge.names.contains(ports))
}

/// Returns what tells whether a link leads to a container in a bridge's network.
pub(crate) fn is_on(bridge: &Link) -> impl Fn(&Link) -> bool + use<> {
    let (index, routed) = (bridge.index, routed_ports(&bridge.name));
    move |port| port.controller == Some(index) || port.name.starts_with(&routed)
}

/// Finds the bridge of the network that a port leads to.
pub(crate) fn bridge_at(host: &mut Router, port: &Link) -> Result<Option<Link>, netlink::Error> {
    match (port.controller, beginning(&port.name)) {
        (Some(index), _) => host.link_at(index),
        (None, VETH) => Ok(None),
        (None, routed) => host.link(routed),
    }
}

/// Returns how a port's name begins.
fn beginning(port: &str) -> &str {
    port.get(..8).filter(|_| port.starts_with(ROUTED)).unwrap_or(VETH)
}

/// Returns the alias of a bridge of ours.
pub(crate) fn bridge_alias(internal: bool) -> &'static str {
    if internal { INTERNAL } else { BRIDGE }
}

/// Tells whether no packet leaves or enters a bridge of ours.
pub(crate) fn is_internal(link: &Link) -> bool {
    link.alias.as_deref() == Some(INTERNAL)
}

/// Tells whether a port is one that the kernel is about to remove.
pub(crate) fn is_gone(link: &Link) -> bool {
    link.alias.as_deref().is_some_and(|alias| alias.starts_with("gone="))
}

/// Tells whether a link is a bridge that we have made.
pub(crate) fn is_bridge(link: &Link) -> bool {
    // A bridge without an alias is one whose maker was killed between its birth and the message after it.
    let marked = link.alias.as_deref().map_or(link.group == GROUP, |alias| [BRIDGE, INTERNAL].contains(&alias));
    marked && link.kind.as_deref() == Some("bridge")
}

/// Tells whether a link is the host's end of a container's, and whose. One whose maker was killed may not have said so yet.
pub(crate) fn is_port_of(link: &Link, id: &ContainerId, whose: Ownership) -> bool {
    match link.alias.as_deref() {
        Some(alias) => {
            alias == gone(id) || PortAlias::parse(alias).is_some_and(|port| port.id == *id && whose.covers(port.owner))
        }
        None => port_names(id, beginning(&link.name)).any(|name| name == link.name),
    }
}

/// Returns a number that is the same for the same text on every machine and in every version (FNV-1a, then mixed so that
/// texts that differ in their last letter lie far apart).
pub(crate) fn hash(text: &str) -> u64 {
    let fnv = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

/// Returns names for the host's end of a container's link: 15 letters at most, so it cannot be the id. Mostly it is the
/// first; the others serve while the kernel still removes that of an earlier container of this id.
pub(crate) fn port_names(id: &str, beginning: &str) -> impl Iterator<Item = String> {
    let (first, digits) = (hash(id) >> 20, LONGEST.saturating_sub(beginning.len()));
    (0..64).map(move |turn| format!("{beginning}{:0digits$x}", (first + turn) & ((1 << (4 * digits)) - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_read_as_it_was_written() {
        for (alias, want) in [
            ("ctr=web own=0000001a-00000002 ip=10.213.0.5 ip=fd00::5", Some(("web", true, 2))),
            ("ctr=web ip=10.213.0.5", Some(("web", false, 1))),
            ("ctr=web", Some(("web", false, 0))),
            ("ctr=../web", None),
            ("uplink to rack 4", None),
            ("", None),
        ] {
            let port = PortAlias::parse(alias);
            assert_eq!(port.as_ref().map(|port| (&*port.id, port.owner.is_some(), port.addresses.len())), want);
            assert!(port.is_none_or(|port| port.to_string() == alias));
        }
    }

    #[test]
    fn a_port_name_is_a_link_name() {
        for id in ["web", "", &"x".repeat(200)] {
            assert!(port_names(id, VETH).chain(port_names(id, &routed_ports("lab"))).all(|name| name.len() == 15));
        }
        assert_ne!(port_names("a", VETH).next(), port_names("b", VETH).next());
        let lab = routed_ports("lab");
        assert!(port_names("a", &lab).all(|port| beginning(&port) == lab));
    }
}
