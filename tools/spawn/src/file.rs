//! Files by the caller's path, and what they are.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use rustix::fs::{FileType, Mode, OFlags};

pub(crate) use sys::file::{leave_open, read, read_all, unescape};

/// Opens a file by the caller's path, close-on-exec.
pub(crate) fn open(path: impl AsRef<Path>, flags: OFlags) -> anyhow::Result<OwnedFd> {
    let path = path.as_ref();
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).with_context(|| format!("open {}", path.display()))
}

/// Tells the type of an open file.
pub(crate) fn is_directory(file: impl AsFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode) == FileType::Directory)
}
