//! One run of the container, with its output and input in the keeper's hands.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process};

use crate::exit::Exit;
use crate::health::Watch;
use crate::output::Stream;

/// What is read at the end at most: others may hold the pipe, and write for ever.
const LAST_WORDS: usize = 1 << 20;
/// How long after it was killed it is killed again.
const AGAIN: Duration = Duration::from_secs(1);

/// A container that runs.
pub(crate) struct Container {
    pub(crate) pid: Pid,
    pub(crate) since: Instant,
    /// How it ends, as far as that is known.
    pub(crate) exit: Exit,
    pub(crate) outputs: Vec<Output>,
    /// What an attached client may write to.
    pub(crate) input: Option<OwnedFd>,
    pub(crate) health: Option<Watch>,
    /// When it is killed.
    pub(crate) deadline: Option<Instant>,
}

/// One end of a pipe or terminal.
pub(crate) struct Output {
    file: File,
    pub(crate) stream: Stream,
}

impl Container {
    /// Kills its first process, again and again until it has ended. That is a child of this process, so that its number
    /// is nobody else's.
    pub(crate) fn kill(&mut self) {
        self.deadline = Some(Instant::now() + AGAIN);
        let _ended = kill_process(self.pid, Signal::KILL);
    }

    /// Copies what has been said; ends that are closed are dropped.
    pub(crate) fn read(&mut self, ready: &[bool], take: &mut dyn FnMut(Stream, &[u8])) {
        let mut ready = ready.iter();
        self.outputs.retain_mut(|output| !ready.next().is_some_and(|ready| *ready) || output.read(take) != Some(0));
    }

    /// Copies the last words.
    pub(crate) fn drain(&mut self, take: &mut dyn FnMut(Stream, &[u8])) {
        self.outputs.iter_mut().for_each(|output| output.drain(take));
    }
}

impl Output {
    pub(crate) fn new(file: OwnedFd, stream: Stream) -> Self {
        Self { file: file.into(), stream }
    }

    /// Makes a pipe, and returns its writing end, too.
    pub(crate) fn pipe(stream: Stream) -> Result<(Self, OwnedFd)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).context("pipe")?;
        // Only the reading end: the container's program may not expect the other to be.
        rustix::io::ioctl_fionbio(&read, true).context("pipe")?;
        Ok((Self::new(read, stream), write))
    }

    /// Copies once: the number of bytes, 0 at the end, `None` if there is nothing now.
    pub(crate) fn read(&mut self, take: &mut dyn FnMut(Stream, &[u8])) -> Option<usize> {
        let mut buffer = [0; 16 << 10];
        match self.file.read(&mut buffer) {
            Ok(count) => {
                if count > 0 {
                    take(self.stream, &buffer[..count]);
                }
                Some(count)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => None,
            // A terminal whose last user has gone answers EIO.
            Err(_) => Some(0),
        }
    }

    pub(crate) fn drain(&mut self, take: &mut dyn FnMut(Stream, &[u8])) {
        let mut left = LAST_WORDS;
        while let Some(count @ 1..) = self.read(take) {
            left = left.saturating_sub(count);
            if left == 0 {
                return;
            }
        }
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
