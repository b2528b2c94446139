//! A container that runs while `run` runs: its terminal and its signals are the user's, its exit status becomes ours.

use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;
use stage::undo::Waiting;
use stage::{Process, ProcessEnd, Stage};
use sys::ready::{after, readable};
use sys::signal::SignalFd;

use crate::plan::RunPlan;
use crate::request::{RunRequest, StandardStream};

/// For how long after a container's start the programs that undo its stages wait for its end, if no signal comes. Later,
/// milliseconds do not count, and these processes would be there for as long as the container runs.
const SOON: Duration = Duration::from_secs(1);

/// Starts `spawn` beside the stages, without the bundle, its last argument, which comes on standard input: the container has
/// none.
pub(crate) fn start_waiting(spawn: &Stage, options: &RunRequest) -> Result<Process> {
    let mut waiting = spawn.clone();
    waiting.arguments.pop();
    start(&waiting, options, Process::start_waiting)
}

fn start(spawn: &Stage, options: &RunRequest, begin: fn(Command) -> Result<Process>) -> Result<Process> {
    let mut command = spawn.command()?;
    hide(&mut command, options);
    // spawn in turn arranges that the container dies with it.
    sys::child::die_with_parent(&mut command, Signal::KILL);
    log::debug!("start {spawn}");
    begin(command)
}

/// Runs `spawn` in the foreground and returns how it ended: as the container did.
pub(crate) fn run(
    plan: &RunPlan,
    options: &RunRequest,
    signals: &SignalFd,
    waiting: Option<Process>,
    undo: &mut Waiting<'_>,
) -> Result<ProcessEnd> {
    let _span = trace::span("container", &plan.spawn);
    let mut process = waiting.map_or_else(|| start(&plan.spawn, options, Process::start), Ok)?;
    process.go_on(&plan.record);
    let deadline = options.timeout.map(Duration::from_secs).map(after);
    // From here on every signal is the container's.
    // Before, only those that end a program were blocked; real-time signals and the rest mean something to the
    // container alone.
    let all = options.sig_proxy.then(|| SignalFd::block_all_but(&[Signal::CHILD, Signal::URG])).transpose()?;
    let signals = all.as_ref().unwrap_or(signals);
    if !readable([signals.as_fd(), process.as_fd()], Some(after(SOON))).context("poll")?[1] {
        *undo = Waiting::default();
    }
    wait(&process, (signals, options.sig_proxy), deadline)
}

/// Takes away the standard streams that are not the container's.
pub(crate) fn hide(command: &mut Command, options: &RunRequest) {
    let null = |stream| if options.shows(stream) { Stdio::inherit() } else { Stdio::null() };
    let [stdin, stdout, stderr] = [StandardStream::Stdin, StandardStream::Stdout, StandardStream::Stderr].map(null);
    command.stdin(stdin).stdout(stdout).stderr(stderr);
}

/// Waits for a process, which is killed at the deadline, and with `proxy` gets the signals that come to this one.
pub(crate) fn wait(
    process: &Process,
    (signals, proxy): (&SignalFd, bool),
    mut deadline: Option<Instant>,
) -> Result<ProcessEnd> {
    loop {
        readable([signals.as_fd(), process.as_fd()], deadline).context("poll")?;
        while let Some(received) = signals.read()? {
            // A key on the terminal (^C) signals the whole foreground group, of which the container's `spawn` is one.
            if proxy && received.from_process {
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
