//! `portmap check`, `gc` and `restore`: what keeps the state right when others work on the firewall too.

use std::fs;
use std::io::{self, Read};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use log::debug;
use netlink::forwarding;
use record::{Id, Network, OwnedBy, Part, PortMapping, Ports, Record};

use crate::add;
use crate::condition::Conditions;
use crate::control::Sockets;
use crate::firewall::{self, Audit, Firewall};
use crate::hold::HeldBy;
use crate::mapping::{self, Mapping};
use crate::options::{Check, Gc, Restore};
use crate::owner::{Attachment, MappingOwner};
use crate::publish::{self, Manner, Masquerade};
use crate::spec::{HostPorts, PortSpec, Served, Span};
use crate::target::Target;

/// No list is longer. Bytes.
const LIST_LIMIT: u64 = 64 << 20;

/// Checks what a record says is published, or all that is.
pub(crate) fn check(options: &Check) -> anyhow::Result<ExitCode> {
    let mut firewall = Firewall::open()?;
    let Audit { published, is_whole, is_open } = firewall.visible()?;
    let record = match options.target.as_deref() {
        Some(name) if !add::is_id(name) => Some(add::read(Some(name))?),
        _ => None,
    };
    let id = match (&record, &options.target) {
        (Some(record), _) => Some(record.part::<Id>()?.0),
        (None, name) => name.as_deref().map(add::id).transpose()?,
    };
    let own: Vec<&Mapping> =
        published.mappings.iter().filter(|mapping| id.as_ref().is_none_or(|id| *id == *mapping.owner.id)).collect();
    let proxies = Sockets::below(&options.roots.directories()).records()?;
    let is_own = |record: &&Record| record.find::<Id>().ok().flatten().map(|id| id.0) == id;
    let served: Vec<Served> =
        proxies.iter().filter(is_own).flat_map(|record| Served::of_record(record).unwrap_or_default()).collect();
    for wanted in record.map(|record| Served::of_record(&record)).transpose()?.unwrap_or_default() {
        let is_translated =
            |port: &PortMapping| own.iter().any(|mapping| mapping.port_mappings().any(|other| other == *port));
        match &wanted {
            _ if served.contains(&wanted) => {}
            Served::Port(port) => {
                ensure!(is_translated(port), "port {}/{} is not published", port.host_port, port.protocol);
            }
            Served::Socket(socket) => bail!("{socket} is not served"),
        }
    }
    if let (Some(id), true, true) = (&id, own.is_empty(), served.is_empty()) {
        bail!("{id} has no published ports");
    }
    ensure!(
        is_whole || own.is_empty(),
        "the firewall's table portmap has lost rules: `portmap restore` puts them back"
    );
    for mapping in own {
        ensure!(!mapping.owner.is_gone(), "{} has {mapping}, but is gone: `portmap gc` withdraws it", mapping.owner.id);
        ensure!(forwarding::is_on(mapping.target.is_ipv4()), "{mapping}: the host does not forward packets");
    }
    ensure!(!is_open, firewall::OPEN);
    Ok(ExitCode::SUCCESS)
}

/// Withdraws what belongs to nobody.
pub(crate) fn gc(options: &Gc) -> anyhow::Result<ExitCode> {
    let is_unwanted = |id: &str| !options.keep.is_empty() && options.keep.iter().all(|keep| **keep != *id);
    let leaves = |mapping: &Mapping| is_unwanted(&mapping.owner.id) || mapping.owner.is_gone();
    let sockets = Sockets::below(&options.roots.directories());
    let mut firewall = Firewall::open()?;
    let held = firewall.visible()?.published.mappings.into_iter().filter(|mapping| mapping.held_by.is_some());
    let dead: Vec<String> = held.filter(leaves).map(|mapping| mapping.owner.id).collect();
    sockets.dismiss(|record| {
        let id = record.find::<Id>().ok().flatten();
        id.is_some_and(|id| is_unwanted(&id.0) || dead.iter().any(|dead| id.0 == **dead))
    })?;
    sockets.sweep()?;
    match firewall.change(|present| Ok(mapping::withdraw(present, leaves))) {
        Ok(steps) => publish::finish_withdrawal(firewall, &steps),
        // That was said already.
        Err(error) if firewall::is_denied(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(ExitCode::SUCCESS)
}

/// Publishes what a list says, and writes the rules anew.
pub(crate) fn restore(options: &Restore) -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    match &options.list {
        Some(path) => text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?,
        None => {
            io::stdin().lock().take(LIST_LIMIT).read_to_string(&mut text).context("read the list")?;
        }
    }
    let mut firewall = Firewall::open()?;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let record = Record::parse(line.as_bytes(), "the list")?;
        // A proxy has no network, and loses nothing when the firewall is flushed.
        let Some(network) = record.find::<Network>()? else { continue };
        // Nor does what a process holds: nobody but that process may change it.
        if record.member(HeldBy::MEMBER).is_some() {
            continue;
        }
        let target = target(&record, &network)?;
        if target.owner.is_gone() {
            debug!("{} is gone: its ports are not published again", target.owner.id);
            continue;
        }
        let specs = specs(&record.part::<Ports>()?.0);
        let masquerade = record.find::<Masquerade>()?.unwrap_or_default();
        // The kernel had accepted them before: who listens now does so beside them.
        let conditions = record.find::<Conditions>()?;
        conditions.iter().try_for_each(Conditions::check)?;
        let manner = Manner { probe: false, sockets: None, masquerade, conditions: conditions.as_ref() };
        publish::publish(&mut firewall, &target, &specs, manner)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn target(record: &Record, network: &Network) -> anyhow::Result<Target> {
    let word = |value: Option<&serde_json::Value>| Some(value?.as_str()?.to_owned());
    let interface = network.0.get("interfaces").and_then(|interfaces| word(interfaces.get(0)?.get("name")));
    let name = word(network.0.get("name"));
    let attachment = interface.zip(name).map(|(interface, network)| Attachment { interface, network });
    let owner = record.find::<OwnedBy>()?.map(|owned| owned.0);
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
        let one = |number| Span { first: number, last: number };
        specs.push(PortSpec {
            host_ip: port.host_ip,
            host: HostPorts::Exactly(one(port.host_port)),
            container: one(port.container_port),
            protocol: port.protocol,
        });
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
