//! Undoes the stages that were done, in reverse. Every step is tried, whatever became of the one before it. Undoing what
//! was never done is no failure.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use container::{ContainerId, Directories, Owner};
use record::{OwnedBy, Record};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use crate::{Process, ProcessEnd, Stage, Tool};

/// How long a step may take. A hook that never ends, or a plugin, is a container's or an administrator's.
const LIMIT: Duration = Duration::from_secs(120);
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

/// What has been made for a container. Each tool undoes what its stage has made for this owner, and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Made<'a> {
    /// The container.
    pub id: &'a ContainerId,
    /// Whose it is. Without one, all that is undone is what no other root has.
    pub owner: Option<Owner>,
    /// The root that the tools were called with, if with one.
    pub root: Option<&'a Path>,
    /// The directory of the runtime's states, if it was called with one.
    pub states: Option<&'a Path>,
    /// Another runtime than `spawn`.
    pub runtime: Option<&'a Path>,
    /// Whether the bundle's files stay: then it is only unmounted.
    pub keeps_bundle: bool,
}

impl Made<'_> {
    /// Returns what undoes the stages of those tools for which `made` holds, in the order in which it is done.
    ///
    /// The runtime first: what runs holds mounts, addresses and ports. Then the ports, which name the container's
    /// address, then the network, and the bundle last.
    pub fn undo(&self, made: impl Fn(Tool) -> bool) -> Vec<Undo> {
        let tools = [Tool::Spawn, Tool::Portmap, Tool::Ns, Tool::Bundle].into_iter().filter(|tool| made(*tool));
        tools.map(|of| Undo { of, stage: self.command(of) }).collect()
    }

    /// Begins a command line of the runtime.
    pub fn runtime(&self) -> Stage {
        let mut stage = Stage::new(Tool::Spawn, [""; 0]);
        stage.option("--root", self.states);
        match self.runtime {
            Some(runtime) => stage.by(runtime),
            None => stage,
        }
    }

    fn command(&self, tool: Tool) -> Stage {
        let mut stage = match tool {
            Tool::Spawn => self.runtime(),
            Tool::Bundle if self.keeps_bundle => Stage::new(tool, ["unmount"]),
            Tool::Bundle => Stage::new(tool, ["delete", "--force"]),
            _ => Stage::new(tool, ["del"]),
        };
        if tool == Tool::Spawn {
            stage.push(["delete", "--force"]);
        } else {
            stage.option("--root", self.root);
        }
        // Another runtime knows of no owners.
        if tool != Tool::Spawn || self.runtime.is_none() {
            stage.option("--owner", self.owner.map(|owner| owner.to_string()));
        }
        stage.push([self.id]);
        stage
    }
}

/// Returns what undoes what a bundle says was made for its container, but for the bundle itself. It is nothing where the
/// bundle does not say it.
pub(crate) fn of_bundle(directories: &Directories, id: &ContainerId) -> Result<Vec<Undo>> {
    let record = Record::known_of(&directories.bundle(id))?.unwrap_or_default();
    let owner = record.find::<OwnedBy>().ok().flatten().map(|owned| owned.0);
    // Without an owner it is not known that it is this container's.
    if owner.is_none() {
        return Ok(vec![]);
    }
    let states = directories.states();
    let made = Made { id, owner, root: directories.root(), states: Some(&states), runtime: None, keeps_bundle: true };
    Ok(made.undo(|tool| is_in(&record, tool)))
}

/// Tells whether a container that has ended may still have its state or its network.
pub fn is_left(directories: &Directories, id: &ContainerId) -> bool {
    let state = container::state_in(&directories.states(), &id.into());
    [state, container::namespace(id)].iter().any(|path| sys::file::may_be_there(path))
}

/// Removes what killed removals of bundles have left: no id begins as their names do.
pub fn sweep_removed(directories: &Directories) -> Result<()> {
    let mut entries = std::fs::read_dir(directories.bundles()).into_iter().flatten().flatten();
    if !entries.any(|entry| entry.file_name().as_encoded_bytes().starts_with(b".")) {
        return Ok(());
    }
    let mut stage = Stage::new(Tool::Bundle, ["delete", "--force"]);
    stage.option("--root", directories.root());
    carry_out(&[Undo { of: Tool::Bundle, stage }])
}

/// Tells whether the record says that a tool has made something for a run of the container.
pub fn is_in(record: &Record, tool: Tool) -> bool {
    match tool {
        Tool::Spawn | Tool::Bundle => true,
        Tool::Portmap => record.member("ports").is_some() || record.member("sockets").is_some(),
        Tool::Ns => record.member("network").is_some(),
        _ => false,
    }
}

/// Carries the steps out; the error names the first one that failed, the others are warned of.
///
/// A bundle goes beside the network, which has nothing to do with it; all others wait for the one before.
pub fn carry_out(undo: &[Undo]) -> Result<()> {
    Waiting::default().carry_out(undo)
}

/// Steps whose programs have been started, and wait for their container's record: most take longer to start than for what they
/// do.
#[derive(Default)]
pub struct Waiting<'a> {
    begun: Vec<Begun<'a>>,
    record: Record,
}

impl<'a> Waiting<'a> {
    /// Starts the programs of the steps, but for the runtime's, which has ended by itself where it was not killed. One that
    /// cannot be started is left to [`Waiting::carry_out`].
    pub fn start(undo: &'a [Undo], record: Record) -> Self {
        let steps = undo.iter().filter(|step| step.of != Tool::Spawn);
        Self { begun: steps.filter_map(|step| Begun::start(&step.stage, true).ok()).collect(), record }
    }

    /// As [`carry_out`], by the programs that wait, where one does.
    pub fn carry_out(mut self, undo: &'a [Undo]) -> Result<()> {
        let mut start = |step: &'a Undo| match self.begun.iter().position(|begun| *begun.stage == step.stage) {
            Some(at) => {
                log::debug!("{}", step.stage);
                let mut begun = self.begun.swap_remove(at);
                begun.process.go_on(&self.record);
                Ok(begun)
            }
            None => Begun::start(&step.stage, false),
        };
        let (beside, others): (Vec<&Undo>, Vec<&Undo>) = undo.iter().partition(|undo| undo.of == Tool::Bundle);
        let (spawn, network): (Vec<&Undo>, Vec<&Undo>) = others.into_iter().partition(|undo| undo.of == Tool::Spawn);
        let mut done: Vec<Result<()>> = spawn.into_iter().map(|step| step.stage.execute()).collect();
        let begun: Vec<Result<Begun<'_>>> = beside.into_iter().map(&mut start).collect();
        done.extend(network.into_iter().map(|step| start(step)?.end()));
        done.extend(begun.into_iter().map(|begun| begun?.end()));
        let mut failures = done.into_iter().filter_map(Result::err);
        let Some(first) = failures.next() else { return Ok(()) };
        failures.for_each(|error| log::warn!("{error:#}"));
        Err(first)
    }
}

/// Carries the steps out as the last who can: what fails for want of anything is tried again for some seconds.
///
/// A guard or keeper that gives up leaves the undoing to the next `run`, which may be days away.
pub fn carry_out_at_last(undo: &[Undo]) -> Result<()> {
    let (mut pause, begun) = (Duration::from_millis(100), Instant::now());
    loop {
        match carry_out(undo) {
            Err(_) if pause <= LONGEST && begun.elapsed() < LIMIT => std::thread::sleep(pause),
            done => return done,
        }
        pause *= 2;
    }
}

/// A command that is being executed.
pub(crate) struct Begun<'a> {
    stage: &'a Stage,
    process: Process,
    /// What it says on stderr.
    words: File,
    /// Whether it has waited: then somebody may have killed it before its time.
    has_waited: bool,
}

impl<'a> Begun<'a> {
    /// Starts it; one that waits gets `-`, a record on standard input, in the place of the id, its last argument.
    pub(crate) fn start(stage: &'a Stage, waits: bool) -> Result<Self> {
        let _span = trace::span("execute", stage);
        // A file in memory, not a pipe: nobody has to read it while the command runs, and it never blocks.
        let words = File::from(memfd_create("stderr", MemfdFlags::CLOEXEC)?);
        let mut executed = stage.clone();
        if waits {
            executed.arguments.pop();
            executed.push(["-"]);
        } else {
            log::debug!("{stage}");
        }
        let mut command = executed.command()?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(words.try_clone()?);
        let start = if waits { Process::start_waiting } else { Process::start };
        Ok(Self { stage, process: start(command).with_context(|| stage.to_string())?, words, has_waited: waits })
    }

    pub(crate) fn end(mut self) -> Result<()> {
        let _span = trace::span("undo", self.stage);
        match self.process.wait_within(LIMIT)? {
            Some(ProcessEnd::Exited(0)) => return Ok(()),
            Some(ProcessEnd::Killed(_)) if self.has_waited => return self.stage.execute(),
            Some(_) => {}
            None => bail!("{}: killed, since it took more than {LIMIT:?}", self.stage),
        }
        let mut words = String::new();
        self.words.rewind()?;
        self.words.read_to_string(&mut words)?;
        bail!("{}: {}", self.stage, words.trim_end())
    }
}
