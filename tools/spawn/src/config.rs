//! `config.json` (runtime-spec, config.md), as far as Linux is concerned: what the file says, in its own words. Text is
//! turned into types where it is used; what contradicts itself is refused in `config/check.rs`.

mod check;
mod linux;
mod process;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use container::JOINED;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(crate) use check::sysctl_path;
pub(crate) use linux::*;
pub(crate) use process::*;

/// The whole file. Members that this runtime has no use for are skipped.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Config {
    pub oci_version: String,
    pub root: Option<Root>,
    pub process: Option<Process>,
    pub hostname: String,
    pub domainname: String,
    pub mounts: Vec<Mount>,
    pub hooks: Hooks,
    pub linux: Linux,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Root {
    pub path: PathBuf,
    pub readonly: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Mount {
    pub destination: PathBuf,
    #[serde(rename = "type")]
    pub kind: String,
    pub source: String,
    pub options: Vec<String>,
    pub uid_mappings: Vec<IdMapping>,
    pub gid_mappings: Vec<IdMapping>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Hooks {
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Hook {
    pub path: PathBuf,
    pub args: Vec<String>,
    pub env: Option<Vec<String>>,
    pub timeout: Option<i64>,
}

impl Config {
    /// Reads and checks `config.json` of a bundle; returns its bytes too, which the state directory keeps. `states` are
    /// where the containers are noted whose namespaces this one joins.
    pub(crate) fn read(bundle: &Path, states: &Path) -> anyhow::Result<(Self, Vec<u8>)> {
        let path = bundle.join("config.json");
        let text = sys::file::there(crate::file::read_all(&path))
            .with_context(|| format!("read {}", path.display()))?
            .with_context(|| format!("JSON specification file {} not found", path.display()))?;
        let mut config = Self::parse(&text).with_context(|| path.display().to_string())?;
        config.check()?;
        config.find_joined(states)?;
        Ok((config, text))
    }

    /// Makes paths that name other containers by process name their processes of now: a container that was started again
    /// has another process, and its old number may be a stranger's, or another joined container's.
    fn find_joined(&mut self, states: &Path) -> anyhow::Result<()> {
        let Some(joined) = self.annotations.get(JOINED) else { return Ok(()) };
        let mut processes = BTreeMap::new();
        for joined in joined.split(',') {
            let (id, old) = joined.split_once('=').with_context(|| format!("{JOINED}: `{joined}` is not ID=PID"))?;
            let noted = container::of_id(states, &id.parse()?)?;
            let context = || format!("container `{id}`, whose namespaces are joined, does not run");
            processes.insert(old, noted.with_context(context)?.pid);
        }
        let now = |path: &str| match path.strip_prefix("/proc/").and_then(|rest| rest.split_once('/')) {
            Some((old, rest)) if processes.contains_key(old) => format!("/proc/{}/{rest}", processes[old]),
            _ => path.to_owned(),
        };
        self.mounts.iter_mut().for_each(|mount| mount.source = now(&mount.source));
        self.linux.namespaces.iter_mut().for_each(|one| one.path = now(&one.path.to_string_lossy()).into());
        Ok(())
    }

    /// Parses the file's bytes.
    pub(crate) fn parse(text: &[u8]) -> serde_json::Result<Self> {
        // What `resources` means depends on the version of the specification that the file names (see `of_version`).
        let mut config: Self = lenient(text)?;
        config.linux.resources.iter_mut().for_each(|resources| resources.of_version(&config.oci_version));
        Ok(config)
    }

    /// Returns the container's process, which `create` and `run` cannot do without.
    pub(crate) fn process(&self) -> anyhow::Result<&Process> {
        self.process.as_ref().context("config.json: process property must not be empty")
    }
}

/// Parses as Go's programs do: the last of several members with one name counts, and `null` is the member's absence.
pub(crate) fn lenient<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    // serde's readers refuse a member that stands twice and a `null` where a value belongs; Go's `encoding/json`
    // takes both, and so do the engines that write these files. The tree of values keeps the last of several members.
    // The error of the first attempt is the better one to show: it has the line and the column.
    serde_json::from_slice(text).or_else(|error| of_value(&without_nulls(text)?).map_err(|_| error))
}

/// Reads a value by its text, so that each type has one reader in the program, which is a tenth smaller for it.
pub(crate) fn of_value<T: DeserializeOwned>(value: &Value) -> serde_json::Result<T> {
    serde_json::from_slice(value.to_string().as_bytes())
}

/// Parses any JSON text, without the members that are `null`.
pub(crate) fn without_nulls(text: &[u8]) -> serde_json::Result<Value> {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(members) => {
                members.retain(|_, member| !member.is_null());
                members.values_mut().for_each(strip);
            }
            Value::Array(elements) => elements.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut value = serde_json::from_slice(text)?;
    strip(&mut value);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every member of every object of a configuration, one after the other, is `null`, and the first of two.
    #[test]
    fn null_is_the_absence_of_any_member() {
        let full: Value = serde_json::from_str(FULL).unwrap();
        assert!(Config::parse(FULL.as_bytes()).is_ok());
        let mut pointers = vec![String::new()];
        let mut at = 0;
        while at < pointers.len() {
            let here = pointers[at].clone();
            match full.pointer(&here).unwrap() {
                Value::Object(members) => pointers.extend(members.keys().map(|name| format!("{here}/{name}"))),
                Value::Array(elements) => pointers.extend((0..elements.len()).map(|index| format!("{here}/{index}"))),
                _ => {}
            }
            at += 1;
        }
        for pointer in pointers.iter().filter(|pointer| !pointer.ends_with(|c: char| c.is_ascii_digit() || c == 'e')) {
            let mut config = full.clone();
            let Some(member) = config.pointer_mut(pointer) else { continue };
            *member = Value::Null;
            let parsed = Config::parse(config.to_string().as_bytes());
            assert!(pointer.is_empty() || parsed.is_ok(), "{pointer}: {parsed:?}");
        }
        let twice = Config::parse(br#"{"hostname":"a","hostname":"b"}"#).unwrap();
        assert_eq!(twice.hostname, "b");
    }

    const FULL: &str = r#"{"ociVersion":"1.0.2","hostname":"h","domainname":"d","annotations":{"a":"b"},
        "root":{"path":"r","readonly":true},
        "process":{"terminal":true,"consoleSize":{"height":1,"width":1},"user":{"uid":1,"gid":1,"umask":1,"additionalGids":[1]},
            "args":["a"],"env":["a=b"],"cwd":"/","capabilities":{"bounding":["CAP_KILL"]},"noNewPrivileges":true,
            "rlimits":[{"hard":1,"soft":1}],"apparmorProfile":"a","selinuxLabel":"b","oomScoreAdj":1,
            "scheduler":{"policy":"SCHED_OTHER","nice":1,"flags":["a"]},"ioPriority":{"class":"a","priority":1},
            "execCPUAffinity":{"initial":"0","final":"0"}},
        "mounts":[{"destination":"/a","source":"b","options":["c"],"uidMappings":[{"containerID":1,"hostID":1}]}],
        "hooks":{"poststop":[{"path":"/a","args":["a"],"env":["a=b"],"timeout":1}]},
        "linux":{"namespaces":[{"type":"pid","path":"/a"}],"timeOffsets":{"monotonic":{"secs":1,"nanosecs":1}},
            "devices":[{"path":"/a","type":"c","major":1,"minor":1,"fileMode":1,"uid":1,"gid":1}],
            "netDevices":{"a":{"name":"b"}},"cgroupsPath":"a","sysctl":{"a":"b"},"rootfsPropagation":"slave",
            "maskedPaths":["a"],"readonlyPaths":["a"],"mountLabel":"a","personality":{"domain":"a","flags":["a"]},
            "memoryPolicy":{"mode":"a","nodes":"a","flags":["a"]},"intelRdt":{"closID":"a","schemata":["a"]},
            "seccomp":{"defaultAction":"a","architectures":["a"],"syscalls":[{"names":["a"],"action":"a"}]},
            "resources":{"devices":[{"allow":true,"type":"a","access":"r"}],"memory":{"limit":1,"disableOOMKiller":true},
                "cpu":{"shares":1,"cpus":"0"},"pids":{"limit":1},"blockIO":{"weight":1,"weightDevice":[{"major":1,"weight":1}]},
                "hugepageLimits":[{"limit":1}],"network":{"classID":1,"priorities":[{"priority":1}]},
                "rdma":{"a":{"hcaHandles":1}},"unified":{"a":"b"}}}}"#;
}
