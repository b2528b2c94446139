//! `portmap del`.

use std::process::ExitCode;

use record::{Id, Ports, Record};

use crate::add;
use crate::control::Sockets;
use crate::firewall::Firewall;
use crate::mapping::{self, Mapping};
use crate::options::Del;
use crate::publish;

/// Withdraws a container's ports. What is not there any more is no error: it may be called twice.
pub(crate) fn run(options: &Del) -> anyhow::Result<ExitCode> {
    let (id, record) = match options.target.as_deref() {
        Some(name) if add::is_id(name) => (name.to_string_lossy().into_owned(), None),
        input => {
            let record = add::read(input)?;
            (record.part::<Id>()?.0, Some(record))
        }
    };
    let leaves = |mapping: &Mapping| {
        mapping.owner.id == id
            && (options.publish.is_empty()
                || mapping.port_mappings().any(|port| options.publish.iter().any(|spec| spec.names(&port))))
    };
    let mut firewall = Firewall::open()?;
    let steps = firewall.change(|present| Ok(mapping::withdraw(present, leaves)))?;
    publish::finish_withdrawal(firewall, &steps);
    Sockets::below(&options.roots.run()).dismiss(|owner, record| {
        let ports = record.find::<Ports>().ok().flatten().unwrap_or_default().0;
        owner == id
            && (options.publish.is_empty()
                || ports.iter().all(|port| options.publish.iter().any(|spec| spec.names(port))))
    })?;
    if let Some(record) = record {
        print_without_ports(record, options)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_without_ports(mut record: Record, options: &Del) -> anyhow::Result<()> {
    if options.publish.is_empty() {
        record.remove("ports");
    }
    Ok(record.print()?)
}
