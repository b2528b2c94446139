//! Run containers from OCI bundles, with runc's command line: the OCI runtime (runtime-spec 1.3.0), and the last stage
//! of the pipe.

#![forbid(unsafe_code)]

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
mod rootfs;
mod signal;
mod state;
mod stdio;
mod sync;
mod tty;
mod userns;

use std::process::ExitCode;

use options::SpawnArgs;

/// The version of the runtime specification that this runtime implements.
pub(crate) const SPEC_VERSION: &str = "1.3.0";
/// Three lines, as runc's: hosts parse them.
pub(crate) const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\ncommit: none\nspec: 1.3.0");

fn main() -> ExitCode {
    cli::main(cli::Codes::CONTAINER, run)
}

fn run(arguments: SpawnArgs) -> anyhow::Result<ExitCode> {
    let journal = journal::Journal::new(&arguments.global);
    commands::run(arguments).inspect_err(|error| journal.iter().for_each(|journal| journal.error(error)))
}
