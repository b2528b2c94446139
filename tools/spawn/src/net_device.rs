//! `linux.netDevices` (runtime-spec, config-linux.md, "Network Devices"): interfaces of the host that become the
//! container's, with their lasting addresses, and end or go back when its network namespace does.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use netlink::route::Router;
use rustix::fs::OFlags;
use rustix::process::Pid;
use sys::namespace::{Kind as NamespaceKind, enter};

use crate::config::Linux;
use crate::file;

/// Moves all of them into the network namespace of the container whose process is `pid`.
pub(crate) fn move_all(linux: &Linux, pid: Pid) -> anyhow::Result<()> {
    if linux.net_devices.is_empty() {
        return Ok(());
    }
    let made = PathBuf::from(format!("/proc/{}/ns/net", pid.as_raw_pid()));
    let own = file::open("/proc/self/ns/net", OFlags::RDONLY)?;
    let theirs = file::open(linux.joins(NamespaceKind::Network).unwrap_or(&made), OFlags::RDONLY)?;
    let mut host = Router::open()?;
    // A socket stays where it was opened.
    enter(theirs.as_fd(), NamespaceKind::Network).context("enter the network namespace")?;
    let container = Router::open();
    enter(own.as_fd(), NamespaceKind::Network).context("return to our own network namespace")?;
    let mut container = container?;
    for (name, device) in &linux.net_devices {
        let wanted = if device.name.is_empty() { name } else { &device.name };
        move_one(name, wanted, &mut host, &mut container, theirs.as_fd())
            .with_context(|| format!("move network device {name}"))?;
    }
    Ok(())
}

fn move_one(
    name: &str,
    wanted: &str,
    host: &mut Router,
    container: &mut Router,
    namespace: BorrowedFd<'_>,
) -> anyhow::Result<()> {
    let link = host.link(name)?.context("there is no such device")?;
    let pattern = wanted.contains("%d");
    ensure!(pattern || container.link(wanted)?.is_none(), "the container already has a device {wanted}");
    // With a pattern (`eth%d`) the kernel chooses the name, and an index may change with the namespace: what is new
    // is ours.
    let before: Vec<u32> = container.links(None)?.iter().map(|link| link.index).collect();
    // The kernel drops a device's addresses when it changes its network namespace, so they are read before.
    let addresses = host.addresses()?;
    host.move_link(link.index, wanted, namespace)?;
    let moved = container
        .links(None)?
        .into_iter()
        .find(|link| if pattern { !before.contains(&link.index) } else { link.name == wanted });
    let moved = moved.context("it did not arrive")?;
    for address in addresses.iter().filter(|address| address.index == link.index && address.is_lasting()) {
        container
            .add_address(moved.index, address.address, true)
            .with_context(|| format!("address {}", address.address))?;
    }
    // The move has taken it down.
    Ok(container.set_up(moved.index)?)
}
