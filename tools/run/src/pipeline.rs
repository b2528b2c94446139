//! Executes the stages as processes joined by real pipes, and waits for all of them.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, ExitStatus, Stdio};

use anyhow::{Context, Result, anyhow};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use stage::{Stage, Tool};
use sys::signal::SignalFd;

use crate::folder::Folder;

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
    child: Child,
    pidfd: OwnedFd,
    /// What it says on stderr, where it does not say it to the user directly.
    words: Option<File>,
    status: Option<ExitStatus>,
}

/// Runs the stages, each one's stdout the next one's stdin. A signal that comes to `signals` is passed on to them.
///
/// As every stage after a failed one only complains that it got no record, just the left-most failing stage's words are
/// shown: `pipefail`, read from the left.
pub(crate) fn execute(stages: &[Stage], folder: Option<&Folder<'_>>, signals: &SignalFd) -> Result<Execution> {
    let mut running = Vec::new();
    let mut input = Stdio::null();
    let mut record = File::from(memfd_create("record", MemfdFlags::CLOEXEC)?);
    for (position, stage) in stages.iter().enumerate() {
        let last = position + 1 == stages.len();
        let output = if last { record.try_clone()?.into() } else { Stdio::piped() };
        match start(stage, input, output) {
            Ok((started, output)) => {
                running.push(started);
                input = match (output, folder) {
                    (Some(output), Some(folder)) => folder.copy(position, stage.tool, output)?,
                    (output, _) => output.map_or_else(Stdio::null, Stdio::from),
                };
            }
            Err(error) => {
                // What has started gets no reader and no next stage: it must end before the error is told.
                drop(running.iter_mut().map(|stage| stage.child.kill()).collect::<Vec<_>>());
                drop(running.iter_mut().map(|stage| stage.child.wait()).collect::<Vec<_>>());
                return Err(error);
            }
        }
    }
    drop(input);
    let interrupted = {
        let _span = trace::span("wait for the stages", "");
        wait_all(&mut running, signals)?
    };
    let completed =
        running.iter().filter(|stage| succeeded(stage) || was_killed(stage)).map(|stage| stage.tool).collect();
    let failed = report(&mut running)?;
    let ending = match interrupted {
        Some(signal) => Ending::Interrupted(signal),
        None if failed => Ending::Failed,
        None => Ending::Done,
    };
    if let (Some(folder), Some(last)) = (folder, stages.len().checked_sub(1)) {
        folder.write(last, stages[last].tool, &mut record)?;
    }
    record.rewind()?;
    Ok(Execution { completed, ending, record })
}

fn start(stage: &Stage, input: Stdio, output: Stdio) -> Result<(Running, Option<ChildStdout>)> {
    let mut command = stage.command()?;
    command.stdin(input).stdout(output);
    // pull draws its progress on the terminal while it works; with --verbose every stage speaks for itself.
    let direct = log::max_level() > log::LevelFilter::Warn || (stage.tool == Tool::Pull && io::stderr().is_terminal());
    let words = if direct { None } else { Some(File::from(memfd_create("stderr", MemfdFlags::CLOEXEC)?)) };
    if let Some(words) = &words {
        command.stderr(words.try_clone()?);
    }
    sys::child::die_with_parent(&mut command, Signal::TERM);
    log::debug!("start {stage}");
    let _span = trace::span("execute", stage);
    let mut child = command.spawn().with_context(|| format!("execute {}", stage.tool.name()))?;
    let output = child.stdout.take();
    let pidfd = pidfd(&child)?;
    Ok((Running { tool: stage.tool, child, pidfd, words, status: None }, output))
}

/// Opens a descriptor of a child that has not been waited for.
pub(crate) fn pidfd(child: &Child) -> Result<OwnedFd> {
    let pid =
        i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| anyhow!("process id {}", child.id()))?;
    pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("pidfd of process {}", child.id()))
}

fn wait_all(running: &mut [Running], signals: &SignalFd) -> Result<Option<u32>> {
    let mut interrupted = None;
    while running.iter().any(|stage| stage.status.is_none()) {
        let mut fds = vec![PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
        let unfinished = running.iter().filter(|stage| stage.status.is_none());
        fds.extend(unfinished.map(|stage| PollFd::new(&stage.pidfd, PollFlags::IN)));
        wait_for(&mut fds)?;
        drop(fds);
        while let Some(received) = signals.read()? {
            interrupted.get_or_insert(received.signal);
            for stage in running.iter().filter(|stage| stage.status.is_none()) {
                // Ctrl-C reached the stages by itself; a second signal does no harm, since they are ending anyway.
                let _ended = pidfd_send_signal(&stage.pidfd, Signal::TERM);
            }
        }
        for stage in running.iter_mut().filter(|stage| stage.status.is_none()) {
            stage.status = stage.child.try_wait().with_context(|| format!("wait for {}", stage.tool.name()))?;
        }
    }
    Ok(interrupted)
}

/// Polls without a limit, over interruptions.
pub(crate) fn wait_for(fds: &mut [PollFd<'_>]) -> Result<()> {
    loop {
        match poll(fds, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("poll"),
            Ok(_) => return Ok(()),
        }
    }
}

fn succeeded(stage: &Running) -> bool {
    stage.status.is_some_and(|status| status.success())
}

fn was_killed(stage: &Running) -> bool {
    stage.status.is_some_and(|status| status.signal().is_some())
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
        if succeeded(stage) {
            continue;
        }
        let killed = stage.status.and_then(|status| status.signal());
        if let (true, Some(signal)) = (words.is_empty(), killed) {
            cli::eprint_line(&format!("run: {}: killed by signal {signal}", stage.tool.name()));
        }
        return Ok(true);
    }
    Ok(false)
}
