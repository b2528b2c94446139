//! `portmap del`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use container::{ContainerId, Directories, Owner, Ownership};
use record::{Id, OwnedBy, Record};

use crate::add;
use crate::beside;
use crate::control::{Sockets, id_of};
use crate::firewall;
use crate::mapping::Mapping;
use crate::publish;
use crate::spec::{PublishFlag, Served};

/// Withdraws a container's ports. What is not there any more is no error: it may be called twice.
pub(crate) fn run(
    target: Option<&Path>,
    publish: &[PublishFlag],
    owner: Option<Owner>,
    directories: &Directories,
) -> anyhow::Result<ExitCode> {
    let (id, record) = match target {
        Some(name) if add::is_id(name) => (add::id(name)?, None),
        input => {
            let record = add::read(input)?;
            (record.part::<Id>()?.0, Some(record))
        }
    };
    let named = record.as_ref().map(Record::find::<OwnedBy>).transpose()?.flatten().map(|owned| owned.0);
    let whose = Ownership::of(owner.or(named), directories);
    let leaves = |mapping: &Mapping| {
        id == *mapping.owner.id
            && whose.covers(mapping.owner.owner)
            && (publish.is_empty() || mapping.port_mappings().any(|port| is_named(&Served::Port(port), publish)))
    };
    // First those who hold sockets at the ports: while they are there, a new container could not have them even
    // though the firewall is clear.
    let held = beside::release(directories, &id, |record| is_of(record, &id, whose))?;
    if let Some(mut held) = held.filter(|_| !publish.is_empty()) {
        held.retain(|port| !is_named(&Served::Port(port), publish));
        held.restart(directories);
    }
    let withdrawn = publish::withdraw(Some(&id), leaves);
    let sockets = Sockets::below(directories, Some(&id));
    let mut servers = sockets.records()?;
    servers.retain(|record| is_of(record, &id, whose));
    match withdrawn {
        // Who may not translate has proxies, or has none yet.
        Err(error) if firewall::is_denied(&error) && (cli::is_rootless() || !servers.is_empty()) => {}
        done => done?,
    }
    // Before anybody is dismissed: half a withdrawal would have to be explained.
    ensure_whole(&servers, &id, publish)?;
    sockets.dismiss(|record| {
        let served = Served::of_record(record).unwrap_or_default();
        is_of(record, &id, whose) && served.iter().all(|served| publish.is_empty() || is_named(served, publish))
    })?;
    if let Some(mut record) = record {
        if publish.is_empty() {
            record.remove("ports");
        }
        record.print()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn is_of(record: &Record, id: &ContainerId, whose: Ownership) -> bool {
    let owner = record.find::<OwnedBy>().ok().flatten().map(|owned| owned.0);
    id_of(record).as_ref() == Some(id) && whose.covers(owner)
}

fn is_named(served: &Served, flags: &[PublishFlag]) -> bool {
    flags.iter().any(|flag| served.is_named_by(flag))
}

/// A process serves all that it was started for, or nothing.
fn ensure_whole(servers: &[Record], id: &ContainerId, flags: &[PublishFlag]) -> anyhow::Result<()> {
    for record in servers {
        let served = Served::of_record(record)?;
        let (named, others): (Vec<_>, Vec<_>) = served.iter().partition(|served| is_named(served, flags));
        if let (Some(named), Some(other)) = (named.first(), others.first()) {
            bail!("withdraw {named}: one process serves it and {other}; `portmap del {id}` withdraws all");
        }
    }
    Ok(())
}
