//! Files in which something is noted, as JSON: each is there as a whole, or not at all.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes a note, one that is to `last` on the disk.
///
/// What is below /run need not last; a created network's settings are below /var/lib, and are synced before the
/// rename.
pub(super) fn write(path: &Path, note: &impl Serialize, last: bool) -> Result<()> {
    let draft = draft_of(path);
    let write = || -> Result<()> {
        path.parent().map_or(Ok(()), sys::file::make_private)?;
        fs::write(&draft, serde_json::to_vec(note)?)?;
        if last {
            File::open(&draft)?.sync_all()?;
        }
        Ok(fs::rename(&draft, path)?)
    };
    write().with_context(|| {
        let _none = fs::remove_file(&draft);
        format!("write {}", path.display())
    })
}

/// Reads a note; nothing, where none is there.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = sys::file::there(sys::file::read_regular(path)).map_err(anyhow::Error::from);
    let note = text.and_then(|text| Ok(text.map_or(Ok(None), |text| serde_json::from_slice(&text))?));
    note.with_context(|| format!("read {}", path.display()))
}

/// Returns the path of a note that is being written. No container's id begins with a full stop.
pub(super) fn draft_of(note: &Path) -> PathBuf {
    let name = note.file_name().unwrap_or_default().to_string_lossy();
    note.with_file_name(format!(".{name}"))
}
