//! The command lines of `ns add` and `ns del`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use container::{ContainerId, NetworkName, Owner, Ownership};
use netlink::foreign::{self, Forward};
use netlink::route::Mac;
use record::{Bundle, Input, NetworkOptions, OwnedBy, Record};
use rustix::thread::CapabilitySet;

use super::membership::{Membership, host_name, join, mac, metrics};
use super::settings::link_name;
use crate::network::{self, Joiner, NetworkRequest, cni};
use crate::request::NetworkSettings;

/// Nothing is executed, unless others' programs make the network.
pub(crate) const ROOM: confine::Room = confine::Room {
    calls: confine::Calls { sockets: true, mount: true, namespaces: true, ..confine::Room::EMPTY.calls },
    capabilities: confine::FILES.union(CapabilitySet::NET_ADMIN).union(CapabilitySet::SYS_ADMIN),
};

/// The network of another container is found by its process, where it has no name.
const ROOM_TO_JOIN: confine::Room =
    confine::Room { capabilities: ROOM.capabilities.union(CapabilitySet::SYS_PTRACE), ..ROOM };

/// Where iptables-legacy has a table, that program is asked what it drops.
pub(crate) fn room(room: confine::Room) -> confine::Room {
    if !foreign::has_legacy() {
        return room;
    }
    let capabilities = room.capabilities.union(CapabilitySet::NET_RAW);
    confine::Room { calls: confine::Calls { execute: true, ..room.calls }, capabilities }
}

/// Make a container's network: a named namespace on a bridge
///
/// The namespace is /run/netns/ID, as `ip netns` names it. Its path is written into the bundle's config.json, so that any
/// runtime joins it. The record gets the member `network`, a CNI result.
#[derive(Args, Debug)]
#[command(after_help = include_str!("../examples/add.txt"))]
#[rustfmt::skip] // An option a line.
pub(crate) struct Add {
    /// A bundle's directory, a file with a record, `-` for a record on stdin, or a new namespace's name
    #[arg(value_name = "RECORD|ID")] input: Option<PathBuf>,
    /// Container's id, which names the namespace [default: the record's]
    #[arg(long, value_name = "ID")] id: Option<ContainerId>,
    /// Network to join; its bridge is made if it is missing; repeat it for more: NAME[:ip=ADDRESS,mac=MAC,alias=NAME,interface_name=NAME,gw-priority=NUMBER]
    #[arg(long, visible_alias = "bridge", value_name = "NAME[:KEY=VALUE,…]", default_value = network::DEFAULT_BRIDGE)]
    network: Vec<Membership>,
    #[command(flatten)] settings: NetworkSettings,
    /// If another firewall drops forwarded packets: warn, insert a rule that accepts these, off [default: insert on our bridges]
    #[arg(long, value_name = "HOW", conflicts_with = "macvlan")] forward: Option<Forward>,
    /// Container's address in a network [default: a free one]
    #[arg(long, value_name = "ADDRESS")] ip: Vec<IpAddr>,
    /// Container's link-layer address
    #[arg(long, value_name = "MAC", value_parser = mac)] mac: Option<Mac>,
    /// Name of the container's interface [default: eth0; eth1 and so on in further networks]
    #[arg(long, value_name = "NAME", value_parser = link_name)] ifname: Option<String>,
    /// Let the CNI plugins of this list make the network (found in $`CNI_PATH`, /opt/cni/bin, /usr/lib/cni)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["network", "NetworkSettings", "ip", "mac", "alias", "forward"])]
    cni: Option<PathBuf>,
    /// Make only a loopback interface
    #[arg(long, conflicts_with_all = ["network", "NetworkSettings", "ip", "mac", "ifname", "alias", "forward", "cni"])]
    none: bool,
    /// Make a loopback interface, and lead outwards by pasta or slirp4netns if one is installed, for users without privilege
    #[arg(long, conflicts_with_all = ["none", "network", "NetworkSettings", "ip", "mac", "ifname", "alias", "forward", "cni"])]
    user_mode: bool,
    /// Share the network of this container
    #[arg(long, value_name = "ID", conflicts_with_all = ["none", "user_mode", "network", "NetworkSettings", "ip", "mac", "ifname", "alias", "forward", "cni"])]
    join: Option<ContainerId>,
    /// Another name by which the other containers on the bridge find this one
    #[arg(long, value_name = "NAME", value_parser = host_name)] alias: Vec<String>,
    /// Note addresses as CNI's plugin host-local does for this network, whose containers share the bridge
    #[arg(long, value_name = "NETWORK", conflicts_with_all = ["none", "user_mode", "macvlan", "cni", "join"])]
    host_local: Option<NetworkName>,
    #[command(flatten)] roots: cli::Roots,
}

impl Add {
    /// Makes the network.
    pub(crate) fn run(self) -> Result<()> {
        if self.cni.is_none() && !self.user_mode {
            confine::enter(&room(if self.join.is_some() { ROOM_TO_JOIN } else { ROOM }))?;
        }
        let mut target = self.target()?;
        let id = target.id.clone();
        if network::is_further(&target)? {
            join(&mut target, &Self::words()?)?;
        } else {
            target.record.set_options(&NetworkOptions(Self::words()?))?;
        }
        if let Some(other) = &self.join {
            return network::join(target, other).with_context(|| format!("add {id}"));
        }
        if let Some(list) = &self.cni {
            let interface = self.ifname.as_deref().unwrap_or("eth0");
            return cni::add(target, list, interface).with_context(|| format!("add {id}"));
        }
        let requests = self.requests(&target)?;
        network::add(target, &requests, &network::lock()?).with_context(|| format!("add {id}"))
    }

    fn requests(self, target: &Joiner) -> Result<Vec<NetworkRequest>> {
        let (user_mode, forward) = (self.user_mode, self.forward);
        let request =
            |membership: &Membership, metric| NetworkRequest { forward, metric, ..membership.request(target) };
        if self.none || user_mode {
            return Ok(vec![NetworkRequest { user_mode, bridge: None, ..request(&Membership::default(), 0) }]);
        }
        let mut memberships = self.network;
        let first = memberships.first_mut().context("no network")?;
        first.addresses.extend(self.ip);
        first.mac = self.mac.or(first.mac);
        first.names.extend(self.alias);
        first.interface = self.ifname.or(first.interface.take());
        let metrics = metrics(&memberships);
        let mut requests: Vec<NetworkRequest> =
            memberships.iter().zip(metrics).map(|(membership, metric)| request(membership, metric)).collect();
        if let Some(first) = requests.first_mut() {
            first.bridge.take_if(|_| self.settings.macvlan.is_some());
            first.settings = self.settings;
            first.host_local = self.host_local;
        }
        Ok(requests)
    }

    /// Returns the command line that makes such a network again.
    fn words() -> Result<Vec<String>> {
        let mut words = cli::given(&["id"])?;
        for word in &mut words {
            if let Some(list) = word.strip_prefix("--cni=") {
                *word = format!("--cni={}", std::path::absolute(list)?.display());
            }
        }
        Ok(words)
    }

    fn target(&self) -> Result<Joiner> {
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
/// Networks that are already gone are no error.
#[derive(Args, Debug)]
#[command(after_help = include_str!("../examples/del.txt"))]
#[rustfmt::skip] // An option a line.
pub(crate) struct Del {
    /// Containers' ids, a file with a record, or `-` for a record on stdin
    #[arg(value_name = "RECORD|ID")] inputs: Vec<PathBuf>,
    /// Return when everything is gone, the bridge too, instead of finishing in the background
    #[arg(long)] wait: bool,
    /// Delete only networks of this owner, the record's `owner`
    #[arg(long, value_name = "OWNER")] owner: Option<Owner>,
    #[command(flatten)] roots: cli::Roots,
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
        cli::each("ns", ids, |(id, owner)| {
            let whose = Ownership::of(self.owner.or(owner), &directories);
            network::delete(&directories, &id, whose, self.wait).with_context(|| format!("del {id}"))
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_no_id() {
        for (text, want) in [("web", true), ("-", false), ("./web", false), ("/b", false), ("Cargo.toml", false)] {
            assert_eq!(is_id(Path::new(text)), want, "{text}");
        }
    }
}
