//! List, show, enter, add and delete namespaces.

#![forbid(unsafe_code)]

mod network;
mod options;

use std::process::ExitCode;

use options::{Command, Options};

fn main() -> ExitCode {
    cli::main(cli::Codes::OWN, run)
}

fn run(options: Options) -> anyhow::Result<ExitCode> {
    match options.command {
        Command::Add(add) => add.run()?,
        Command::Del(del) => del.run()?,
    }
    Ok(ExitCode::SUCCESS)
}
