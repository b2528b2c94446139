//! Publish a container's ports on the host.

#![forbid(unsafe_code)]

mod add;
mod cni;
mod conntrack;
mod control;
mod del;
mod firewall;
mod forward;
mod hold;
mod host;
mod inherited;
mod list;
mod mapping;
mod options;
mod owner;
mod probe;
mod proxy;
mod publish;
mod serve;
mod spec;
mod target;
mod upkeep;
mod watch;

use std::process::ExitCode;

use options::{Command, Options};

fn main() -> ExitCode {
    if let Some(command) = cni::command() {
        return cni::run(&command);
    }
    cli::main(cli::Codes::OWN, run)
}

fn run(options: Options) -> anyhow::Result<ExitCode> {
    match options.command {
        None => add::run(&options.add),
        Some(Command::Add(add)) => add::run(&add),
        Some(Command::Del(del)) => del::run(&del),
        Some(Command::List(list)) => list::run(&list),
        Some(Command::Check(check)) => upkeep::check(&check),
        Some(Command::Gc(gc)) => upkeep::gc(&gc),
        Some(Command::Restore(restore)) => upkeep::restore(&restore),
    }
}
