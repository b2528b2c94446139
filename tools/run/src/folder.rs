//! `--keep`: a folder with all that a run makes. It is the run's own root, so image, layers and bundle are there; beside
//! them are the record of each stage, the script that does the same, and a trace.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Stdio};

use anyhow::{Context, Result};
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
        let create = || fs::create_dir_all(path).and_then(|()| fs::write(&script_path, script));
        create().with_context(|| format!("write {}", script_path.display()))?;
        Ok(Self(path))
    }

    /// Copies what stage `number` prints on its way to the next: tee(1).
    pub(crate) fn copy(&self, number: usize, tool: Tool, mut output: ChildStdout) -> Result<Stdio> {
        let path = record(self.0, number, tool);
        let mut file = File::create(&path).with_context(|| format!("write {}", path.display()))?;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).context("pipe")?;
        let copy = move || -> io::Result<()> {
            let mut next = File::from(write);
            let mut buffer = vec![0; 1 << 16];
            loop {
                match output.read(&mut buffer)? {
                    0 => return Ok(()),
                    count => file.write_all(&buffer[..count]).and_then(|()| next.write_all(&buffer[..count]))?,
                }
            }
        };
        // It ends with either of the two stages: who misses something says so.
        std::thread::Builder::new().name("record".to_owned()).spawn(copy).context("start a thread")?;
        Ok(read.into())
    }

    /// Writes down what the last stage has printed.
    pub(crate) fn write(&self, number: usize, tool: Tool, printed: &mut File) -> Result<()> {
        let path = record(self.0, number, tool);
        printed.rewind()?;
        let mut copy = || io::copy(printed, &mut File::create(&path)?);
        copy().with_context(|| format!("write {}", path.display()))?;
        Ok(())
    }
}
