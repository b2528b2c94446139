//! What a container of an ordinary user's cannot have: a control group below the host's root, and ids that the user's
//! namespace has not.

use serde_json::Value;

/// Takes out of a configuration what would be refused.
pub(crate) fn adapt(config: &mut Value) {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    adapt_to(config, &read("gid_map"));
    if read("setgroups").trim_end() == "deny" {
        // The groups that the user has are kept then.
        if let Some(user) = config["process"]["user"].as_object_mut() {
            user.shift_remove("additionalGids");
        }
    }
}

fn adapt_to(config: &mut Value, groups: &str) {
    if let Some(linux) = config["linux"].as_object_mut() {
        linux.shift_remove("cgroupsPath");
        let resources = linux.get_mut("resources").and_then(Value::as_object_mut);
        // Nothing but the devices that are there limits their use: in a user namespace mknod(2) of a device is
        // refused (user_namespaces(7)), and no file system that is mounted there has devices of its own.
        if resources.is_some_and(|resources| resources.shift_remove("devices").is_some() && resources.is_empty()) {
            linux.shift_remove("resources");
        }
    }
    if let Some(parameters) = config["linux"]["sysctl"].as_object_mut() {
        // All of them would have to be mapped.
        parameters.shift_remove("net.ipv4.ping_group_range");
    }
    if let Some(mounts) = config["mounts"].as_array_mut() {
        // The hierarchies are the host's, and there is no group to show.
        mounts.retain(|mount| mount["type"] != "cgroup");
        for options in mounts.iter_mut().filter_map(|mount| mount["options"].as_array_mut()) {
            // The group of terminals.
            let gid = |option: &Value| option.as_str()?.strip_prefix("gid=")?.parse().ok();
            options.retain(|option| gid(option).is_none_or(|gid| is_mapped(gid, groups)));
        }
    }
}

/// Tells whether a namespace with this `gid_map` has a group: `user_namespaces(7)`.
fn is_mapped(gid: u64, map: &str) -> bool {
    map.lines().any(|line| {
        let numbers: Vec<u64> = line.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
        matches!(numbers[..], [first, _, count] if (first..first.saturating_add(count)).contains(&gid))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_would_be_refused_is_taken_out() {
        let mut config = json!({
            "mounts": [{"type": "devpts", "options": ["gid=5"]}, {"type": "cgroup"}],
            "linux": {
                "cgroupsPath": "/drayage/web",
                "resources": {"devices": []},
                "sysctl": {"net.ipv4.ping_group_range": "0 1", "a.b": "1"},
            },
        });
        adapt_to(&mut config, "0 1000 1\n1 100000 65536\n");
        let want = json!({"mounts": [{"type": "devpts", "options": ["gid=5"]}], "linux": {"sysctl": {"a.b": "1"}}});
        assert_eq!(config, want);
        adapt_to(&mut config, "0 1000 1\n");
        assert_eq!(config["mounts"], json!([{"type": "devpts", "options": []}]));
        // A limit that was asked for stays, to be refused by who cannot set it.
        let mut limited = json!({"linux": {"resources": {"devices": [], "pids": {"limit": 7}}}});
        adapt_to(&mut limited, "");
        assert_eq!(limited["linux"]["resources"], json!({"pids": {"limit": 7}}));
    }
}
