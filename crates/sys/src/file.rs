//! Small files of the kernel's and of our own, with the fewest calls, and descriptors that need no closing.

use std::fs::{DirBuilder, DirEntry, File, Metadata};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use rustix::fs::{FlockOperation, MemfdFlags, flock, memfd_create};
use rustix::io::Errno;

/// Reads a file that one read gives whole: those of procfs and cgroups do, and have no size that could be asked for.
pub fn read(path: impl AsRef<Path>) -> io::Result<String> {
    read_whole(&mut File::open(path)?)
}

/// Does so in a program that reads few of them, and need not close them.
pub fn read_once(path: impl AsRef<Path>) -> io::Result<String> {
    let mut file = File::open(path)?;
    let text = read_whole(&mut file)?;
    leave_open(file);
    Ok(text)
}

fn read_whole(file: &mut File) -> io::Result<String> {
    let mut buffer = [0; 4096];
    let count = file.read(&mut buffer)?;
    let mut text = String::from_utf8_lossy(&buffer[..count]).into_owned();
    // A short read is the whole file: procfs and cgroup files fill the buffer as long as there is more.
    if count == buffer.len() {
        file.read_to_string(&mut text)?;
    }
    Ok(text)
}

/// Reads a file to its end, without asking for its size first.
pub fn read_all(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(8192);
    File::open(path)?.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a file, if it is one: what else has its name, a FIFO above all, is not waited for.
///
/// `O_NONBLOCK` keeps a FIFO from waiting for its writer; for regular files it means nothing (open(2)).
/// # Errors
/// Those of open(2), and one that says that it is not a regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

/// Reads one to its end.
pub fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(8192);
    open_regular(path)?.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Tells whether an error says nothing of the file itself: no descriptor, no memory, a disk that cannot be read.
/// It must not be taken for the answer "it is not there": that has removed what lived.
pub fn says_nothing(error: &io::Error) -> bool {
    let nothing = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::IO, Errno::INTR, Errno::AGAIN];
    Errno::from_io_error(error).is_some_and(|errno| nothing.contains(&errno))
}

/// Returns what has been read or looked at; `None` where it is not there, or not what it should be.
pub fn known<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if says_nothing(&error) => Err(error),
        other => Ok(other.ok()),
    }
}

/// Returns what is in a directory, if it is there: all of it, or the error.
pub fn entries(directory: impl AsRef<Path>) -> io::Result<Vec<DirEntry>> {
    known(std::fs::read_dir(directory))?.into_iter().flatten().collect()
}

/// Returns what was asked for; `None` where nothing is there.
pub fn there<T, E: Into<io::Error>>(result: Result<T, E>) -> io::Result<Option<T>> {
    match result.map_err(Into::into) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Returns a file in memory with these bytes, to be read from its beginning: a program's standard input, say.
pub fn in_memory(name: &str, bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

/// Tells whether an open file is the one that is found at its path `now`: somebody may have removed or replaced it.
pub fn is_same(file: &File, now: io::Result<Metadata>) -> io::Result<bool> {
    let ours = file.metadata()?;
    Ok(there(now)?.is_some_and(|now| (now.dev(), now.ino()) == (ours.dev(), ours.ino())))
}

/// Tells whether something may have that name: an error is not that nothing has it.
pub fn may_be_there(path: &Path) -> bool {
    known(path.symlink_metadata()).map_or(true, |found| found.is_some())
}

/// Makes a directory that nobody else may look into, with those above it that are missing.
pub fn make_private(directory: impl AsRef<Path>) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Undoes the octal numbers that stand for blanks and backslashes in the kernel's lists of mounts: `proc_pid_mountinfo(5)`.
pub fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let number = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = number.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            plain.push(byte);
            rest = &after[3..];
        } else {
            plain.push(*first);
            rest = after;
        }
    }
    plain
}

/// Takes a lock on a file (`flock(2)`), however long that takes. Who waits for two seconds is `told` so.
///
/// flock(2) has no time limit, and a thread that speaks needs no signal to interrupt the wait.
pub fn lock(file: &File, operation: FlockOperation, told: impl FnOnce() + Send + 'static) -> rustix::io::Result<()> {
    let at_once = match operation {
        FlockOperation::LockShared => FlockOperation::NonBlockingLockShared,
        _ => FlockOperation::NonBlockingLockExclusive,
    };
    match flock(file, at_once) {
        Err(Errno::WOULDBLOCK) => {}
        done => return done,
    }
    let (done, waiting) = std::sync::mpsc::channel::<()>();
    let tell = move || {
        if waiting.recv_timeout(Duration::from_secs(2)) == Err(RecvTimeoutError::Timeout) {
            told();
        }
    };
    // Without a thread it is waited for without a word.
    let _silent = std::thread::Builder::new().spawn(tell);
    let locked = rustix::io::retry_on_intr(|| flock(file, operation));
    drop(done);
    locked
}

/// Leaves a descriptor to `execve` or to the end of the process, which close it together with all others. Not if it is
/// one of many, since a process may have a thousand only, or much less.
///
/// Closing costs a system call each; `spawn` has some fifty descriptors that are close-on-exec anyway.
pub fn leave_open(descriptor: impl Into<OwnedFd>) {
    static MANY: OnceLock<u64> = OnceLock::new();
    let descriptor = descriptor.into();
    let may_have = || rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let many = *MANY.get_or_init(|| (may_have() / 4).min(256));
    if u64::try_from(descriptor.as_raw_fd()).is_ok_and(|number| number < many) {
        let _number = descriptor.into_raw_fd();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_not_that_nothing_is_there() {
        for (errno, want) in [
            (Errno::NOENT, Some(None::<()>)),
            (Errno::NOTDIR, Some(None)),
            (Errno::LOOP, Some(None)),
            (Errno::ACCESS, Some(None)),
            (Errno::MFILE, None),
            (Errno::IO, None),
        ] {
            assert_eq!(known(Err(errno.into())).ok(), want, "{errno}");
        }
    }
}
