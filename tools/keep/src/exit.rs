//! How the container ended: `<bundle>/exit.json`, and what is told to who waits.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use cgroup::Cgroups;
use container::{ContainerId, State};
use rustix::process::Pid;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use container::Exit;

/// The file's name in the bundle.
pub(crate) const FILE: &str = Exit::FILE;

/// Reads a file of the bundle; `None` if there is none. One that is damaged is named.
pub(crate) fn read<T: DeserializeOwned>(bundle: &Path, name: &str) -> Result<Option<T>> {
    let path = bundle.join(name);
    let text = sys::file::there(sys::file::read_regular(&path)).with_context(|| format!("read {}", path.display()))?;
    let parsed = text.map(|text| serde_json::from_slice(&text)).transpose();
    parsed.with_context(|| format!("{} is damaged", path.display()))
}

/// Writes a file of the bundle, whole or not at all.
pub(crate) fn write<T: Serialize>(bundle: &Path, name: &str, value: &T) -> Result<()> {
    container::write_json(bundle, name, value).with_context(|| format!("write {}", bundle.join(name).display()))
}

/// Takes room on the disk for the file, before the container can fill that.
///
/// A kilobyte of blanks under the temporary name; `container::write_json` does not empty it first, so its blocks are
/// there when the container has filled the disk.
pub(crate) fn reserve(bundle: &Path) {
    // Without it the file needs room at the end.
    let _full = fs::write(bundle.join(format!(".{FILE}")), [b' '; 1024]);
}

/// Reads a file with the number of a process.
///
/// `spawn` renames the file into place, so that it is never half there.
pub(crate) fn read_pid(path: &Path) -> Result<Pid> {
    let text = sys::file::read_regular(path).with_context(|| format!("read {}", path.display()))?;
    let text = String::from_utf8_lossy(&text);
    text.trim().parse().ok().and_then(Pid::from_raw).with_context(|| format!("{text:?} is not a process id"))
}

/// Finds the control groups of a container by `spawn`'s state, while that is there.
pub(crate) fn cgroups(states: &Path, id: &ContainerId) -> Option<Cgroups> {
    let state = State::read(states, &id.into()).ok()??;
    Some(Cgroups::from_paths(&state.cgroup_paths))
}

/// Tells whether the kernel has killed in the container for want of memory.
///
/// It is asked before `spawn delete` removes the cgroups, which count it.
pub(crate) fn was_out_of_memory(states: &Path, id: &ContainerId) -> bool {
    cgroups(states, id).is_some_and(|cgroups| cgroups.oom_kills() > 0)
}
