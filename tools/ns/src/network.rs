//! `ns add` and `ns del`: a container's network, made of a named namespace, a bridge and a pair of links, all by
//! netlink. The kernel is the only state. What fails half-way is undone in reverse.
//!
//! One lock covers each verb from looking to the last change. The kernel's own refusals (EEXIST for a name, a further
//! name, an nftables element) catch what others do without the lock.

pub(crate) mod cni;
mod config;
mod created;
mod firewall;
mod host_local;
mod hosts;
mod ipam;
mod joined;
mod lock;
mod macvlan;
mod named;
mod note;
mod observed;
mod outward;
mod owner;
mod plan;
mod pool;
mod removal;
mod restore;
mod result;
mod settings;
mod work;

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use container::{ContainerId, Directories, Owner, Ownership};
use netlink::route::{Cidr, Link, Router};
use record::{Bundle, Id, Network, OwnedBy, Record};
use rustix::process::Signal;
use sys::signal::SignalFd;

use config::BundleConfig;
pub(crate) use created::{create, list, remove};
use hosts::Note;
pub(crate) use lock::lock;
pub(crate) use named::within;
use observed::{Bridge, Observed};
use owner::PortAlias;
pub(crate) use owner::bridge_of;
pub(crate) use plan::NetworkRequest;
use plan::{Plan, Step};
pub(crate) use pool::DEFAULT_BRIDGE;
pub(crate) use removal::{SWEEP, delete, disconnect, sweep_all};
pub(crate) use restore::{check, restore};
pub(crate) use result::mac_text;
use work::Work;

use crate::request::{NetworkDriver, NetworkSettings};

/// A container to make a network for.
#[derive(Debug)]
pub(crate) struct Joiner {
    /// What the stages before have made, and gets the result.
    pub(crate) record: Record,
    /// Where config.json is.
    pub(crate) bundle: Option<PathBuf>,
    /// Its id.
    pub(crate) id: ContainerId,
    /// Whose it is.
    pub(crate) owner: Owner,
    /// Where notes are.
    pub(crate) directories: Directories,
    /// The container runs: its record is noted in its bundle, and handed on to nobody.
    pub(crate) runs: bool,
}

/// Makes networks and prints the record with them. Whatever fails, printing too, leaves nothing behind.
pub(crate) fn add(mut target: Joiner, requests: &[NetworkRequest], _lock: &File) -> Result<()> {
    let is_further = is_further(&target)?;
    let config = target.bundle.as_deref().filter(|_| !is_further).map(BundleConfig::read).transpose()?;
    let id = target.id.clone();
    // lo has the number 1 in each network namespace, and its alias says whose the namespace is: what cannot be told
    // apart by name, a container's namespace and somebody else's, is by this.
    let inside = named::links(&id)?;
    let whose = inside.iter().find(|link| link.index == 1).map(|lo| owner::of_namespace(lo, &id));
    let is_ours = is_further && whose == Some(Some(target.owner));
    ensure!(whose.is_some() || !is_further, "network namespace {id} is gone: does it run?");
    ensure!(whose.is_none() || is_ours, "network namespace {id} exists: is it another container's?");
    // An interrupt must not leave half a network: it is looked at when the work is done.
    let signals = SignalFd::block(&[Signal::INT, Signal::TERM, Signal::HUP])?;
    let mut work = Work::new(Router::open().context("open a routing socket")?, &target.directories);
    let done = build(&mut work, &target, is_further, requests).and_then(|(network, notes)| {
        finish(&mut target, config.as_ref(), &container::namespace(&id), &network)?;
        // When the network is made: a name that is told earlier would lead to an address that nobody has.
        notes.iter().try_for_each(|note| note.publish(&target.directories, &mut work.host))?;
        hand_on(&target, &signals)
    });
    // The `lo` of a container has the mark of the container itself, in which this may run.
    let is_other = |link: &Link| link.name != "lo" && PortAlias::of(link).is_some_and(|port| port.id != id);
    let links = || Router::open().and_then(|mut host| host.links(None));
    // The record is printed: what cannot be looked at now is put back rather than undone.
    if done.is_ok() && work.flushed && links().map_or(true, |links| links.iter().any(is_other)) {
        tell_of_flush(&target.directories);
    }
    if done.is_err() {
        // Links go with their namespace or peer; what others may use by now, forwarding and the tables, stays.
        work.undo();
        let bridges = requests.iter().filter_map(|request| request.bridge.as_deref());
        let whose = Ownership::Exactly(target.owner);
        let names = bridges.map(|bridge| hosts::withdraw(&target.directories, Some(bridge), &id, whose));
        names.chain(config.as_ref().map(BundleConfig::restore)).for_each(cli::warn);
    }
    done
}

/// Makes the namespace and one network after the other. Returns all of them, and what others on the bridges may know.
fn build(work: &mut Work, target: &Joiner, further: bool, requests: &[NetworkRequest]) -> Result<(Network, Vec<Note>)> {
    let path = container::namespace(&target.id);
    let (mut names, mut notes, mut network, mut behind) = (Vec::new(), Vec::new(), None, 0);
    if further {
        behind = work.enter(&target.id)?;
        let known = joined::describe(&mut work.host, &path)?;
        names = result::names(&known);
        network = Some(known).filter(|known| !known.addresses().is_empty());
    } else {
        let alias = PortAlias { id: target.id.clone(), owner: Some(target.owner), addresses: vec![] };
        work.apply(&[Step::Namespace(alias), Step::Up("lo".to_owned())])?;
    }
    for request in requests {
        let is_taken = |name: &String| names.contains(name);
        if let Some(bridge) = request.bridge.as_ref().filter(|bridge| is_taken(bridge)) {
            bail!("container {} is already on {bridge}", target.id);
        }
        let mut numbered = (0..=names.len()).map(|number| request.interface.replace("%d", &number.to_string()));
        let interface = numbered.find(|name| !is_taken(name));
        let interface = interface.with_context(|| format!("{} is taken", request.interface))?;
        let (is_further, metric) = (network.is_some(), behind + request.metric);
        let mut request = NetworkRequest { interface, metric, is_further, ..request.clone() };
        let plan = make(work, &target.directories, &mut request)?;
        notes.extend(note(target, &request, &plan));
        names.extend(result::names(&plan.network));
        network = Some(plan.network);
    }
    let network = match network {
        Some(network) if requests.len() == 1 && !further => network,
        _ => joined::describe(&mut work.host, &path)?,
    };
    Ok((network, notes))
}

/// Makes one network.
fn make(work: &mut Work, directories: &Directories, request: &mut NetworkRequest) -> Result<Plan> {
    if let Some(created) = settings::settings_of(directories, &request.network)? {
        let is_plain = request.settings == NetworkSettings::default();
        ensure!(is_plain, "network {}: give its subnets and other settings to `ns network create`", request.network);
        request.bridge.take_if(|_| created.macvlan.is_some());
        request.settings = created;
    }
    let shared = request.host_local.as_ref().map(host_local::Network::open).transpose()?;
    let host = &mut work.host;
    let mut observed = Observed::default();
    if let Some(bridge) = &request.bridge {
        observed = observe(host, directories, bridge, &request.settings)?;
    }
    if let Some(bridge) = &observed.bridge {
        // Whoever was to mark it may have been killed.
        if bridge.half_made.is_none() {
            ensure!(bridge.internal || !request.settings.internal, "{} already leads outwards", request.network);
            request.settings.internal = bridge.internal;
        }
        if bridge.routed_ports.is_some() {
            request.settings.driver = NetworkDriver::Routed;
        }
    }
    if request.bridge.is_some() {
        observed.port = port_name(host, request)?;
    }
    let mut holder = |address: IpAddr| {
        shared.as_ref().and_then(|network| network.holder(address)).or_else(|| {
            let link = host.link(&owner::name_of_address(address)).ok().flatten()?;
            Some(PortAlias::of(&link).map_or(link.name, |port| port.id.to_string()))
        })
    };
    let plan = plan::plan(request, &observed, &mut holder)?;
    work.apply(&plan.steps)?;
    Ok(plan)
}

/// Somebody has taken our rules away: the other containers' networks come back here, their ports by whoever reads the note.
fn tell_of_flush(directories: &Directories) {
    log::warn!("the firewall was flushed: restoring the networks (`portmap restore` restores the ports)");
    let note = container::flush_note();
    let noted = std::fs::write(&note, "").with_context(|| format!("write {}", note.display()));
    cli::warn(noted.and_then(|()| restore::restore_locked(directories)));
}

/// Tells the record and the bundle.
fn finish(target: &mut Joiner, config: Option<&BundleConfig>, netns: &Path, network: &Network) -> Result<()> {
    target.record.set(&Id(target.id.clone()));
    target.record.set(network);
    let Some((bundle, config)) = target.bundle.as_ref().zip(config) else { return Ok(()) };
    config.join(netns)?;
    let hostname = config.hostname().unwrap_or(&target.id);
    config::add_host(bundle, network, hostname).context("append to the bundle's hosts")
}

/// Prints the record, or notes what it says of a container that runs, unless it was interrupted.
fn hand_on(target: &Joiner, signals: &SignalFd) -> Result<()> {
    let heard = || match signals.read()? {
        Some(received) => bail!("interrupted by signal {}", received.signal),
        None => Ok(()),
    };
    if target.runs {
        heard()?;
        return target.record.note().context("note the networks in the bundle");
    }
    target.record.hand_on().context("print the record")?;
    heard()
}

/// Returns what the other containers on the bridge may know of this one. On the default bridge only those have names that are
/// given one: whoever comes has to tell all others, and there they are strangers to each other mostly, and many. So they are
/// in a routed network.
fn note(target: &Joiner, request: &NetworkRequest, plan: &Plan) -> Option<Note> {
    let bridge = request.bridge.clone()?;
    if (bridge == DEFAULT_BRIDGE || request.routed_ports().is_some()) && request.names.is_empty() {
        return None;
    }
    let hosts = target.bundle.as_ref().map(|bundle| bundle.join("hosts")).filter(|hosts| hosts.is_file());
    let names = [request.id.to_string()].into_iter().chain(request.names.iter().cloned()).collect();
    let addresses = plan.addresses.clone();
    Some(Note { id: request.id.clone(), owner: request.owner, bridge, addresses, names, hosts })
}

/// Lets a container share the network of another one, which keeps it: nothing is made.
pub(crate) fn join(mut target: Joiner, other: &ContainerId) -> Result<()> {
    let path = if named::exists(other) {
        container::namespace(other)
    } else {
        let noted = container::find(&target.directories.states(), other).context("look for containers")?;
        let noted = noted.with_context(|| format!("container {other} has no network namespace: it does not run"))?;
        named::of_process(noted.pid).with_context(|| format!("find the network of process {}", noted.pid))?
    };
    let network = joined::describe(&mut Router::open()?, &path)?;
    let config = target.bundle.as_deref().map(BundleConfig::read).transpose()?;
    finish(&mut target, config.as_ref(), &path, &network)?;
    target.record.hand_on().context("print the record")
}

/// Returns what a record says about its container: the id, whose it is, and the bundle if it has one.
pub(crate) fn target(record: Record, id: Option<ContainerId>, directories: Directories) -> Result<Joiner> {
    let bundle: Option<Bundle> = record.find()?;
    let id = id.map_or_else(|| record.part::<Id>().map(|id| id.0), Ok)?;
    let owner = record.find::<OwnedBy>()?.map_or_else(|| Owner::of_root(&directories), |owned| owned.0);
    Ok(Joiner { record, bundle: bundle.map(|bundle| bundle.0), id, owner, directories, runs: false })
}

/// Tells whether the container has its namespace already, and gets one more network.
pub(crate) fn is_further(target: &Joiner) -> Result<bool> {
    let noted = target.record.find::<Network>()?.and_then(|network| network.namespace());
    Ok(target.runs || noted == Some(container::namespace(&target.id)) && named::exists(&target.id))
}

/// Returns a free name for the host's end of the container's link.
fn port_name(host: &mut Router, request: &NetworkRequest) -> Result<String> {
    if !request.is_further {
        let known = host.link(&owner::name_of_container(&request.id)).context("look for the container's port")?;
        ensure!(known.is_none(), "container {} has a network already", request.id);
    }
    let beginning = request.routed_ports().unwrap_or_else(|| owner::VETH.to_owned());
    let port = owner::port_names(&request.id, &beginning).find(|name| matches!(host.link(name), Ok(None)));
    port.context("too many links of earlier containers are left")
}

/// Looks at what is there for a bridge.
fn observe(host: &mut Router, directories: &Directories, name: &str, settings: &NetworkSettings) -> Result<Observed> {
    let bridge = host.link(name).with_context(|| format!("look for {name}"))?;
    if let Some(bridge) = bridge.as_ref().filter(|bridge| bridge.kind.as_deref() != Some("bridge")) {
        bail!("{name} is not a bridge: it is {}", bridge.kind.as_deref().unwrap_or("a network card"));
    }
    let index = bridge.as_ref().map(|bridge| bridge.index);
    let own = index.map_or(Ok(vec![]), |index| host.addresses_of(index)).context("list addresses")?;
    let networks: Vec<_> = own.iter().filter(|own| own.is_routed()).map(|own| own.address).collect();
    // All of the host's addresses and routes are looked at for a new network alone: they may be thousands.
    let is_needed = bridge.is_none() || pool::is_needed(settings, &networks);
    let ways = if is_needed { host.all_routes().context("list routes")? } else { vec![] };
    let others = if is_needed { host.addresses().context("list addresses")? } else { vec![] };
    let default = ways.iter().filter(|way| way.is_main && way.destination.prefix == 0).find_map(|way| way.index);
    let outwards = default.map(|index| host.link_at(index)).transpose().context("look at the route outwards")?;
    let others = others.iter().filter(|other| other.is_routed() && Some(other.index) != index);
    let named = others.filter_map(|other| Some((host.link_at(other.index).ok()??.name, other.address)));
    let mut named: Vec<_> = named.collect();
    let reserved = if bridge.is_none() { settings::created(directories)? } else { vec![] };
    for (network, settings) in reserved.iter().filter(|(network, _)| bridge_of(network) != name) {
        let addresses = settings.subnets.iter().zip(&settings.gateways);
        named.extend(addresses.map(|(subnet, at)| (network.to_string(), Cidr { address: *at, ..*subnet })));
    }
    let is_own = bridge.as_ref().is_some_and(owner::is_bridge);
    let ports = index.filter(|_| !is_own).map(|index| host.links(Some(index))).transpose().context("list ports")?;
    let free = ports.is_some_and(|ports| !ports.iter().any(|port| PortAlias::of(port).is_some()));
    Ok(Observed {
        mtu: outwards.flatten().map(|link| link.mtu),
        bridge: bridge.map(|bridge| Bridge {
            mac: bridge.mac.as_slice().try_into().ok(),
            mtu: bridge.mtu,
            own: is_own,
            internal: owner::is_internal(&bridge),
            routed_ports: owner::routed_ports_of(&bridge),
            half_made: Some(bridge.names).filter(|_| is_own && bridge.alias.is_none()),
            free,
            addresses: networks,
        }),
        port: String::new(),
        others: named,
        routes: ways.iter().filter(|way| index.is_none() || way.index != index).map(|way| way.destination).collect(),
    })
}
