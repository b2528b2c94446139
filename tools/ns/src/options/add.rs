//! The command lines of `ns add` and `ns del`.

use std::fmt::Display;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use container::{ContainerId, NetworkName, Owner, Ownership};
use netlink::foreign::{self, Forward};
use netlink::route::{Cidr, Mac};
use record::{Bundle, Input, NetworkOptions, OwnedBy, Record};
use rustix::thread::CapabilitySet;

use crate::network::{self, Request, Target, cni};

/// The container's interface, where no other name is asked for.
const INTERFACE: &str = "eth0";

/// Nothing is executed, unless others' programs make the network.
pub(super) const ROOM: confine::Room = confine::Room {
    calls: confine::Calls { sockets: true, mount: true, namespaces: true, ..confine::Room::EMPTY.calls },
    capabilities: confine::FILES.union(CapabilitySet::NET_ADMIN).union(CapabilitySet::SYS_ADMIN),
};

/// The network of another container is found by its process, where it has no name.
const ROOM_TO_JOIN: confine::Room =
    confine::Room { capabilities: ROOM.capabilities.union(CapabilitySet::SYS_PTRACE), ..ROOM };

/// Where iptables-legacy has a table, that program is asked what it drops.
pub(super) fn room(room: confine::Room) -> confine::Room {
    if !foreign::has_legacy() {
        return room;
    }
    let capabilities = room.capabilities.union(CapabilitySet::NET_RAW);
    confine::Room { calls: confine::Calls { execute: true, ..room.calls }, capabilities }
}

/// Make a container's network: a named namespace on a bridge
///
/// The namespace is /run/netns/ID, as `ip netns` has it. Its path is written into the bundle's config.json, so that any
/// runtime joins it; the record gets the member `network`, a CNI result.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
#[command(after_help = "Examples:
  bundle --id web | ns add | spawn
  ns add web
  ns add --bridge lab0 --subnet 10.9.0.0/24 --subnet fd00:9::/64 --ip 10.9.0.7 db
  ns add --macvlan eth0 --subnet 192.0.2.0/24 --ip 192.0.2.7 lan
  ns add --cni /etc/cni/net.d/10-lab.conflist web
  ns add --bridge cni0 --host-local mynet web
  ns add --none quiet")]
pub(crate) struct Add {
    /// A bundle's directory, a file with a record, `-` for a record on stdin, or a new namespace's name
    #[arg(value_name = "RECORD|ID")]
    input: Option<PathBuf>,
    /// Container's id, which names the namespace [default: the record's]
    #[arg(long, value_name = "ID")]
    id: Option<ContainerId>,
    /// Bridge to join; it is made if it is not there, with a name of its own where the network's has more than 15 bytes
    #[arg(long, value_name = "NAME", default_value = network::DEFAULT_BRIDGE, value_parser = network_name)]
    bridge: String,
    /// Network of the bridge; repeat it for IPv6 [default: the bridge's; 10.213.0.0/16 for drayage0, a free one for others]
    #[arg(long, value_name = "CIDR")]
    subnet: Vec<Cidr>,
    /// A network of IPv6 too, a free one if the bridge has none and --subnet names none
    #[arg(long, conflicts_with_all = ["none", "user_mode", "macvlan", "cni", "join"])]
    ipv6: bool,
    /// Bridge's address in a network [default: the network's first]
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<IpAddr>,
    /// Container's address in a network [default: a free one]
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<IpAddr>,
    /// Container's link-layer address
    #[arg(long, value_name = "MAC", value_parser = mac)]
    mac: Option<Mac>,
    /// Longest packet of the container's interface, and of the bridge if it is made
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(68..=65535))]
    mtu: Option<u32>,
    /// Name of the container's interface
    #[arg(long, value_name = "NAME", default_value = INTERFACE, value_parser = link_name)]
    ifname: String,
    /// On the network of that link of the host, without a bridge; --ip and --subnet are needed
    #[arg(long, value_name = "LINK", conflicts_with_all = ["bridge", "alias", "no_masquerade"], value_parser = link_name)]
    macvlan: Option<String>,
    /// Let the CNI plugins of that list make the network: they are found in $`CNI_PATH`, /opt/cni/bin, /usr/lib/cni
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bridge", "subnet", "gateway", "ip", "mac", "mtu", "alias", "macvlan", "no_masquerade"])]
    cni: Option<PathBuf>,
    /// No network but a loopback interface
    #[arg(long, conflicts_with_all = ["bridge", "subnet", "gateway", "ip", "mac", "mtu", "ifname", "alias", "macvlan", "cni"])]
    none: bool,
    /// A loopback interface, and outwards pasta or slirp4netns if one is installed: for users without privilege
    #[arg(long, conflicts_with_all = ["none", "bridge", "subnet", "gateway", "ip", "mac", "mtu", "ifname", "alias", "macvlan", "cni"])]
    user_mode: bool,
    /// Share the network of that container
    #[arg(long, value_name = "ID", conflicts_with_all = ["none", "user_mode", "bridge", "subnet", "gateway", "ip", "mac", "mtu", "ifname", "alias", "macvlan", "cni"])]
    join: Option<ContainerId>,
    /// One more name by which the other containers on the bridge find this one
    #[arg(long, value_name = "NAME", value_parser = host_name)]
    alias: Vec<String>,
    /// Note addresses as CNI's plugin host-local does for the network of that name, whose containers are on the bridge too
    #[arg(long, value_name = "NETWORK", conflicts_with_all = ["none", "user_mode", "macvlan", "cni", "join"])]
    host_local: Option<NetworkName>,
    /// Packets that leave the networks keep the container's address
    #[arg(long)]
    no_masquerade: bool,
    /// What to do where another firewall drops forwarded packets: warn, insert a rule that lets these through, off [default: insert on our bridges]
    #[arg(long, value_name = "HOW", conflicts_with_all = ["none", "user_mode", "macvlan", "cni", "join"])]
    forward: Option<Forward>,
    #[command(flatten)]
    roots: cli::Roots,
}

impl Add {
    /// Makes the network.
    pub(crate) fn run(self) -> Result<()> {
        if self.cni.is_none() && !self.user_mode {
            confine::enter(&room(if self.join.is_some() { ROOM_TO_JOIN } else { ROOM }))?;
        }
        let mut target = self.target()?;
        let id = target.id.clone();
        target.record.set_options(&NetworkOptions(self.words()?))?;
        if let Some(other) = &self.join {
            return network::join(target, other).with_context(|| format!("add {id}"));
        }
        if let Some(list) = &self.cni {
            return cni::add(target, list, &self.ifname).with_context(|| format!("add {id}"));
        }
        let request = Request {
            netns: container::namespace(&id),
            id,
            owner: target.owner,
            names: self.alias,
            bridge_names: network::names_of(&self.bridge),
            bridge: (!self.none && !self.user_mode && self.macvlan.is_none()).then(|| network::bridge_of(&self.bridge)),
            parent: self.macvlan,
            subnets: self.subnet,
            ipv6: self.ipv6,
            gateways: self.gateway,
            addresses: self.ip,
            interface: self.ifname,
            mac: self.mac,
            mtu: self.mtu,
            masquerade: !self.no_masquerade,
            forward: self.forward,
            user_mode: self.user_mode,
            host_local: self.host_local,
        };
        network::add(target, &request).with_context(|| format!("add {}", request.id))
    }

    /// Returns the command line that makes such a network again.
    fn words(&self) -> Result<Vec<String>> {
        let mut words = Vec::new();
        let switches = [
            (self.ipv6, "--ipv6"),
            (self.none, "--none"),
            (self.user_mode, "--user-mode"),
            (self.no_masquerade, "--no-masquerade"),
        ];
        words.extend(switches.iter().filter(|(set, _)| *set).map(|(_, switch)| (*switch).to_owned()));
        let list = self.cni.as_deref().map(std::path::absolute).transpose()?;
        let list = list.as_deref().map(|path| path.to_str().with_context(|| format!("{}: no text", path.display())));
        let list = list.transpose()?.map(str::to_owned);
        let mut option = |name: &str, value: &dyn Display| words.push(format!("--{name}={value}"));
        if self.bridge != network::DEFAULT_BRIDGE {
            option("bridge", &self.bridge);
        }
        if self.ifname != INTERFACE {
            option("ifname", &self.ifname);
        }
        let (mac, mtu) = (self.mac.map(|mac| network::mac_text(&mac)), self.mtu.map(|mtu| mtu.to_string()));
        for (name, text) in [("macvlan", &self.macvlan), ("cni", &list), ("mac", &mac), ("mtu", &mtu)] {
            if let Some(text) = text {
                option(name, text);
            }
        }
        self.join.iter().for_each(|id| option("join", id));
        self.host_local.iter().for_each(|network| option("host-local", network));
        self.forward.iter().for_each(|how| option("forward", how));
        self.subnet.iter().for_each(|subnet| option("subnet", subnet));
        self.gateway.iter().for_each(|gateway| option("gateway", gateway));
        self.ip.iter().for_each(|address| option("ip", address));
        self.alias.iter().for_each(|alias| option("alias", alias));
        Ok(words)
    }

    fn target(&self) -> Result<Target> {
        let directories = self.roots.directories();
        match &self.input {
            Some(input) if is_id(input) => network::target(Record::default(), Some(id(input)?), directories),
            input => match Input::read(input.as_deref())? {
                Input::Record(record) => network::target(record, self.id.clone(), directories),
                Input::Directory(bundle) => {
                    let bundle = std::path::absolute(bundle)?;
                    let id = self.id.clone().map_or_else(|| id(&bundle), Ok)?;
                    let mut record = Record::default();
                    record.set(&Bundle(bundle));
                    network::target(record, Some(id), directories)
                }
            },
        }
    }
}

/// Delete containers' networks: namespace, links, and the bridge with its last port
///
/// What is gone already is no error.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  ns del web
  spawn state web | ns del")]
pub(crate) struct Del {
    /// Containers' ids, a file with a record, or `-` for a record on stdin
    #[arg(value_name = "RECORD|ID")]
    inputs: Vec<PathBuf>,
    /// Return when all is gone, the bridge too; else the kernel and a process in the background finish it
    #[arg(long)]
    wait: bool,
    /// Only what this owner has, as the record's `owner` names it
    #[arg(long, value_name = "OWNER")]
    owner: Option<Owner>,
    #[command(flatten)]
    roots: cli::Roots,
}

impl Del {
    /// Deletes the networks; one that fails does not keep the others.
    pub(crate) fn run(self) -> Result<()> {
        let directories = self.roots.directories();
        let ids = if self.inputs.is_empty() {
            vec![id_of(None)?]
        } else {
            self.inputs.iter().map(|input| id_of(Some(input))).collect::<Result<_>>()?
        };
        let mut first = Ok(());
        for (id, owner) in ids {
            let whose = Ownership::of(self.owner.or(owner), &directories);
            let done = network::delete(&directories, &id, whose, self.wait).with_context(|| format!("del {id}"));
            first = match (first, done) {
                (Err(first), Err(error)) => {
                    cli::complain("ns", &error);
                    Err(first)
                }
                (first, done) => first.and(done),
            };
        }
        first
    }
}

fn id_of(input: Option<&PathBuf>) -> Result<(ContainerId, Option<Owner>)> {
    match input {
        Some(input) if is_id(input) => Ok((id(input)?, None)),
        input => match Input::read(input.map(PathBuf::as_path))? {
            Input::Record(record) => {
                Ok((record.part::<record::Id>()?.0, record.find::<OwnedBy>()?.map(|owned| owned.0)))
            }
            Input::Directory(bundle) => Ok((id(&std::path::absolute(bundle)?)?, None)),
        },
    }
}

fn id(path: &Path) -> Result<ContainerId> {
    ContainerId::of_path(path).map_err(|error| cli::Usage(error.to_string()).into())
}

/// An id is what is no path: no slash in it, and neither a file nor a bundle of that name here.
fn is_id(input: &Path) -> bool {
    let plain = input != Path::new("-") && !input.as_os_str().as_encoded_bytes().contains(&b'/');
    plain && !input.is_file() && !input.join("config.json").is_file()
}

/// A network's name is its bridge's, or a further name of it.
fn network_name(text: &str) -> Result<String, String> {
    let long = text.parse().map(|name: NetworkName| name.to_string()).map_err(|error| error.to_string());
    link_name(text).or(long)
}

fn link_name(text: &str) -> Result<String, String> {
    let odd = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    if text.is_empty() || text.len() > 15 || text == "." || text == ".." || text.contains(odd) {
        return Err("a link's name has 1 to 15 bytes, no blank and no slash".to_owned());
    }
    Ok(text.to_owned())
}

/// A name of `hosts(5)`: letters, digits and - . _, as docker allows them.
fn host_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if text.is_empty() || text.len() > 253 || text.starts_with(['-', '.']) || !text.chars().all(plain) {
        return Err("a host's name has 1 to 253 letters, digits and - . _".to_owned());
    }
    Ok(text.to_owned())
}

fn mac(text: &str) -> Result<Mac, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_command_line_is_made_of_what_was_asked_for() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            add: Add,
        }
        for line in [
            "add",
            "add --ipv6 --no-masquerade --bridge=lab --ifname=net0 --mac=0a:58:0a:d5:00:05 --mtu=1400 --subnet=10.9.0.0/24 --gateway=10.9.0.1 --ip=10.9.0.7 --ip=fd00::7 --alias=a --alias=b",
            "add --macvlan=eth0 --subnet=192.0.2.0/24 --ip=192.0.2.7",
            "add --cni=/etc/x.conflist --ifname=net0",
            "add --join=db",
            "add --user-mode",
            "add --none",
            "add --host-local=mynet --forward=off",
        ] {
            let parsed = <Line as clap::Parser>::parse_from(line.split(' '));
            let mut words = parsed.add.words().unwrap();
            let mut want: Vec<&str> = line.split(' ').skip(1).collect();
            words.sort();
            want.sort_unstable();
            assert_eq!(words, want);
        }
    }

    #[test]
    fn a_path_is_no_id() {
        for (text, want) in [("web", true), ("-", false), ("./web", false), ("/b", false), ("Cargo.toml", false)] {
            assert_eq!(is_id(Path::new(text)), want, "{text}");
        }
    }
}
