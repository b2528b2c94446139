//! What a file of a tree looks like as an entry of a layer.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat, major, minor, readlinkat};

use crate::path::Inner;
use crate::tar::{Entry, Kind, Time};
use crate::xattr::{self, Object};

/// Describes a file that is no directory being listed but a name in one; `None` for a socket, which no archive can hold
/// and nobody would listen on.
pub(crate) fn of(directory: BorrowedFd<'_>, name: &CStr, path: Inner, stat: &Stat) -> anyhow::Result<Option<Entry>> {
    let Some(kind) = kind(stat) else { return Ok(None) };
    let link = match kind {
        Kind::Symlink => readlinkat(directory, name, Vec::new())?.into_bytes(),
        _ => Vec::new(),
    };
    let xattrs = xattr::all(&Object::Named(directory, name))?;
    let device = if kind.is_device() { (major(stat.st_rdev), minor(stat.st_rdev)) } else { (0, 0) };
    Ok(Some(Entry {
        path,
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        atime: None,
        link,
        size: if kind == Kind::Regular { u64::try_from(stat.st_size).unwrap_or_default() } else { 0 },
        sparse: None,
        device,
        xattrs,
    }))
}

/// Returns a file's type, unless it is a socket.
pub(crate) fn kind(stat: &Stat) -> Option<Kind> {
    Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::Regular,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::CharacterDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Fifo => Kind::Fifo,
        _ => return None,
    })
}

pub(crate) fn time(seconds: i64, nanoseconds: u64) -> Time {
    Time { seconds, nanoseconds: u32::try_from(nanoseconds).unwrap_or_default() }
}

/// Opens what a handle (`O_PATH`) stands for.
pub(crate) fn reopen(handle: &OwnedFd) -> anyhow::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}
