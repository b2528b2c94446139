//! What a container costs in system calls: unlike its time, their number is the same each time.

use serde_json::{Value, json};

use super::bundle;
use crate::support::{Need, Sandbox, Test, test};

const UNIFIED: &[Need] = &[Need::Root, Need::Program("busybox"), Need::Program("strace"), Need::UnifiedCgroups];
const LEGACY: &[Need] = &[Need::Root, Need::Program("busybox"), Need::Program("strace"), Need::LegacyCgroups];

/// For the container itself, with its program's own dozen; a third of it are the mounts and what is dropped of the
/// bounding set. Ten are for null devices of the container's own, on stdin here and in place of masked files.
const CALLS: usize = 325;
/// For each hierarchy of cgroups: found, made, joined, mounted, removed.
const CALLS_A_HIERARCHY: usize = 10;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("a_run_makes_few_system_calls_on_cgroup_v2", UNIFIED, few_calls),
        test("a_run_makes_few_system_calls_on_cgroup_v1", LEGACY, few_calls),
    ]
}

/// Counts the calls of `run` and of the container's process, with the configuration that `spec` writes.
fn few_calls(sandbox: &Sandbox) {
    bundle(sandbox, "few", "true", |_| {});
    sandbox.sh("rm few/config.json && spawn spec -b few").run().ok();
    let mut config: Value = serde_json::from_str(&sandbox.read("few/config.json")).unwrap();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/true"]);
    sandbox.write("few/config.json", config.to_string());
    let run = format!("spawn --root {} run -b few e2e-few", sandbox.at("st"));
    // The first one makes the directory of the states.
    sandbox.sh(&run).run().ok();
    sandbox.sh(&format!("strace -f -qq -o trace {run}")).run().ok();
    let trace = sandbox.read("trace");
    // In a debug build the standard library looks at each descriptor before it closes it; how much memory is asked for, and
    // how long /proc/self/maps is, differs between machines. The bound is one with these calls, and so has room.
    let others = ["<... ", "F_GETFD", " brk(", " mmap(", " munmap(", " mprotect(", " madvise(", " mremap("];
    let is_call = |line: &&str| line.contains('(') && !others.iter().any(|other| line.contains(other));
    let calls = trace.lines().filter(is_call).count();
    let hierarchies = sandbox.sh("ls -d /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs").run().stdout;
    let bound = CALLS + CALLS_A_HIERARCHY * hierarchies.lines().count().min(16);
    assert!(calls > 200 && calls <= bound, "{calls} calls, {bound} were enough: {trace}");
}
