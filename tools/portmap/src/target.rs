//! The container that ports lead to: out of a record, or looked up in the system.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use container::{ContainerId, Directories, Owner};
use netlink::route::{Address, Router};
use record::{Bundle, Id, Network, OwnedBy, Record, State};
use rustix::process::Pid;
use serde_json::json;
use sys::namespace::{Kind, OWN_NETWORK, is_at, is_own_network};

use crate::owner::MappingOwner;

/// A container, as far as ports need to know it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) owner: MappingOwner,
    /// Its addresses that the host can reach, at most one of each family.
    pub(crate) addresses: Vec<IpAddr>,
    /// A process of it, so that its end can be seen.
    pub(crate) pid: Option<Pid>,
    /// Where its config.json is.
    pub(crate) bundle: Option<PathBuf>,
}

impl Target {
    /// Reads a container out of a record: out of its `network`, or, where `ns add` made none, out of its process's
    /// namespace.
    pub(crate) fn of_record(record: &Record, id: Option<&ContainerId>, root: Owner) -> anyhow::Result<Self> {
        let state = record.member("pid").map(|_| record.part::<State>()).transpose()?;
        let pid = state.and_then(|state| state.pid).filter(|pid| *pid > 0).and_then(Pid::from_raw);
        let bundle = record.find::<Bundle>()?.map(|bundle| bundle.0);
        let id = id.cloned().map_or_else(|| record.part::<Id>().map(|id| id.0), Ok)?;
        let owner = record.find::<OwnedBy>()?.map_or(root, |owned| owned.0);
        // A record without a network is one of a runtime's that made its own, such as `spawn` by a config.json with a
        // new namespace.
        let Some(network) = record.find::<Network>()? else {
            let missing = record::Error::Missing { member: "network", stage: "ns add" };
            let pid = pid.ok_or(missing)?;
            return Ok(Self { bundle, ..Self::of_process(pid, Some(&id), owner)? });
        };
        let netns = network.namespace();
        let addresses = Self::one_of_each_family(&network.addresses());
        Ok(Self { owner: MappingOwner::new(&id, Some(owner), netns), addresses, pid, bundle })
    }

    /// Finds a container in the network namespace of a process.
    pub(crate) fn of_process(pid: Pid, id: Option<&ContainerId>, owner: Owner) -> anyhow::Result<Self> {
        let number = pid.as_raw_nonzero();
        let id = id.map_or_else(|| format!("pid-{number}").parse(), |id| Ok(id.clone()))?;
        let path = PathBuf::from(format!("/proc/{number}/ns/net"));
        Ok(Self { pid: Some(pid), ..Self::of_namespace(&path, &id, owner)? })
    }

    /// Finds a container in a network namespace.
    pub(crate) fn of_namespace(path: &Path, id: &ContainerId, owner: Owner) -> anyhow::Result<Self> {
        let open = || format!("open network namespace {}", path.display());
        let file = File::open(path).with_context(open)?;
        // A name in /run/netns may be the empty file that a mount has left: to enter it would say EINVAL, and no
        // more.
        if !is_at(path) {
            return Err(anyhow!("not a namespace")).with_context(open);
        }
        let addresses = addresses_inside(&file).with_context(|| format!("list addresses in {}", path.display()))?;
        let owner = MappingOwner::new(id, Some(owner), Some(path.to_owned()));
        Ok(Self { owner, addresses: Self::one_of_each_family(&addresses), pid: None, bundle: None })
    }

    /// Finds a container by its id or name: a named network namespace, or what a runtime has noted.
    pub(crate) fn of_id(id: &ContainerId, directories: &Directories) -> anyhow::Result<Self> {
        let unknown = || anyhow!("{id}: no such container, and no network namespace of this name");
        let noted = container::find(&directories.states(), id).context("look for containers")?;
        let pid = noted.as_ref().and_then(|noted| Pid::from_raw(noted.pid));
        // What is published for it later goes with it, too.
        let owner = noted.as_ref().and_then(|noted| noted.owner).unwrap_or_else(|| Owner::of_root(directories));
        let bundle = noted.and_then(|noted| noted.bundle);
        let named = container::namespace(id);
        // The name first: it outlives the process, and is what the namespace is found by when the port is withdrawn.
        let found = if is_at(&named) {
            Self::of_namespace(&named, id, owner)?
        } else {
            Self::of_process(pid.ok_or_else(unknown)?, Some(id), owner)?
        };
        Ok(Self { pid, bundle, ..found })
    }

    /// Returns the first address of each family.
    pub(crate) fn one_of_each_family(addresses: &[IpAddr]) -> Vec<IpAddr> {
        let first = |is_ipv4: bool| addresses.iter().copied().find(|address| address.is_ipv4() == is_ipv4);
        [first(true), first(false)].into_iter().flatten().collect()
    }

    /// Tells whether the container has no network namespace of its own.
    pub(crate) fn shares_the_hosts_network(&self) -> bool {
        self.owner.netns.as_deref().is_some_and(is_own_network)
    }
}

/// Returns the `network` of a container, as far as ports need it.
pub(crate) fn network(owner: &MappingOwner, addresses: &[IpAddr]) -> Network {
    let ip = |address: &IpAddr| json!({"address": format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })});
    let mut network = serde_json::Map::new();
    network.insert("cniVersion".to_owned(), json!("1.1.0"));
    if let Some(netns) = &owner.netns {
        let name = owner.attachment.as_ref().map_or("eth0", |attachment| &attachment.interface);
        network.insert("interfaces".to_owned(), json!([{"name": name, "sandbox": netns}]));
    }
    if let Some(attachment) = &owner.attachment {
        network.insert("name".to_owned(), json!(attachment.network));
    }
    network.insert("ips".to_owned(), addresses.iter().map(ip).collect());
    Network(network)
}

/// A socket stays in the namespace in which it was opened, so a thread of its own opens one and is gone.
fn addresses_inside(netns: &File) -> anyhow::Result<Vec<IpAddr>> {
    let inside = std::thread::scope(|scope| {
        let open = || -> anyhow::Result<Router> {
            sys::namespace::enter(netns.as_fd(), Kind::Network).context("enter it")?;
            Ok(Router::open()?)
        };
        if let Ok(thread) = std::thread::Builder::new().spawn_scoped(scope, open) {
            return thread.join().map_err(|_| anyhow!("a thread panicked"))?;
        }
        // There may be no more threads: this one goes, and comes back.
        let own = File::open(OWN_NETWORK)?;
        let opened = open();
        sys::namespace::enter(own.as_fd(), Kind::Network).context("return to our own network namespace")?;
        opened
    });
    Ok(inside?.addresses()?.into_iter().filter(Address::is_routed).map(|own| own.address.address).collect())
}
