//! `spec` and `features`: what a configuration looks like, and what this runtime makes of one.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use super::print;
use crate::capability;

/// Writes the configuration that people begin with: a shell.
pub(crate) fn spec(bundle: &Path, rootless: bool) -> anyhow::Result<()> {
    let path = bundle.join("config.json");
    let mut file = OpenOptions::new()
        .write(true)
        // Never over a configuration that somebody has changed; and no check first, between which and the writing a
        // file may appear.
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
    // A user may map its own id and no other without help: user_namespaces(7), "Defining user and group ID mappings".
    let map = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    spec["linux"]["uidMappings"] = map(rustix::process::geteuid().as_raw());
    spec["linux"]["gidMappings"] = map(rustix::process::getegid().as_raw());
    without_namespace(spec, "network");
    if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
        namespaces.push(json!({"type": "user"}));
    }
    if let Some(linux) = spec["linux"].as_object_mut() {
        // An ordinary user has no cgroup of its own unless one was delegated.
        linux.remove("resources");
    }
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        if let Some(options) = mount["options"].as_array_mut() {
            // tty's group: with one mapped id there is no group 5 in the namespace, and devpts refuses a gid that is
            // not mapped.
            options.retain(|option| option != "gid=5");
        }
        if mount["destination"] == "/sys" {
            // sysfs can be mounted only by the owner of the network namespace (`sysfs_init_fs_context()`), which is
            // the host's here.
            *mount = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
        }
    }
}

/// Prints the features structure of runtime-spec, features-linux.md.
pub(crate) fn features() -> anyhow::Result<()> {
    let mut features: Value = serde_json::from_str(include_str!("features.json"))?;
    features["ociVersionMax"] = crate::SPEC_VERSION.into();
    let linux = &mut features["linux"];
    linux["capabilities"] = capability::names().collect();
    linux["apparmor"]["enabled"] = Path::new("/sys/module/apparmor/parameters/enabled").exists().into();
    linux["selinux"]["enabled"] = Path::new("/sys/fs/selinux/enforce").exists().into();
    print(&(serde_json::to_string_pretty(&features)? + "\n"))
}

#[cfg(test)]
mod tests {
    use seccomp::{Profile, compile};
    use serde_json::from_value;

    use super::*;

    #[test]
    fn what_is_listed_is_understood() {
        let features: Value = serde_json::from_str(include_str!("features.json")).unwrap();
        let seccomp = &features["linux"]["seccomp"];
        for action in seccomp["actions"].as_array().unwrap().iter().filter(|action| *action != "SCMP_ACT_NOTIFY") {
            let profile: Profile = from_value(json!({"defaultAction": action})).unwrap();
            compile(&profile).unwrap();
        }
        for operator in seccomp["operators"].as_array().unwrap() {
            let args = json!([{"index": 0, "value": 1, "op": operator}]);
            let rule = json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": args});
            let profile: Profile = from_value(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})).unwrap();
            compile(&profile).unwrap();
        }
        let (known, supported) = (&seccomp["knownFlags"], &seccomp["supportedFlags"]);
        let profile: Profile = from_value(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": known})).unwrap();
        compile(&profile).unwrap();
        assert_eq!(known, supported);
    }

    #[test]
    fn all_mount_options_are_listed() {
        let features: Value = serde_json::from_str(include_str!("features.json")).unwrap();
        let listed = features["mountOptions"].as_array().unwrap();
        for word in crate::mount::words() {
            assert!(listed.contains(&json!(word)), "{word}");
        }
        assert!(listed.windows(2).all(|pair| pair[0].as_str() < pair[1].as_str()), "sorted, each once");
    }
}
