//! What each command does.

mod control;
mod describe;
mod events;
mod filter;
mod lifecycle;
mod process;
mod update;

use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use cli::ExitError;
use container::RuntimeId;

use crate::options::{Command, Global, Id, List, Ps, Rootless, SpawnArgs, Spec};
use crate::sync::{NOT_EXECUTABLE, NOT_FOUND};
use crate::userns;

/// Does what the command line says.
pub(crate) fn run(arguments: SpawnArgs) -> anyhow::Result<ExitCode> {
    let SpawnArgs { mut global, filter, command, .. } = arguments;
    if global.debug {
        log::set_max_level(log::LevelFilter::Debug);
    }
    let Some(command) = command else { return filter::run(&global, filter) };
    // As runc, also where a container's exit code can be the same: who has to tell them apart takes the filter.
    let is_exec = matches!(command, Command::Exec(_));
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
        Command::Kill(options) => Some(&options.id),
        Command::Delete(options) => Some(&options.id),
        Command::Start(Id { id }) | Command::Pause(Id { id }) | Command::Resume(Id { id }) => Some(id),
        _ => None,
    }
}

fn dispatch(global: &Global, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create(options) => lifecycle::create(global, &options)?,
        Command::Run(options) => return lifecycle::run(global, &options),
        Command::Restore(options) => return lifecycle::restore(global, &options),
        Command::Checkpoint(options) => lifecycle::checkpoint(global, &options)?,
        Command::Start(Id { id }) => lifecycle::start(global, &id)?,
        Command::State(Id { id }) => lifecycle::state(global, &id)?,
        Command::Kill(options) => lifecycle::kill(global, &options)?,
        Command::Delete(options) => lifecycle::delete(global, &options)?,
        Command::Exec(options) => return process::exec(global, options),
        Command::Ps(Ps { format, id, options }) => process::ps(global, &id, format, &options)?,
        Command::List(List { format, quiet }) => control::list(global, format, quiet)?,
        Command::Pause(Id { id }) => control::pause(global, &id)?,
        Command::Resume(Id { id }) => control::resume(global, &id)?,
        Command::Update(options) => update::update(global, &options)?,
        Command::Spec(Spec { bundle, rootless }) => describe::spec(&bundle, rootless)?,
        Command::Features(_) => describe::features()?,
        Command::Events(options) => events::events(global, &options)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes on stdout; a reader that has gone is not a failure.
fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("write to stdout"),
        _ => Ok(()),
    }
}

/// Returns the directory of the containers' states.
pub(crate) fn state_root(global: &Global) -> PathBuf {
    let chosen = global.root.clone().filter(|root| !root.as_os_str().is_empty());
    let root = chosen.unwrap_or_else(|| cli::Roots::default().directories().states());
    std::path::absolute(&root).unwrap_or(root)
}

/// Tells whether to do without what an ordinary user may not.
pub(crate) fn is_rootless(global: &Global) -> bool {
    match global.rootless {
        Rootless::True => true,
        Rootless::False => false,
        Rootless::Auto => !rustix::process::geteuid().is_root() || in_user_namespace(),
    }
}

/// A namespace that maps all ids to themselves is the first one, or as good.
fn in_user_namespace() -> bool {
    // The first one's number is the same everywhere: `PROC_USER_INIT_INO`.
    if rustix::fs::stat("/proc/self/ns/user").is_ok_and(|first| first.st_ino == 0xefff_fffd) {
        return false;
    }
    let map = crate::file::read("/proc/self/uid_map").unwrap_or_default();
    map.split_ascii_whitespace().ne(["0", "0", "4294967295"])
}
