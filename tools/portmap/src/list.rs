//! `portmap list`: the state, read from the kernel.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use container::{ContainerId, Directories};
use record::{Part, Ports, Record};

use crate::condition::{Conditions, distinct};
use crate::control::{Sockets, id_of};
use crate::firewall::{Firewall, View};
use crate::held::HeldBy;
use crate::mapping::{self, Mapping, Published};
use crate::owner::MappingOwner;
use crate::publish::Masquerade;
use crate::spec::{HostEnd, Served};
use crate::target;

/// Prints what is published.
pub(crate) fn run(
    id: Option<&ContainerId>,
    json: bool,
    quiet: bool,
    directories: &Directories,
) -> anyhow::Result<ExitCode> {
    let mut published = Firewall::open()?.visible()?.map_or(Ok(Published::default()), View::read)?;
    if let Some(id) = id {
        published.mappings.retain(|mapping| *id == *mapping.owner.id);
    }
    published.mappings.sort_by_key(|mapping| (mapping.protocol, mapping.host, mapping.host_ip));
    let mut proxies = Sockets::below(directories, id.map(|id| &**id)).records()?;
    // What such a process holds stands in the firewall already.
    let is_wanted = |own| id.is_none_or(|wanted| *wanted == own);
    proxies.retain(|record| record.member(HeldBy::MEMBER).is_none() && id_of(record).is_some_and(is_wanted));
    let rows = rows(&published.mappings, &proxies);
    let text = match (json, quiet) {
        (true, _) => records(&published, &proxies),
        (_, true) => distinct(rows[1..].iter().map(|[.., id]| id.to_owned() + "\n")).concat(),
        _ => cli::table(&rows),
    };
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// What people read.
fn rows(mappings: &[Mapping], proxies: &[Record]) -> Vec<[String; 4]> {
    let head = ["HOST", "CONTAINER", "PROTOCOL", "ID"].map(str::to_owned);
    let row = |mapping: &Mapping| {
        [mapping.host_side(), mapping.container_side(), mapping.protocol.to_string(), mapping.owner.id.clone()]
    };
    let mut rows: Vec<[String; 4]> = std::iter::once(head).chain(mappings.iter().map(row)).collect();
    // A port with several conditions is one for people.
    rows.dedup();
    rows.extend(proxies.iter().flat_map(proxy_rows));
    rows
}

/// A proxy serves all of a container, without an address of its own.
fn proxy_rows(record: &Record) -> Vec<[String; 4]> {
    let id = id_of(record).map(|id| id.to_string()).unwrap_or_default();
    let row = |served: Served| {
        let port = match served {
            Served::Port(port) => port,
            Served::Socket(spec) => {
                let host = match &spec.host {
                    HostEnd::Port(port) if port.host_ip.is_none() => format!("*:{}", port.host.first()),
                    host => host.to_string(),
                };
                return [host, format!("proxy:{}", spec.container), "stream".to_owned(), id.clone()];
            }
        };
        let any = || format!("*:{}", port.host_port);
        let host = port.host_ip.map_or_else(any, |ip| SocketAddr::new(ip, port.host_port).to_string());
        [host, format!("proxy:{}", port.container_port), port.protocol.to_string(), id.clone()]
    };
    Served::of_record(record).unwrap_or_default().into_iter().map(row).collect()
}

/// One record for each container, such as `portmap add` would read and print.
fn records(published: &Published, proxies: &[Record]) -> String {
    let owners = distinct(published.mappings.iter().map(|mapping| (&mapping.owner, mapping.held_by)));
    let translated = owners.into_iter().map(|(owner, held_by)| record(published, owner, held_by));
    translated.chain(proxies.iter().cloned()).map(|record| record.to_line() + "\n").collect()
}

fn record(published: &Published, owner: &MappingOwner, held_by: Option<u32>) -> Record {
    let is_own = |mapping: &&Mapping| mapping.owner == *owner && mapping.held_by == held_by;
    let own: Vec<Mapping> = published.mappings.iter().filter(is_own).cloned().collect();
    let mut addresses: Vec<_> = own.iter().map(|mapping| mapping.target).collect();
    addresses.sort();
    addresses.dedup();
    let mut record = Record::default();
    // An element of somebody else's names no container.
    let _named = owner.name(&mut record);
    record.set(&target::network(owner, &addresses));
    record.set(&Ports(mapping::port_mappings(&own)));
    let masquerade = Masquerade::of(published, owner);
    if masquerade != Masquerade::default() {
        record.set(&masquerade);
    }
    let conditions = distinct(own.iter().filter_map(|mapping| mapping.condition));
    if !conditions.is_empty() {
        record.set(&Conditions(conditions));
    }
    if let Some(holder) = held_by {
        record.set(&HeldBy(holder));
    }
    record
}
