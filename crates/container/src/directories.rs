//! Where everything of ours is. No other code joins a path of ours.
//!
//! ```
//! use std::path::Path;
//!
//! let directories = container::Directories::below("/srv/drayage".into());
//! let id: container::ContainerId = "web".parse()?;
//! assert_eq!(directories.bundle(&id), Path::new("/srv/drayage/containers/web"));
//! assert!("../web".parse::<container::ContainerId>().is_err());
//! # Ok::<(), container::NameError>(())
//! ```

use std::io;
use std::path::{Path, PathBuf};

use crate::{ContainerId, NetworkName, RuntimeId, VolumeName, file};

/// Where networks have their names, whoever makes them: `ip-netns(8)`.
pub const NAMESPACES: &str = "/run/netns";

/// The directory of the bundles.
const BUNDLES: &str = "containers";

/// What ends with a boot, below a chosen root.
const RUN: &str = "run";

/// What belongs to a machine, whatever root its containers have.
const MACHINE: &str = "/run/drayage";

/// The directories of one root: what stays, and what ends with a boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directories {
    data: PathBuf,
    run: PathBuf,
}

/// What `ns` notes of a container, each in a directory of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkNote {
    /// The configuration that CNI's plugins were called with, and their result.
    Cni,
    /// The process that brings it outwards.
    Outward,
}

impl Directories {
    /// Returns the directories below these two.
    pub fn new(data: PathBuf, run: PathBuf) -> Self {
        Self { data, run }
    }

    /// Returns the directory that `--root` names, if both are below one.
    pub fn root(&self) -> Option<&Path> {
        (self.run.parent() == Some(&self.data) && self.run.ends_with(RUN)).then_some(&self.data)
    }

    /// Returns the directories below one root.
    pub fn below(root: PathBuf) -> Self {
        Self { run: root.join(RUN), data: root }
    }

    /// Returns the directory of what stays.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Returns the directory of what ends with a boot.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Returns the OCI image layout.
    pub fn layout(&self) -> PathBuf {
        self.data.join("oci")
    }

    /// Returns the layers' store.
    pub fn layers(&self) -> PathBuf {
        self.data.join("layers")
    }

    /// Returns the directory of the bundles.
    pub fn bundles(&self) -> PathBuf {
        self.data.join(BUNDLES)
    }

    /// Tells whether a path is where a bundle stands below some root.
    pub fn is_place_of_bundle(path: &Path) -> bool {
        path.parent().and_then(Path::file_name).is_some_and(|parent| parent == BUNDLES)
    }

    /// Returns a container's bundle.
    pub fn bundle(&self, id: &ContainerId) -> PathBuf {
        self.bundles().join(&**id)
    }

    /// Returns the directory of the volumes.
    pub fn volumes(&self) -> PathBuf {
        self.data.join("volumes")
    }

    /// Returns a volume.
    pub fn volume(&self, name: &VolumeName) -> PathBuf {
        self.volumes().join(&**name)
    }

    /// Returns the directory of the files that `compose` makes for a project.
    pub fn project(&self, name: &str) -> PathBuf {
        self.data.join("compose").join(name)
    }

    /// Returns the directory of what is noted of networks that are there without a container.
    pub fn networks(&self) -> PathBuf {
        self.data.join("networks")
    }

    /// Returns what is noted of a network.
    pub fn network(&self, name: &NetworkName) -> PathBuf {
        self.networks().join(&**name)
    }

    /// Returns the directory of the claims on names.
    ///
    /// Below the run directory: after a boot nothing of a run is left to be undone, as the kernel has forgotten it.
    pub fn claims(&self) -> PathBuf {
        self.run.join("claims")
    }

    /// Returns the claim on a container's name.
    pub fn claim(&self, id: &ContainerId) -> PathBuf {
        self.claims().join(&**id)
    }

    /// Returns the directory of the records that `run` keeps for the next run of an image.
    pub fn records(&self) -> PathBuf {
        self.run.join("records")
    }

    /// Returns the directory of the states of `spawn`: what its `--root` says otherwise.
    pub fn states(&self) -> PathBuf {
        self.run.join("spawn")
    }

    /// Returns the directories of all states, those of other runtimes too.
    pub fn all_states(&self) -> io::Result<Vec<PathBuf>> {
        Ok(std::iter::once(self.states()).chain(file::paths_in(&self.run.join("runtimes"))?).collect())
    }

    /// Returns the directory of the states of another runtime, by its program.
    pub fn runtime_states(&self, program: &Path) -> PathBuf {
        self.run.join("runtimes").join(program.file_name().unwrap_or_default())
    }

    /// Returns the directory of the sockets of those who serve ports.
    pub fn sockets(&self) -> PathBuf {
        self.run.join("portmap")
    }

    /// Returns the directory of what is noted of networks.
    pub fn network_notes(&self, kind: NetworkNote) -> PathBuf {
        self.run.join(match kind {
            NetworkNote::Cni => "cni",
            NetworkNote::Outward => "outward",
        })
    }

    /// Returns what is noted of a container's network.
    pub fn network_note(&self, kind: NetworkNote, id: &ContainerId) -> PathBuf {
        self.network_notes(kind).join(&**id)
    }

    /// Returns the directory of what is noted of containers' names on a bridge, or that of those directories.
    pub fn host_notes(&self, bridge: Option<&str>) -> PathBuf {
        self.run.join("hosts").join(bridge.unwrap_or_default())
    }

    /// Returns where it is noted what names a container has on a bridge, and where its hosts file is.
    pub fn host_note(&self, bridge: &str, id: &ContainerId) -> PathBuf {
        self.host_notes(Some(bridge)).join(&**id)
    }

    /// Returns a number that tells this root from others.
    ///
    /// A hash of the run directory's path: 32 bits, since it stands in names that the kernel limits.
    pub fn mark(&self) -> u32 {
        hash(self.run.as_os_str().as_encoded_bytes())
    }

    /// Returns the name of a container's control group. Ids are unique below one root only, control groups are the
    /// machine's, so below another root than the system's own the name tells which.
    ///
    /// The name of a cgroup is seen by everybody on the machine, by systemd-cgls for one.
    pub fn cgroup(&self, id: &ContainerId) -> String {
        if self.run == Path::new(MACHINE) { id.to_string() } else { format!("{id}-{:08x}", self.mark()) }
    }
}

/// Returns a number that is the same for the same bytes, on every machine and in every version (FNV-1a).
pub fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Returns the directory of a container's state below a runtime's root.
pub fn state_in(states: &Path, id: &RuntimeId) -> PathBuf {
    states.join(&**id)
}

/// Returns the path of the network namespace of that name.
pub fn namespace(id: &ContainerId) -> PathBuf {
    Path::new(NAMESPACES).join(&**id)
}

/// Returns the directory of what a machine has once, such as the locks on its networks: bridges and their addresses are in
/// the kernel, so roots share them.
pub fn machine() -> &'static Path {
    Path::new(MACHINE)
}

/// Returns what `ns` leaves when it finds that somebody has flushed the firewall, until `portmap` has put the ports back.
pub fn flush_note() -> PathBuf {
    Path::new(MACHINE).join("flushed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_group_tells_which_root_it_is_of() {
        let id: ContainerId = "web".parse().unwrap();
        let at = |run: &str| Directories::new("/data".into(), run.into());
        assert_eq!(at("/run/drayage").cgroup(&id), "web");
        assert_ne!(at("/a/run").cgroup(&id), at("/b/run").cgroup(&id));
    }
}
