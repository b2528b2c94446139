//! `portmap check` and `gc`: what keeps the state right when others work on the firewall too.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use container::{ContainerId, Directories};
use netlink::forwarding;
use record::{Id, PortMapping, Record};

use crate::add;
use crate::beside;
use crate::control::{Sockets, id_of};
use crate::firewall::{self, Firewall, View};
use crate::mapping::{Mapping, Published};
use crate::publish;
use crate::restore;
use crate::spec::Served;

/// Checks what a record says is published, or all that is.
pub(crate) fn check(target: Option<&Path>, directories: &Directories) -> anyhow::Result<ExitCode> {
    let record = match target {
        Some(name) if !add::is_id(name) => Some(add::read(Some(name))?),
        _ => None,
    };
    let id = match (&record, target) {
        (Some(record), _) => Some(record.part::<Id>()?.0),
        (None, name) => name.map(add::id).transpose()?,
    };
    let mut firewall = Firewall::open()?;
    let mut view = firewall.visible()?;
    let read = |view: &mut View<'_>| match &id {
        Some(id) => view.read_owner(id).cloned(),
        None => view.read_all().cloned(),
    };
    let published = view.as_mut().map_or(Ok(Published::default()), read)?;
    let own: Vec<&Mapping> =
        published.mappings.iter().filter(|mapping| id.as_ref().is_none_or(|id| *id == *mapping.owner.id)).collect();
    let proxies = Sockets::below(directories, id.as_deref()).records()?;
    if let Some(record) = &record {
        ensure_published(record, &published.mappings, &proxies)?;
    }
    for record in restore::noted(directories, id.as_ref())? {
        let noted = record.part::<Id>()?.0;
        let published = ensure_published(&record, &published.mappings, &proxies);
        published.with_context(|| format!("{noted} has lost a port, which `portmap restore` puts back"))?;
    }
    let has_proxy = proxies.iter().any(|proxy| restore::is_of(proxy, id.as_ref()));
    if let (Some(id), true, false) = (&id, own.is_empty(), has_proxy) {
        bail!("{id} has no published ports");
    }
    let has_all = own.is_empty() || view.as_ref().is_none_or(View::is_whole);
    ensure!(has_all, "the firewall's table portmap has lost rules: `portmap restore` puts them back");
    for mapping in own {
        ensure!(!mapping.owner.is_gone(), "{} has {mapping}, but is gone: `portmap gc` withdraws it", mapping.owner.id);
        ensure!(forwarding::is_on(mapping.target.is_ipv4()), "{mapping}: the host does not forward packets");
    }
    // Last, since it is true of the host and not of a container: the others say more.
    ensure!(!view.map_or(Ok(false), |view| view.is_open())?, firewall::OPEN);
    Ok(ExitCode::SUCCESS)
}

/// Withdraws what belongs to nobody.
pub(crate) fn gc(keep: &[ContainerId], directories: &Directories) -> anyhow::Result<ExitCode> {
    let is_unwanted = |id: &str| !keep.is_empty() && keep.iter().all(|keep| **keep != *id);
    let leaves = |mapping: &Mapping| is_unwanted(&mapping.owner.id) || mapping.owner.is_gone();
    let sockets = Sockets::below(directories, None);
    let published = Firewall::open()?.visible()?.map_or(Ok(Published::default()), View::read)?;
    let held = published.mappings.into_iter().filter(|mapping| mapping.held_by.is_some());
    // What a process holds can be taken away by that process alone (the table's owner, nft(8), "owner"): so it is
    // ended.
    let dead: Vec<String> = held.filter(leaves).map(|mapping| mapping.owner.id).collect();
    sockets
        .dismiss(|record| id_of(record).is_some_and(|id| is_unwanted(&id) || dead.iter().any(|dead| *id == **dead)))?;
    sockets.sweep()?;
    beside::sweep(directories, is_unwanted)?;
    match publish::withdraw(None, leaves) {
        // That was said already.
        Err(error) if firewall::is_denied(&error) => {}
        done => done?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Fails if anything is not reached that a record says is.
fn ensure_published(record: &Record, mappings: &[Mapping], proxies: &[Record]) -> anyhow::Result<()> {
    let Id(id) = record.part()?;
    let served = restore::served(proxies, &id);
    let own: Vec<PortMapping> =
        mappings.iter().filter(|mapping| id == *mapping.owner.id).flat_map(Mapping::port_mappings).collect();
    for wanted in Served::of_record(record)? {
        match &wanted {
            _ if served.contains(&wanted) => {}
            Served::Port(port) => {
                ensure!(own.contains(port), "port {}/{} is not published", port.host_port, port.protocol);
            }
            Served::Socket(socket) => bail!("{socket} is not served"),
        }
    }
    Ok(())
}
