//! The guard: a process that undoes the stages if `run` cannot do it itself, because it was killed with -9. It is a copy of
//! this process, named `run-guard`. It reads from a pipe whose other end `run` and its stages hold: end of file tells that all
//! of them are gone. The claim on the container's name (`stage::claim`) says what is to be undone, and is the guard's own as
//! long as it lives.
//!
//! A signal at the death of `run` (`PR_SET_PDEATHSIG`) would come when `run` is gone and its stages still work. The
//! pipe ends with the last of them, so that nothing is made behind the guard's back.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;

use ::container::Directories;
use anyhow::{Context, Result};
use rustix::io::FdFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use stage::{Claim, claim, undo};

use crate::plan::RunPlan;

/// What `run` says when nothing is left to undo.
const DONE: &str = "done";
/// What it says when it could not undo everything.
const LEFT: &str = "left";

/// A guard that watches until it is dismissed.
#[derive(Debug)]
pub(crate) struct Guard(File);

impl Guard {
    /// Starts the guard. What it is to undo may never have been done: undoing what is not there is no failure.
    pub(crate) fn start(claim: &Claim, plan: &RunPlan) -> Result<Self> {
        let _span = trace::span("start the guard", "");
        let (read, pipe) = pipe_with(PipeFlags::CLOEXEC).context("the guard's pipe")?;
        let read = File::from(read);
        // Not a child to be waited for: if it outlives `run`, it is init's. It stays in the working directory, from where a
        // relative root is found. What the user's shell or a pipe's reader waits for
        // the end of, it does not have, nor a socket of the caller's.
        sys::clone::beside(c"run-guard", &[read.as_fd(), claim.file.as_fd()], || {
            trace::leave();
            // There is nobody to be told. The claim keeps what is to be undone, for the next run.
            let _told = guard(&read, claim, &plan.directories);
        })
        .context("start the guard")?;
        // The stages inherit this end, so that what they still do when `run` is gone is undone as well. spawn closes
        // it, like every descriptor that was not asked for, before a container can see it.
        // After the guard has been started, which must not hold its own other end: it would wait for ever.
        rustix::io::fcntl_setfd(&pipe, FdFlags::empty()).context("the guard's pipe")?;
        Ok(Self(pipe.into()))
    }

    /// Sends the guard away: everything has been undone, or somebody else will do it.
    pub(crate) fn dismiss(mut self) {
        // A guard that was killed guards nothing, and there is nothing left to guard.
        let _gone = writeln!(self.0, "{DONE}");
    }

    /// Leaves it to the guard to undo what could not be undone now.
    pub(crate) fn take_over(mut self) {
        // In the place of one that was killed the next run does it.
        let _gone = writeln!(self.0, "{LEFT}");
    }
}

fn guard(pipe: &File, claim: &Claim, directories: &Directories) -> Result<()> {
    // While there is nothing to do: what others have left whose guards were killed with them.
    let _later = claim::sweep(directories);
    match BufReader::new(pipe).lines().next().and_then(Result::ok).as_deref() {
        Some(DONE) => return Ok(()),
        Some(LEFT) => claim.is_ending(),
        // Not if the container has a keeper by now.
        _ if !claim.end_if_abandoned()? => return Ok(()),
        _ => {}
    }
    // What the claim says now, not what `run` wrote at first: a keeper that is gone again may have written
    // another.
    let undone = claim.holder()?.map_or(Ok(()), |holder| undo::carry_out_at_last(&holder.undo));
    // Released only if nothing is left.
    undone.map(|()| claim.release())
}
