//! One entry of a layer made a file: its content, then owner, mode, attributes and times, in that order, because a new
//! owner takes setuid bits and capabilities away.

use std::ffi::CStr;
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, ensure};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Uid, chmodat, chownat, copy_file_range, fchmod, fchown, ftruncate,
    futimens, makedev, mknodat, openat, seek, symlinkat, utimensat,
};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use crate::interrupt;
use crate::path::c_string;
use crate::xattr::{self, Object};
use archive::{Archive, Entry, Segment};

/// Where an entry goes: a new name in an open directory.
pub(crate) struct NodeName<'a> {
    pub(crate) directory: BorrowedFd<'a>,
    pub(crate) name: &'a CStr,
    /// The directory gives new entries a group or an access control list.
    pub(crate) inherits: bool,
}

/// Makes a regular file and writes its data. `EEXIST` comes before any data is taken.
pub(crate) fn file(place: &NodeName<'_>, entry: &Entry, archive: &mut Archive<impl BufRead>) -> anyhow::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = {
        let _pass = interrupt::pass();
        openat(place.directory, place.name, flags, Mode::from_raw_mode(entry.mode & 0o777))?
    };
    // Each write asks for leave: a signal that ends the program stops it between two writes and never within a change
    // of names.
    archive.extract(entry, fd.as_fd(), || Ok(interrupt::pass())).context("write")?;
    describe(fd.as_fd(), entry, place.inherits)
}

/// Makes a regular file with the content of another one, and its holes.
pub(crate) fn copy(place: &NodeName<'_>, entry: &Entry, from: &OwnedFd) -> anyhow::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(place.directory, place.name, flags, Mode::from_raw_mode(entry.mode & 0o777))?;
    for Segment { mut offset, length } in archive::segments(from, entry.size)? {
        let end = offset + length;
        seek(&fd, SeekFrom::Start(offset))?;
        while offset < end {
            let most = usize::try_from(end - offset).unwrap_or(usize::MAX).min(1 << 30);
            // The kernel copies, or shares the blocks where the file system can (copy_file_range(2)).
            let count = copy_file_range(from, Some(&mut offset), &fd, None, most).context("copy")?;
            ensure!(count > 0, "copy: the file has shrunk");
        }
    }
    // A hole at the end has no segment.
    ftruncate(&fd, entry.size)?;
    describe(fd.as_fd(), entry, place.inherits)
}

/// Sets owner, mode, attributes and times of an open file that has been made with its permission bits.
fn describe(fd: BorrowedFd<'_>, entry: &Entry, inherits: bool) -> anyhow::Result<()> {
    if inherits {
        xattr::remove_inherited_acls(fd)?;
    }
    let foreign = entry.uid != geteuid().as_raw() || entry.gid != getegid().as_raw();
    // chown(2) is the dearest of these calls; most entries belong to root, who we are.
    if foreign || inherits {
        fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid))).map_err(|e| unmapped(e, entry))?;
    }
    // open(2) has set the permission bits, the umask being 0; only the upper three are left, which a chown would have
    // cleared.
    if inherits || entry.mode & 0o7000 != 0 {
        fchmod(fd, Mode::from_raw_mode(entry.mode)).context("set mode")?;
    }
    xattr::set_all(&Object::Open(fd), &entry.xattrs)?;
    futimens(fd, &entry.times()).context("set times")
}

/// Sets all that a directory's entry says but its times, whatever the directory had before.
pub(crate) fn describe_directory(fd: BorrowedFd<'_>, entry: &Entry) -> anyhow::Result<()> {
    fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid))).map_err(|e| unmapped(e, entry))?;
    fchmod(fd, Mode::from_raw_mode(entry.mode)).context("set mode")?;
    xattr::set_all(&Object::Open(fd), &entry.xattrs)
}

/// The kernel's "Invalid argument" for a chown means only one thing.
fn unmapped(errno: Errno, entry: &Entry) -> anyhow::Error {
    let (uid, gid) = (entry.uid, entry.gid);
    match errno {
        Errno::INVAL => anyhow::anyhow!(
            "owner {uid}:{gid} is not mapped in this user namespace: more ids come from /etc/subuid and newuidmap (package uidmap)"
        ),
        errno => anyhow::Error::from(errno).context(format!("set owner {uid}:{gid}")),
    }
}

/// Makes a symbolic link, a device or a FIFO.
pub(crate) fn special(place: &NodeName<'_>, entry: &Entry) -> anyhow::Result<()> {
    let kind = entry.kind.node().unwrap_or(FileType::Symlink);
    if kind == FileType::Symlink {
        ensure!(!entry.link.is_empty(), "symbolic link without a target");
        symlinkat(c_string(&entry.link)?, place.directory, place.name)?;
    } else {
        let (major, minor) = entry.device;
        match mknodat(place.directory, place.name, kind, Mode::from_raw_mode(entry.mode), makedev(major, minor)) {
            // In a user namespace nobody may make a device; podman leaves them out too, as runtimes make /dev anew.
            Err(Errno::PERM) => {
                log::warn!("no permission to make device {}: left out", archive::Name(&entry.path));
                return Ok(());
            }
            made => made?,
        }
    }
    let (uid, gid) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
    chownat(place.directory, place.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| unmapped(errno, entry))?;
    // Nobody but us writes here: the name is still the device or FIFO of two lines ago, not a link that chmod follows.
    if kind != FileType::Symlink && (place.inherits || entry.mode & 0o7000 != 0) {
        chmodat(place.directory, place.name, Mode::from_raw_mode(entry.mode), AtFlags::empty()).context("set mode")?;
    }
    xattr::set_all(&Object::Named(place.directory, place.name), &entry.xattrs)?;
    utimensat(place.directory, place.name, &entry.times(), AtFlags::SYMLINK_NOFOLLOW).context("set times")
}
