//! The three standard descriptors that the caller passes on: whose they are, and that none of them is the host's null device.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use crate::file;
use crate::rootfs::new_mount;

/// Lets the container's user write to pipes and terminals that the caller passed on.
pub(crate) fn give(uid: u32) {
    for fd in all().into_iter().filter(|_| uid != 0) {
        if rustix::fs::fstat(fd).is_ok_and(|stat| !is_null(&stat) && stat.st_uid != uid) {
            // Sockets and files of others cannot be given away, and need not be.
            // As runc does: /dev/stdout is opened anew by many images (nginx logs there), which checks the owner of
            // the pipe.
            let _refused = rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None);
        }
    }
}

/// Puts a null device of the container's own, which may be open already, in place of the host's: whoever has that open can
/// change its mode and owner for everybody (`fchmod(2)` on /proc/self/fd/0). The container's root was entered before.
pub(crate) fn leave_host_null(own: Option<OwnedFd>) -> anyhow::Result<()> {
    let [stdin, stdout, stderr] = all().map(|fd| rustix::fs::fstat(fd).is_ok_and(|stat| is_null(&stat)));
    if !(stdin || stdout || stderr) {
        own.into_iter().for_each(file::leave_open);
        return Ok(());
    }
    let open = || open_null(file::open("/", OFlags::PATH)?.as_fd()).map_or_else(make_null, Ok);
    let null = match own.map_or_else(open, Ok) {
        // A user namespace makes none, nor do its ids own the host's. And where the host's own rules forbid the device to
        // the control group, it cannot be exchanged.
        Err(error) if error.downcast_ref() == Some(&Errno::PERM) => return Ok(()),
        null => null.context("open a null device of the container's own")?,
    };
    // Opened without blocking, so that a pipe in its place could not hang us; the program expects descriptors that
    // block.
    rustix::fs::fcntl_setfl(&null, OFlags::empty())?;
    if stdin {
        rustix::stdio::dup2_stdin(&null)?;
    }
    if stdout {
        rustix::stdio::dup2_stdout(&null)?;
    }
    if stderr {
        rustix::stdio::dup2_stderr(&null)?;
    }
    file::leave_open(null);
    Ok(())
}

/// Opens the container's `/dev/null`, if it is one. What it is instead, opens without harm: a device that the control group
/// allows, a pipe that nobody waits at.
pub(crate) fn open_null(root: BorrowedFd<'_>) -> Option<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let null = root::open_with(root, Path::new("/dev/null"), flags, ResolveFlags::NO_SYMLINKS).ok();
    null.filter(|null| rustix::fs::fstat(null).is_ok_and(|stat| is_null(&stat)))
}

/// Makes a null device for a container that has put something else there.
fn make_null() -> anyhow::Result<OwnedFd> {
    // One inode for the root, one for the node; the mount is attached nowhere and goes with the last descriptor.
    let memory = new_mount("tmpfs", &["nr_blocks=1", "nr_inodes=2"], 0).context("mount tmpfs")?;
    let umask = rustix::process::umask(Mode::empty());
    let (kind, number) = (FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    let made = rustix::fs::mknodat(&memory, "null", kind, Mode::from_raw_mode(0o666), number);
    rustix::process::umask(umask);
    made.context("make /null in it")?;
    rustix::fs::openat(&memory, "null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).context("open /null in it")
}

/// Tells whether a file is a null device.
pub(crate) fn is_null(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(1, 3)
}

fn all() -> [BorrowedFd<'static>; 3] {
    [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
}
