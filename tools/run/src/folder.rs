//! `--keep`: a folder with all that a run makes. It is the run's own root, so image, layers and bundle are there; beside
//! them are the record of each stage, the script that does the same, and a trace.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use output::Output;
use rustix::pipe::{PipeFlags, pipe_with};
use stage::Tool;

/// The trace's name in the folder.
pub(crate) const TRACE: &str = "trace.json";

/// Returns where the record of stage `number` is.
pub(crate) fn record(folder: &Path, number: usize, tool: Tool) -> PathBuf {
    folder.join(format!("{}-{}.json", number + 1, tool.name()))
}

/// A folder that is there.
#[derive(Debug)]
pub(crate) struct Folder<'a>(&'a Path);

impl<'a> Folder<'a> {
    /// Makes the folder, with the script in it.
    pub(crate) fn create(path: &'a Path, script: &str) -> Result<Self> {
        let script_path = path.join("run.sh");
        let create = || fs::create_dir_all(path).and_then(|()| output::write(&script_path, script.as_bytes()));
        create().with_context(|| format!("write {}", script_path.display()))?;
        Ok(Self(path))
    }

    /// Prepares to copy what stage `number` prints on its way to the next.
    pub(crate) fn copy(&self, number: usize, tool: Tool) -> Result<(Copy, Stdio, Stdio)> {
        let path = record(self.0, number, tool);
        let file = Output::create(&path).with_context(|| format!("write {}", path.display()))?;
        let (output, stage) = pipe_with(PipeFlags::CLOEXEC).context("pipe")?;
        let (input, next) = pipe_with(PipeFlags::CLOEXEC).context("pipe")?;
        Ok((Copy { from: output.into(), file, to: next.into() }, stage.into(), input.into()))
    }

    /// Writes down what the last stage has printed.
    pub(crate) fn write(&self, number: usize, tool: Tool, printed: &mut File) -> Result<()> {
        let path = record(self.0, number, tool);
        printed.rewind()?;
        let mut copy = || {
            let mut file = Output::create(&path)?;
            io::copy(printed, &mut file)?;
            file.commit()
        };
        copy().with_context(|| format!("write {}", path.display()))?;
        Ok(())
    }
}

/// What stands between two stages: tee(1).
#[derive(Debug)]
pub(crate) struct Copy {
    from: File,
    file: Output,
    to: File,
}

impl Copy {
    /// Copies what there is; false at the end, of the one stage or the other.
    pub(crate) fn turn(&mut self) -> Result<bool> {
        let mut buffer = [0; 1 << 12];
        let count = self.from.read(&mut buffer).context("read a record")?;
        self.file.write_all(&buffer[..count]).context("write a record")?;
        let goes_on = match self.to.write_all(&buffer[..count]) {
            // Why the next stage has gone is its own to say.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => false,
            written => written.context("write a record").map(|()| count > 0)?,
        };
        if !goes_on {
            self.file.commit().context("write a record")?;
        }
        Ok(goes_on)
    }
}

impl AsFd for Copy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.from.as_fd()
    }
}
