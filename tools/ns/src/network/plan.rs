//! What there is to do for a container's network, computed from the request and from what is there already.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use container::{ContainerId, NetworkName, Owner, namespace};
use netlink::foreign::Forward;
use netlink::route::{Cidr, Mac, NewLink};
use record::Network;

use super::firewall::BridgeRules;
use super::ipam::{Holders, Lease, choose};
use super::observed::Observed;
use super::owner::{self, PortAlias, hash};
use super::pool;
use super::result::{Interface, loopback, network};
use crate::request::{NetworkDriver, NetworkSettings};

/// A container's network as its user wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetworkRequest {
    /// The container's id, which names the namespace.
    pub(crate) id: ContainerId,
    /// Whose the network is.
    pub(crate) owner: Owner,
    /// Further names by which the other containers on the bridge find it.
    pub(crate) names: Vec<String>,
    /// The network's name.
    pub(crate) network: String,
    /// The bridge; without one there is nothing but a loopback interface.
    pub(crate) bridge: Option<String>,
    /// What the network is like.
    pub(crate) settings: NetworkSettings,
    /// The container's addresses; a free one of each network where none is given.
    pub(crate) addresses: Vec<IpAddr>,
    /// The name of the container's interface.
    pub(crate) interface: String,
    /// Its link-layer address.
    pub(crate) mac: Option<Mac>,
    /// What to do about other firewalls' chains that drop what is forwarded; `None` opens them for a bridge that has a guard.
    pub(crate) forward: Option<Forward>,
    /// The network of CNI's host-local in which the container's addresses are noted too.
    pub(crate) host_local: Option<NetworkName>,
    /// Whether a program of the user's leads outwards, in place of the host.
    pub(crate) user_mode: bool,
    /// How far behind others a way outwards by this network stands.
    pub(crate) metric: u32,
    /// Whether the container has a network already.
    pub(crate) is_further: bool,
}

impl NetworkRequest {
    /// Returns what links of the container say of themselves.
    pub(crate) fn alias(&self, addresses: &[IpAddr]) -> PortAlias {
        PortAlias { id: self.id.clone(), owner: Some(self.owner), addresses: addresses.to_vec() }
    }

    /// Returns how the names of the links to the network's containers begin, where these are no ports of the bridge.
    pub(super) fn routed_ports(&self) -> Option<String> {
        let bridge = self.bridge.as_deref().filter(|_| self.settings.driver == NetworkDriver::Routed);
        bridge.map(owner::routed_ports)
    }

    /// Returns the step that leads outwards by a gateway.
    pub(super) fn way(&self, lease: &Lease) -> Step {
        Step::Route { gateway: lease.gateway, link: self.interface.clone(), metric: self.metric }
    }
}

/// One thing to do. Its text is its line under -v and its error's context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make the named namespace.
    Namespace(PortAlias),
    /// Note an address as CNI's host-local does.
    Lease { network: NetworkName, address: IpAddr, id: ContainerId, interface: String },
    /// Make a bridge.
    Bridge(NewLink),
    /// Let the host's end of something say whose it is, and be found by further names.
    Alias { link: String, alias: String, names: Vec<String> },
    /// Give a link of the host an address.
    HostAddress { link: String, address: Cidr },
    /// Keep a link of the host from what its neighbours say by IPv6, or from IPv6 as a whole.
    HostIpv6 { link: String, enabled: bool },
    /// Bring a link of the host up.
    HostUp(String),
    /// Let the kernel forward packets.
    Forward { ipv4: bool },
    /// Give packets that leave the networks the host's address, and close what is not published.
    Firewall { rules: BridgeRules, first: bool },
    /// Make the pair of links that joins container and bridge.
    Pair { port: NewLink, bridge: Option<String>, peer: NewLink },
    /// Make the host's end of a container's link a port of a bridge again.
    Port { port: String, bridge: String },
    /// Make a link on the network of one of the host's.
    Macvlan { link: NewLink, parent: String },
    /// Let the bridge send packets back where they came from.
    Hairpin(String),
    /// Give a link of the container an address.
    Address { link: String, address: Cidr, on_link: bool },
    /// Route to a container's address, where that is no neighbour of the host.
    HostRoute { link: String, address: IpAddr, gateway: IpAddr, mac: Option<Mac> },
    /// Let a container find the gateway, and by it the others of its network, where these are no neighbours.
    Neighbours { link: String, lease: Lease, mac: Mac },
    /// Bring a link of the container up.
    Up(String),
    /// Tell the neighbours of a link of the container who has its addresses now: once the links of the host on the way
    /// forward.
    Announce { link: String, mac: Option<Mac>, way: Vec<String> },
    /// Let a program of the user's lead outwards.
    Outward { id: ContainerId, netns: PathBuf },
    /// Send everything to the gateway.
    Route { gateway: IpAddr, link: String, metric: u32 },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(of) => write!(f, "make network namespace {}", of.id),
            Self::Lease { network, address, .. } => write!(f, "note address {address} in network {network}"),
            Self::Bridge(link) => write!(f, "make bridge {}", link.name),
            Self::Alias { link, alias, .. } => write!(f, "mark {link} as {alias:?}"),
            Self::HostAddress { link, address } => write!(f, "give {link} address {address}"),
            Self::HostIpv6 { link, enabled: true } => write!(f, "take no router advertisements from {link}"),
            Self::HostIpv6 { link, enabled: false } => write!(f, "leave {link} without IPv6"),
            Self::HostUp(link) => write!(f, "bring {link} up"),
            Self::Forward { ipv4 } => write!(f, "forward packets of IPv{}", if *ipv4 { 4 } else { 6 }),
            Self::Firewall { rules, .. } if rules.internal => write!(f, "keep packets of {} inside", rules.bridge),
            Self::Firewall { rules, .. } if rules.masquerade => write!(f, "masquerade packets of {}", rules.bridge),
            Self::Firewall { rules, .. } => write!(f, "let packets of {} through", rules.bridge),
            Self::Pair { port, bridge, peer } => {
                let to = bridge.as_deref().unwrap_or("the host");
                write!(f, "join {} to {to} through {}", peer.name, port.name)
            }
            Self::Port { port, bridge } => write!(f, "make {port} a port of {bridge}"),
            Self::Macvlan { link, parent } => write!(f, "put {} on the network of {parent}", link.name),
            Self::Hairpin(link) => write!(f, "let {link} send packets back"),
            Self::HostRoute { link, address, .. } => write!(f, "route {address} through {link}"),
            Self::Neighbours { link, lease, .. } => write!(f, "lead to {} through {link}", lease.address.network()),
            Self::Address { link, address, .. } => write!(f, "give the container's {link} address {address}"),
            Self::Up(link) => write!(f, "bring the container's {link} up"),
            Self::Announce { link, .. } => write!(f, "announce the addresses of the container's {link}"),
            Self::Outward { netns, .. } => write!(f, "lead outwards from {}", netns.display()),
            Self::Route { gateway, link, .. } => write!(f, "route the container's packets to {gateway} through {link}"),
        }
    }
}

/// The steps, and the result that they come to.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) network: Network,
    pub(crate) addresses: Vec<IpAddr>,
}

/// Computes what to do; `holder` says who has an address.
pub(crate) fn plan(request: &NetworkRequest, observed: &Observed, holder: Holders<'_>) -> Result<Plan> {
    let sandbox = Some(namespace(&request.id).display().to_string());
    let mut steps = vec![];
    if let Some(parent) = &request.settings.macvlan {
        return super::macvlan::plan(request, parent);
    }
    let Some(bridge) = &request.bridge else { return Ok(without_bridge(request)) };
    let (internal, routed) = (request.settings.internal, request.routed_ports().is_some());
    let gateways = gateways(bridge, &request.settings, observed)?;
    let leases = leases(request, &gateways, holder)?;
    steps.extend(notes(request, &leases));
    // Given, not the kernel's choice: a bridge without an address of its own takes the lowest of its ports', and
    // changes it when a container comes, which containers' neighbour tables do not hear of.
    let bridge_mac = match &observed.bridge {
        Some(known) => known.mac,
        None => Some(mac(leases.first().map(|lease| lease.gateway), bridge)),
    };
    // As long as the way outwards takes, or as the bridge was made for: longer packets would be lost.
    let mtu = request.settings.mtu.or(observed.bridge.as_ref().map_or(observed.mtu, |known| Some(known.mtu)));
    if observed.bridge.is_none() {
        let link = NewLink { name: bridge.clone(), mac: bridge_mac, mtu, group: Some(owner::GROUP) };
        steps.push(Step::Bridge(link));
    }
    if let Some(known) = observed.bridge.as_ref().map_or(Some(vec![]), |known| known.half_made.clone()) {
        let (alias, mut names) = (owner::bridge_alias(internal).to_owned(), owner::names_of(&request.network, routed));
        names.retain(|name| !known.contains(name));
        steps.push(Step::Alias { link: bridge.clone(), alias, names });
    }
    let enabled = gateways.iter().any(|gateway| !gateway.address.is_ipv4());
    if observed.bridge.as_ref().is_none_or(|known| known.own && enabled) {
        steps.push(Step::HostIpv6 { link: bridge.clone(), enabled });
    }
    let has = |gateway: &Cidr| observed.bridge.as_ref().is_some_and(|known| known.addresses.contains(gateway));
    let missing = gateways.iter().filter(|gateway| !has(gateway));
    steps.extend(missing.map(|address| Step::HostAddress { link: bridge.clone(), address: *address }));
    // Also where it was up before: somebody may have taken it down.
    steps.push(Step::HostUp(bridge.clone()));
    let rules = firewall(request, observed, bridge, &gateways);
    if !rules.internal || routed {
        steps.extend(forwards(&gateways));
    }
    // What iptables-legacy has is looked for with the first container of a bridge alone: it takes the execution of
    // that program.
    let first = observed.bridge.as_ref().is_none_or(|known| known.free);
    if rules.internal || rules.masquerade || rules.forward != Forward::Off {
        steps.push(Step::Firewall { rules, first });
    }
    let port_name = observed.port.clone();
    let addresses: Vec<IpAddr> = leases.iter().map(|lease| lease.address.address).collect();
    let port_mac = mac(None, &port_name);
    let mac = request.mac.unwrap_or_else(|| mac(addresses.first().copied(), &request.id));
    let port = NewLink { name: port_name.clone(), mac: Some(port_mac), mtu, group: Some(owner::GROUP) };
    let peer = NewLink { name: request.interface.clone(), mac: Some(mac), mtu, group: None };
    let controller = Some(bridge.clone()).filter(|_| !routed);
    // The firewall is there before: no packet of the new container's finds a bridge without its guard.
    steps.push(Step::Pair { port, bridge: controller.clone(), peer });
    // A bridge's port speaks for nobody.
    steps.push(Step::HostIpv6 { link: port_name.clone(), enabled: enabled && routed });
    let alias = request.alias(&addresses);
    // Only one link has the container's own name.
    // The further names are the addresses' reservations: from here on the kernel refuses them to another port.
    let names = alias.names().into_iter().skip(usize::from(request.is_further)).collect();
    steps.push(Step::Alias { link: port_name.clone(), alias: alias.to_string(), names });
    let link = request.interface.clone();
    let address = |lease: &Lease| Step::Address { link: link.clone(), address: lease.address, on_link: !routed };
    if !routed {
        steps.push(Step::Hairpin(port_name.clone()));
    }
    steps.extend(leases.iter().map(address));
    steps.push(Step::Up(link.clone()));
    let way = [port_name.clone()].into_iter().chain(controller).collect();
    // Neighbours may still have the address of the container that had it before, with another hardware address, for a
    // minute.
    steps.push(Step::Announce { link: link.clone(), mac: Some(mac), way });
    // What was known of neighbours before that is forgotten.
    let ends = [(&port_name, port_mac), (&link, mac)];
    steps.extend(leases.iter().filter(|_| routed).flat_map(|lease| neighbours(lease, ends)));
    steps.extend(leases.iter().filter(|lease| !lease.internal).map(|lease| request.way(lease)));
    let interfaces = [
        Interface { name: bridge.clone(), mac: bridge_mac, sandbox: None },
        Interface { name: port_name, mac: Some(port_mac), sandbox: None },
        Interface { name: link, mac: Some(mac), sandbox },
    ];
    Ok(Plan { steps, network: network(&interfaces, &leases), addresses })
}

/// Returns the steps that lead from one end of a pair of links to the other, which nobody has to look for.
fn neighbours(lease: &Lease, [(port, port_mac), (link, mac)]: [(&String, Mac); 2]) -> [Step; 2] {
    let (address, gateway, mac) = (lease.address.address, lease.gateway, Some(mac));
    let host = Step::HostRoute { link: port.clone(), address, gateway, mac };
    [host, Step::Neighbours { link: link.clone(), lease: *lease, mac: port_mac }]
}

/// Returns the bridge's rules.
fn firewall(request: &NetworkRequest, observed: &Observed, bridge: &str, gateways: &[Cidr]) -> BridgeRules {
    let known = observed.bridge.as_ref();
    let internal = request.settings.internal;
    let masquerade = !request.settings.no_masquerade && !internal;
    // On somebody else's bridge there are containers of which we do not know who may reach them, so nothing is opened or
    // closed unasked; nor is a bridge opened that has no guard.
    let is_own = known.is_none_or(|bridge| bridge.own);
    let forward = request.forward.unwrap_or(match (is_own, masquerade || internal) {
        (true, true) => Forward::Insert,
        (true, false) => Forward::Warn,
        (false, _) => Forward::Off,
    });
    let mut networks: Vec<Cidr> = known.into_iter().flat_map(|bridge| &bridge.addresses).copied().collect();
    networks.extend(gateways);
    networks = networks.iter().map(|network| network.network()).collect();
    networks.sort_unstable();
    networks.dedup();
    let (ports, bridge, guard) = (request.routed_ports(), bridge.to_owned(), masquerade && is_own);
    BridgeRules { bridge, ports, networks, guard, masquerade, internal, forward }
}

/// Returns the steps that forward packets of the families that have a gateway.
pub(super) fn forwards(gateways: &[Cidr]) -> impl Iterator<Item = Step> {
    let families = [true, false].into_iter();
    let used = families.filter(|ipv4| gateways.iter().any(|gateway| gateway.address.is_ipv4() == *ipv4));
    used.map(|ipv4| Step::Forward { ipv4 })
}

/// Nothing but a loopback interface, and whatever leads outwards.
fn without_bridge(request: &NetworkRequest) -> Plan {
    let outward = || Step::Outward { id: request.id.clone(), netns: namespace(&request.id) };
    let steps = request.user_mode.then(outward).into_iter().collect();
    Plan { steps, network: loopback(&namespace(&request.id)), addresses: vec![] }
}

/// Notes addresses in the network that is shared with CNI's host-local, if one is.
fn notes<'a>(request: &'a NetworkRequest, leases: &'a [Lease]) -> impl Iterator<Item = Step> + 'a {
    request.host_local.iter().flat_map(move |network| {
        leases.iter().map(move |lease| Step::Lease {
            network: network.clone(),
            address: lease.address.address,
            id: request.id.clone(),
            interface: request.interface.clone(),
        })
    })
}

/// Finds the bridge's address in each network.
pub(super) fn gateways(bridge: &str, settings: &NetworkSettings, observed: &Observed) -> Result<Vec<Cidr>> {
    let known = observed.bridge.as_ref().map(|bridge| bridge.addresses.as_slice()).unwrap_or_default();
    let mut gateways = vec![];
    for subnet in &pool::networks(bridge, settings, observed)? {
        let wanted = settings.gateways.iter().find(|address| subnet.contains(**address)).copied();
        let present = known.iter().find(|address| address.overlaps(*subnet)).copied();
        let gateway = match (present, wanted) {
            (Some(present), _) if present.network() != subnet.network() => {
                bail!("the bridge has address {present}, which is not in {}", subnet.network())
            }
            (Some(present), Some(wanted)) if present.address != wanted => {
                bail!("the bridge already has address {present}, not {wanted}")
            }
            (Some(present), _) => present,
            (None, wanted) => Cidr { address: wanted.unwrap_or_else(|| subnet.nth(1)), prefix: subnet.prefix },
        };
        // A network that is there stays, whatever the host has joined since.
        let others = observed.others.iter().filter(|_| present.is_none());
        if let Some((link, address)) = others.into_iter().find(|(_, address)| address.overlaps(*subnet)) {
            bail!("network {} is in use: {link} has address {address}", subnet.network());
        }
        gateways.push(gateway);
    }
    for wanted in &settings.gateways {
        let is_one = gateways.iter().any(|gateway| gateway.address == *wanted);
        ensure!(is_one, "gateway {wanted} is in none of the networks");
    }
    for range in &settings.ip_ranges {
        let has = |gateway: &Cidr| gateway.contains(range.network().address) && gateway.prefix <= range.prefix;
        ensure!(gateways.iter().any(has), "range {range} is in none of the networks");
    }
    Ok(gateways)
}

fn leases(request: &NetworkRequest, gateways: &[Cidr], holder: Holders<'_>) -> Result<Vec<Lease>> {
    let wanted = |gateway: &Cidr| request.addresses.iter().find(|address| gateway.contains(**address)).copied();
    for address in &request.addresses {
        let inside = gateways.iter().any(|gateway| gateway.contains(*address));
        let networks: Vec<_> = gateways.iter().map(|gateway| gateway.network().to_string()).collect();
        ensure!(inside, "address {address} is not in {}", networks.join(" or "));
    }
    let lease = |gateway: &Cidr| {
        let range = request.settings.ip_ranges.iter().find(|range| gateway.overlaps(**range));
        let range = range.map_or(gateway.network(), |range| range.network());
        let lease = choose(&request.id, *gateway, range, wanted(gateway), holder)?;
        Ok(Lease { internal: request.settings.internal, ..lease })
    };
    gateways.iter().map(lease).collect()
}

/// Derives a link-layer address from an IPv4 address, so that it comes back with it, or from a name.
pub(super) fn mac(address: Option<IpAddr>, name: &str) -> Mac {
    // 0a: locally administered, and no multicast address.
    if let Some(IpAddr::V4(address)) = address {
        let [a, b, c, d] = address.octets();
        return [0x0a, 0x58, a, b, c, d];
    }
    let mut mac = [0x0a; 6];
    mac[1..].copy_from_slice(&hash(name).to_be_bytes()[..5]);
    mac
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::observed::Bridge;
    use super::*;

    pub(in super::super) fn request() -> NetworkRequest {
        NetworkRequest {
            id: "web".parse().unwrap(),
            owner: "0000001a-00000002".parse().unwrap(),
            names: vec![],
            bridge: Some("drayage0".into()),
            network: "bridge".into(),
            settings: NetworkSettings::default(),
            addresses: vec![],
            interface: "eth0".into(),
            mac: None,
            forward: None,
            host_local: None,
            user_mode: false,
            metric: 0,
            is_further: false,
        }
    }

    fn plan(request: &NetworkRequest, observed: &Observed) -> Result<Plan> {
        super::plan(request, &Observed { port: "veth0".to_owned(), ..observed.clone() }, &mut |_| None)
    }

    fn lines(plan: &Plan) -> Vec<String> {
        plan.steps.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_first_container_makes_the_bridge() {
        let request = NetworkRequest { addresses: vec!["10.213.0.5".parse().unwrap()], ..request() };
        let plan = plan(&request, &Observed::default()).unwrap();
        assert_eq!(
            lines(&plan),
            [
                "make bridge drayage0",
                "mark drayage0 as \"drayage\"",
                "leave drayage0 without IPv6",
                "give drayage0 address 10.213.0.1/16",
                "bring drayage0 up",
                "forward packets of IPv4",
                "masquerade packets of drayage0",
                "join eth0 to drayage0 through veth0",
                "leave veth0 without IPv6",
                "mark veth0 as \"ctr=web own=0000001a-00000002 ip=10.213.0.5\"",
                "let veth0 send packets back",
                "give the container's eth0 address 10.213.0.5/16",
                "bring the container's eth0 up",
                "announce the addresses of the container's eth0",
                "route the container's packets to 10.213.0.1 through eth0",
            ]
        );
    }

    #[test]
    fn a_bridge_that_is_there_brings_its_networks() {
        let bridge = Bridge {
            mtu: 1500,
            own: true,
            addresses: vec!["10.1.0.9/24".parse().unwrap(), "fd00::1/64".parse().unwrap()],
            ..Bridge::default()
        };
        let observed = Observed { bridge: Some(bridge), ..Observed::default() };
        let plan = plan(&request(), &observed).unwrap();
        assert!(!lines(&plan).iter().any(|line| line.starts_with("make bridge") || line.starts_with("give drayage0")));
        assert_eq!(
            plan.network.0["routes"].to_string(),
            r#"[{"dst":"0.0.0.0/0","gw":"10.1.0.9"},{"dst":"::/0","gw":"fd00::1"}]"#
        );
    }

    #[test]
    fn without_a_bridge_there_is_only_lo() {
        let plan = plan(&NetworkRequest { bridge: None, ..request() }, &Observed::default()).unwrap();
        assert!(plan.steps.is_empty());
        assert_eq!(plan.network.namespace(), Some("/run/netns/web".into()));
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let addresses = vec!["10.1.0.1/24".parse().unwrap()];
        let bridge = Bridge { mtu: 1500, own: true, addresses, ..Bridge::default() };
        let there = Observed { bridge: Some(bridge), ..Observed::default() };
        let lan = Observed { others: vec![("lan0".into(), "10.1.7.7/24".parse().unwrap())], ..Observed::default() };
        let none = Observed::default();
        let with = |settings| NetworkRequest { settings, ..request() };
        let subnets =
            |text: &str| with(NetworkSettings { subnets: vec![text.parse().unwrap()], ..NetworkSettings::default() });
        let address = NetworkRequest { addresses: vec!["10.9.0.1".parse().unwrap()], ..request() };
        let by =
            |text: &str| with(NetworkSettings { gateways: vec![text.parse().unwrap()], ..NetworkSettings::default() });
        let (gateway, moved) = (by("10.9.0.1"), by("10.1.0.2"));
        for (request, observed, want) in [
            (&subnets("10.1.0.0/16"), &there, "the bridge has address 10.1.0.1/24, which is not in 10.1.0.0/16"),
            (&moved, &there, "the bridge already has address 10.1.0.1/24, not 10.1.0.2"),
            (&subnets("10.1.0.0/16"), &lan, "network 10.1.0.0/16 is in use: lan0 has address 10.1.7.7/24"),
            (&address, &none, "address 10.9.0.1 is not in 10.213.0.0/16"),
            (&gateway, &none, "gateway 10.9.0.1 is in none of the networks"),
        ] {
            assert_eq!(plan(request, observed).unwrap_err().to_string(), want);
        }
    }
}
