//! List, show, enter, add and delete namespaces.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), no_main)]

mod enter;
mod list;
mod network;
mod options;
mod request;
mod show;

use std::env::args_os;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use container::Directories;

use options::{Enter, Lsns, NsArgs, NsVerb, Nsenter};

cli::program!(main);

fn main() -> ExitCode {
    // util-linux's programs have but one code for whatever is wrong.
    let codes = cli::Codes { failed: 1, usage: 1 };
    let arguments: Vec<OsString> = args_os().collect();
    match arguments.first().map(Path::new).and_then(Path::file_name).and_then(OsStr::to_str) {
        Some("lsns") => cli::main(codes, |lsns: Lsns| {
            lsns.list.run(true)?;
            Ok(ExitCode::SUCCESS)
        }),
        Some("nsenter") => match Enter::plain(arguments.get(1..).unwrap_or_default()) {
            Some(enter) => cli::end("nsenter", codes, enter.run(true)),
            None => cli::main(codes, |nsenter: Nsenter| nsenter.enter.checked()?.run(true)),
        },
        Some(network::SWEEP) => cli::end("ns", cli::Codes::OWN, network::sweep_all().map(|()| ExitCode::SUCCESS)),
        _ if arguments.get(1).is_some_and(|verb| verb == "enter") => {
            match Enter::plain(arguments.get(2..).unwrap_or_default()) {
                Some(enter) => cli::end("ns", cli::Codes::OWN, enter.run(false)),
                None => cli::main(cli::Codes::OWN, run),
            }
        }
        _ => cli::main(cli::Codes::OWN, run),
    }
}

fn run(options: NsArgs) -> anyhow::Result<ExitCode> {
    match options.command {
        NsVerb::Add(add) => add.run()?,
        NsVerb::Check { roots } => look_after(&roots, network::check)?,
        NsVerb::Connect(connect) => connect.connect()?,
        NsVerb::Del(del) => del.run()?,
        NsVerb::Diff { first, second, json, roots } => {
            let done = show::diff([&first, &second], &roots.directories().states(), json);
            done.with_context(|| format!("diff {first} {second}"))?;
        }
        NsVerb::Disconnect(disconnect) => disconnect.disconnect()?,
        NsVerb::Enter(enter) => return enter.checked()?.run(false),
        NsVerb::List(list) => list.run(false)?,
        NsVerb::Network(networks) => networks.run()?,
        NsVerb::Restore { roots } => look_after(&roots, network::restore)?,
        NsVerb::Show { what, json, roots } => {
            show::show(&what, &roots.directories().states(), json).with_context(|| format!("show {what}"))?;
        }
        NsVerb::Tree(tree) => tree.run()?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks the networks, or puts them back.
fn look_after(roots: &cli::Roots, act: fn(&Directories) -> anyhow::Result<()>) -> anyhow::Result<()> {
    confine::enter(&options::room(options::ROOM))?;
    act(&roots.directories())
}
