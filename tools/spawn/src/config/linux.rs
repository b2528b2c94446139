//! `linux` of config.json (runtime-spec, config-linux.md).

use std::collections::BTreeMap;
use std::path::PathBuf;

use cgroup::Resources;
use seccomp::Profile;
use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};

pub(crate) use sys::namespace::Kind as NamespaceKind;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Linux {
    pub namespaces: Vec<Namespace>,
    /// Neither may overlap itself, and the kernel takes 340 lines at most: `user_namespaces(7)`.
    pub uid_mappings: Vec<IdMapping>,
    pub gid_mappings: Vec<IdMapping>,
    /// By clock, `monotonic` or `boottime`: `time_namespaces(7)` has no others.
    pub time_offsets: BTreeMap<String, TimeOffset>,
    pub devices: Vec<Device>,
    /// Interfaces of the host's that move into the container, by their names on the host.
    pub net_devices: BTreeMap<String, NetDevice>,
    /// Absolute means below the mount points of the hierarchies; with systemd's driver `SLICE:PREFIX:NAME`.
    pub cgroups_path: String,
    pub resources: Option<Resources>,
    /// Read so that it can be refused: see `check.rs`.
    pub intel_rdt: Option<IgnoredAny>,
    pub memory_policy: Option<MemoryPolicy>,
    /// Keys as sysctl(8) takes them, values as they are written to /proc/sys.
    pub sysctl: BTreeMap<String, String>,
    pub seccomp: Option<Profile>,
    /// `shared`, `slave`, `private` or `unbindable`; empty is the runtime's own choice.
    pub rootfs_propagation: String,
    /// Absolute paths of the container's. Those that are not there are passed over: the list is the same for all
    /// kernels.
    pub masked_paths: Vec<PathBuf>,
    pub readonly_paths: Vec<PathBuf>,
    pub mount_label: String,
    pub personality: Option<Personality>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Namespace {
    #[serde(rename = "type", deserialize_with = "namespace_kind")]
    pub kind: NamespaceKind,
    #[serde(default)]
    pub path: PathBuf,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct IdMapping {
    #[serde(rename = "containerID")]
    pub container_id: u32,
    #[serde(rename = "hostID")]
    pub host_id: u32,
    pub size: u32,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TimeOffset {
    /// May be negative, as long as the clock itself does not become so.
    pub secs: i64,
    pub nanosecs: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Device {
    pub path: PathBuf,
    #[serde(rename = "type")]
    pub kind: String,
    pub major: i64,
    pub minor: i64,
    /// Permission bits; the file in JSON has them as a decimal number.
    pub file_mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NetDevice {
    pub name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MemoryPolicy {
    pub mode: String,
    /// NUMA nodes as a list, such as `0-3,7`.
    pub nodes: String,
    pub flags: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Personality {
    pub domain: String,
    pub flags: Vec<String>,
}

/// Reads a namespace's type, which is in the specification's words.
fn namespace_kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NamespaceKind, D::Error> {
    let word = String::deserialize(deserializer)?;
    let found = match word.as_str() {
        "mount" => Some(NamespaceKind::Mount),
        "network" => Some(NamespaceKind::Network),
        // `from_name` takes the names of /proc/PID/ns; the specification has two words of its own, and runc knows no
        // others.
        "mnt" | "net" => None,
        other => NamespaceKind::from_name(other),
    };
    found.ok_or_else(|| D::Error::custom(format!("unknown namespace {word:?}")))
}
