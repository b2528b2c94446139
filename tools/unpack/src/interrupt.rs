//! Ctrl-C and SIGTERM: what is half extracted goes, and the exit code says which signal it was.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;
use sys::signal::SignalFd;

use crate::form::list_path;
use crate::lock;

/// Whoever writes has it shared; the end of the program takes it for good.
static GATE: RwLock<()> = RwLock::new(());

/// What is to be removed at the end, however it comes.
static TEMPORARIES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Lets its holder write to a temporary tree; nobody removes the tree meanwhile.
pub(crate) fn pass() -> RwLockReadGuard<'static, ()> {
    GATE.read().unwrap_or_else(PoisonError::into_inner)
}

/// A directory that is removed when this is dropped or the program interrupted, unless it was kept.
pub(crate) struct Temporary(PathBuf);

impl Temporary {
    /// Takes charge of a directory that is about to be made.
    pub(crate) fn new(path: PathBuf) -> Self {
        // Before the directory is there: one that was made and not listed would stay.
        TEMPORARIES.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves the directory to its new name.
    pub(crate) fn keep(self) {
        self.forget();
        std::mem::forget(self);
    }

    fn forget(&self) {
        TEMPORARIES.lock().unwrap_or_else(PoisonError::into_inner).retain(|path| *path != self.0);
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Removed first, forgotten then: an interruption between the two removes what is not there, which does no
        // harm.
        remove_all(&self.0);
        self.forget();
    }
}

/// Removes a temporary directory and the list beside it.
fn remove_all(path: &Path) {
    remove_tree(path);
    remove_tree(&list_path(path));
}

/// Removes a tree; what cannot be removed is left to the next run, which sweeps.
pub(crate) fn remove_tree(path: &Path) {
    if let Err(error) = root::remove_tree(path) {
        log::debug!("remove {}: {error:#}", path.display());
    }
}

/// Starts the thread that waits for the signals. Before any other thread, since all inherit the mask.
pub(crate) fn watch() -> anyhow::Result<()> {
    let signals = SignalFd::block(&[Signal::INT, Signal::TERM, Signal::HUP]).context("block signals")?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            loop {
                // An error of poll or read is a signal of another sort: look again.
                let _events = poll(&mut [PollFd::new(&signals, PollFlags::IN)], None);
                if let Ok(Some(received)) = signals.read() {
                    end(received.signal);
                }
            }
        })
        .context("start a thread")?;
    Ok(())
}

/// Removes all that is half done and stops whoever is at it, for good: the program ends with an error.
pub(crate) fn abandon() {
    let gate = GATE.write().unwrap_or_else(PoisonError::into_inner);
    // Never opened again: the threads are still there until the process ends.
    std::mem::forget(gate);
    let temporaries = std::mem::take(&mut *TEMPORARIES.lock().unwrap_or_else(PoisonError::into_inner));
    for path in &temporaries {
        remove_all(path);
    }
    lock::abandon();
}

#[expect(clippy::exit, reason = "the other threads are in the middle of their work and have nothing to say any more")]
fn end(signal: u32) -> ! {
    abandon();
    std::process::exit(128 + i32::try_from(signal).unwrap_or_default())
}
