//! The lock that whoever changes a network holds: looking and acting must be one thing, since nobody else may choose an
//! address, or remove the bridge, between the two. The roots of a machine share it, because they share the network.

use std::fs::{self, File};
use std::time::SystemTime;

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

const NAME: &str = "network.lock";

/// Takes the lock, and notes when.
pub(crate) fn lock() -> Result<File> {
    let file = lock_quietly()?;
    // Only how long a bridge without a port stays depends on it.
    let _noted = file.set_modified(SystemTime::now());
    Ok(file)
}

/// Takes the lock.
pub(crate) fn lock_quietly() -> Result<File> {
    let file = lock_file(NAME)?;
    flock(&file, FlockOperation::LockExclusive).context("lock the networks")?;
    Ok(file)
}

/// Opens a file to lock.
pub(crate) fn lock_file(name: &str) -> Result<File> {
    let directory = container::machine();
    let path = directory.join(name);
    let open = || {
        fs::create_dir_all(directory)?;
        File::options().create(true).truncate(false).write(true).open(&path)
    };
    open().with_context(|| format!("open {}", path.display()))
}
