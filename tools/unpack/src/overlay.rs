//! How overlayfs reads a layer's directory: what it opens there, and what hides what is in the layers below.
//!
//! The rules are those of the kernel's Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
//! `redirect_dir` and `metacopy` are not used here, and refused where they are met.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, openat2};
use rustix::io::Errno;

use crate::form::Form;
use crate::xattr;

/// Nothing that a single component could be leads elsewhere.
///
/// A layer's content is hostile. It was resolved once when it was written; the same flags hold when it is read again.
pub(crate) const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Opens a directory of a layer, by a path in it that no link is followed on.
pub(crate) fn open_below(root: impl AsFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = if path.is_empty() { b"." } else { path };
    openat2(root, path, flags, Mode::empty(), RESOLVE)
}

/// Tells whether a file is overlayfs's mark of a removed one.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Tells whether a layer's directory or one on the way to it is opaque.
///
/// An opaque directory above hides the path as well: overlayfs does not look into lower layers from there on.
pub(crate) fn hides(root: impl AsFd, path: &[u8], form: Form) -> rustix::io::Result<bool> {
    let mut directory = open_below(root, b"")?;
    let mut names = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty());
    loop {
        if xattr::is_opaque(&directory, form)? {
            return Ok(true);
        }
        let Some(name) = names.next() else { return Ok(false) };
        let Some(child) = absent_or(open_below(&directory, name))? else { return Ok(false) };
        directory = child;
    }
}

/// Tells a directory that is not there from one that cannot be looked at.
pub(crate) fn absent_or(opened: rustix::io::Result<OwnedFd>) -> rustix::io::Result<Option<OwnedFd>> {
    match opened {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno),
    }
}
