//! A container that runs while `run` runs: its terminal and its signals are the user's, its exit status becomes ours.

use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Signal, pidfd_send_signal};
use stage::Stage;
use sys::signal::SignalFd;

use crate::pipeline::{pidfd, wait_for};

/// Runs `spawn` in the foreground and returns the exit code: the container's own, or 128+n for signal n.
pub(crate) fn run(spawn: &Stage, interactive: bool, signals: &SignalFd) -> Result<u8> {
    let mut command = spawn.command()?;
    if !interactive {
        command.stdin(Stdio::null());
    }
    // spawn in turn arranges that the container dies with it.
    sys::child::die_with_parent(&mut command, Signal::KILL);
    log::debug!("start {spawn}");
    let mut child = command.spawn().context("execute spawn")?;
    let pidfd = pidfd(&child)?;
    loop {
        let mut fds = [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN), PollFd::new(&pidfd, PollFlags::IN)];
        wait_for(&mut fds)?;
        while let Some(received) = signals.read()? {
            let signal = i32::try_from(received.signal).ok().and_then(Signal::from_named_raw);
            if let (true, Some(signal)) = (received.from_process, signal) {
                // It may have ended in this moment.
                let _ended = pidfd_send_signal(&pidfd, signal);
            }
        }
        if let Some(status) = child.try_wait().context("wait for spawn")? {
            return Ok(code(status));
        }
    }
}

/// Returns the exit code for a status, as a shell does.
pub(crate) fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(125)
}
