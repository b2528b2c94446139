//! Files by the caller's path.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::Context;
use rustix::fs::{Mode, OFlags};

pub(crate) use sys::file::{leave_open, read, read_all};

/// Opens a file by the caller's path, close-on-exec.
pub(crate) fn open(path: impl AsRef<Path>, flags: OFlags) -> anyhow::Result<OwnedFd> {
    let path = path.as_ref();
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).with_context(|| format!("open {}", path.display()))
}
