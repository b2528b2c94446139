//! How a container has ended: `exit.json` in its bundle, written by whoever has waited for it: `keep`, `spawn`, `run`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// One end of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// As a shell has it: 128+n for signal n.
    #[serde(rename = "exitCode")]
    pub code: u8,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Whether the kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// When it was started.
    pub started_at: String,
    /// When it ended.
    pub finished_at: String,
    /// How often it had been started again before.
    pub restart_count: u32,
}

impl Exit {
    /// The file's name in the bundle.
    pub const FILE: &'static str = "exit.json";

    /// Reads how a container has ended; `None` if it never did.
    ///
    /// A file that is damaged is none, so that a list shows the container all the same.
    pub fn of(bundle: &Path) -> io::Result<Option<Self>> {
        let text = sys::file::known(sys::file::read_regular(&bundle.join(Self::FILE)))?;
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    /// Tells whether it is that of a start that failed.
    pub fn never_ran(&self) -> bool {
        !self.started_at.is_empty() && self.started_at == self.finished_at
    }
}

/// Writes a file of a bundle as JSON, whole or not at all.
///
/// There is no fsync: a power cut ends the container as well, and whoever reads finds no file, or the one before.
/// # Errors
/// Those of the file system; the old file is still there then.
pub fn write_json<T: Serialize>(bundle: &Path, name: &str, value: &T) -> io::Result<()> {
    let temporary = bundle.join(format!(".{name}"));
    let text = serde_json::to_string(value)? + "\n";
    // Not emptied first: where the disk is full by now, there may be room that was reserved.
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len().try_into().unwrap_or_default())?;
    fs::rename(&temporary, bundle.join(name))
}
