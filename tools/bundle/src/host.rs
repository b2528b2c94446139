//! What the host is like, as far as config.json depends on it.

use std::collections::BTreeMap;
use std::fs;
use std::sync::OnceLock;

use ::container::{Directories, RuntimeId};
use anyhow::Result;
use rustix::thread::CapabilitySet;

use crate::namespace::{Namespace, Shared};
use crate::request::{NameOptions, NamespaceOptions};
use crate::{cli_usage, state};

/// The kernel's limit for a host name.
const HOSTNAME_LIMIT: usize = 64;

/// Returns the capabilities that this process could hand on when this was asked first.
pub(crate) fn held_capabilities() -> CapabilitySet {
    static HELD: OnceLock<CapabilitySet> = OnceLock::new();
    *HELD.get_or_init(bounding_set)
}

fn bounding_set() -> CapabilitySet {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    // The bounding set and not the permitted one: `spawn` gets its capabilities by an execve(2) as root, which gives
    // those in the bounding set (capabilities(7), "Capabilities and execution of programs by root").
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let mask = bounding.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.map_or(CapabilitySet::all(), CapabilitySet::from_bits_retain)
}

/// Returns the container's host name: the user's, the host's with its network, else the id, as far as the kernel takes it.
pub(crate) fn hostname(names: &NameOptions, namespaces: &Shared, id: &str) -> Result<String> {
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = match &names.hostname {
        Some(name) => name.clone(),
        None if namespaces.network == Namespace::Host || namespaces.uts == Namespace::Host => host(),
        None => id.chars().take(HOSTNAME_LIMIT).collect(),
    };
    if name.is_empty() || name.len() > HOSTNAME_LIMIT || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(cli_usage(format!("`{name}` is not a host name of 1 to {HOSTNAME_LIMIT} characters")));
    }
    Ok(name)
}

/// Returns the processes of the other containers whose namespaces are to be shared.
pub(crate) fn joined(options: &NamespaceOptions, directories: &Directories) -> Result<BTreeMap<RuntimeId, i32>> {
    let options = [&options.network, &options.pid, &options.ipc, &options.uts].into_iter().flatten();
    let others = options.filter_map(|one| if let Namespace::Container(id) = one { Some(id) } else { None });
    others.map(|id| Ok((id.clone(), state::require_pid(directories, id)?))).collect()
}

/// Returns the namespaces, with those of other containers as paths.
pub(crate) fn namespaces(options: &NamespaceOptions, joined: &BTreeMap<RuntimeId, i32>) -> Result<Shared> {
    let find = |option: &Option<Namespace>, name: &str| match option {
        Some(Namespace::Container(id)) => Namespace::Path(format!("/proc/{}/ns/{name}", joined[id])),
        Some(namespace) => namespace.clone(),
        None => Namespace::Private,
    };
    let cgroup = match &options.cgroupns {
        Some(namespace) => namespace.clone(),
        // docker's defaults: on v1 a namespace of its own would hide from the container what limits it.
        None if cgroup::is_unified() => Namespace::Private,
        None => Namespace::Host,
    };
    let user = match &options.userns {
        None | Some(Namespace::Host) => Namespace::Host,
        Some(Namespace::Path(path)) => Namespace::Path(path.clone()),
        Some(_) => return Err(cli_usage("--userns takes host or ns:PATH".to_owned())),
    };
    Ok(Shared {
        network: find(&options.network, "net"),
        pid: find(&options.pid, "pid"),
        ipc: find(&options.ipc, "ipc"),
        uts: find(&options.uts, "uts"),
        cgroup,
        user,
    })
}

/// Returns where /dev/shm comes from when another's IPC namespace is used.
pub(crate) fn shared_memory(options: &NamespaceOptions, joined: &BTreeMap<RuntimeId, i32>) -> Option<String> {
    match options.ipc.as_ref()? {
        Namespace::Host => Some("/dev/shm".to_owned()),
        Namespace::Container(id) => Some(format!("/proc/{}/root/dev/shm", joined[id])),
        _ => None,
    }
}

/// Returns where the host counts how often its processors were too hot, which tells a container what others do.
pub(crate) fn thermal_files() -> Vec<String> {
    let cpus = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let files = cpus.map(|cpu| cpu.path().join("thermal_throttle")).filter(|path| path.exists());
    let mut files: Vec<String> = files.map(|path| path.to_string_lossy().into_owned()).collect();
    files.sort();
    files
}
