//! A container that is left running: `keep` starts it, and takes the duty of undoing the stages over.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Stdio;

use anyhow::{Context, Result};
use rustix::io::FdFlags;
use rustix::process::Signal;
use stage::{Claim, Process, Stage, Status};
use sys::signal::SignalFd;

use crate::foreground;

/// How the hand-over went.
pub(crate) enum HandedOver {
    /// The container runs; its keeper has the duty.
    Kept,
    /// `keep` was killed: its keeper, which has the duty, does what is to be done.
    Killed(u8),
    /// There is no container, and the duty is ours still.
    Failed(u8),
}

/// Starts `keep` with the stages' record and the claim on the container's name.
pub(crate) fn hand_over(keep: &Stage, record: File, claim: &Claim, signals: &SignalFd) -> Result<HandedOver> {
    let mut command = keep.command()?;
    // By its number: no stage before had it.
    rustix::io::fcntl_setfd(claim.file(), FdFlags::empty()).context("the claim")?;
    command.arg("--claim-fd").arg(claim.file().as_raw_fd().to_string());
    command.stdin(record).stdout(Stdio::null());
    sys::child::die_with_parent(&mut command, Signal::KILL);
    log::debug!("start {keep}");
    let _span = trace::span("hand over", keep);
    let process = Process::start(command)?;
    let status = foreground::wait(&process, &foreground::Manner { signals, proxy: true, limit: None })?;
    let code = foreground::code(status);
    match status {
        Status::Exited(0) => Ok(HandedOver::Kept),
        Status::Killed(_) if !claim.falls_to_us()? => Ok(HandedOver::Killed(code)),
        _ => Ok(HandedOver::Failed(code)),
    }
}
