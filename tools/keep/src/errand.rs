//! A command of `spawn` that the keeper's loop does not wait for: it ends as any other child.
//!
//! A container decides how long `spawn exec` and `spawn kill` take: its processes may be stopped, and its cgroup
//! frozen. So none of them is waited for; each is one more child whose end the loop hears of.

use std::process::Stdio;

use anyhow::Result;
use rustix::process::{Pid, WaitStatus};
use stage::{Process, Stage};

use crate::output::Stream;
use crate::pipe::PipeEnd;

/// How much is kept of what a command has said: docker keeps so much of a probe's output.
const WORDS: usize = 4096;

/// A command that has begun.
pub(crate) struct Errand {
    pub(crate) pid: Pid,
    stage: String,
    /// Until all who have it have closed it.
    pub(crate) output: Option<PipeEnd>,
    /// What it has said at first.
    words: Vec<u8>,
}

impl Errand {
    /// Begins it.
    pub(crate) fn begin(stage: &Stage) -> Result<Self> {
        let begin = || {
            let (output, end) = PipeEnd::pipe(Stream::Stdout)?;
            let mut command = stage.command()?;
            command.stdin(Stdio::null()).stdout(end.try_clone()?).stderr(end);
            let pid = Process::start(command)?.pid();
            Ok(Self { pid, stage: stage.to_string(), output: Some(output), words: Vec::new() })
        };
        begin().map_err(|error: anyhow::Error| error.context(stage.to_string()))
    }

    /// Reads what it says, which nobody else does: it must not wait, nor fill anything.
    pub(crate) fn hear(&mut self) {
        // The pipe is read on when enough is known: else a probe that talks much would be stuck, and time out.
        let (Some(output), words) = (&mut self.output, &mut self.words) else { return };
        match output.read(&mut |_, bytes| words.extend(bytes.iter().take(WORDS - words.len()))) {
            Some(0) => self.output = None,
            Some(_) if self.words.len() < WORDS => self.hear(),
            _ => {}
        }
    }

    /// Returns what it has said.
    pub(crate) fn words(&mut self) -> String {
        self.hear();
        String::from_utf8_lossy(&self.words).into_owned()
    }

    /// Returns why it failed, if it has.
    pub(crate) fn failure(mut self, status: WaitStatus) -> Option<String> {
        let words = self.words();
        (status.exit_status() != Some(0)).then(|| format!("{}: {}", self.stage, words.trim_end()))
    }
}
