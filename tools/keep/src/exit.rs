//! How the container ended: `<bundle>/exit.json`, and what is told to who waits.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use cgroup::Cgroups;
use rustix::process::WaitStatus;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The file's name in the bundle.
pub(crate) const FILE: &str = "exit.json";

/// One end of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Exit {
    /// As a shell has it: 128+n for signal n.
    #[serde(rename = "exitCode")]
    pub(crate) code: u8,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signal: Option<i32>,
    /// Whether the kernel killed a process of it for want of memory.
    pub(crate) oom_killed: bool,
    /// When it was started.
    pub(crate) started_at: String,
    /// When it ended.
    pub(crate) finished_at: String,
    /// How often it had been started again before.
    pub(crate) restart_count: u32,
}

impl Exit {
    /// Reads how a container ended; `None` if it never did.
    pub(crate) fn of(bundle: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(bundle.join(FILE)).ok()?).ok()
    }

    /// Takes over what waiting for the process has told.
    pub(crate) fn set_status(&mut self, status: WaitStatus) {
        self.signal = status.terminating_signal();
        let code = status.exit_status().or_else(|| self.signal.map(|signal| 128 + signal));
        self.code = code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255);
    }
}

/// Writes a file of the bundle, whole or not at all.
pub(crate) fn write<T: Serialize>(bundle: &Path, name: &str, value: &T) -> Result<()> {
    let path = bundle.join(name);
    let temporary = bundle.join(format!(".{name}"));
    let write =
        || fs::write(&temporary, serde_json::to_string(value)? + "\n").and_then(|()| fs::rename(&temporary, &path));
    write().with_context(|| format!("write {}", path.display()))
}

/// Finds the control groups of a container by `spawn`'s state, while that is there.
pub(crate) fn cgroups(states: &Path, id: &str) -> Option<Cgroups> {
    let text = fs::read(states.join(id).join("state.json")).ok()?;
    let state: Value = serde_json::from_slice(&text).ok()?;
    Some(Cgroups::from_paths(&serde_json::from_value(state["cgroup_paths"].clone()).ok()?))
}

/// Tells whether the kernel has killed in the container for want of memory.
pub(crate) fn was_out_of_memory(states: &Path, id: &str) -> bool {
    cgroups(states, id).is_some_and(|cgroups| cgroups.oom_kills() > 0)
}
