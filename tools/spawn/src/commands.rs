//! What each command does.

pub(crate) mod control;
pub(crate) mod describe;
pub(crate) mod events;
pub(crate) mod filter;
pub(crate) mod lifecycle;
pub(crate) mod process;
pub(crate) mod update;

use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

use anyhow::Context;

use crate::request::{Global, Rootless};

/// Writes on stdout; a reader that has gone is not a failure.
fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("write to stdout"),
        _ => Ok(()),
    }
}

/// Returns the directory of the containers' states.
pub(crate) fn state_root(global: &Global) -> PathBuf {
    let chosen = global.root.clone().filter(|root| !root.as_os_str().is_empty());
    let root = chosen.unwrap_or_else(|| cli::Roots::default().directories().states());
    std::path::absolute(&root).unwrap_or(root)
}

/// Tells whether to do without what an ordinary user may not.
pub(crate) fn is_rootless(global: &Global) -> bool {
    match global.rootless {
        Rootless::True => true,
        Rootless::False => false,
        Rootless::Auto => !rustix::process::geteuid().is_root() || in_user_namespace(),
    }
}

/// A namespace that maps all ids to themselves is the first one, or as good.
fn in_user_namespace() -> bool {
    // The first one's number is the same everywhere: `PROC_USER_INIT_INO`.
    if rustix::fs::stat("/proc/self/ns/user").is_ok_and(|first| first.st_ino == 0xefff_fffd) {
        return false;
    }
    let map = crate::file::read("/proc/self/uid_map").unwrap_or_default();
    map.split_ascii_whitespace().ne(["0", "0", "4294967295"])
}
