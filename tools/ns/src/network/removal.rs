//! `ns del`: the name goes, and with the namespace's last process the kernel takes the links in it, on its own time. What
//! nobody is left for, the bridge and its rules, a process in the background removes: each link that is deleted makes its
//! deleter wait for all processors, some ten milliseconds, which nothing depends on. It waits a moment before that, so that
//! containers that run one after the other keep the bridge.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use container::{ContainerId, Directories, Ownership};
use netlink::route::{Link, Router};
use rustix::fs::{FlockOperation, flock};

use super::lock::{lock, lock_file, lock_quietly};
use super::owner::{self, PortAlias};
use super::settings::settings_of;
use super::{Joiner, firewall, macvlan, named};

/// The name by which the process in the background is executed.
pub(crate) const SWEEP: &str = "ns-sweep";
/// How long nothing must have happened before it works.
const LINGER: Duration = Duration::from_millis(200);

/// Removes a container's network. What is gone already is no error, and what is somebody else's stays. With `wait` all is
/// gone on return.
pub(crate) fn delete(directories: &Directories, id: &ContainerId, whose: Ownership, wait: bool) -> Result<()> {
    super::cni::delete(directories, id, whose)?;
    let _lock = lock()?;
    let mut host = Router::open().context("open a routing socket")?;
    let inside = named::links(id)?;
    let (ports, others) = ports_of(&mut host, id, whose, &inside).context("look for the container's ports")?;
    let theirs: Vec<PortAlias> = others.iter().filter_map(PortAlias::of).filter(|port| port.id == *id).collect();
    // Of a name without a namespace somebody else's may be mounted in another mount namespace.
    let is_ours = match inside.iter().find(|link| link.index == 1) {
        // The alias of lo can be changed by root of the namespace, which may be the container's. The port on the host
        // cannot, and the kernel says of both ends that they belong together.
        Some(lo) => whose.covers(owner::of_namespace(lo, id)) || ports.iter().any(|port| leads_to(port, &inside)),
        None => theirs.is_empty(),
    };
    let may_delete = is_ours || whose.is_exact();
    ensure!(may_delete, "network namespace {id} is that of a container below another root: delete it with that --root");
    // Without a port: a killed `ns add` or `ns del` may have left a bridge that nobody else removes.
    let mut left = ports.is_empty() && !idle(&host.links(None).context("list links")?).is_empty();
    for port in &ports {
        left |= is_last(&mut host, port)?;
    }
    super::hosts::withdraw(directories, None, id, whose)?;
    if is_ours {
        super::outward::stop(directories, id);
    }
    let kept: Vec<_> = theirs.iter().flat_map(|port| &port.addresses).copied().collect();
    super::host_local::withdraw(id, &kept)?;
    if wait {
        for port in &ports {
            delete_link(&mut host, port)?;
        }
        remove_name(id, is_ours)?;
        return sweep(&mut host);
    }
    for port in &ports {
        // Until the kernel has taken it, it must not count as a port, nor hold its addresses.
        log::debug!("mark {} as gone", port.name);
        // It may be gone in earnest. By its names first: one that is marked is known by nothing else.
        for name in PortAlias::of(port).iter().flat_map(PortAlias::names) {
            // That of a further network has not the container's own.
            // The addresses are free at once, though the links live until the kernel gets to them.
            let _free = host.remove_names(port.index, &[name]);
        }
        let _gone = host.set_alias(&port.name, &owner::gone(id));
    }
    remove_name(id, is_ours)?;
    for port in &ports {
        // The kernel numbers no namespace that has ended. One may be held by a process still, or by a socket that was
        // closed just now.
        left |= host.link(&port.name)?.is_some_and(|port| port.peer_namespace.is_some_and(|number| number >= 0));
    }
    if left { sweep_in_background() } else { Ok(()) }
}

/// Takes a container that runs from a network.
pub(crate) fn disconnect(target: &mut Joiner, network: &str, _lock: &File) -> Result<()> {
    let (id, bridge) = (&target.id, owner::bridge_of(network));
    let mut host = Router::open().context("open a routing socket")?;
    let settings = settings_of(&target.directories, network)?.unwrap_or_default();
    let left = if settings.macvlan.is_some() {
        let member = macvlan::member(&mut host, &settings, id).context("look into the container")?;
        let member = member.filter(|member| member.port.owner == Some(target.owner));
        let mut member = member.with_context(|| format!("container {id} is not on {network}"))?;
        delete_link(&mut member.inside, &member.link)?;
        false
    } else {
        leave(&mut host, target, &bridge)?
    };
    super::hosts::withdraw(&target.directories, Some(&bridge), id, Ownership::Exactly(target.owner))?;
    target.record.set(&super::joined::describe(&mut host, &container::namespace(id))?);
    target.record.note().context("note the networks in the bundle")?;
    if left { sweep_in_background() } else { Ok(()) }
}

/// Deletes a container's links to a bridge. Tells whether the bridge may have no other.
fn leave(host: &mut Router, Joiner { id, owner, .. }: &Joiner, bridge: &str) -> Result<bool> {
    let (name, bridge) = (bridge, host.link(bridge)?);
    let whose = Ownership::Exactly(*owner);
    let (ports, _) = ports_of(host, id, whose, &named::links(id)?).context("look for the container's ports")?;
    let (gone, others): (Vec<_>, Vec<_>) =
        ports.into_iter().partition(|port| bridge.as_ref().is_some_and(|bridge| owner::is_on(bridge)(port)));
    ensure!(!gone.is_empty(), "container {id} is not on {name}");
    let mut left = false;
    for port in &gone {
        left |= is_last(host, port)?;
        delete_link(host, port)?;
    }
    if let Some(other) = others.first() {
        // It has that name already, unless the first network is gone.
        let _named = host.add_names(other.index, &[owner::name_of_container(id)]);
    }
    Ok(left)
}

/// Returns the host's ends of a container's links, and those of somebody else's of that id.
fn ports_of(
    host: &mut Router,
    id: &ContainerId,
    whose: Ownership,
    inside: &[Link],
) -> Result<(Vec<Link>, Vec<Link>), netlink::Error> {
    // That of a maker who was killed has no further name yet.
    let mut found = Vec::new();
    for name in [owner::name_of_container(id)].into_iter().chain(owner::port_names(id, owner::VETH).take(1)) {
        found.extend(host.link(&name)?);
    }
    // Those of further networks are found from inside.
    for peer in inside.iter().filter_map(|link| link.peer) {
        found.extend(host.link_at(peer)?);
    }
    found.sort_by_key(|link: &Link| link.index);
    found.dedup_by_key(|link| link.index);
    Ok(found.into_iter().partition(|link| owner::is_port_of(link, id, whose)))
}

/// Tells whether a port is the last on a bridge of ours, as far as the first few tell. On somebody else's bridge the last
/// one takes our rules along.
fn is_last(host: &mut Router, port: &Link) -> Result<bool> {
    let Some(bridge) = owner::bridge_at(host, port).context("look at the bridge")? else { return Ok(true) };
    let is_on = owner::is_on(&bridge);
    let is_other = |other: &Link| other.index != port.index && is_on(other) && !owner::is_gone(other);
    if owner::is_bridge(&bridge) {
        return Ok(!Router::open()?.some_links(port.controller).context("list ports")?.iter().any(is_other));
    }
    let ports = host.links(Some(bridge.index)).context("list ports")?;
    if !ports.iter().any(|other| is_other(other) && PortAlias::of(other).is_some()) {
        firewall::remove(&bridge.name, None).with_context(|| format!("remove the rules of {}", bridge.name))?;
    }
    Ok(false)
}

/// Removes, when nothing has happened for a moment, our bridges that have no port, and what a killed process has left.
pub(crate) fn sweep_all() -> Result<()> {
    let turn = lock_file("sweep.lock")?;
    // One sweep at a time is enough: it looks at all there is when it comes to work.
    if flock(&turn, FlockOperation::NonBlockingLockExclusive).is_err() {
        // Another one waits already.
        return Ok(());
    }
    loop {
        let lock = lock_quietly()?;
        let quiet = quiet_for(&lock)?;
        if quiet >= LINGER {
            let mut host = Router::open().context("open a routing socket")?;
            sweep(&mut host)?;
            // Before the lock: whoever gets that, and finds our turn taken, must be able to count on us.
            drop(turn);
            return Ok(());
        }
        drop(lock);
        sleep(LINGER.saturating_sub(quiet));
    }
}

/// How long nobody has had the lock; a clock that was set back does not make us wait for ever.
fn quiet_for(lock: &File) -> Result<Duration> {
    let last = lock.metadata().and_then(|metadata| metadata.modified()).context("read the lock's time")?;
    Ok(SystemTime::now().duration_since(last).unwrap_or(LINGER))
}

/// Does so now, for one who has the lock.
pub(super) fn sweep(host: &mut Router) -> Result<()> {
    let links = host.links(None).context("list links")?;
    for port in links.iter().filter(|link| owner::is_gone(link)) {
        delete_link(host, port)?;
    }
    for link in idle(&links) {
        // Rules before the link: a bridge without its guard would be open for a moment. The socket is closed after
        // the link is deleted, since both wait for the same RCU grace period.
        let rules = firewall::remove(&link.name, owner::routed_ports_of(link).as_deref());
        let rules = rules.with_context(|| format!("remove the rules of {}", link.name))?;
        delete_link(host, link)?;
        drop(rules);
    }
    Ok(())
}

/// Finds our bridges without a port, and our links that never got an owner. Whoever makes one holds the lock.
fn idle(links: &[Link]) -> Vec<&Link> {
    let has_port = |bridge: &Link| {
        let is_on = owner::is_on(bridge);
        links.iter().any(|port| is_on(port) && !owner::is_gone(port) && !is_half_made(port))
    };
    links.iter().filter(|link| is_half_made(link) || owner::is_bridge(link) && !has_port(link)).collect()
}

/// The group is given in the message that makes the link, the alias in a later one; between the two its maker was
/// killed.
fn is_half_made(link: &Link) -> bool {
    link.group == owner::GROUP && link.alias.is_none() && !owner::is_bridge(link)
}

fn sweep_in_background() -> Result<()> {
    log::debug!("delete the bridge in the background");
    let mut sweep = Command::new("/proc/self/exe");
    sweep.arg0(SWEEP).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // What ends us, a terminal that hangs up or Ctrl-C, should not end it; a socket of our caller's would be taken as long.
    sys::child::afresh(sweep.process_group(0)).spawn().map(drop).context("execute the sweep")
}

fn delete_link(host: &mut Router, link: &Link) -> Result<()> {
    log::debug!("delete {}", link.name);
    host.delete_link(link.index).with_context(|| format!("delete {}", link.name))
}

/// Tells whether a port leads to one of the links of a namespace.
fn leads_to(port: &Link, inside: &[Link]) -> bool {
    inside.iter().any(|link| link.peer == Some(port.index) && port.peer == Some(link.index))
}

fn remove_name(id: &ContainerId, is_ours: bool) -> Result<()> {
    if !is_ours {
        return Ok(());
    }
    named::remove(id).with_context(|| format!("delete network namespace {id}"))
}
