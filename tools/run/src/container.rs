//! A container's life from outside: the stages, the start, the end, and what is undone then.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use rustix::process::Signal;
use sys::signal::SignalFd;

use crate::guard::Guard;
use crate::options::Options;
use crate::pipeline::Ending;
use crate::plan::{Plan, Tool, Undo};
use crate::{foreground, keeper, pipeline, plan, script, undo};

/// Does what the options ask for, from the image to the last thing undone, and returns the exit code.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let id = options.name.clone().map_or_else(random_id, Ok)?;
    let plan = plan::plan(options, &id)?;
    if options.print {
        io::stdout().write_all(script::script(&plan, options).as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    // Mounts that this process and its stages make are gone with them, however they end.
    sys::child::own_mount_namespace().context("make a mount namespace")?;
    let signals = SignalFd::block(&[Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2])
        .context("block signals")?;
    if let Some(path) = &options.cidfile {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        file.and_then(|mut file| file.write_all(id.as_bytes())).with_context(|| path.display().to_string())?;
    }
    let guarded = guarded(&plan);
    let guard = Guard::start(&guarded)?;
    let ended = execute(&plan, &guarded, options, &signals);
    guard.dismiss();
    ended
}

fn execute(plan: &Plan, guarded: &[Undo], options: &Options, signals: &SignalFd) -> Result<ExitCode> {
    let execution = match pipeline::execute(&plan.stages, signals) {
        Ok(execution) => execution,
        Err(error) => {
            // A tool is missing, say. What the stages before it did is not known, but it is ours: the name was free.
            undo::carry_out(guarded).unwrap_or_else(|error| log::warn!("{error:#}"));
            return Err(error);
        }
    };
    let undo = undo_of(plan, &execution.completed);
    match execution.ending {
        Ending::Done => start(plan, options, signals),
        Ending::Failed => undo::carry_out(&undo).map(|()| ExitCode::from(125)),
        Ending::Interrupted(signal) => {
            undo::carry_out(&undo).map(|()| ExitCode::from(u8::try_from(128 + signal).unwrap_or(125)))
        }
    }
}

fn start(plan: &Plan, options: &Options, signals: &SignalFd) -> Result<ExitCode> {
    if options.detach {
        let failure = keeper::hand_over(plan, options.bundle.has("tty"))?;
        if failure.is_none() {
            writeln!(io::stdout(), "{}", plan.id)?;
        }
        return Ok(failure.map_or(ExitCode::SUCCESS, ExitCode::from));
    }
    let ended = foreground::run(&plan.spawn, options.interactive || options.bundle.has("tty"), signals);
    let undone = undo::carry_out(&plan.undo);
    let code = ended?;
    if let Err(error) = undone {
        // The container's own exit status counts more than what could not be cleaned up.
        cli::complain("run", &error);
    }
    Ok(ExitCode::from(code))
}

/// Returns what must be undone where `spawn` was not reached. A container of this id is then somebody else's: its name
/// may be why a stage has failed.
fn undo_of(plan: &Plan, completed: &[Tool]) -> Vec<Undo> {
    plan.undo.iter().filter(|undo| completed.contains(&undo.of)).cloned().collect()
}

/// Returns what the guard is to undo: all of it, unless the name belongs to a container that was here before.
fn guarded(plan: &Plan) -> Vec<Undo> {
    if plan.bundle.exists() { Vec::new() } else { plan.undo.clone() }
}

fn random_id() -> Result<String> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).context("random id")?;
    Ok(format!("{:012x}", u64::from_ne_bytes(bytes) >> 16))
}
