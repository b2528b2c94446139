//! A compose file as pipelines of `run`: reads the file, computes each service's command line and their order, and executes
//! them or prints them as a shell script. It links none of the other tools.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), no_main)]

mod action;
mod context;
mod dotenv;
mod files;
mod interpolate;
mod logs;
mod merge;
mod node;
mod options;
mod order;
mod paths;
mod project;
mod request;
mod script;
mod service;
mod tool;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use options::{ComposeArgs, ComposeVerb, Services};
use project::ProjectRequest;
use request::ScriptRequest;

cli::program!(main);

fn main() -> ExitCode {
    cli::main(cli::Codes::OWN, |options: ComposeArgs| run(&options))
}

fn run(options: &ComposeArgs) -> Result<ExitCode> {
    let file = &options.file;
    let restarts = matches!(options.command, ComposeVerb::Restart(_));
    let read_of = |services: &[String], alone| {
        project::read(&ProjectRequest {
            files: &file.files,
            name: file.project_name.as_deref(),
            rootless: !rustix::process::geteuid().is_root(),
            directories: file.roots.directories(),
            env_files: &file.env_files,
            profiles: &file.profiles,
            services,
            alone,
            dependents: restarts,
        })
    };
    let read = |these: &Services| read_of(&these.services, false);
    let to_start = |request: &ScriptRequest| read_of(&request.services, request.no_deps);
    let alone = |services: &[String]| read_of(services, true);
    // What makes the other tools use the same directory.
    let root = file.roots.argument().map_or_else(Vec::new, |root| vec![OsString::from("--root"), root.into()]);
    match &options.command {
        ComposeVerb::Print(request) => {
            std::io::stdout().write_all(script::script(&to_start(request)?, &root, request).as_bytes())?;
        }
        ComposeVerb::Up { detach, remove_orphans, request, .. } => {
            let project = to_start(request)?;
            // Before the start: an orphan may have the name, the address or the port that a service wants.
            action::orphans(&project, &root, *remove_orphans)?;
            return action::up(&project, &root, request, *detach);
        }
        ComposeVerb::Down { volumes, remove_orphans, timeout, these } => {
            let project = read(these)?;
            action::down(&project, &root, *timeout)?;
            let mut networks = Ok(());
            if these.services.is_empty() {
                action::orphans(&project, &root, *remove_orphans)?;
                networks = action::remove_networks(&project, &root);
                action::remove_files(&file.roots.directories().project(&project.name))?;
            }
            // A network that somebody else is in keeps no volume.
            if *volumes {
                action::remove_volumes(&project, &root)?;
            }
            networks?;
        }
        ComposeVerb::Ps { json, quiet, these, .. } => action::list(&alone(&these.services)?, &root, *json, *quiet)?,
        ComposeVerb::Logs { follow, tail, since, until, timestamps, no_log_prefix, these } => {
            let texts = [("--tail", Some(tail)), ("--since", since.as_ref()), ("--until", until.as_ref())];
            let texts = texts.into_iter().filter_map(|(option, value)| Some(format!("{option}={}", value?)));
            let lines = texts.chain(timestamps.then(|| "--timestamps".to_owned())).collect();
            let look = logs::LogView { follow: *follow, restarts: false, lines, prefix: !no_log_prefix };
            return logs::print(&alone(&these.services)?, &root, &look);
        }
        ComposeVerb::Config { quiet, names, images, these, .. } => {
            action::config(&read(these)?, *quiet, *names, *images)?;
        }
        ComposeVerb::Exec(exec) => {
            let states = file.roots.argument().map(|_| file.roots.directories().states());
            return action::exec(&alone(&exec.words[..1])?, &root, states.as_deref(), &exec.options(), &exec.words);
        }
        ComposeVerb::Build(these) => action::build(&alone(&these.services)?, &root)?,
        ComposeVerb::Pull(these) => action::pull(&read(these)?, &root)?,
        ComposeVerb::Start(these) => action::start(&read(these)?, &root)?,
        ComposeVerb::Stop(stop) => action::stop(&alone(&stop.services)?, &root, stop.timeout)?,
        ComposeVerb::Rm { stop, services, .. } => action::remove(&alone(services)?, &root, *stop)?,
        ComposeVerb::Restart(stop) => action::restart(&alone(&stop.services)?, &root, stop.timeout)?,
    }
    Ok(ExitCode::SUCCESS)
}
