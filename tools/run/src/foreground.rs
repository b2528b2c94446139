//! A container that runs while `run` runs: its terminal and its signals are the user's, its exit status becomes ours.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use record::{Bundle, Id, Record};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use stage::{Process, ProcessEnd, Stage};
use sys::ready::{after, readable};
use sys::signal::SignalFd;

use crate::plan::RunPlan;
use crate::request::{RunRequest, StandardStream};

/// How a child is waited for.
pub(crate) struct WaitManner<'a> {
    /// Where this process's signals come in.
    pub(crate) signals: &'a SignalFd,
    /// Whether they are passed on.
    pub(crate) proxy: bool,
    /// When it is killed.
    pub(crate) limit: Option<Duration>,
}

/// A `spawn` that has been started beside the stages, and waits for its record. Without one it is killed.
pub(crate) struct WaitingSpawn {
    process: Option<Process>,
    record: File,
}

impl WaitingSpawn {
    /// Starts `spawn` without the bundle, its last argument, which comes on standard input: the container has none.
    pub(crate) fn start(spawn: &Stage, options: &RunRequest) -> Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).context("a pipe")?;
        let mut waiting = spawn.clone();
        waiting.arguments.pop();
        Ok(Self { process: Some(start(&waiting, options, Some(read.into()))?), record: write.into() })
    }

    /// Gives it the bundle, and nothing else of the record: then it undoes no other stage, which `run` does.
    fn go_on(mut self, plan: &RunPlan) -> Option<Process> {
        let mut record = Record::default();
        record.set(&Bundle(plan.bundle.clone()));
        record.set(&Id(plan.id.clone()));
        // How it has ended tells why it does not read.
        let _ended = writeln!(self.record, "{}", record.to_line());
        self.process.take()
    }
}

impl Drop for WaitingSpawn {
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            process.signal(Signal::KILL);
            // Only its end is of interest.
            let _status = process.wait();
        }
    }
}

fn start(spawn: &Stage, options: &RunRequest, record: Option<Stdio>) -> Result<Process> {
    let mut command = spawn.command()?;
    hide(&mut command, options);
    record.map(|record| command.stdin(record));
    // spawn in turn arranges that the container dies with it.
    sys::child::die_with_parent(&mut command, Signal::KILL);
    log::debug!("start {spawn}");
    Process::start(command)
}

/// Runs `spawn` in the foreground and returns how it ended: as the container did.
pub(crate) fn run(
    plan: &RunPlan,
    options: &RunRequest,
    signals: &SignalFd,
    waiting: Option<WaitingSpawn>,
) -> Result<ProcessEnd> {
    let _span = trace::span("container", &plan.spawn);
    let process =
        waiting.and_then(|waiting| waiting.go_on(plan)).map_or_else(|| start(&plan.spawn, options, None), Ok)?;
    let limit = options.timeout.map(Duration::from_secs);
    // From here on every signal is the container's.
    // Before, only those that end a program were blocked; real-time signals and the rest mean something to the
    // container alone.
    let all = options.sig_proxy.then(|| SignalFd::block_all_but(&[Signal::CHILD, Signal::URG])).transpose()?;
    let signals = all.as_ref().unwrap_or(signals);
    wait(&process, &WaitManner { signals, proxy: options.sig_proxy, limit })
}

/// Takes away the standard streams that are not the container's.
pub(crate) fn hide(command: &mut Command, options: &RunRequest) {
    if !options.shows(StandardStream::Stdin) {
        command.stdin(Stdio::null());
    }
    if !options.shows(StandardStream::Stdout) {
        command.stdout(Stdio::null());
    }
    if !options.shows(StandardStream::Stderr) {
        command.stderr(Stdio::null());
    }
}

/// Waits for a process.
pub(crate) fn wait(process: &Process, manner: &WaitManner<'_>) -> Result<ProcessEnd> {
    let mut deadline = manner.limit.map(after);
    loop {
        readable([manner.signals.as_fd(), process.as_fd()], deadline).context("poll")?;
        while let Some(received) = manner.signals.read()? {
            // A key on the terminal (^C) signals the whole foreground group, of which the container's `spawn` is one.
            if manner.proxy && received.from_process {
                // It may have ended by now.
                let _ended = sys::signal::send(process.as_fd(), i32::try_from(received.signal)?);
            }
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            deadline = None;
            // The container ends with its spawn.
            process.signal(Signal::KILL);
        }
        if let Some(status) = process.try_wait()? {
            return Ok(status);
        }
    }
}

/// Returns the exit code for a status, as a shell does.
pub(crate) fn code(status: ProcessEnd) -> u8 {
    u8::try_from(status.code()).unwrap_or(125)
}
