//! Run containers from OCI bundles, with runc's command line: the OCI runtime (runtime-spec 1.3.0), and the last stage
//! of the pipe.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), no_main)]

mod accounts;
mod capability;
mod checkpoint;
mod child;
mod commands;
mod config;
mod create;
mod environment;
mod exec;
mod file;
mod filter;
mod foreground;
mod guard;
mod hooks;
mod identity;
mod intermediate;
mod journal;
mod mount;
mod net_device;
mod notify;
mod options;
mod priority;
mod request;
mod rootfs;
mod signal;
mod state;
mod stdio;
mod sync;
mod tty;
mod userns;

use std::process::ExitCode;

use cli::ExitError;
use container::RuntimeId;

use commands::{control, describe, events, lifecycle, process, state_root, update};
use options::{Command, SpawnArgs};
use request::Global;
use sync::{NOT_EXECUTABLE, NOT_FOUND};

/// The version of the runtime specification that this runtime implements.
pub(crate) const SPEC_VERSION: &str = "1.3.0";
/// Three lines, as runc's: hosts parse them.
pub(crate) const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\ncommit: none\nspec: 1.3.0");

cli::program!(main);

fn main() -> ExitCode {
    cli::main(cli::Codes::CONTAINER, run)
}

fn run(arguments: SpawnArgs) -> anyhow::Result<ExitCode> {
    let journal = journal::Journal::new(&arguments.global);
    act(arguments).inspect_err(|error| journal.iter().for_each(|journal| journal.error(error)))
}

/// Does what the command line says.
fn act(arguments: SpawnArgs) -> anyhow::Result<ExitCode> {
    let SpawnArgs { mut global, filter, command, .. } = arguments;
    if global.debug {
        log::set_max_level(log::LevelFilter::Debug);
    }
    let Some(command) = command else { return commands::filter::run(&global, filter) };
    // As runc, also where a container's exit code can be the same: who has to tell them apart takes the filter.
    let is_exec = matches!(command, Command::Exec { .. });
    if let Some(id) = acted_on(&command) {
        // Where states are is the caller's matter, not that of who he becomes.
        let root = state_root(&global);
        userns::become_root_for(&root, id);
        // Fixed before the change: as root of a user namespace the default would be another directory.
        global.root = Some(root);
    }
    dispatch(&global, command).map_err(|error| {
        let code = match error.downcast_ref().map(ExitError::code) {
            // Scripts know these from docker.
            Some(code @ (NOT_EXECUTABLE | NOT_FOUND)) if is_exec => code,
            _ if is_exec => 255,
            _ => 1,
        };
        ExitError::new(code, error).into()
    })
}

/// Returns the id of the container whose processes a command signals or ends.
fn acted_on(command: &Command) -> Option<&RuntimeId> {
    match command {
        Command::Kill { id, .. }
        | Command::Delete { id, .. }
        | Command::Start { id }
        | Command::Pause { id }
        | Command::Resume { id } => Some(id),
        _ => None,
    }
}

fn dispatch(global: &Global, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create { create } => lifecycle::create(global, &create)?,
        Command::Run { create, life } => return lifecycle::run(global, &create, &life),
        Command::Restore { restore } => return lifecycle::restore(global, &restore),
        Command::Checkpoint { checkpoint } => lifecycle::checkpoint(global, &checkpoint)?,
        Command::Start { id } => lifecycle::start(global, &id)?,
        Command::State { id } => lifecycle::state(global, &id)?,
        Command::Kill { id, signal, all } => lifecycle::kill(global, &id, &signal, all)?,
        Command::Delete { id, force, owner } => lifecycle::delete(global, &id, force, owner)?,
        Command::Exec { exec } => return process::exec(global, exec),
        Command::Ps { format, id, options } => process::ps(global, &id, format, &options)?,
        Command::List { format, quiet } => control::list(global, format, quiet)?,
        Command::Pause { id } => control::pause(global, &id)?,
        Command::Resume { id } => control::resume(global, &id)?,
        Command::Update { id, resources, limits } => {
            let wanted = || resources.as_deref().map_or_else(|| limits.resources(), update::read);
            update::update(global, &id, wanted)?;
        }
        Command::Spec { bundle, rootless } => describe::spec(&bundle, rootless)?,
        Command::Features {} => describe::features()?,
        Command::Events { id, interval, stats } => events::events(global, &id, &interval, stats)?,
    }
    Ok(ExitCode::SUCCESS)
}
