//! A container that is left running: `keep` starts it, and takes over: it undoes the stages.
//!
//! `keep` gets the claim's descriptor, and with it the lock. Its keeper writes itself down as its holder. Which of both
//! undoes the stages, if `keep` or its keeper is killed in between, is asked of the claim, never concluded from an exit
//! status.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Stdio;

use anyhow::{Context, Result};
use rustix::io::FdFlags;
use rustix::process::Signal;
use stage::{Claim, Process, ProcessEnd};
use sys::signal::SignalFd;

use crate::foreground;
use crate::plan::RunPlan;
use crate::request::RunRequest;

/// How the hand-over went.
pub(crate) enum HandedOver {
    /// The container's keeper holds the claim, or held it. This is the exit code of who was attached.
    Kept(u8),
    /// `keep` was killed: its keeper, which holds the claim, does what is to be done.
    Killed(u8),
    /// There is no container, and the claim is ours still.
    Failed(u8),
}

/// Starts `keep` with the stages' record and the claim on the container's name, and stays with it where that is attached.
pub(crate) fn hand_over(
    plan: &RunPlan,
    options: &RunRequest,
    record: &File,
    (claim, signals): (&Claim, &SignalFd),
) -> Result<HandedOver> {
    let keep = &plan.keep;
    let mut command = keep.command()?;
    // By its number: no stage before had it.
    // Only now: a stage that inherited it could outlive this process and keep the name taken.
    rustix::io::fcntl_setfd(&claim.file, FdFlags::empty()).context("the claim")?;
    command.arg("--claim-fd").arg(claim.file.as_raw_fd().to_string());
    if options.is_attached() {
        // Standard input is the container's.
        rustix::io::fcntl_setfd(record, FdFlags::empty()).context("the record")?;
        command.arg(format!("/dev/fd/{}", record.as_raw_fd()));
        foreground::hide(&mut command, options);
    } else {
        command.stdin(record.try_clone()?).stdout(Stdio::null());
    }
    sys::child::die_with_parent(&mut command, Signal::KILL);
    log::debug!("start {keep}");
    let _span = trace::span("hand over", keep);
    let process = Process::start(command)?;
    let proxy = !options.is_attached() || options.sig_proxy;
    let status = foreground::wait(&process, (signals, proxy), None)?;
    let code = status.code();
    // A keeper that is done has given the name back.
    let kept = options.is_attached() && claim.is_in_other_hands();
    match status {
        ProcessEnd::Exited(0) => Ok(HandedOver::Kept(0)),
        ProcessEnd::Exited(_) if kept => Ok(HandedOver::Kept(code)),
        // `keep` may have been killed before its keeper took over; then the keeper, which asks the same question
        // under the same lock, finds that it is being undone, and ends.
        ProcessEnd::Killed(_) if kept || !claim.end_if_abandoned()? => Ok(HandedOver::Killed(code)),
        _ => Ok(HandedOver::Failed(code)),
    }
}
