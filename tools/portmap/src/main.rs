//! Publish a container's ports on the host.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), no_main)]

mod add;
mod beside;
mod cni;
mod condition;
mod conntrack;
mod control;
mod del;
mod firewall;
mod forward;
mod held;
mod host;
mod inherited;
mod list;
mod mapping;
mod options;
mod owner;
mod probe;
mod proxy;
mod publish;
mod request;
mod restore;
mod serve;
mod spec;
mod target;
mod upkeep;
mod watch;

use std::process::ExitCode;

use rustix::thread::CapabilitySet;

use options::{PortmapArgs, PortmapVerb};

/// To translate, to enter the container's network, and to tell who has a port already; what goes on in the background
/// gives up more when it serves.
const ROOM: confine::Room = confine::Room {
    calls: confine::Calls { execute: true, sockets: true, serve: true, namespaces: true, mount: false },
    capabilities: CapabilitySet::NET_ADMIN
        .union(CapabilitySet::NET_BIND_SERVICE)
        .union(CapabilitySet::NET_RAW)
        .union(CapabilitySet::SYS_ADMIN)
        .union(CapabilitySet::SYS_PTRACE)
        .union(CapabilitySet::DAC_OVERRIDE),
};

cli::program!(main);

fn main() -> ExitCode {
    if let Some(command) = cni::command() {
        return cni::run(&command);
    }
    cli::main(cli::Codes::OWN, run)
}

fn run(options: PortmapArgs) -> anyhow::Result<ExitCode> {
    confine::enter(&ROOM)?;
    match options.command {
        None => add::run(&options.add),
        Some(PortmapVerb::Add(add)) => add::run(&add),
        Some(PortmapVerb::Del { target, publish, owner, roots }) => {
            del::run(target.as_deref(), &publish, owner, &roots.directories())
        }
        Some(PortmapVerb::List { id, json, quiet, roots }) => list::run(id.as_ref(), json, quiet, &roots.directories()),
        Some(PortmapVerb::Check { target, roots }) => upkeep::check(target.as_deref(), &roots.directories()),
        Some(PortmapVerb::Gc { keep, roots }) => upkeep::gc(&keep, &roots.directories()),
        Some(PortmapVerb::Restore { list, roots }) => restore::restore(list.as_deref(), &roots),
    }
}
