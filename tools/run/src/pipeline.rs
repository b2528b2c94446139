//! Executes the stages as processes joined by real pipes, and waits for all of them.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, Write};
use std::os::fd::AsFd;
use std::process::Stdio;

use anyhow::{Context, Result};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use stage::{Process, ProcessEnd, Stage, Tool};
use sys::ready::readable;
use sys::signal::SignalFd;

use crate::folder::{Copy, Folder};

/// What became of the stages.
#[derive(Debug)]
pub(crate) struct Execution {
    /// The tools whose stages were done, or begun and killed, and so must be undone. One that failed has undone what it had
    /// done; what is there in its place may be somebody else's.
    pub(crate) completed: Vec<Tool>,
    /// How it ended as a whole.
    pub(crate) ending: Ending,
    /// What the last stage printed.
    pub(crate) record: File,
    /// Whether the first two stages, `pull` and `unpack`, have said nothing, as far as that is known.
    pub(crate) is_silent: bool,
}

/// How the pipeline ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// Every stage was done.
    Done,
    /// A stage failed; its words are on stderr.
    Failed,
    /// This signal asked to stop.
    Interrupted(u32),
}

struct Running {
    tool: Tool,
    process: Process,
    /// What it says on stderr, where it does not say it to the user directly.
    words: Option<File>,
    status: Option<ProcessEnd>,
}

/// Runs the stages, each one's stdout the next one's stdin, and `input` the first one's. A signal that comes to `signals` is
/// passed on to them. `begun` is called when all of them have been started.
///
/// As every stage after a failed one only complains that it got no record, just the left-most failing stage's words are
/// shown: `pipefail`, read from the left.
pub(crate) fn execute(
    stages: &[Stage],
    input: Option<File>,
    folder: Option<&Folder<'_>>,
    signals: &SignalFd,
    begun: impl FnOnce() -> Result<()>,
) -> Result<Execution> {
    let mut running = Vec::new();
    let mut copies = Vec::new();
    let mut input = input.map_or_else(Stdio::null, Stdio::from);
    let mut record = File::from(memfd_create("record", MemfdFlags::CLOEXEC)?);
    for (position, stage) in stages.iter().enumerate() {
        let last = position + 1 == stages.len();
        let (output, next) = match folder {
            _ if last => (record.try_clone()?.into(), Stdio::null()),
            None => pipe_with(PipeFlags::CLOEXEC).map(|(read, write)| (write.into(), read.into())).context("pipe")?,
            Some(folder) => {
                let (copy, output, next) = folder.copy(position, stage.tool)?;
                copies.push(copy);
                (output, next)
            }
        };
        // What has started gets no reader and no next stage: it must end before the error is told.
        let started = start(stage, std::mem::replace(&mut input, next), output);
        running.push(started.inspect_err(|_| running.iter().for_each(kill))?);
    }
    begun().inspect_err(|_| running.iter().for_each(kill))?;
    // The last stage's reader: else it would never see its own end.
    drop(input);
    let interrupted = {
        let _span = trace::span("wait for the stages", "");
        // As above.
        wait_all(&mut running, copies, signals).inspect_err(|_| running.iter().for_each(kill))?
    };
    // One that was killed may have finished its work: undoing what is not there is no failure, and leaving it would
    // be.
    let completed = running
        .iter()
        .filter(|stage| matches!(stage.status, Some(ProcessEnd::Exited(0) | ProcessEnd::Killed(_))))
        .map(|stage| stage.tool)
        .collect();
    let failed = report(&mut running)?;
    let is_empty = |words: &File| words.metadata().is_ok_and(|words| words.len() == 0);
    let is_silent = running.iter().take(2).all(|stage| stage.words.as_ref().is_none_or(is_empty));
    let ending = match interrupted {
        Some(signal) => Ending::Interrupted(signal),
        None if failed => Ending::Failed,
        None => Ending::Done,
    };
    if let (Some(folder), Some(last)) = (folder, stages.len().checked_sub(1)) {
        folder.write(last, stages[last].tool, &mut record)?;
    }
    record.rewind()?;
    Ok(Execution { completed, ending, record, is_silent })
}

fn start(stage: &Stage, input: Stdio, output: Stdio) -> Result<Running> {
    let mut command = stage.command()?;
    command.stdin(input).stdout(output);
    // pull draws its progress on the terminal while it works; with --verbose every stage speaks for itself.
    let direct = log::max_level() > log::LevelFilter::Warn || (stage.tool == Tool::Pull && io::stderr().is_terminal());
    // In memory: a pipe would have to be read while the stage works, or stop it when it is full.
    let words = if direct { None } else { Some(File::from(memfd_create("stderr", MemfdFlags::CLOEXEC)?)) };
    if let Some(words) = &words {
        command.stderr(words.try_clone()?);
    }
    // TERM, so that a stage undoes what it has begun; one that is killed leaves that to the guard.
    sys::child::die_with_parent(&mut command, Signal::TERM);
    log::debug!("start {stage}");
    let _span = trace::span("execute", stage);
    Ok(Running { tool: stage.tool, process: Process::start(command)?, words, status: None })
}

fn kill(stage: &Running) {
    stage.process.signal(Signal::KILL);
    // Only its end is of interest.
    let _status = stage.process.wait();
}

fn wait_all(running: &mut [Running], mut copies: Vec<Copy>, signals: &SignalFd) -> Result<Option<u32>> {
    let mut interrupted = None;
    while running.iter().any(|stage| stage.status.is_none()) {
        let unfinished = running.iter().filter(|stage| stage.status.is_none());
        let open_ends = copies.iter().map(AsFd::as_fd).chain(unfinished.map(|stage| stage.process.as_fd()));
        let ready = readable([signals.as_fd()].into_iter().chain(open_ends), None).context("poll")?;
        let mut open = Vec::new();
        for (mut copy, ready) in copies.into_iter().zip(ready.into_iter().skip(1)) {
            if !ready || copy.turn()? {
                open.push(copy);
            }
        }
        copies = open;
        while let Some(received) = signals.read()? {
            interrupted.get_or_insert(received.signal);
            for stage in running.iter().filter(|stage| stage.status.is_none()) {
                // Ctrl-C reached the stages by itself; a second signal does no harm, since they are ending anyway.
                stage.process.signal(Signal::TERM);
            }
        }
        for stage in running.iter_mut().filter(|stage| stage.status.is_none()) {
            stage.status = stage.process.try_wait().with_context(|| format!("wait for {}", stage.tool.name()))?;
        }
    }
    Ok(interrupted)
}

/// Passes on the warnings of the stages that were done, and the words of the first one that failed.
fn report(running: &mut [Running]) -> Result<bool> {
    for stage in running {
        let mut words = Vec::new();
        if let Some(file) = &mut stage.words {
            file.rewind()?;
            file.read_to_end(&mut words)?;
        }
        io::stderr().write_all(&words)?;
        if stage.status == Some(ProcessEnd::Exited(0)) {
            continue;
        }
        if let (true, Some(ProcessEnd::Killed(signal))) = (words.is_empty(), stage.status) {
            cli::eprint_line(&format!("run: {}: killed by signal {signal}", stage.tool.name()));
        }
        return Ok(true);
    }
    Ok(false)
}
