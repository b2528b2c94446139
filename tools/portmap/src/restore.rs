//! `portmap restore`: what was published, published again after somebody has flushed the firewall, by a list or by what
//! the records in the bundles of the containers say that are there.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::process::{ExitCode, Stdio};

use anyhow::{Context, ensure};
use container::{ContainerId, Directories, Owner};
use log::{debug, warn};
use netlink::foreign::Forward;
use record::{Bundle, Id, Network, OwnedBy, Part, PortMapping, PortOptions, Ports, Record};
use stage::{Stage, Tool};

use crate::condition::Conditions;
use crate::control::{Sockets, id_of};
use crate::firewall::Firewall;
use crate::forward;
use crate::held::HeldBy;
use crate::owner::{Attachment, MappingOwner};
use crate::publish::{self, Manner, Masquerade};
use crate::spec::{HostPorts, PortSpec, Served};
use crate::target::Target;

/// No list is longer. Bytes.
const LIST_LIMIT: u64 = 64 << 20;

/// Publishes again, and writes the rules anew.
pub(crate) fn restore(list: Option<&Path>, roots: &cli::Roots) -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    match list {
        Some(path) => text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?,
        None if io::stdin().is_terminal() => {}
        None => {
            io::stdin().lock().take(LIST_LIMIT).read_to_string(&mut text).context("read the list")?;
        }
    }
    if list.is_none() && text.trim().is_empty() {
        return restore_noted(roots);
    }
    let mut firewall = Firewall::open()?;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        put_back(&mut firewall, &Record::parse(line.as_bytes(), "the list")?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Puts networks and ports of all containers back that are there.
fn restore_noted(roots: &cli::Roots) -> anyhow::Result<ExitCode> {
    // Whoever flushes the firewall from here on is noticed anew.
    let _none = fs::remove_file(container::flush_note());
    let mut networks = Stage::new(Tool::Ns, ["restore"]);
    networks.option("--root", roots.argument());
    // Networks before ports: the rules of a port name the bridge's addresses, and packets need the way there first.
    let networks_back = networks.command()?.stdin(Stdio::null()).status().with_context(|| networks.to_string())?;
    let proxies = Sockets::below(&roots.directories(), None).records()?;
    let mut firewall = Firewall::open()?;
    let mut failed = !networks_back.success();
    for mut record in noted(&roots.directories(), None)? {
        let id = record.part::<Id>()?.0;
        // Nobody has lost what a proxy serves.
        let served = served(&proxies, &id);
        let mut ports = record.find::<Ports>()?.unwrap_or_default();
        ports.0.retain(|port| !served.contains(&Served::Port(port.clone())));
        record.set(&ports);
        // One container's ports that cannot be had keep no other's away.
        if let Err(error) = put_back(&mut firewall, &record) {
            warn!("{id}: {error:#}");
            failed = true;
        }
    }
    ensure!(!failed, "some ports could not be restored");
    Ok(ExitCode::SUCCESS)
}

/// Returns what a container's proxies serve.
pub(crate) fn served(proxies: &[Record], id: &ContainerId) -> Vec<Served> {
    let own = proxies.iter().filter(|proxy| is_of(proxy, Some(id)));
    own.flat_map(|proxy| Served::of_record(proxy).unwrap_or_default()).collect()
}

/// Tells whether a record is a container's.
pub(crate) fn is_of(record: &Record, id: Option<&ContainerId>) -> bool {
    id_of(record).as_ref() == id
}

/// Returns what the bundles of containers that are there, or of one, say of published ports.
pub(crate) fn noted(directories: &Directories, id: Option<&ContainerId>) -> anyhow::Result<Vec<Record>> {
    let bundles = directories.bundles();
    let records = id.map_or_else(|| Record::of_bundles(&bundles), |id| Record::of_some([Ok(directories.bundle(id))]));
    let records = records.with_context(|| format!("read {}", bundles.display()))?;
    let published = |record: &Record| record.member(Ports::MEMBER).is_some() && is_there(record, directories);
    Ok(records.into_iter().filter(published).collect())
}

/// Tells whether a container runs, or will be started again by its keeper.
fn is_there(record: &Record, directories: &Directories) -> bool {
    let (Ok(Some(Id(id))), Ok(Some(Bundle(bundle)))) = (record.find(), record.find()) else { return false };
    let noted = || container::find(&directories.states(), &id);
    let runs = || noted().map_or(true, |noted| noted.is_some_and(|noted| noted.bundle.as_ref() == Some(&bundle)));
    stage::claim::holder_of(directories, &id).map_or(true, |holder| holder.is_some_and(|holder| !holder.ending))
        || runs()
}

fn put_back(firewall: &mut Firewall, record: &Record) -> anyhow::Result<()> {
    // A proxy has no network, and loses nothing when the firewall is flushed.
    let Some(network) = record.find::<Network>()? else { return Ok(()) };
    // Nor does what a process holds: nobody but that process may change it.
    if record.member(HeldBy::MEMBER).is_some() {
        return Ok(());
    }
    let target = target(record, &network)?;
    if target.owner.is_gone() {
        debug!("{} is gone: its ports are not published again", target.owner.id);
        return Ok(());
    }
    let specs = specs(&record.part::<Ports>()?.0);
    let masquerade = record.find::<Masquerade>()?.unwrap_or_default();
    // The kernel had accepted them before: who listens now does so beside them.
    let conditions = record.find::<Conditions>()?;
    conditions.iter().try_for_each(Conditions::check)?;
    let manner = Manner { probe: false, directories: None, masquerade, conditions: conditions.as_ref() };
    let mappings = publish::publish(firewall, &target, &specs, manner)?.mappings;
    // Whoever reads the warning has read it when the ports were published first.
    let how = Some(forward(record)).filter(|how| *how == Forward::Insert);
    how.map_or(Ok(()), |how| forward::open(how, &mappings))
}

/// Returns what the container's `portmap` was to do about other firewalls.
fn forward(record: &Record) -> Forward {
    let words = record.find::<PortOptions>().ok().flatten().map(|options| options.0);
    let how = words.iter().flatten().find_map(|word| word.strip_prefix("--forward=")?.parse().ok());
    how.unwrap_or(Forward::Warn)
}

fn target(record: &Record, network: &Network) -> anyhow::Result<Target> {
    let word = |value: Option<&serde_json::Value>| Some(value?.as_str()?.to_owned());
    let interface = network.0.get("interfaces").and_then(|interfaces| word(interfaces.get(0)?.get("name")));
    let name = word(network.0.get("name"));
    let attachment = interface.zip(name).map(|(interface, network)| Attachment { interface, network });
    // A plugin's ports have no owner but the attachment.
    let root = || attachment.is_none().then(|| Owner::of_root(&cli::Roots::default().directories()));
    let owner = record.find::<OwnedBy>()?.map_or_else(root, |owned| Some(owned.0));
    let owner = MappingOwner { attachment, ..MappingOwner::new(&record.part::<Id>()?.0, owner, network.namespace()) };
    Ok(Target { owner, addresses: Target::one_of_each_family(&network.addresses()), pid: None, bundle: None })
}

/// Ports that follow each other and keep their numbers are one range again.
fn specs(ports: &[PortMapping]) -> Vec<PortSpec> {
    let mut specs: Vec<PortSpec> = Vec::new();
    for port in ports {
        let last = specs.last_mut().filter(|last| {
            let keeps = port.host_port == port.container_port && last.host == HostPorts::Exactly(last.container);
            let follows = last.container.last.checked_add(1) == Some(port.container_port);
            keeps && follows && last.host_ip == port.host_ip && last.protocol == port.protocol
        });
        if let Some(last) = last {
            last.container.last = port.container_port;
            last.host = HostPorts::Exactly(last.container);
            continue;
        }
        specs.push(port.into());
    }
    specs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_was_listed_port_by_port_is_one_again() {
        let port = |host_port, container_port| PortMapping {
            host_ip: None,
            host_port,
            container_port,
            protocol: record::Protocol::Tcp,
        };
        let ports = [port(7000, 7000), port(7001, 7001), port(7002, 7002), port(8080, 80), port(8081, 81)];
        let want: Vec<PortSpec> =
            ["7000-7002:7000-7002", "8080:80", "8081:81"].iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(specs(&ports), want);
    }
}
