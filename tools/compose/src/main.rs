//! A compose file as pipelines of `run`: reads the file, computes each service's command line and their order, and executes
//! them or prints them as a shell script. It links none of the other tools.

#![forbid(unsafe_code)]

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
mod script;
mod service;
mod tool;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use options::{ComposeArgs, ComposeVerb};
use project::ProjectRequest;

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
    let read = |services: &options::Services| read_of(&services.services, false);
    let to_start = |print: &options::Print| read_of(&print.services.services, print.no_deps);
    let alone = |services: &[String]| read_of(services, true);
    // What makes the other tools use the same directory.
    let root = file.roots.argument().map_or_else(Vec::new, |root| vec![OsString::from("--root"), root.into()]);
    match &options.command {
        ComposeVerb::Print(print) => {
            let script = script::script(&to_start(print)?, &root, print);
            std::io::stdout().write_all(script.as_bytes())?;
        }
        ComposeVerb::Up(up) => {
            let project = to_start(&up.print)?;
            let script = script::script(&project, &root, &up.print);
            return action::up(&project, &root, &script, up);
        }
        ComposeVerb::Down(down) => {
            let project = read(&down.services)?;
            action::down(&project, &root, down.timeout)?;
            let mut networks = Ok(());
            if down.services.services.is_empty() {
                action::orphans(&project, &root, down.remove_orphans)?;
                networks = action::remove_networks(&project, &root);
                action::remove_files(&file.roots.directories().project(&project.name))?;
            }
            // A network that somebody else is in keeps no volume.
            if down.volumes {
                action::remove_volumes(&project, &root)?;
            }
            networks?;
        }
        ComposeVerb::Ps(ps) => action::list(&alone(&ps.services.services)?, &root, ps)?,
        ComposeVerb::Logs(logs) => {
            let texts =
                [("--tail", Some(&logs.tail)), ("--since", logs.since.as_ref()), ("--until", logs.until.as_ref())];
            let texts = texts.into_iter().filter_map(|(option, value)| Some(format!("{option}={}", value?)));
            let lines = texts.chain(logs.timestamps.then(|| "--timestamps".to_owned())).collect();
            let look = logs::LogView { follow: logs.follow, restarts: false, lines, prefix: !logs.no_log_prefix };
            return logs::print(&alone(&logs.services.services)?, &root, &look);
        }
        ComposeVerb::Config(config) => action::config(&read(&config.services)?, config)?,
        ComposeVerb::Exec(exec) => {
            let states = file.roots.argument().map(|_| file.roots.directories().states());
            return action::exec(&alone(&exec.words[..1])?, &root, states.as_deref(), exec);
        }
        ComposeVerb::Build(services) => action::build(&alone(&services.services)?, &root)?,
        ComposeVerb::Pull(services) => action::pull(&read(services)?, &root)?,
        ComposeVerb::Start(services) => action::start(&read(services)?, &root)?,
        ComposeVerb::Stop(stop) => action::stop(&alone(&stop.services)?, &root, stop.timeout)?,
        ComposeVerb::Rm(rm) => action::remove(&alone(&rm.services)?, &root, rm.stop)?,
        ComposeVerb::Restart(stop) => action::restart(&alone(&stop.services)?, &root, stop.timeout)?,
    }
    Ok(ExitCode::SUCCESS)
}
