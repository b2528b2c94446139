//! How the container ended: `<bundle>/exit.json`, and what is told to who waits.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
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

/// Tells whether the kernel has killed in the container's memory group, by `spawn`'s state while it is there:
/// cgroup-v2.rst, "memory.events"; v1's `memory.oom_control` has the same word.
pub(crate) fn was_out_of_memory(states: &Path, id: &str) -> bool {
    let Ok(text) = fs::read(states.join(id).join("state.json")) else { return false };
    let Ok(state) = serde_json::from_slice::<Value>(&text) else { return false };
    let groups = state["cgroup_paths"].as_object();
    let paths = groups.into_iter().flatten().filter_map(|(_, path)| path.as_str());
    let files = paths.flat_map(|path| ["memory.events", "memory.oom_control"].map(|name| Path::new(path).join(name)));
    let mut kills = files.filter_map(|file| fs::read_to_string(file).ok()).filter_map(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill ").map(str::to_owned));
        line.and_then(|count| count.trim().parse::<u64>().ok())
    });
    kills.any(|count| count > 0)
}
