//! What a program says, as it comes from a pipe or its terminal.
//!
//! Reads never block, and are as large as a pipe's usual writes; what a container says faster than it is written to
//! the log stops the container, as a full pipe does everywhere.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::output::Stream;

/// What is read at the end at most: others may hold the pipe, and write for ever.
const LAST_WORDS: usize = 1 << 20;

/// One end of a pipe or terminal.
pub(crate) struct PipeEnd {
    file: File,
    pub(crate) stream: Stream,
}

impl PipeEnd {
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

impl AsFd for PipeEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
