//! A stage that runs. std's `Command::spawn` copies the caller's memory wherever something is to be done between fork and
//! exec, and waits for a message on a pipe; here the memory is lent, and the child itself says why it could not.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use record::Record;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid};

/// A process of ours, by a descriptor. One that waits for its record is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    /// Where it waits for its record.
    record: Option<File>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessEnd {
    /// With this code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl ProcessEnd {
    /// Returns the exit code that a shell has for it.
    pub fn code(self) -> u8 {
        let (Self::Exited(code) | Self::Killed(code)) = self;
        let killed = if matches!(self, Self::Killed(_)) { 128 } else { 0 };
        u8::try_from(killed + code).unwrap_or(125)
    }

    fn of(status: &WaitIdStatus) -> Self {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Self::Exited(code),
            (None, signal) => Self::Killed(signal.unwrap_or_default()),
        }
    }
}

impl Process {
    /// Starts a program. Where it cannot be executed it says so on its stderr, and exits with 127.
    ///
    /// This process must have one thread; what `command` says of pipes does not work.
    ///
    /// Steps that `command` has between fork and exec (`pre_exec`) run in the child, before the program.
    pub fn start(mut command: Command) -> Result<Self> {
        let program = command.get_program().to_owned();
        let started = sys::clone::vfork(|| complain(&program, &command.exec()));
        let (pid, pidfd) = started.with_context(|| format!("start {}", name(&program)))?;
        Ok(Self { pid, pidfd, record: None })
    }

    /// As [`Process::start`], before it is known whether there is something to do: it waits for a record on standard input.
    pub fn start_waiting(mut command: Command) -> Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).context("a pipe")?;
        command.stdin(read);
        let mut process = Self::start(command)?;
        process.record = Some(write.into());
        Ok(process)
    }

    /// Gives it the record that it waits for.
    pub fn go_on(&mut self, record: &Record) {
        // A key on the terminal (^Z) may have stopped it. How it has ended tells why it does not read.
        let waits = self.record.take();
        let _ended = waits.map(|mut pipe| (self.signal(Signal::CONT), writeln!(pipe, "{}", record.to_line())));
    }

    /// Returns its number, which is its own until it has been waited for.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns how it ended, if it has.
    ///
    /// Once it has returned a status, the process is reaped and its number may be given to another one.
    pub fn try_wait(&self) -> Result<Option<ProcessEnd>> {
        self.wait_with(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    /// Waits for its end.
    pub fn wait(&self) -> Result<ProcessEnd> {
        self.wait_with(WaitIdOptions::EXITED)?.context("it did not end")
    }

    /// Waits for its end no longer than that; what takes longer is killed.
    pub fn wait_within(&self, limit: Duration) -> Result<Option<ProcessEnd>> {
        if sys::child::ends_within(self, Some(limit)).context("wait for a process")? {
            return self.wait().map(Some);
        }
        self.signal(Signal::KILL);
        self.wait().map(|_| None)
    }

    fn wait_with(&self, options: WaitIdOptions) -> Result<Option<ProcessEnd>> {
        let status = rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(self.pidfd.as_fd()), options));
        Ok(status.context("wait for a process")?.as_ref().map(ProcessEnd::of))
    }

    /// Sends a signal. One that has ended does not mind.
    pub fn signal(&self, signal: Signal) {
        let _ended = pidfd_send_signal(&self.pidfd, signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.record.is_some() {
            self.signal(Signal::KILL);
            // Only its end is of interest.
            let _status = self.wait();
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn name(program: &OsStr) -> String {
    program.to_string_lossy().into_owned()
}

/// One write to stderr, where nobody may be.
fn complain(program: &OsStr, error: &io::Error) {
    let line = format!("execute {}: {error}\n", name(program));
    let _nobody = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_too_long_is_killed() {
        for (program, limit_ms, want) in [("true", 60_000, Some(ProcessEnd::Exited(0))), ("yes", 20, None)] {
            let mut command = Command::new(program);
            command.stdout(std::process::Stdio::null());
            // Like `Process::start`, which needs a process with one thread.
            #[expect(clippy::zombie_processes, reason = "it is waited for below, by its descriptor")]
            let child = command.spawn().unwrap();
            let pid = Pid::from_child(&child);
            let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
            let status = Process { pid, pidfd, record: None }.wait_within(Duration::from_millis(limit_ms)).unwrap();
            assert_eq!(status, want, "{program}");
        }
    }
}
