//! The system calls that a container may make: docker's default profile, stated as what it allows, or a file in
//! docker's or the runtime specification's form.

mod file;

use std::collections::BTreeSet;

use rustix::thread::CapabilitySet;
use serde_json::{Value, json};

use crate::capability;

pub(crate) use file::parse;

/// What is allowed whatever its arguments are, by subject, and below names what only a capability or an architecture opens.
const CALLS: &str = include_str!("seccomp/calls.txt");

/// `CLONE_NEW*`, without `CLONE_NEWTIME`: what `clone(2)` may not be asked for without `CAP_SYS_ADMIN`.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// Domains, 32-bit programs and address layouts that `personality(2)` may choose; the last one asks only.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
const ENOSYS: u32 = 38;

/// The architectures: as Go names them, and as seccomp names them and those that run on the same kernel.
const ARCHITECTURES: [(&str, &[&str]); 2] = [
    ("amd64", &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
    ("arm64", &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
];

/// Returns the name that Go has for the architecture this program was built for.
pub(crate) fn host_architecture() -> String {
    layout::Platform::host().architecture
}

/// Returns the names that seccomp has for it, its own first.
fn architectures() -> Option<&'static [&'static str]> {
    let host = host_architecture();
    ARCHITECTURES.iter().find(|(go, _)| *go == host).map(|(_, names)| *names)
}

/// Returns the calls that are allowed whatever their arguments are.
fn allowed(capabilities: CapabilitySet) -> BTreeSet<&'static str> {
    let (host, mut open, mut allowed) = (host_architecture(), true, BTreeSet::new());
    for line in CALLS.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            open = name == host || capability::named(name).is_ok_and(|capability| capabilities.contains(capability));
        } else if open {
            allowed.extend(line.split_ascii_whitespace());
        }
    }
    allowed
}

/// Returns docker's default profile for a set of capabilities (runtime-spec, config-linux.md, "Seccomp").
pub(crate) fn default_profile(capabilities: CapabilitySet) -> Value {
    let mut rules = vec![json!({"names": allowed(capabilities), "action": "SCMP_ACT_ALLOW"})];
    rules.extend(PERSONALITIES.map(|value| allow_if("personality", 0, value, None)));
    // All but the kernel's ciphers and the hypervisor.
    // A filter compares numbers and cannot say "none of these": below, between and above are three rules.
    for (value, comparison) in [(AF_ALG, "SCMP_CMP_LT"), (AF_ALG + 1, "SCMP_CMP_EQ"), (AF_VSOCK, "SCMP_CMP_GT")] {
        rules.push(json!({
            "names": ["socket"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": value, "op": comparison}],
        }));
    }
    if !capabilities.contains(CapabilitySet::SYS_ADMIN) {
        // None of the bits may be set. The flags are the first argument on all architectures here; s390 has them
        // second.
        rules.push(allow_if("clone", 0, NEW_NAMESPACES, Some(0)));
        // Its flags lie in memory, where a filter cannot look. ENOSYS makes libc fall back on clone.
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    let mut profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1});
    if let Some(names) = architectures() {
        // A call by another architecture's numbers kills its thread: the 32-bit ones have to be named, or their
        // programs would die in an image that has them.
        profile["architectures"] = json!(names);
    }
    profile["syscalls"] = Value::Array(rules);
    profile
}

/// Allows a call if its argument is `value`, or under the mask `value` is `masked`.
fn allow_if(name: &str, index: u32, value: u64, masked: Option<u64>) -> Value {
    let argument = match masked {
        None => json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"}),
        Some(masked) => json!({"index": index, "value": value, "valueTwo": masked, "op": "SCMP_CMP_MASKED_EQ"}),
    };
    json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [argument]})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(capabilities: &[&str]) -> BTreeSet<&'static str> {
        super::allowed(capabilities.iter().map(|name| capability::named(name).unwrap()).collect())
    }

    #[test]
    fn capabilities_open_their_calls_and_no_others() {
        let without = allowed(&[]);
        for name in ["mount", "unshare", "setns", "bpf", "clone", "clone3", "io_uring_setup", "keyctl", "userfaultfd"] {
            assert!(!without.contains(name), "{name}");
        }
        for name in ["read", "ptrace", "openat2", "landlock_restrict_self"] {
            assert!(without.contains(name), "{name}");
        }
        let with: Vec<&str> = allowed(&["SYS_TIME"]).difference(&without).copied().collect();
        assert_eq!(with, ["clock_settime", "clock_settime64", "settimeofday", "stime"]);
        assert!(allowed(&["SYS_ADMIN"]).contains("clone3"));
    }

    #[test]
    fn arguments_are_filtered() {
        let profile = default_profile(CapabilitySet::empty());
        let rules = profile["syscalls"].as_array().unwrap();
        let of =
            |name: &str| rules.iter().filter(|rule| rule["names"][0] == name && rule.get("args").is_some()).count();
        assert_eq!((of("personality"), of("socket"), of("clone")), (5, 3, 1));
        let clone3 = rules.iter().find(|rule| rule["names"][0] == "clone3").unwrap();
        assert_eq!((&clone3["action"], &clone3["errnoRet"]), (&json!("SCMP_ACT_ERRNO"), &json!(38)));
        let privileged = default_profile(CapabilitySet::SYS_ADMIN);
        assert!(!privileged["syscalls"].as_array().unwrap().iter().any(|rule| rule["names"][0] == "clone3"));
    }

    /// Returns what a profile says, a call and its condition each.
    fn facts(profile: &Value) -> BTreeSet<String> {
        let mut facts = BTreeSet::new();
        for rule in profile["syscalls"].as_array().unwrap() {
            let condition = match (&rule["args"][0], &rule["errnoRet"]) {
                (Value::Null, Value::Null) => String::new(),
                (Value::Null, errno) => format!(" errno {errno}"),
                (argument, _) => {
                    let operation = argument["op"].as_str().unwrap().trim_start_matches("SCMP_CMP_");
                    format!(" argument {} {operation} {}", argument["index"], argument["value"])
                }
            };
            let names = rule["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
            facts.extend(names.map(|name| format!("{name}{condition}")));
        }
        facts
    }

    /// Returns the same of docker's table.
    fn docker(capabilities: CapabilitySet) -> BTreeSet<String> {
        let has = |name: &str| capabilities.contains(capability::named(name).unwrap());
        let mut facts = BTreeSet::new();
        for line in include_str!("seccomp/docker.txt").lines().filter(|line| !line.starts_with('#')) {
            let (condition, names) = line.split_once(": ").unwrap();
            let (holds, rest) = match condition.split_once(' ') {
                Some(("with", name)) => (has(name), ""),
                Some(("without", rest)) => rest.split_once(' ').map(|(name, rest)| (!has(name), rest)).unwrap(),
                Some(("on", names)) => (names.split(',').any(|name| name == host_architecture()), ""),
                Some(_) => (true, condition),
                None => (true, ""),
            };
            let fact = |name: &str| format!("{name} {rest}").trim_end().to_owned();
            facts.extend(names.split(' ').filter(|_| holds).map(fact));
        }
        facts
    }

    #[test]
    fn the_profile_is_docker_s() {
        let sections = CALLS.lines().filter_map(|line| line.strip_prefix('[')?.strip_suffix(']'));
        let all: Vec<CapabilitySet> = sections.filter_map(|name| capability::named(name).ok()).collect();
        assert_eq!(all.len(), 14);
        for capabilities in all.iter().copied().chain([CapabilitySet::empty(), all.iter().copied().collect()]) {
            let (ours, docker) = (facts(&default_profile(capabilities)), docker(capabilities));
            let wider: Vec<_> = ours.difference(&docker).collect();
            let narrower: Vec<_> = docker.difference(&ours).collect();
            assert!(
                wider.is_empty() && narrower.is_empty(),
                "{capabilities:?}: wider {wider:?}, narrower {narrower:?}"
            );
        }
    }

    #[test]
    fn no_name_is_listed_twice() {
        let (common, _) = CALLS.split_once("\n[").unwrap();
        let lines = common.lines().filter(|line| !line.starts_with('#'));
        let names: Vec<&str> = lines.flat_map(str::split_ascii_whitespace).collect();
        assert!(names.len() > 300);
        assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len());
    }
}
