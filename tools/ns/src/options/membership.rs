//! What a container is in a network: `NAME[:KEY=VALUE,…]`, as podman writes it, or docker's `name=NAME,KEY=VALUE,…`;
//! and what further networks make of the options in the record.

use std::net::IpAddr;
use std::str::FromStr;

use anyhow::ensure;
use container::NetworkName;
use netlink::route::Mac;
use record::NetworkOptions;

use super::settings::link_name;
use crate::network::{self, DEFAULT_BRIDGE, Joiner, NetworkRequest};
use crate::request::NetworkSettings;

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
    pub(super) fn request(&self, target: &Joiner) -> NetworkRequest {
        NetworkRequest {
            id: target.id.clone(),
            owner: target.owner,
            names: self.names.clone(),
            bridge: Some(network::bridge_of(&self.network)),
            network: self.network.clone(),
            settings: NetworkSettings::default(),
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
                "ip" | "ip6" => membership.addresses.push(value.parse().map_err(|_| format!("bad address {value}"))?),
                "mac" | "mac-address" => membership.mac = Some(mac(value)?),
                "alias" => membership.names.push(host_name(value)?),
                "interface_name" => membership.interface = Some(link_name(value)?),
                "gw-priority" => membership.priority = value.parse().map_err(|_| format!("bad number {value}"))?,
                _ => return Err(format!("{key} is not one of ip, ip6, mac, alias, interface_name, gw-priority")),
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

/// A name of `hosts(5)`: letters, digits and - . _, as docker allows them.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if text.is_empty() || text.len() > 253 || text.starts_with(['-', '.']) || !text.chars().all(plain) {
        return Err("a host's name has 1 to 253 letters, digits and - . _".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn mac(text: &str) -> Result<Mac, String> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok().filter(|_| byte.len() == 2 && !byte.starts_with('+')))
        .collect();
    let mac: Mac =
        bytes.and_then(|bytes| bytes.try_into().ok()).ok_or("six bytes as 0a:58:0a:d5:00:05 are expected")?;
    if mac[0] & 1 != 0 || mac == [0; 6] {
        return Err("a multicast address or none".to_owned());
    }
    Ok(mac)
}

/// Adds options of further networks to those in the record.
pub(super) fn join(target: &mut Joiner, further: &[String]) -> anyhow::Result<()> {
    let NetworkOptions(mut words) = target.record.find()?.unwrap_or_default();
    let is_alone = |word: &&String| ["--cni=", "--join=", "--user-mode"].iter().any(|way| word.starts_with(way));
    let odd = words.iter().find(is_alone).or_else(|| further.iter().find(|word| !is_network(word)));
    ensure!(odd.is_none(), cli::Usage(format!("{} excludes further networks", odd.map_or("", String::as_str))));
    if words.first().is_some_and(|word| word == "--none") {
        words.clear();
    } else if !words.iter().any(|word| is_network(word)) {
        words.push("--network=bridge".to_owned());
    }
    words.extend_from_slice(further);
    Ok(target.record.set_options(&NetworkOptions(words))?)
}

fn is_network(word: &str) -> bool {
    word.starts_with("--network=")
}

/// Takes a network from options. What is not said of a network by its name is about the first.
pub(super) fn without(words: &[String], network: &str) -> Vec<String> {
    let is_it = |word: &str| word.parse::<Membership>().is_ok_and(|named| named.network == network);
    let is_gone = |word: &&String| word.strip_prefix("--network=").is_some_and(is_it);
    let is_first = words.iter().find(|word| is_network(word)).is_none_or(|first| is_gone(&first));
    let stays = |word: &&String| !is_gone(word) && (!is_first || is_network(word) || word.starts_with("--forward="));
    let rest: Vec<String> = words.iter().filter(stays).cloned().collect();
    if is_first && !rest.iter().any(|word| is_network(word)) { vec!["--none".to_owned()] } else { rest }
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
            ("lab:ip=x", "bad address x"),
            ("lab:speed=9", "speed is not one of ip, ip6, mac, alias, interface_name, gw-priority"),
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

    #[test]
    fn a_link_layer_address_has_six_bytes_and_is_one_stations() {
        assert_eq!(mac("0a:58:0A:d5:00:05"), Ok([0x0a, 0x58, 0x0a, 0xd5, 0, 5]));
        for text in
            ["", "0a:58:0a:d5:00", "0a:58:0a:d5:00:05:06", "01:00:5e:00:00:01", "00:00:00:00:00:00", "+a:0:0:0:0:0"]
        {
            assert!(mac(text).is_err(), "{text}");
        }
    }

    #[test]
    fn options_come_and_go_with_their_network() {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (before, gone, want) in [
            ("", "drayage0", "--none"),
            ("--subnet=10.0.0.0/8 --ip=10.0.0.2", "drayage0", "--none"),
            ("--network=a --network=b:ip=10.0.0.2 --ipv6 --forward=off", "a", "--network=b:ip=10.0.0.2 --forward=off"),
            ("--network=a --network=name=b,alias=x --ipv6", "b", "--network=a --ipv6"),
            ("--network=bridge --network=b", "drayage0", "--network=b"),
            ("--network=a --ipv6", "b", "--network=a --ipv6"),
        ] {
            assert_eq!(without(&words(before), gone), words(want), "{before}");
        }
    }
}
