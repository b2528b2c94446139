//! List, show, enter, add and delete namespaces.

#![forbid(unsafe_code)]

mod list;
mod network;
mod options;

use std::env::args_os;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use options::{Command, Lsns, Options};

fn main() -> ExitCode {
    let arguments = args_os().map(attach_value);
    match args_os().next().as_deref().map(Path::new).and_then(Path::file_name).and_then(OsStr::to_str) {
        // lsns itself has but one code for whatever is wrong.
        Some("lsns") => cli::main_from(cli::Codes { failed: 1, usage: 1 }, arguments, |lsns: Lsns| {
            lsns.list.run(true)?;
            Ok(ExitCode::SUCCESS)
        }),
        _ => cli::main_from(cli::Codes::OWN, arguments, run),
    }
}

fn run(options: Options) -> anyhow::Result<ExitCode> {
    match options.command {
        Command::Add(add) => add.run()?,
        Command::Del(del) => del.run()?,
        Command::List(list) => list.run(false)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Short options whose value is optional have it attached, as `-Tparent`; our parser knows that only as `-T=parent`.
fn attach_value(argument: OsString) -> OsString {
    match argument.to_str().and_then(|text| text.strip_prefix("-T")) {
        Some(value) if !value.is_empty() && !value.starts_with('=') => format!("-T={value}").into(),
        _ => argument,
    }
}
