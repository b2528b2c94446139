//! Lock files: who holds one is alive, and what belongs to one that nobody holds is left over.
//!
//! A lock's file is removed by its holder, under the lock. So whoever gets the lock must look whether the file that
//! it has locked is still the one of that name (`Lock::take`): else two runs would hold two files, each believing to
//! be alone.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// A lock file that this process holds; it goes with the lock.
#[derive(Debug)]
pub(crate) struct StoreLock {
    path: PathBuf,
    _file: File,
}

impl StoreLock {
    /// Waits for the lock.
    pub(crate) fn wait(path: &Path) -> io::Result<Self> {
        loop {
            if let Some(lock) = Self::take(path, FlockOperation::LockExclusive)? {
                return Ok(lock);
            }
        }
    }

    /// Takes the lock if nobody has it.
    pub(crate) fn try_take(path: &Path) -> io::Result<Option<Self>> {
        match Self::take(path, FlockOperation::NonBlockingLockExclusive) {
            Err(error) if error.raw_os_error() == Some(Errno::AGAIN.raw_os_error()) => Ok(None),
            done => done,
        }
    }

    fn take(path: &Path, operation: FlockOperation) -> io::Result<Option<Self>> {
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        rustix::io::retry_on_intr(|| flock(&file, operation))?;
        // Who held it before has removed the file: another one there, or none, is the lock now.
        if !sys::file::is_same(&file, path.metadata())? {
            return Ok(None);
        }
        held().push(path.to_owned());
        Ok(Some(Self { path: path.to_owned(), _file: file }))
    }
}

impl Drop for StoreLock {
    fn drop(&mut self) {
        let mut held = held();
        if let Some(place) = held.iter().position(|path| *path == self.path) {
            held.swap_remove(place);
            // Left behind it would only be swept by the next run.
            let _kept = fs::remove_file(&self.path);
        }
    }
}

/// Removes the files of all locks that this process holds, which ends.
pub(crate) fn abandon() {
    for path in held().drain(..) {
        // As above.
        let _kept = fs::remove_file(path);
    }
}

/// The files of the locks that this process holds. A file is removed while it is in the list, and once.
fn held() -> MutexGuard<'static, Vec<PathBuf>> {
    static HELD: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_taken_once_and_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.lock");
        let lock = StoreLock::wait(&path).unwrap();
        assert!(StoreLock::try_take(&path).unwrap().is_none());
        drop(lock);
        assert!(!path.exists());
        assert!(StoreLock::try_take(&path).unwrap().is_some());
    }
}
