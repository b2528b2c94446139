//! `portmap list`: the state, read from the kernel.

use std::io::{self, Write};
use std::process::ExitCode;

use record::{Id, Network, Ports, Record};
use serde_json::json;

use crate::add;
use crate::firewall::Firewall;
use crate::mapping::{Mapping, Published};
use crate::options::List;
use crate::owner::Owner;

/// Prints what is published.
pub(crate) fn run(options: &List) -> anyhow::Result<ExitCode> {
    let mut published = Firewall::open()?.published()?;
    if let Some(id) = &options.id {
        published.mappings.retain(|mapping| mapping.owner.id == *id);
    }
    published.mappings.sort_by_key(|mapping| (mapping.protocol, mapping.host, mapping.host_ip));
    let text = if options.json { records(&published) } else { table(&published.mappings) };
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The columns are as wide as what stands in them.
fn table(mappings: &[Mapping]) -> String {
    let head = ["HOST".to_owned(), "CONTAINER".to_owned(), "PROTOCOL".to_owned(), "ID".to_owned()];
    let row = |mapping: &Mapping| {
        [mapping.host_side(), mapping.container_side(), mapping.protocol.to_string(), mapping.owner.id.clone()]
    };
    let rows: Vec<[String; 4]> = std::iter::once(head).chain(mappings.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2)];
    rows.iter().fold(String::new(), |text, [host, container, protocol, id]| {
        text + &format!("{host:0$}  {container:1$}  {protocol:2$}  {id}\n", widths[0], widths[1], widths[2])
    })
}

/// One record for each container, such as `portmap add` would read and print.
fn records(published: &Published) -> String {
    let mut owners: Vec<&Owner> = Vec::new();
    for mapping in &published.mappings {
        if !owners.contains(&&mapping.owner) {
            owners.push(&mapping.owner);
        }
    }
    owners.into_iter().map(|owner| record(published, owner).to_line() + "\n").collect()
}

fn record(published: &Published, owner: &Owner) -> Record {
    let own: Vec<Mapping> = published.mappings.iter().filter(|mapping| mapping.owner == *owner).cloned().collect();
    let mut addresses: Vec<_> = own.iter().map(|mapping| mapping.target).collect();
    addresses.sort();
    addresses.dedup();
    let ips: Vec<_> = addresses
        .iter()
        .map(|address| json!({"address": format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })}))
        .collect();
    let mut network = serde_json::Map::new();
    network.insert("cniVersion".to_owned(), json!("1.1.0"));
    if let Some(netns) = &owner.netns {
        let name = owner.attachment.as_ref().map_or("eth0", |attachment| &attachment.interface);
        network.insert("interfaces".to_owned(), json!([{"name": name, "sandbox": netns}]));
    }
    network.insert("ips".to_owned(), ips.into());
    let mut record = Record::default();
    record.set(&Id(owner.id.clone()));
    record.set(&Network(network));
    record.set(&Ports(add::port_mappings(&own)));
    record
}
