//! `spec` and `features`: what a configuration looks like, and what this runtime makes of one.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use super::print;
use crate::{capability, mount, priority};

/// Writes the configuration that people begin with: a shell.
pub(crate) fn spec(bundle: &Path, rootless: bool) -> anyhow::Result<()> {
    let path = bundle.join("config.json");
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .with_context(|| format!("File {} exists or cannot be made. Remove it first", path.display()))?;
    let mut spec: Value = serde_json::from_str(include_str!("spec.json"))?;
    spec["ociVersion"] = crate::SPEC_VERSION.into();
    if !rootless && !cgroup::is_unified() {
        // On v1 a container could not see there what limits it: runc's choice, too.
        without_namespace(&mut spec, "cgroup");
    }
    if rootless {
        make_rootless(&mut spec);
    }
    let text = serde_json::to_string_pretty(&spec)? + "\n";
    file.write_all(text.as_bytes()).with_context(|| format!("write {}", path.display()))
}

fn without_namespace(spec: &mut Value, kind: &str) {
    if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != kind);
    }
}

/// Changes what an ordinary user cannot have.
fn make_rootless(spec: &mut Value) {
    let map = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    spec["linux"]["uidMappings"] = map(rustix::process::geteuid().as_raw());
    spec["linux"]["gidMappings"] = map(rustix::process::getegid().as_raw());
    without_namespace(spec, "network");
    if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
        namespaces.push(json!({"type": "user"}));
    }
    if let Some(linux) = spec["linux"].as_object_mut() {
        linux.remove("resources");
    }
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "gid=5");
        }
        if mount["destination"] == "/sys" {
            *mount = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
        }
    }
}

/// Prints the features structure of runtime-spec, features-linux.md.
pub(crate) fn features() -> anyhow::Result<()> {
    let mut features: Value = serde_json::from_str(include_str!("features.json"))?;
    features["ociVersionMax"] = crate::SPEC_VERSION.into();
    features["mountOptions"] = mount::option_names().into();
    let linux = &mut features["linux"];
    linux["capabilities"] = capability::names().collect();
    linux["memoryPolicy"]["modes"] = priority::MODES.split(' ').collect();
    linux["apparmor"]["enabled"] = Path::new("/sys/module/apparmor/parameters/enabled").exists().into();
    linux["selinux"]["enabled"] = Path::new("/sys/fs/selinux/enforce").exists().into();
    let flags: Value = seccomp::FLAGS.iter().map(|(name, _)| *name).collect();
    for (member, words) in [
        ("actions", json!(seccomp::ACTIONS.as_slice())),
        ("operators", json!(seccomp::OPERATORS)),
        ("archs", json!(seccomp::architectures())),
        ("knownFlags", flags.clone()),
        ("supportedFlags", flags),
    ] {
        linux["seccomp"][member] = words;
    }
    print(&(serde_json::to_string_pretty(&features)? + "\n"))
}
