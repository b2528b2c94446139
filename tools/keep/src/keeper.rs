//! The keeper: the process that stays with a container. It is this program, executed again under the name
//! `keep-keeper`, apart from its caller: it takes over what is to be undone, and undoes it at the end.
//!
//! Its order at the end is what others rely on: the claim says "ending" before anybody hears of the end, so that
//! whoever hears of it waits for the name instead of finding it taken; the stages are undone; the exit status is on
//! disk; the socket and the lock go; and the claim is released last.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::FdFlags;
use rustix::process::{PidfdFlags, pidfd_open};
use stage::claim::Holder;
use stage::{Claim, undo};

use crate::job::Job;
use crate::lifetime::{First, Lifetime};
use crate::notify::Ready;
use crate::report::Report;

/// The name by which the keeper is executed.
pub(crate) const NAME: &str = "keep-keeper";

/// The keeper's main.
pub(crate) fn main() -> ExitCode {
    // Whoever is to be told of a trace that cannot be written has been told.
    let _untold = trace::begin(NAME);
    match keep() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            cli::complain("keep", &error);
            ExitCode::from(125)
        }
    }
}

fn keep() -> Result<u8> {
    // A copy, since standard input is given up when the container runs, and the caller waits for the end of this
    // socket.
    let caller = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).context("the caller")?;
    let mut caller = UnixStream::from(caller);
    let parent = rustix::process::getppid().and_then(|parent| pidfd_open(parent, PidfdFlags::empty()).ok());
    let mut text = Vec::new();
    caller.read_to_end(&mut text).context("read the job")?;
    if text.is_empty() {
        // The caller was killed before it said anything.
        return Ok(0);
    }
    let job: Job = serde_json::from_slice(&text).context("read the job")?;
    let claim = Claim::from_stdout()?;
    // From here on all that is there is this process's to undo, even if its caller is killed.
    if !claim.take_over(&Holder::own(&job.bundle, &job.undo))? {
        // The caller was killed, and what it has left is being undone.
        return Ok(0);
    }
    // `bundle prune` takes a bundle that is locked for one in use, even between two starts.
    let held = File::open(&job.bundle).with_context(|| format!("open {}", job.bundle.display()))?;
    let _shared = flock(&held, FlockOperation::NonBlockingLockShared);
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
    // While `spawn` makes the container nobody may take this process for gone, though it be killed: the container
    // could still be starting when its stages are undone.
    let shared = share([caller.as_fd(), claim.file.as_fd()], &job)?;
    let code = match Lifetime::begin(job.clone(), &claim, &caller) {
        Ok(mut lifetime) => {
            let first = lifetime.first_start();
            // The container runs: from here on the keeper's own end counts.
            drop(shared);
            match first {
                First::Running(pid) => {
                    // A caller that was killed has told nobody of the container: it goes, too.
                    if tell(caller, &Report::Running(pid.as_raw_pid())).is_ok() {
                        leave_the_terminal(&null);
                        // A service manager knows the end of its own children only. This is one when the caller has ended.
                        let parent = parent.filter(|_| job.options.sdnotify != Ready::Ignore && !job.options.attach);
                        let _ended = parent.map(|parent| sys::child::ends_within(parent, Some(Duration::from_secs(2))));
                        crate::notify::started(job.options.sdnotify, pid);
                        lifetime.stay();
                    }
                    claim.is_ending();
                    crate::notify::ending(job.options.sdnotify);
                    // The network is gone before the status is written: `keep wait` that returns may be followed by a
                    // start.
                    let (undone, code) = (undo::carry_out_at_last(&job.undo), lifetime.code);
                    lifetime.write_the_end();
                    lifetime.control.remove();
                    // Who sees the socket's end, with the keeper's, may start it again at once.
                    drop(held);
                    // A claim that is not released is swept by the next run.
                    undone?;
                    claim.release();
                    return Ok(code);
                }
                First::Failed(code) => {
                    // Before the socket's end is seen: who sees it waits for the name then.
                    claim.is_ending();
                    lifetime.control.remove();
                    code
                }
            }
        }
        Err(error) => {
            // Before the caller is told, so that it ends after this.
            cli::complain("keep", &error);
            125
        }
    };
    claim.is_ending();
    // Once only: the caller lives, hears of the failure, and leaves the claim as it is for the next run.
    cli::warn(undo::carry_out(&job.undo));
    if tell(caller, &Report::Failed(code)).is_err() {
        // It cannot give the name back any more.
        claim.release();
    }
    Ok(code)
}

/// Lets `spawn` inherit copies: if this process is killed, then for the caller and for whoever waits for the claim it is
/// gone only with that. spawn closes them before a hook or the container can see them.
fn share(files: [BorrowedFd<'_>; 2], job: &Job) -> Result<[OwnedFd; 2]> {
    let first = i32::try_from(job.options.preserve_fds).map_or(i32::MAX, |more| more.saturating_add(3));
    let share = |file| {
        let copy = rustix::io::fcntl_dupfd_cloexec(file, first)?;
        rustix::io::fcntl_setfd(&copy, FdFlags::empty()).map(|()| copy)
    };
    let [caller, claim] = files.map(share);
    Ok([caller.context("the caller")?, claim.context("the claim")?])
}

/// Reports, and lets the caller go. One that was killed is an error.
fn tell(caller: UnixStream, report: &Report) -> Result<()> {
    // The caller may be the trace's last.
    trace::end();
    let told = report.send(&caller);
    drop(caller);
    told
}

/// Lets go of what the caller gave for the standard descriptors.
fn leave_the_terminal(null: &OwnedFd) {
    let left = rustix::stdio::dup2_stdin(null).and_then(|()| rustix::stdio::dup2_stdout(null));
    // The container runs: it does not end for this.
    let _left = left.and_then(|()| rustix::stdio::dup2_stderr(null));
}
