//! The extracted layers that `unpack` keeps below `layers`: by diffID, by the chain of layers that one depends on, and
//! those that describe the directories of lower ones. Beside each there may be notes.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use rustix::fs::{FlockOperation, flock};
use sys::file::there;

/// What the name of a layer's notes ends with.
const NOTES: &str = ".implicit";

/// Removes the layers that are not needed and not younger than `grace`, and notes without a layer; returns how many layers.
pub(super) fn collect(layers: &Path, needed: &HashSet<PathBuf>, grace: Duration) -> anyhow::Result<u64> {
    let mut count = 0;
    for kind in layout::extracted::KINDS {
        let directory = layers.join(kind);
        let names: Vec<OsString> =
            fs::read_dir(&directory).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
        for name in names {
            let path = directory.join(&name);
            let layer = name.to_str().and_then(|name| name.strip_suffix(NOTES)).map(|layer| directory.join(layer));
            if needed.contains(layer.as_ref().unwrap_or(&path)) || is_young(&path, grace) {
                continue;
            }
            match layer {
                // They go with their layer; without one nobody reads them.
                Some(layer) if layer.try_exists().with_context(|| format!("look for {}", layer.display()))? => {}
                Some(_) => remove_file(&path)?,
                None => {
                    remove(layers, &path).with_context(|| format!("remove {}", path.display()))?;
                    count += 1;
                }
            }
        }
    }
    // Nobody makes a mark of another boot: what it was of is gone.
    for mark in container::Unwritten::of_store(layers)?.iter().filter(|mark| !mark.is_of_this_boot) {
        if !mark.layer.exists() {
            mark.end(false)?;
        }
    }
    Ok(count)
}

/// Under its final name a layer is whole or not there: it goes to where `unpack` sweeps what a killed run leaves, under
/// the lock that says that somebody is at work on it.
fn remove(layers: &Path, path: &Path) -> io::Result<()> {
    log::debug!("remove layer {}", path.display());
    let doomed = layers.join("tmp").join(format!("{}-gone", path.file_name().unwrap_or_default().to_string_lossy()));
    let lock = doomed.with_extension("lock");
    let held = File::options().create(true).truncate(false).write(true).open(&lock)?;
    flock(&held, FlockOperation::LockExclusive)?;
    let removed = root::remove_tree(&doomed)
        .and_then(|()| fs::rename(path, &doomed))
        .and_then(|()| root::remove_tree_soon(&doomed))
        .and_then(|()| remove_notes(path));
    // With what a process in the background removes its lock stays, for the next sweep.
    if !doomed.exists() {
        let _left = fs::remove_file(&lock);
    }
    removed
}

fn remove_notes(layer: &Path) -> io::Result<()> {
    let mut notes = layer.as_os_str().to_owned();
    notes.push(NOTES);
    there(fs::remove_file(notes)).map(drop)
}

fn remove_file(path: &Path) -> anyhow::Result<()> {
    there(fs::remove_file(path)).map(drop).with_context(|| format!("remove {}", path.display()))
}

fn is_young(path: &Path, grace: Duration) -> bool {
    let Ok(metadata) = fs::symlink_metadata(path) else { return true };
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(metadata.ctime().try_into().unwrap_or(0));
    // A change in the future is a clock that was set back: it does not say that the layer is new.
    changed.elapsed().is_ok_and(|age| age < grace)
}
