//! What a dump tells about a link, an address, a route.

use std::net::IpAddr;

use super::{
    AF_INET, AF_INET6, Cidr, IFA_ADDRESS, IFA_F_PERMANENT, IFA_LOCAL, IFF_UP, IFLA_ADDRESS, IFLA_GROUP, IFLA_IFALIAS,
    IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINK, IFLA_LINK_NETNSID, IFLA_LINKINFO, IFLA_MASTER, IFLA_MTU, IFLA_PROP_LIST,
    RT_SCOPE_UNIVERSE, RT_TABLE_LOCAL, RT_TABLE_MAIN, RTA_DST, RTA_GATEWAY, RTA_OIF, RTA_PREFSRC, RTA_PRIORITY,
};
use crate::{Attribute, find, parse};

/// A link: an interface, a bridge, one end of a pair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its further names.
    pub names: Vec<String>,
    /// Its address, as long as its kind has them.
    pub mac: Vec<u8>,
    /// Its longest packet.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its alias.
    pub alias: Option<String>,
    /// The number that its maker gave it; 0 where none was given.
    pub group: u32,
    /// Its kind, where it is a virtual one: `veth`, `bridge`.
    pub kind: Option<String>,
    /// The link that it is a port of.
    pub controller: Option<u32>,
    /// The other end, or the link below.
    ///
    /// `peer_namespace` tells where that number counts; without it, in this namespace.
    pub peer: Option<u32>,
    /// The namespace of `peer`, as this namespace numbers others.
    pub peer_namespace: Option<i32>,
}

impl Link {
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let mut link = Self {
            index: native(payload.get(4..8)?)?,
            up: native(payload.get(8..12)?)? & IFF_UP != 0,
            ..Self::default()
        };
        for attribute in parse(payload.get(16..)?) {
            match attribute.kind {
                IFLA_IFNAME => link.name = attribute.text(),
                IFLA_PROP_LIST => link.names = parse(attribute.payload).map(|name| name.text()).collect(),
                IFLA_ADDRESS => link.mac = attribute.payload.to_vec(),
                IFLA_MTU => link.mtu = native(attribute.payload)?,
                IFLA_GROUP => link.group = native(attribute.payload)?,
                IFLA_IFALIAS => link.alias = Some(attribute.text()),
                IFLA_MASTER => link.controller = native(attribute.payload),
                IFLA_LINK => link.peer = native(attribute.payload).filter(|index| *index != 0),
                IFLA_LINK_NETNSID => link.peer_namespace = Some(i32::from_ne_bytes(attribute.payload.try_into().ok()?)),
                IFLA_LINKINFO => link.kind = find(attribute.payload, IFLA_INFO_KIND).map(|kind| kind.text()),
                _ => {}
            }
        }
        Some(link)
    }
}

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The link's number.
    pub index: u32,
    /// The address.
    pub address: Cidr,
    flags: u8,
    scope: u8,
}

impl Address {
    /// Tells whether the address was given for good and is valid beyond its link.
    pub fn is_lasting(self) -> bool {
        self.flags & IFA_F_PERMANENT != 0 && self.scope == RT_SCOPE_UNIVERSE
    }

    /// Tells whether others than this host, and than one link's neighbours, may reach it.
    pub fn is_routed(&self) -> bool {
        match self.address.address {
            IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
            IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
        }
    }

    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let [family, prefix, flags, scope, ..] = *payload else { return None };
        let attributes = payload.get(8..).unwrap_or_default();
        // Where the two differ, the address is the other end of a point-to-point link.
        let own = find(attributes, IFA_LOCAL).or_else(|| find(attributes, IFA_ADDRESS))?;
        let address = Cidr { address: ip(family, own)?, prefix };
        Some(Self { index: native(payload.get(4..8)?)?, address, flags, scope })
    }
}

/// A route of any table but that of the host's own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// What goes this way; a prefix of length 0 is the default route.
    pub destination: Cidr,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// The source address that packets get.
    pub source: Option<IpAddr>,
    /// The link's number.
    pub index: Option<u32>,
    /// Of several ways to one place the one with the lowest counts.
    pub metric: u32,
    /// Whether it is of the main table: others are for whom a rule says.
    pub is_main: bool,
}

impl Route {
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let [family, prefix, _, _, table, ..] = *payload else { return None };
        let unspecified: IpAddr = if family == AF_INET { IpAddr::V4(0.into()) } else { IpAddr::V6(0_u128.into()) };
        let destination = Cidr { address: unspecified, prefix };
        let mut route =
            Self { destination, gateway: None, source: None, index: None, metric: 0, is_main: table == RT_TABLE_MAIN };
        for attribute in parse(payload.get(12..)?) {
            match attribute.kind {
                RTA_DST => route.destination.address = ip(family, attribute)?,
                RTA_GATEWAY => route.gateway = ip(family, attribute),
                RTA_PREFSRC => route.source = ip(family, attribute),
                RTA_PRIORITY => route.metric = native(attribute.payload).unwrap_or_default(),
                RTA_OIF => route.index = native(attribute.payload),
                _ => {}
            }
        }
        (table != RT_TABLE_LOCAL && matches!(family, AF_INET | AF_INET6)).then_some(route)
    }
}

fn native(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn ip(family: u8, attribute: Attribute<'_>) -> Option<IpAddr> {
    match family {
        AF_INET => <[u8; 4]>::try_from(attribute.payload).ok().map(IpAddr::from),
        AF_INET6 => <[u8; 16]>::try_from(attribute.payload).ok().map(IpAddr::from),
        _ => None,
    }
}
