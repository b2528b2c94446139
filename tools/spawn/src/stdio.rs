//! The three standard descriptors that the caller passes on: whose they are, and that none of them is the host's null device.

use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::Context;
use rustix::fs::{FileType, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::file;
use crate::rootfs::new_mount;

/// Lets the container's user write to pipes and terminals that the caller passed on.
pub(crate) fn give(uid: u32) {
    for fd in all().into_iter().filter(|_| uid != 0) {
        if rustix::fs::fstat(fd).is_ok_and(|stat| !is_null(&stat) && stat.st_uid != uid) {
            // Sockets and files of others cannot be given away, and need not be.
            let _refused = rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None);
        }
    }
}

/// Puts a null device of the container's own in place of the host's: whoever has that open can change its mode and owner for
/// everybody (`fchmod(2)` on /proc/self/fd/0). The container's root was entered before.
pub(crate) fn leave_host_null() -> anyhow::Result<()> {
    let mut own = None;
    for (number, fd) in all().into_iter().enumerate() {
        if !rustix::fs::fstat(fd).is_ok_and(|stat| is_null(&stat)) {
            continue;
        }
        let null = match &own {
            Some(null) => null,
            None => match open_null() {
                // A user namespace makes none, nor do its ids own the host's. And where the host's own rules forbid the device to
                // the control group, it cannot be exchanged.
                Err(error) if error.downcast_ref() == Some(&Errno::PERM) => return Ok(()),
                null => own.insert(null.context("open a null device of the container's own")?),
            },
        };
        match number {
            0 => rustix::stdio::dup2_stdin(null),
            1 => rustix::stdio::dup2_stdout(null),
            _ => rustix::stdio::dup2_stderr(null),
        }?;
    }
    Ok(())
}

/// Opens the container's `/dev/null`, or where the container has put something else there, one that is made for it.
fn open_null() -> anyhow::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let null = file::open("/dev/null", flags & !OFlags::RDWR | OFlags::PATH)
        .and_then(|found| Ok((rustix::fs::fstat(&found)?, file::open("/dev/null", flags)?)));
    if let Ok((found, null)) = null {
        let opened = rustix::fs::fstat(&null)?;
        if is_null(&found) && is_null(&opened) {
            rustix::fs::fcntl_setfl(&null, OFlags::empty())?;
            return Ok(null);
        }
    }
    let memory = new_mount("tmpfs", &["nr_blocks=1", "nr_inodes=2"], 0).context("mount tmpfs")?;
    let umask = rustix::process::umask(Mode::empty());
    let made = rustix::fs::mknodat(
        &memory,
        "null",
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        rustix::fs::makedev(1, 3),
    );
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
