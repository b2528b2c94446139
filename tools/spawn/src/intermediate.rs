//! A child by way of an intermediate process. Who is privileged inside a user namespace only may not turn to its pid
//! namespace and come back, so somebody goes there, leaves a process, and ends.
//!
//! The child is nevertheless a child of this process, not of the intermediate one (`CLONE_PARENT`), so that this
//! process can wait for it, and its death signal is bound to it. Its pid arrives as a number in the sender's pid
//! namespace: the intermediate process turned only its children to the new one, so its own numbering is still ours.

use std::os::fd::AsFd;

use anyhow::{Context, bail};
use rustix::process::{WaitId, WaitIdOptions};
use sys::clone::{Cloned, How, exit_now};

use crate::sync::{self, Message};

/// As [`sys::clone::clone`], but the child is made by a process that has done `join`.
pub(crate) fn clone(how: How<'_>, join: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Cloned> {
    let (ours, theirs) = sync::pair().context("make a socket pair")?;
    let intermediate = match sys::clone::clone(How::default()).context("clone an intermediate process")? {
        Cloned::Parent { pid, .. } => pid,
        Cloned::Child => {
            let news = match join().and_then(|()| Ok(sys::clone::clone(How { sibling: true, ..how })?)) {
                Ok(Cloned::Child) => return Ok(Cloned::Child),
                Ok(Cloned::Parent { pid, pidfd }) => Message::Born(pid, pidfd),
                Err(error) => Message::Failed(125, error),
            };
            exit_now(i32::from(sync::send(theirs.as_fd(), &news).is_err()));
        }
    };
    drop(theirs);
    let news = sync::receive(ours.as_fd());
    // Reaped before the news are read, so that no path below leaves a zombie.
    rustix::process::waitid(WaitId::Pid(intermediate), WaitIdOptions::EXITED)
        .context("wait for the intermediate process")?;
    match news? {
        Message::Born(pid, pidfd) => Ok(Cloned::Parent { pid, pidfd }),
        Message::Failed(_, error) => Err(error),
        _ => bail!("the intermediate process is gone"),
    }
}
