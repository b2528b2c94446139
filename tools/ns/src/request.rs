//! What a network is to be like, whatever the words for it are. The options' help describes the members.

use std::net::IpAddr;

use netlink::route::Cidr;
use serde::{Deserialize, Serialize};

/// What a network is like. `ns network create` notes it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct NetworkSettings {
    pub(crate) subnets: Vec<Cidr>,
    pub(crate) ip_ranges: Vec<Cidr>,
    pub(crate) ipv6: bool,
    pub(crate) gateways: Vec<IpAddr>,
    pub(crate) mtu: Option<u32>,
    pub(crate) macvlan: Option<String>,
    pub(crate) no_masquerade: bool,
    pub(crate) internal: bool,
    pub(crate) driver: NetworkDriver,
}

/// What joins the containers of a network.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum NetworkDriver {
    /// A bridge, for at most 1,023.
    #[default]
    Bridge,
    /// Routes of the host to each container, for any number, without broadcasts.
    Routed,
    /// A link of the host.
    Macvlan,
}
