//! Small files of the kernel's and of our own.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use rustix::fs::{Mode, OFlags};

/// Reads a file that one read gives whole: those of procfs and cgroups do, and have no size that could be asked for.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut buffer = [0; 4096];
    let count = file.read(&mut buffer)?;
    let mut text = String::from_utf8_lossy(&buffer[..count]).into_owned();
    if count == buffer.len() {
        file.read_to_string(&mut text)?;
    }
    Ok(text)
}

/// Reads a file to its end, without asking for its size first.
pub(crate) fn read_all(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(8192);
    File::open(path)?.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a file by the caller's path, close-on-exec.
pub(crate) fn open(path: impl AsRef<Path>, flags: OFlags) -> anyhow::Result<OwnedFd> {
    let path = path.as_ref();
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).with_context(|| format!("open {}", path.display()))
}

/// Leaves a descriptor to `execve` or to the end of the process, which close it together with all others. Not if it is
/// one of many, since a process may have a thousand only.
pub(crate) fn leave_open(descriptor: impl Into<OwnedFd>) {
    let descriptor = descriptor.into();
    if descriptor.as_raw_fd() < 256 {
        let _number = descriptor.into_raw_fd();
    }
}
