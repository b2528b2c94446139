//! What a network is like, on the command line.

use std::net::IpAddr;

use clap::Args;
use netlink::foreign::Forward;
use netlink::route::Cidr;

use super::add::link_name;
use super::membership::Membership;
use crate::network::{self, Request, Target};

/// The container's interface, where no other name is asked for: the first one that is free.
const INTERFACE: &str = "eth%d";

/// What a network is like.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Network of the bridge; repeat it for IPv6 [default: the bridge's; 10.213.0.0/16 for drayage0, a free one for others]
    #[arg(long, value_name = "CIDR")]
    pub(crate) subnet: Vec<Cidr>,
    /// A network of IPv6 too, a free one if the bridge has none and --subnet names none
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// Bridge's address in a network [default: the network's first]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) gateway: Vec<IpAddr>,
    /// Longest packet of the container's interface, and of the bridge if it is made
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(68..=65535))]
    pub(crate) mtu: Option<u32>,
    /// On the network of that link of the host, without a bridge; --ip and --subnet are needed
    #[arg(long, value_name = "LINK", conflicts_with_all = ["no_masquerade", "ipv6"], value_parser = link_name)]
    pub(crate) macvlan: Option<String>,
    /// Packets that leave the networks keep the container's address
    #[arg(long)]
    pub(crate) no_masquerade: bool,
    /// What to do where another firewall drops forwarded packets: warn, insert a rule that lets these through, off [default: insert on our bridges]
    #[arg(long, value_name = "HOW", conflicts_with = "macvlan")]
    pub(crate) forward: Option<Forward>,
}

impl Shape {
    /// Returns the request for a container in such a network.
    pub(super) fn request(self, target: &Target, membership: &Membership) -> Request {
        Request {
            id: target.id.clone(),
            owner: target.owner,
            netns: container::namespace(&target.id),
            names: membership.names.clone(),
            bridge_names: network::names_of(&membership.network),
            bridge: self.macvlan.is_none().then(|| network::bridge_of(&membership.network)),
            parent: self.macvlan,
            subnets: self.subnet,
            ipv6: self.ipv6,
            gateways: self.gateway,
            addresses: membership.addresses.clone(),
            interface: membership.interface.clone().unwrap_or_else(|| INTERFACE.to_owned()),
            mac: membership.mac,
            mtu: self.mtu,
            masquerade: !self.no_masquerade,
            forward: self.forward,
            host_local: None,
            user_mode: false,
            metric: 0,
            is_further: false,
        }
    }
}
