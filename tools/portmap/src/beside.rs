//! The process beside a container's translated ports, as docker has one for each: it keeps the host's processes from binding
//! to them, which would never get a connection, and serves what translation cannot: `[::1]`, the host's IPv6 addresses for a
//! container that has none, and its IPv4 addresses for one that has IPv6 alone. There is one for all ports of a container.

use anyhow::{Context, Result};
use container::Directories;
use record::{Network, OwnedBy, PortMapping, Protocol, Record};

use crate::control::{Sockets, id_of};
use crate::held::Holds;
use crate::owner::MappingOwner;
use crate::serve::Server;
use crate::spec::{PortSpec, PublishFlag, any};
use crate::target::Target;

/// More ports than this are not held: each takes two sockets.
///
/// docker starts a process for each published port; here one process has all of a container's.
pub(crate) const MOST: usize = 256;

/// What such a process holds, and for whom.
pub(crate) struct HeldPorts {
    target: Target,
    pub(crate) ports: Vec<PortMapping>,
}

impl HeldPorts {
    fn of_record(record: &Record) -> Option<Self> {
        let network = record.find::<Network>().ok()??;
        let owner = record.find::<OwnedBy>().ok()?.map(|owned| owned.0);
        let owner = MappingOwner::new(&id_of(record)?, owner, network.namespace());
        let ports = record.find::<Holds>().ok()??.0;
        Some(Self { target: Target { owner, addresses: network.addresses(), pid: None, bundle: None }, ports })
    }

    /// Leaves the ports that are to be held further.
    pub(crate) fn retain(&mut self, stays: impl Fn(PortMapping) -> bool) {
        self.ports.retain(|port| {
            let host_ip = port.host_ip.filter(|ip| !ip.is_unspecified());
            stays(PortMapping { host_ip, ..port.clone() })
        });
    }

    /// Has another process hold it. That it is not held is no reason to fail: it is reached all the same.
    pub(crate) fn restart(&self, directories: &Directories) {
        if self.ports.is_empty() {
            return;
        }
        let server = Server::beside(directories, &self.target, &self.ports, &[], None);
        let held = server.and_then(|server| server.go_on(false, || {}));
        cli::warn(held.with_context(|| format!("hold the ports of {}", self.target.owner.id)));
    }
}

/// Ends a container's process, so that its ports are free. Returns what it held.
pub(crate) fn release(
    directories: &Directories,
    id: &str,
    leaves: impl Fn(&Record) -> bool,
) -> Result<Option<HeldPorts>> {
    let sockets = Sockets::beside(directories, Some(id));
    let held = sockets.records()?.iter().filter(|record| leaves(record)).find_map(HeldPorts::of_record);
    sockets.dismiss(leaves)?;
    Ok(held)
}

/// Ends the processes of containers that are gone or unwanted.
pub(crate) fn sweep(directories: &Directories, is_unwanted: impl Fn(&str) -> bool) -> Result<()> {
    let sockets = Sockets::beside(directories, None);
    let is_gone = |record: &Record| HeldPorts::of_record(record).is_none_or(|held| held.target.owner.is_gone());
    sockets.dismiss(|record| is_gone(record) || id_of(record).is_some_and(|id| is_unwanted(&id)))?;
    sockets.sweep()
}

/// Returns what is to be held where these ports were published for these `-p`: in both families where one says none
/// and no other is for that port.
pub(crate) fn ports(ports: &[PortMapping], flags: &[PortSpec], others: &[PublishFlag]) -> Vec<PortMapping> {
    let held = |port: &PortMapping| {
        let flag = flags.iter().find(|flag| flag.names(port));
        let is_other =
            |other: &PublishFlag| matches!(other, PublishFlag::Ports(spec) if spec.host.first() == port.host_port);
        let ipv4 = others.iter().any(is_other).then(|| any(true));
        let host_ip = port.host_ip.or(flag.and_then(|flag| flag.host_ip)).or(ipv4);
        PortMapping { host_ip, ..port.clone() }
    };
    // The proxy knows no SCTP.
    ports.iter().filter(|port| port.protocol != Protocol::Sctp).map(held).take(MOST).collect()
}
