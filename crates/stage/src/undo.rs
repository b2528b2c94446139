//! Undoes the stages that were done, in reverse. Every step is tried, whatever became of the one before it. Undoing what
//! was never done is no failure.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use crate::{Process, Stage, Status, Tool};

/// The longest pause before what has failed is tried again.
const LONGEST: Duration = Duration::from_secs(4);

/// What undoes a stage, if the stage was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    /// The tool whose stage is undone.
    pub of: Tool,
    /// The command that does it.
    pub stage: Stage,
}

/// Carries the steps out; the error names the first one that failed, the others are warned of.
///
/// A bundle goes beside the network, which has nothing to do with it; all others wait for the one before.
pub fn carry_out(undo: &[Undo]) -> Result<()> {
    let (beside, others): (Vec<&Undo>, Vec<&Undo>) = undo.iter().partition(|undo| undo.of == Tool::Bundle);
    let (spawn, network): (Vec<&Undo>, Vec<&Undo>) = others.into_iter().partition(|undo| undo.of == Tool::Spawn);
    let mut done: Vec<Result<()>> = spawn.into_iter().map(|step| Begun::start(step).and_then(Begun::end)).collect();
    let begun: Vec<Result<Begun<'_>>> = beside.into_iter().map(Begun::start).collect();
    done.extend(network.into_iter().map(|step| Begun::start(step).and_then(Begun::end)));
    done.extend(begun.into_iter().map(|begun| begun.and_then(Begun::end)));
    let mut failures = done.into_iter().filter_map(Result::err);
    let Some(first) = failures.next() else { return Ok(()) };
    failures.for_each(|error| log::warn!("{error:#}"));
    Err(first)
}

/// Carries the steps out as the last who can: what fails for want of anything is tried again for some seconds.
pub fn carry_out_at_last(undo: &[Undo]) -> Result<()> {
    let mut pause = Duration::from_millis(100);
    loop {
        match carry_out(undo) {
            Err(_) if pause <= LONGEST => std::thread::sleep(pause),
            done => return done,
        }
        pause *= 2;
    }
}

/// A step that is being carried out.
struct Begun<'a> {
    stage: &'a Stage,
    process: Process,
    /// What it says on stderr.
    words: File,
}

impl<'a> Begun<'a> {
    fn start(undo: &'a Undo) -> Result<Self> {
        let stage = &undo.stage;
        log::debug!("{stage}");
        let _span = trace::span("execute", stage);
        let words = File::from(memfd_create("stderr", MemfdFlags::CLOEXEC)?);
        let mut command = stage.command()?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(words.try_clone()?);
        let process = Process::start(command).with_context(|| stage.to_string())?;
        Ok(Self { stage, process, words })
    }

    fn end(mut self) -> Result<()> {
        let _span = trace::span("undo", self.stage);
        if self.process.wait()? == Status::Exited(0) {
            return Ok(());
        }
        let mut words = String::new();
        self.words.rewind()?;
        self.words.read_to_string(&mut words)?;
        bail!("{}: {}", self.stage, words.trim_end())
    }
}
