//! What a container is in a network: `NAME[:KEY=VALUE,…]`, as podman writes it, or docker's `name=NAME,KEY=VALUE,…`.

use std::net::IpAddr;
use std::str::FromStr;

use container::NetworkName;
use netlink::route::Mac;

use super::add::{host_name, mac};
use super::settings::{Settings, link_name};
use crate::network::{self, DEFAULT_BRIDGE, Request, Target};

/// The container's interface, where no other name is asked for: the first one that is free.
const INTERFACE: &str = "eth%d";

/// One `--network`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Membership {
    /// The network, which its bridge is named after.
    pub(crate) network: String,
    /// The container's addresses.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mac: Option<Mac>,
    /// Further names of the container.
    pub(crate) names: Vec<String>,
    /// The name of its interface.
    pub(crate) interface: Option<String>,
    /// Of several networks the one with the highest leads outwards.
    pub(crate) priority: i32,
}

impl Membership {
    /// Returns the request for a container in such a network.
    pub(super) fn request(&self, target: &Target) -> Request {
        Request {
            id: target.id.clone(),
            owner: target.owner,
            names: self.names.clone(),
            bridge: Some(network::bridge_of(&self.network)),
            network: self.network.clone(),
            settings: Settings::default(),
            addresses: self.addresses.clone(),
            interface: self.interface.clone().unwrap_or_else(|| INTERFACE.to_owned()),
            mac: self.mac,
            forward: None,
            host_local: None,
            user_mode: false,
            metric: 0,
            is_further: false,
        }
    }
}

impl FromStr for Membership {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, options) = match text.strip_prefix("name=") {
            Some(docker) => docker.split_once(',').unwrap_or((docker, "")),
            None => text.split_once(':').unwrap_or((text, "")),
        };
        let mut membership = Self { network: network_name(name)?, ..Self::default() };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').ok_or_else(|| format!("{option}: KEY=VALUE is expected"))?;
            match key {
                "ip" | "ip6" => membership.addresses.push(value.parse().map_err(|_| format!("{value} is no address"))?),
                "mac" | "mac-address" => membership.mac = Some(mac(value)?),
                "alias" => membership.names.push(host_name(value)?),
                "interface_name" => membership.interface = Some(link_name(value)?),
                "gw-priority" => membership.priority = value.parse().map_err(|_| format!("{value} is no number"))?,
                _ => return Err(format!("{key} is none of ip, ip6, mac, alias, interface_name, gw-priority")),
            }
        }
        Ok(membership)
    }
}

/// A network's name is its bridge's, or a further name of it. Docker has a name of its own for the default one.
fn network_name(text: &str) -> Result<String, String> {
    if ["bridge", "default"].contains(&text) {
        return Ok(DEFAULT_BRIDGE.to_owned());
    }
    let long = text.parse().map(|name: NetworkName| name.to_string()).map_err(|error| error.to_string());
    link_name(text).or(long)
}

/// Returns how far behind the others each one's way outwards stands.
pub(super) fn metrics(memberships: &[Membership]) -> Vec<u32> {
    let place = |membership: &Membership, position| (-i64::from(membership.priority), position);
    let places: Vec<_> = memberships.iter().zip(0_u32..).map(|(own, position)| place(own, position)).collect();
    let before = |own| places.iter().filter(|other| *other < own).count();
    places.iter().map(|own| u32::try_from(before(own)).unwrap_or(u32::MAX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_membership_is_written_as_podman_and_docker_write_it() {
        let want = Membership {
            network: "lab".to_owned(),
            addresses: vec!["10.9.0.7".parse().unwrap()],
            mac: Some([2, 0, 0, 0, 0, 7]),
            names: vec!["db".to_owned(), "sql".to_owned()],
            interface: None,
            priority: -1,
        };
        for text in [
            "lab:ip=10.9.0.7,mac=02:00:00:00:00:07,alias=db,alias=sql,gw-priority=-1",
            "name=lab,alias=db,alias=sql,ip=10.9.0.7,mac-address=02:00:00:00:00:07,gw-priority=-1",
        ] {
            assert_eq!(text.parse(), Ok(want.clone()), "{text}");
        }
        assert_eq!("bridge".parse::<Membership>().unwrap().network, DEFAULT_BRIDGE);
        for (text, want) in [
            ("lab:ip", "ip: KEY=VALUE is expected"),
            ("lab:ip=x", "x is no address"),
            ("lab:speed=9", "speed is none of ip, ip6, mac, alias, interface_name, gw-priority"),
        ] {
            assert_eq!(text.parse::<Membership>(), Err(want.to_owned()));
        }
    }

    #[test]
    fn the_first_of_the_highest_priority_leads_outwards() {
        let of = |priorities: &[i32]| {
            let one = |priority: &i32| Membership { priority: *priority, ..Membership::default() };
            metrics(&priorities.iter().map(one).collect::<Vec<_>>())
        };
        for (priorities, want) in [(&[0][..], &[0][..]), (&[0, 0], &[0, 1]), (&[-1, 0, 5, 0], &[3, 1, 0, 2])] {
            assert_eq!(of(priorities), want);
        }
    }
}
