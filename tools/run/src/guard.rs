//! The guard: a process that undoes the stages if `run` cannot do it itself, because it was killed with -9. It is this
//! program, executed again under the name `run-guard`, with one end of a pipe whose other end `run` and its stages hold:
//! end of file tells that all of them are gone.

use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use rustix::io::FdFlags;

use crate::plan::Undo;

/// The name by which the guard is executed.
pub(crate) const NAME: &str = "run-guard";
/// What `run` says when nothing is left to undo.
const DONE: &str = "done";

/// A guard that is on duty until it is dismissed.
#[derive(Debug)]
pub(crate) struct Guard(ChildStdin);

impl Guard {
    /// Starts the guard. What it is to undo may never have been done: undoing what is not there is no failure.
    pub(crate) fn start(undo: &[Undo]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("find this executable")?);
        command.arg0(NAME).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        sys::child::in_own_session(&mut command);
        let mut child = command.spawn().context("execute the guard")?;
        let mut pipe = child.stdin.take().context("the guard's stdin")?;
        writeln!(pipe, "{}", serde_json::to_string(undo)?).context("write to the guard")?;
        // The stages inherit this end, so that what they still do when `run` is gone is undone as well. spawn closes
        // it, like every descriptor that was not asked for, before a container can see it.
        rustix::io::fcntl_setfd(&pipe, FdFlags::empty()).context("the guard's pipe")?;
        Ok(Self(pipe))
    }

    /// Sends the guard away: everything has been undone, or somebody else will do it.
    pub(crate) fn dismiss(mut self) {
        // A guard that was killed guards nothing, and there is nothing left to guard.
        let _gone = writeln!(self.0, "{DONE}");
    }
}

/// The guard's own main.
pub(crate) fn main() -> ExitCode {
    let mut lines = io::stdin().lock().lines();
    let Some(Ok(job)) = lines.next() else { return ExitCode::FAILURE };
    if lines.next().and_then(Result::ok).is_some_and(|line| line == DONE) {
        return ExitCode::SUCCESS;
    }
    let undone =
        serde_json::from_str::<Vec<Undo>>(&job).context("read the job").and_then(|undo| crate::undo::carry_out(&undo));
    if undone.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
