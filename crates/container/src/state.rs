//! `<states>/<id>/state.json`: what `spawn` knows of a container between two commands. The names are runc's where runc has
//! the thing.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{NotedProcess, OWNER, Owner, RuntimeId, state_in};

/// `state.json`.
///
/// Members are added, never renamed: a container may have been made by an older version, and be deleted by this one.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct State {
    /// The container's id.
    pub id: RuntimeId,
    /// The container's process; 0 while there is none yet.
    pub init_process_pid: i32,
    /// Clock ticks since boot: tells the process from a later one with its number.
    pub init_process_start: u64,
    /// When the container was made.
    pub created: String,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// The root file system, absolute.
    pub rootfs: PathBuf,
    /// The version of the runtime specification that config.json says.
    pub oci_version: String,
    /// The annotations of config.json.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Whether an ordinary user made it.
    #[serde(default)]
    pub rootless: bool,
    /// Lives no longer than the `spawn` that made it: what a killed one leaves may be cleared by anybody.
    #[serde(default)]
    pub foreground: bool,
    /// Whether it has the caller's session keyring.
    #[serde(default)]
    pub no_new_keyring: bool,
    /// The user that made it.
    #[serde(default)]
    pub owner: u32,
    /// The control groups, by controller.
    pub cgroup_paths: BTreeMap<String, PathBuf>,
    /// The scope that systemd made of the cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub systemd_scope: Option<String>,
    /// The mount on the rootfs that the host has, too, where the container has no mount namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_mount: Option<u64>,
    /// The namespaces, by kind.
    #[serde(default)]
    pub namespace_paths: BTreeMap<String, PathBuf>,
    /// The directory of the resctrl group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt_path: Option<PathBuf>,
}

impl State {
    /// The file's name.
    pub const FILE: &'static str = "state.json";

    /// Returns the state of a container of which nothing is known but its id.
    pub fn new(id: RuntimeId) -> Self {
        Self {
            id,
            init_process_pid: 0,
            init_process_start: 0,
            created: String::new(),
            bundle: PathBuf::new(),
            rootfs: PathBuf::new(),
            oci_version: String::new(),
            annotations: BTreeMap::new(),
            rootless: false,
            foreground: false,
            no_new_keyring: false,
            owner: 0,
            cgroup_paths: BTreeMap::new(),
            systemd_scope: None,
            root_mount: None,
            namespace_paths: BTreeMap::new(),
            intel_rdt_path: None,
        }
    }

    /// Reads a container's state. `None` is no state yet: its creator has just begun, or was killed while beginning.
    pub fn read(states: &Path, id: &RuntimeId) -> io::Result<Option<Self>> {
        let directory = state_in(states, id);
        // Which is written later, and removed sooner.
        let is_further = || sys::file::may_be_there(&directory.join("config.json"));
        match sys::file::read_regular(&directory.join(Self::FILE)) {
            Ok(text) if text.is_empty() && !is_further() => Ok(None),
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == ErrorKind::NotFound && !is_further() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the file's text.
    pub fn text(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Returns the container's process, dead or alive.
    pub fn process(&self) -> NotedProcess {
        NotedProcess { pid: self.init_process_pid, birth: Some(self.init_process_start) }
    }

    /// Returns whose the container is, if its bundle said so.
    pub fn owned_by(&self) -> Option<Owner> {
        self.annotations.get(OWNER)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let states = tempfile::tempdir().unwrap();
        let id: RuntimeId = "a+b".parse().unwrap();
        let own = NotedProcess::own();
        assert!(State::read(states.path(), &id).unwrap().is_none());
        std::fs::create_dir(state_in(states.path(), &id)).unwrap();
        let path = state_in(states.path(), &id).join(State::FILE);
        for (text, want) in [("", Some(false)), ("{", None), (r#"{"id":"../x"}"#, None)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(State::read(states.path(), &id).ok().map(|state| state.is_some()), want, "{text}");
        }
        let mut state = State::new(id.clone());
        assert!(state.process().alive().is_none());
        (state.init_process_pid, state.init_process_start) = (own.pid, own.birth.unwrap());
        state.annotations.insert(OWNER.to_owned(), "00000001-00000002".to_owned());
        std::fs::write(&path, state.text().unwrap()).unwrap();
        let read = State::read(states.path(), &id).unwrap().unwrap();
        assert_eq!((read.process(), read.owned_by()), (own, "00000001-00000002".parse().ok()));
    }
}
