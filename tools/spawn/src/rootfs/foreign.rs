//! Bind mounts of what another process has in its root, as the `/dev/shm` of a container whose IPC namespace is shared.
//! The kernel clones mounts of the caller's mount namespace only, so a process goes there for it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use rustix::thread::ThreadNameSpaceType;
use sys::clone::{Cloned, How, clone, exit_now};
use sys::mount::clone_tree;

use crate::config::NamespaceKind;
use crate::{sync, userns};

/// Splits `/proc/PID/root/PATH` into the process and its path, where that is in another mount namespace.
pub(super) fn split(source: &Path) -> Option<(Pid, PathBuf)> {
    let mut parts = source.strip_prefix("/proc").ok()?.components();
    let number = parts.next()?.as_os_str().to_str()?;
    let pid = number.parse().ok().and_then(Pid::from_raw)?;
    let elsewhere = parts.next()?.as_os_str() == "root" && !userns::is_own(pid, NamespaceKind::Mount);
    elsewhere.then(|| (pid, Path::new("/").join(parts.as_path())))
}

/// Clones the tree that the process has at that path, detached.
pub(super) fn clone_of(pid: Pid, path: &Path, whole: bool) -> anyhow::Result<OwnedFd> {
    // open_tree(2) answers EINVAL for a mount of another mount namespace, although /proc/PID/root leads there.
    let process = userns::pidfd(pid)?;
    let (ours, theirs) = sync::pair()?;
    let child = match clone(How::default()).context("start a process")? {
        Cloned::Parent { pid, .. } => pid,
        Cloned::Child => {
            let send = || -> io::Result<()> {
                // setns(2) refuses a mount namespace to a process that shares its root and working directory with
                // another (CLONE_FS), as threads do; this one has just been cloned.
                sys::namespace::enter_process(process.as_fd(), ThreadNameSpaceType::MOUNT)?;
                let source = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
                Ok(sys::packet::send(&theirs, &[&[0]], Some(clone_tree(source.as_fd(), whole)?.as_fd()))?)
            };
            // The exit code is the error number: the child says nothing in words, because the log is the parent's.
            exit_now(send().map_or_else(|error| error.raw_os_error().unwrap_or(1), |()| 0))
        }
    };
    drop(theirs);
    let (_, tree) = sys::packet::receive(&ours, &mut [0])?;
    let status = waitid(WaitId::Pid(child), WaitIdOptions::EXITED).context("wait for the process")?;
    let code = status.and_then(|status| status.exit_status());
    // Without a code a signal has killed it.
    tree.ok_or_else(|| code.map_or_else(|| Errno::INTR.into(), io::Error::from_raw_os_error))
        .with_context(|| format!("clone {} of process {pid}", path.display()))
}
