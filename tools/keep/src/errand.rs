//! A command of `spawn` that the keeper's loop does not wait for: it ends as any other child.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::Stdio;

use anyhow::Result;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, WaitStatus};
use stage::{Process, Stage};

/// How much is read of what a command has said: docker keeps so much of a probe's output.
const WORDS: u64 = 4096;

/// A command that has begun.
pub(crate) struct Errand {
    pub(crate) pid: Pid,
    stage: String,
    /// What it says.
    words: File,
}

impl Errand {
    /// Begins it.
    pub(crate) fn begin(stage: &Stage) -> Result<Self> {
        let begin = || {
            let words = File::from(memfd_create("words", MemfdFlags::CLOEXEC)?);
            let mut command = stage.command()?;
            command.stdin(Stdio::null()).stdout(words.try_clone()?).stderr(words.try_clone()?);
            let pid = Process::start(command)?.pid();
            Ok(Self { pid, stage: stage.to_string(), words })
        };
        begin().map_err(|error: anyhow::Error| error.context(stage.to_string()))
    }

    /// Returns what it has said.
    pub(crate) fn words(&mut self) -> String {
        let mut bytes = Vec::new();
        // What cannot be read is not there.
        let _read = self.words.rewind().and_then(|()| (&self.words).take(WORDS).read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Returns why it failed, if it has.
    pub(crate) fn failure(mut self, status: WaitStatus) -> Option<String> {
        let failed = status.exit_status() != Some(0);
        let words = self.words();
        failed.then(|| format!("{}: {}", self.stage, words.trim_end()))
    }
}
