//! Files: a Landlock ruleset that allows what the tool's task is about.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;
use sys::confinement::{Handled, Ruleset};

// linux/landlock.h.
const EXECUTE: u64 = 1 << 0;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIRECTORY: u64 = 1 << 3;
/// To remove and to make files of all kinds.
const CHANGE_DIRECTORY: u64 = 0x1ff0;
/// To link and rename between directories.
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const ABSTRACT_SOCKETS: u64 = 1 << 0;
const SIGNALS: u64 = 1 << 1;

/// What can be done to a file that is no directory.
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE;
const READS: u64 = READ_FILE | READ_DIRECTORY;

/// What was given up.
pub(crate) enum GivenUp {
    /// The kernel has no Landlock, or one that refuses to rename between directories.
    Nothing,
    /// To write elsewhere, and whether to read elsewhere.
    Elsewhere { reads: bool },
}

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "no files: this kernel has no Landlock for it",
            Self::Elsewhere { reads: false } => "files to write but its own",
            Self::Elsewhere { reads: true } => "files but its own",
        })
    }
}

pub(crate) fn restrict(writes: &[&Path], reads: Option<&[&Path]>) -> Result<GivenUp> {
    let version = Ruleset::version();
    if version < 2 {
        return Ok(GivenUp::Nothing);
    }
    let mut writing = WRITE_FILE | CHANGE_DIRECTORY | REFER;
    if version >= 3 {
        writing |= TRUNCATE;
    }
    let reading = if reads.is_some() { READS } else { 0 };
    let scopes = if version >= 6 { ABSTRACT_SOCKETS | SIGNALS } else { 0 };
    let handled = Handled { files: writing | reading | EXECUTE, ports: 0, scopes };
    let ruleset = Ruleset::new(&handled).context("make a ruleset")?;
    let readable = reads.unwrap_or_default().iter().map(|path| (path, reading));
    for (path, rights) in writes.iter().map(|path| (path, writing | reading)).chain(readable) {
        allow(&ruleset, path, rights).with_context(|| path.display().to_string())?;
    }
    ruleset.restrict()?;
    Ok(GivenUp::Elsewhere { reads: reads.is_some() })
}

/// Allows a path. What is not there is not missed: whoever needs it says so.
fn allow(ruleset: &Ruleset, path: &Path, rights: u64) -> Result<()> {
    let opened: OwnedFd = match open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => return Ok(()),
        opened => opened?,
    };
    let is_directory = FileType::from_raw_mode(fstat(&opened)?.st_mode) == FileType::Directory;
    let rights = if is_directory { rights } else { rights & OF_FILES };
    if rights == 0 {
        return Ok(());
    }
    Ok(ruleset.allow(opened.as_fd(), rights)?)
}
