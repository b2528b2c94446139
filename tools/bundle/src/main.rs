//! Turn an image's config and your options into an OCI runtime bundle.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), no_main)]

mod borrow;
mod capability;
mod cdi;
mod container;
mod cp;
mod create;
mod device;
mod environment;
mod files;
mod health;
mod host;
mod hosts;
mod init;
mod interrupt;
mod mount;
mod namespace;
mod options;
mod overlay;
mod patch;
mod request;
mod rootfs;
mod rootless;
mod seccomp;
mod security;
mod state;
mod throttle;
mod translate;
mod tree;
mod ulimit;
mod user;
mod verbs;
mod volume;

use std::process::ExitCode;

use rustix::thread::CapabilitySet;

use crate::options::{BundleArgs, BundleVerb, Volume};
use crate::verbs::Delete;

/// There is no network, and nothing is executed; the overlay is mounted.
const ROOM: confine::Room = confine::Room {
    calls: confine::Calls { mount: true, ..confine::Room::EMPTY.calls },
    capabilities: confine::FILES.union(CapabilitySet::SYS_ADMIN),
};

/// A container that runs is looked into through its process.
fn room(verb: Option<&BundleVerb>) -> confine::Room {
    let more = if matches!(verb, Some(BundleVerb::Cp(_))) { CapabilitySet::SYS_PTRACE } else { CapabilitySet::empty() };
    confine::Room { capabilities: ROOM.capabilities | more, ..ROOM }
}

cli::program!(main);

fn main() -> ExitCode {
    cli::main(cli::Codes::OWN, run)
}

fn run(arguments: BundleArgs) -> anyhow::Result<ExitCode> {
    let BundleArgs { create, verb, roots } = arguments;
    if let Some(BundleVerb::Init { command }) = verb {
        return init::run(&command);
    }
    // There are files with others' ids.
    let directories = roots.directories();
    match &verb {
        Some(
            BundleVerb::Delete { .. } | BundleVerb::Unmount { .. } | BundleVerb::Prune { .. } | BundleVerb::Volume(_),
        ) => {
            ::rootless::enter_if_possible(&roots);
        }
        Some(BundleVerb::Cp(options)) => cp::enter(options, &roots),
        _ => {}
    }
    // What the container may have is more than what this needs.
    host::held_capabilities();
    confine::enter(&room(verb.as_ref()))?;
    match verb {
        None => create::create(create, &directories)?,
        Some(BundleVerb::Init { .. }) => {}
        Some(BundleVerb::Cp(options)) => cp::run(&options, &directories)?,
        Some(BundleVerb::Delete { force, owner, bundles }) => {
            let how = Delete { force, owner };
            verbs::each(&bundles, "delete", |bundle| verbs::delete(bundle, how, &directories))?;
            container::sweep_removed(&directories)?;
        }
        Some(BundleVerb::Unmount { owner, bundles }) => {
            verbs::each(&bundles, "unmount", |bundle| verbs::unmount(bundle, owner, &directories))?;
        }
        Some(BundleVerb::List(form)) => verbs::list(form, &directories)?,
        Some(BundleVerb::Mount { bundle }) => verbs::mount(&bundle, &directories)?,
        Some(BundleVerb::Prune { all }) => verbs::prune(all, &directories)?,
        Some(BundleVerb::Volume(Volume::Create { names })) => volume::create(&names, &directories)?,
        Some(BundleVerb::Volume(Volume::List { form, names })) => volume::list(&names, form, &directories)?,
        Some(BundleVerb::Volume(Volume::Prune)) => volume::remove(None, false, &directories)?,
        Some(BundleVerb::Volume(Volume::Rm { force, names })) => volume::remove(Some(&names), force, &directories)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn cli_usage(message: String) -> anyhow::Error {
    cli::Usage(message).into()
}
