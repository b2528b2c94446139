//! What a file of a tree looks like as an entry of a layer.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use archive::Entry;
use rustix::fs::{Mode, OFlags, Stat};

use crate::path::Inner;
use crate::xattr::{self, Object};

/// Describes a file that is no directory being listed but a name in one; `None` for a socket.
pub(crate) fn of(directory: BorrowedFd<'_>, name: &CStr, path: Inner, stat: &Stat) -> anyhow::Result<Option<Entry>> {
    let Some(mut entry) = Entry::of(directory, name, path, stat)? else { return Ok(None) };
    entry.xattrs = xattr::all(&Object::Named(directory, name))?;
    Ok(Some(entry))
}

/// Opens what a handle (`O_PATH`) stands for.
///
/// By procfs's link, which leads to the open file itself: the name that was looked at is not used again.
pub(crate) fn reopen(handle: &OwnedFd) -> anyhow::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}
