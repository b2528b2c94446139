//! What the keeper tells its caller.

use std::io::Write;
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What it tells, once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// Who wants to see all of the container can join it now.
    Open,
    /// The container runs as this process.
    Running(i32),
    /// It does not; the reason is on stderr, and this is the exit code for it.
    Failed(u8),
}

impl Report {
    /// Sends it as a line, in one piece: half a line is none.
    pub(crate) fn send(&self, mut caller: &UnixStream) -> Result<()> {
        caller.write_all((serde_json::to_string(self)? + "\n").as_bytes()).context("report")
    }
}
