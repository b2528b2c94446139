//! The lock that whoever changes a network holds: looking and acting must be one thing, since nobody else may choose an
//! address, or remove the bridge, between the two. The roots of a machine share it, because they share the network.
//!
//! A lock in /run/drayage, not below a root: two roots of one machine choose addresses on the same bridges. The
//! file's time says when the lock was last taken, by which the sweep knows whether containers come and go.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::time::SystemTime;

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, Mode};

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
    let told = || log::warn!("wait for the lock of the networks, which another process holds");
    sys::file::lock(&file, FlockOperation::LockExclusive, told).context("lock the networks")?;
    Ok(file)
}

/// Opens a file to lock. Whoever else could open it could keep it locked.
pub(crate) fn lock_file(name: &str) -> Result<File> {
    let directory = container::machine();
    let path = directory.join(name);
    let open = || {
        sys::file::make_private(directory)?;
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
        if file.metadata()?.mode() & 0o077 != 0 {
            rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR)?;
        }
        std::io::Result::Ok(file)
    };
    open().with_context(|| format!("open {}", path.display()))
}
