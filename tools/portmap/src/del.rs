//! `portmap del`.

use std::process::ExitCode;

use record::{Id, Record};

use crate::add;
use crate::firewall::Firewall;
use crate::mapping::{self, Mapping};
use crate::options::Del;
use crate::publish;
use crate::spec::{HostPorts, PortSpec};

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
            && (options.publish.is_empty() || options.publish.iter().any(|spec| is_of(mapping, spec)))
    };
    let steps = Firewall::open()?.change(|present| Ok(mapping::withdraw(present, leaves)))?;
    publish::forget_connections(&steps);
    if let Some(record) = record {
        print_without_ports(record, options)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells whether a mapping is what a wish published.
fn is_of(mapping: &Mapping, spec: &PortSpec) -> bool {
    let host = match spec.host {
        HostPorts::Random => true,
        HostPorts::Exactly(span) | HostPorts::FirstFree(span) => span.overlaps(mapping.host),
    };
    let container = spec.container.first <= mapping.port && mapping.port <= spec.container.last;
    let address = spec.host_ip.is_none_or(|ip| ip.is_unspecified() || mapping.host_ip == Some(ip));
    mapping.protocol == spec.protocol && host && container && address
}

fn print_without_ports(mut record: Record, options: &Del) -> anyhow::Result<()> {
    if options.publish.is_empty() {
        record.remove("ports");
    }
    Ok(record.print()?)
}
