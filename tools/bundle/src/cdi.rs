//! Devices of the Container Device Interface (CDI specification 0.8): what a vendor's JSON file under /etc/cdi or
//! /var/run/cdi says that a container needs for `vendor/class=name`. `--gpus all` is one of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::device::{self, DeviceFlag};

/// Later directories win: what a boot has found over what was installed.
const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    kind: String,
    #[serde(default)]
    devices: Vec<Named>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

/// Changes of config.json.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Mount>,
    hooks: Vec<Hook>,
    additional_gids: Vec<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    path: String,
    host_path: Option<PathBuf>,
    permissions: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    host_path: String,
    container_path: String,
    #[serde(default)]
    options: Vec<String>,
    r#type: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hook {
    #[serde(rename = "hookName")]
    stage: String,
    path: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    timeout: Option<i64>,
}

/// `--device`: a device node, or a name that a vendor's file explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DeviceOption {
    Node(DeviceFlag),
    Named(String),
}

impl FromStr for DeviceOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if is_name(text) { Ok(Self::Named(text.to_owned())) } else { text.parse().map(Self::Node) }
    }
}

/// `--gpus`: the names that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gpus(pub(crate) Vec<String>);

impl Gpus {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        gpus(text).map(Self)
    }
}

/// Tells whether a `--device` is a CDI name: `vendor.com/class=device`.
fn is_name(text: &str) -> bool {
    let Some((kind, device)) = text.split_once('=') else { return false };
    let word = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte))
    };
    kind.split_once('/').is_some_and(|(vendor, class)| word(vendor) && word(class)) && word(device)
}

/// Returns what docker's `--gpus` asks for, as names of the vendor's devices.
fn gpus(request: &str) -> Result<Vec<String>, String> {
    let name = |device: &str| format!("nvidia.com/gpu={device}");
    let devices = request.trim_matches('"').strip_prefix("device=");
    match (request, devices, request.parse::<u32>()) {
        ("all", ..) => Ok(vec![name("all")]),
        (_, Some(devices), _) if !devices.is_empty() => Ok(devices.split(',').map(name).collect()),
        (_, None, Ok(count)) => Ok((0..count).map(|number| name(&number.to_string())).collect()),
        _ => Err(format!("`{request}` is not all, a number or device=LIST")),
    }
}

/// Looks devices up: the edits of each file once, then those of the devices.
pub(crate) fn look_up(names: &[String]) -> Result<Vec<Edits>> {
    look_up_in(names, &DIRECTORIES.map(Path::new))
}

fn look_up_in(names: &[String], directories: &[&Path]) -> Result<Vec<Edits>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let specs = specs(directories)?;
    let mut edits = Vec::new();
    let mut seen = Vec::new();
    for name in names {
        let (kind, device) = name.split_once('=').with_context(|| format!("device `{name}`"))?;
        let found = specs.iter().enumerate().rev().filter(|(_, spec)| spec.kind == kind).find_map(|(number, spec)| {
            Some((number, spec, spec.devices.iter().find(|candidate| candidate.name == device)?))
        });
        let Some((number, spec, device)) = found else {
            bail!("device `{name}` is in no JSON file of /etc/cdi or /var/run/cdi");
        };
        if !seen.contains(&number) {
            seen.push(number);
            edits.push(spec.container_edits.clone());
        }
        edits.push(device.container_edits.clone());
    }
    Ok(edits)
}

fn specs(directories: &[&Path]) -> Result<Vec<Spec>> {
    let mut specs = Vec::new();
    for directory in directories {
        // A host without devices has no directory.
        let Ok(entries) = fs::read_dir(directory) else { continue };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| {
            path.extension().is_some_and(|extension| ["json", "yaml"].iter().any(|known| extension == *known))
        });
        paths.sort();
        for path in paths {
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            // JSON is YAML, too.
            let spec =
                yaml::read(&text).map_err(anyhow::Error::from).and_then(|value| Ok(serde_json::from_value(value)?));
            specs.push(spec.with_context(|| format!("{} is not a CDI specification", path.display()))?);
        }
    }
    Ok(specs)
}

/// Applies edits to config.json.
pub(crate) fn apply(config: &mut Value, edits: &[Edits]) -> Result<()> {
    for edit in edits {
        for variable in &edit.env {
            let name = variable.split_inclusive('=').next().unwrap_or_default();
            let variables = list(config, &["process", "env"]);
            variables.retain(|present| !present.as_str().is_some_and(|present| present.starts_with(name)));
            variables.push(json!(variable));
        }
        for node in &edit.device_nodes {
            let host = node.host_path.clone().unwrap_or_else(|| node.path.clone().into());
            let access = node.permissions.clone().unwrap_or_else(|| "rw".to_owned());
            for device in device::look_up(&DeviceFlag { host, container: node.path.clone(), access })? {
                list(config, &["linux", "devices"]).push(device.to_json());
                list(config, &["linux", "resources", "devices"]).push(device.rule());
            }
        }
        for mount in &edit.mounts {
            let kind = mount.r#type.as_deref().unwrap_or("bind");
            let mut options = mount.options.clone();
            if kind == "bind" && !options.iter().any(|option| option == "bind" || option == "rbind") {
                options.insert(0, "rbind".to_owned());
            }
            let mounts = list(config, &["mounts"]);
            mounts.retain(|present| present["destination"] != mount.container_path.as_str());
            mounts.push(crate::mount::entry(&mount.container_path, kind, &mount.host_path, &options));
        }
        for hook in &edit.hooks {
            let mut entry = json!({"path": hook.path, "args": hook.args, "env": hook.env});
            if let Some(timeout) = hook.timeout {
                entry["timeout"] = json!(timeout);
            }
            list(config, &["hooks", &hook.stage]).push(entry);
        }
        for gid in &edit.additional_gids {
            let groups = list(config, &["process", "user", "additionalGids"]);
            if !groups.contains(&json!(gid)) {
                groups.push(json!(gid));
            }
        }
    }
    Ok(())
}

/// Returns the list at a path of members, made where it is not there.
fn list<'a>(config: &'a mut Value, path: &[&str]) -> &'a mut Vec<Value> {
    let place = path.iter().fold(config, |value, name| {
        if !value.is_object() {
            *value = json!({});
        }
        &mut value[*name]
    });
    if !place.is_array() {
        *place = json!([]);
    }
    match place {
        Value::Array(list) => list,
        _ => unreachable!("it has just been made a list"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        for (text, want) in [
            ("nvidia.com/gpu=all", true),
            ("vendor.com/class=a-1", true),
            ("/dev/fuse", false),
            ("/dev/a=b", false),
            ("gpu=all", false),
            ("a/b=", false),
        ] {
            assert_eq!(is_name(text), want, "{text}");
        }
    }

    #[test]
    fn gpus_are_asked_for_as_with_docker() {
        for (text, want) in [
            ("all", Some(vec!["nvidia.com/gpu=all"])),
            ("2", Some(vec!["nvidia.com/gpu=0", "nvidia.com/gpu=1"])),
            ("device=1", Some(vec!["nvidia.com/gpu=1"])),
            ("\"device=0,GPU-x\"", Some(vec!["nvidia.com/gpu=0", "nvidia.com/gpu=GPU-x"])),
            ("some", None),
            ("device=", None),
        ] {
            assert_eq!(gpus(text).ok(), want.map(|names| names.into_iter().map(str::to_owned).collect()), "{text}");
        }
    }

    #[test]
    fn a_devices_edits_are_applied_after_its_files() {
        let directory = std::env::temp_dir().join(format!("bundle-cdi-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let text = json!({
            "cdiVersion": "0.6.0", "kind": "vendor.com/thing",
            "containerEdits": {"env": ["A=file", "B=1"], "hooks": [{"hookName": "createContainer", "path": "/h", "args": ["h"]}]},
            "devices": [{"name": "one", "containerEdits": {
                "env": ["A=device"], "deviceNodes": [{"path": "/dev/thing", "hostPath": "/dev/null"}],
                "mounts": [{"hostPath": "/lib/x", "containerPath": "/lib/x", "options": ["ro", "nosuid"]}],
                "additionalGids": [7],
            }}],
        });
        fs::write(directory.join("v.json"), text.to_string()).unwrap();
        fs::write(directory.join("ignored.txt"), "no specification").unwrap();
        let more =
            "cdiVersion: 0.6.0\nkind: vendor.com/more\ndevices:\n- name: '0'\n  containerEdits: {env: [Y=yaml]}\n";
        fs::write(directory.join("w.yaml"), more).unwrap();
        let named = look_up_in(&["vendor.com/more=0".to_owned()], &[&directory]).unwrap();
        let mut other = json!({"process": {"env": []}});
        apply(&mut other, &named).unwrap();
        assert_eq!(other["process"]["env"], json!(["Y=yaml"]));
        let edits = look_up_in(&["vendor.com/thing=one".to_owned()], &[&directory]).unwrap();
        let mut config = json!({"process": {"env": ["A=image"], "user": {"additionalGids": [0]}}, "mounts": []});
        apply(&mut config, &edits).unwrap();
        assert_eq!(config["process"], json!({"env": ["B=1", "A=device"], "user": {"additionalGids": [0, 7]}}));
        assert_eq!(config["mounts"][0]["options"], json!(["rbind", "ro", "nosuid"]));
        assert_eq!(config["linux"]["devices"][0]["path"], "/dev/thing");
        assert_eq!(config["linux"]["resources"]["devices"][0]["access"], "rw");
        assert_eq!(config["hooks"]["createContainer"][0]["path"], "/h");
        assert!(look_up_in(&["vendor.com/thing=two".to_owned()], &[&directory]).is_err());
        fs::remove_dir_all(directory).unwrap();
    }
}
