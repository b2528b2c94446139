//! A thousand containers on one machine at once.

use std::time::Duration;

use super::bundle;
use crate::support::{Need, Sandbox, Test, test};

const NEEDS: &[Need] = &[Need::Root, Need::Program("busybox")];

const COUNT: usize = 1000;

/// For each container, what its process has for itself and no spawn stays to add to.
const KILOBYTES_EACH: u64 = 256;

pub(crate) fn tests() -> Vec<Test> {
    vec![test("a_thousand_containers_of_eight_creators_live_and_leave_nothing", NEEDS, thousand)]
}

/// Runs a command of spawn for every container, eight at a time, each within 128 MB of address space.
fn for_each(sandbox: &Sandbox, command: &str) {
    let script =
        format!("ulimit -v 131072; seq {COUNT} | xargs -P 8 -I '{{}}' spawn --root {} {command}", sandbox.at("st"));
    sandbox.sh(&format!("{script} >/dev/null")).limit(Duration::from_secs(120)).run().ok().stderr_is("");
}

/// Returns how many containers `spawn list` shows in a state, and what memory their processes have for themselves.
fn listed(sandbox: &Sandbox, state: &str) -> (usize, u64) {
    let list = format!("ulimit -v 131072; spawn --root {} list --format json", sandbox.at("st"));
    let listed = sandbox.sh(&list).run().ok().json();
    let pids: Vec<u64> = listed
        .as_array()
        .into_iter()
        .flatten()
        .filter(|container| container["status"] == state)
        .filter_map(|container| container["pid"].as_u64())
        .collect();
    let own = |pid: &u64| private_kilobytes(&sandbox.read(format!("/proc/{pid}/smaps_rollup")));
    (pids.len(), pids.iter().map(own).sum())
}

fn private_kilobytes(rollup: &str) -> u64 {
    let lines = rollup.lines().filter(|line| line.starts_with("Private_"));
    lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

fn thousand(sandbox: &Sandbox) {
    bundle(sandbox, "many", "exec sleep 1000", |_| {});
    for_each(sandbox, "run -d -b many e2e-many-{}");
    let (count, kilobytes) = listed(sandbox, "running");
    assert_eq!(count, COUNT);
    assert!(kilobytes <= KILOBYTES_EACH * COUNT as u64, "{kilobytes} kB for {COUNT} containers");
    for_each(sandbox, "delete --force e2e-many-{}");
    sandbox.sh(&format!("spawn --root {} list -q", sandbox.at("st"))).run().ok().stdout_is("");
    sandbox.sh(&format!("ls {}", sandbox.at("st"))).run().ok().stdout_is("");
}
