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
    pub uid_mappings: Vec<IdMapping>,
    pub gid_mappings: Vec<IdMapping>,
    pub time_offsets: BTreeMap<String, TimeOffset>,
    pub devices: Vec<Device>,
    pub net_devices: BTreeMap<String, NetDevice>,
    pub cgroups_path: String,
    pub resources: Option<Resources>,
    pub intel_rdt: Option<IgnoredAny>,
    pub memory_policy: Option<MemoryPolicy>,
    pub sysctl: BTreeMap<String, String>,
    pub seccomp: Option<Profile>,
    pub rootfs_propagation: String,
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
        "mnt" | "net" => None,
        other => NamespaceKind::from_name(other),
    };
    found.ok_or_else(|| D::Error::custom(format!("unknown namespace {word:?}")))
}
