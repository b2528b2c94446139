//! What is there on the host, before anything is planned.

use netlink::route::{Cidr, Mac};

/// What is there on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// The bridge.
    pub(crate) bridge: Option<Bridge>,
    /// A name for the host's end of the container's link, which no link has.
    pub(crate) port: String,
    /// The addresses of the other interfaces, with their names.
    pub(crate) others: Vec<(String, Cidr)>,
    /// Where the host's routes lead.
    pub(crate) routes: Vec<Cidr>,
    /// The longest packet of the link that the host's default route leads to.
    pub(crate) mtu: Option<u32>,
}

/// A bridge that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bridge {
    pub(crate) mac: Option<Mac>,
    /// Its longest packet.
    pub(crate) mtu: u32,
    pub(crate) addresses: Vec<Cidr>,
    /// No port of it is ours.
    pub(crate) free: bool,
    /// We have made it.
    pub(crate) own: bool,
    /// No packet leaves or enters it.
    pub(crate) internal: bool,
    /// How the names of the links to the containers begin, where these are no ports of it.
    pub(crate) routed_ports: Option<String>,
    /// Its further names, if its maker got no further than that.
    pub(crate) half_made: Option<Vec<String>>,
}
