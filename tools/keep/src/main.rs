//! Keep a container that goes on without its caller: start it, hold its terminal, write its log, start it again, record
//! how it ended, and undo what the stages before have done.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), no_main)]

mod attach;
mod begin;
mod check;
mod clock;
mod container;
mod control;
mod errand;
mod events;
mod exit;
mod filter;
mod health;
mod inspect;
mod job;
mod keeper;
mod launch;
mod lifetime;
mod list;
mod logs;
mod notify;
mod options;
mod output;
mod pipe;
mod report;
mod request;
mod restart;
mod start;
mod stats;
mod stop;

use std::process::ExitCode;

use options::{KeepArgs, KeepVerb};

cli::program!(main);

fn main() -> ExitCode {
    match std::env::args_os().next() {
        Some(name) if name == keeper::NAME => keeper::main(),
        _ => cli::main(cli::Codes::CONTAINER, run),
    }
}

fn run(mut arguments: KeepArgs) -> anyhow::Result<ExitCode> {
    let roots = arguments.roots.clone();
    let Some(verb) = arguments.verb.take() else { return begin::begin(arguments.begin()?, &roots) };
    if let KeepVerb::Rm { .. } = &verb {
        // An ordinary user's mounts and networks are in namespaces.
        rootless::enter_if_possible(&roots);
    }
    let done = match verb {
        KeepVerb::Logs(options) => logs::logs(&options, &roots),
        KeepVerb::Attach { id, join } => attach::attach(&id, &join, &roots),
        KeepVerb::Wait(these) => stop::wait(&these.ids, &roots),
        KeepVerb::Start(options) => start::start(&options, &roots),
        KeepVerb::Stop(options) => stop::stop(&options, &roots),
        KeepVerb::Restart(options) => stop::restart(&options, &roots),
        KeepVerb::Rm { force, these, .. } => stop::remove(&these.ids, force, &roots),
        KeepVerb::List(selection) => list::list(&selection, &roots.directories()),
        KeepVerb::Inspect(these) => inspect::inspect(&these.ids, &roots),
        KeepVerb::Top { id } => stop::top(&id, &roots.directories()),
        KeepVerb::Events { json, ids } => events::events(&ids, json, &roots),
        KeepVerb::Stats { form, no_stream, ids } => stats::stats(&ids, form, !no_stream, &roots),
    };
    // A verb's own failure is 1, as docker's, also where it returns the container's code.
    done.map_err(|error| cli::ExitError::new(1, error).into())
}
