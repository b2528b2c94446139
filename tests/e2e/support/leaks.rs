//! What a test may not leave behind: mounts, named network namespaces, interfaces, firewall tables, processes, control
//! groups. Listed before and after each test, and the two must be equal.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Sandbox, wait};

/// How long the kernel may take to finish what a test has ended.
const GRACE: Duration = Duration::from_secs(5);

/// One listing of everything that can be left behind.
pub(super) struct Listing {
    things: BTreeSet<String>,
    cgroups: BTreeSet<PathBuf>,
}

impl Listing {
    pub(super) fn take(sandbox: &Sandbox) -> Self {
        Self { things: things(sandbox), cgroups: cgroups().into_iter().collect() }
    }
}

/// Returns what is there now and was not there before, after giving it time to go.
pub(super) fn since(before: &Listing, sandbox: &Sandbox) -> Vec<String> {
    let mut left = Vec::new();
    wait::start_the_clock();
    wait::poll_until(wait::deadline(GRACE), &mut || {
        left = things(sandbox).difference(&before.things).cloned().collect();
        left.extend(new_cgroups(before));
        left.is_empty().then_some(())
    });
    left
}

/// Control groups are one tree for the whole machine, and other tests run at the same time: those that somebody still
/// uses are somebody's, and a left one has no processes.
fn new_cgroups(before: &Listing) -> Vec<String> {
    let new = cgroups().into_iter().filter(|path| !before.cgroups.contains(path));
    new.filter(|path| !populated(path)).map(|path| format!("cgroup {}", path.display())).collect()
}

fn things(sandbox: &Sandbox) -> BTreeSet<String> {
    let Some(init) = sandbox.init() else { return BTreeSet::new() };
    let mut things = BTreeSet::new();
    // proc_pid_mountinfo(5): the fifth field is the mount point.
    for line in fs::read_to_string(format!("/proc/{init}/mountinfo")).unwrap_or_default().lines() {
        things.insert(format!("mount {}", line.split(' ').nth(4).unwrap_or(line)));
    }
    for line in fs::read_to_string(format!("/proc/{init}/net/dev")).unwrap_or_default().lines().skip(2) {
        things.insert(format!("interface {}", line.split(':').next().unwrap_or(line).trim()));
    }
    for entry in fs::read_dir(sandbox.outside("/run/netns")).into_iter().flatten().flatten() {
        things.insert(format!("network namespace {}", entry.file_name().to_string_lossy()));
    }
    if super::needs::find_program("nft").is_some() {
        let tables = sandbox.run(&["nft", "list", "tables"]);
        things.extend(tables.stdout.lines().map(|line| format!("firewall {line}")));
    }
    things.extend(processes(init));
    things
}

/// Lists the processes of the sandbox's pid namespace, but not those that are about to look at it.
fn processes(init: i32) -> Vec<String> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(own) = namespace(&init.to_string()) else { return Vec::new() };
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    pids.filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()) && namespace(pid).as_ref() == Some(&own))
        .filter_map(|pid| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let shown = String::from_utf8_lossy(&command).replace('\0', " ");
            Some(format!("process {pid} {}", shown.trim_end()))
        })
        .collect()
}

/// Lists the control groups that can be a test's, in every hierarchy: those below the tools' own parent, and those that
/// are named after a test. Others on the machine are none of a test's business.
pub(super) fn cgroups() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(entry.path());
                found.push(entry.path());
            }
        }
    }
    found.retain(|path| ours(path));
    found
}

fn ours(path: &Path) -> bool {
    // The common parent itself stays, as /docker and /machine.slice do.
    let below = path.parent().is_some_and(|parent| parent.components().any(|part| part.as_os_str() == "drayage"));
    below || path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("e2e-"))
}

/// Removes a test's empty control groups that are not in `before`.
pub(super) fn remove_cgroups(before: &[PathBuf]) {
    let mut new: Vec<PathBuf> =
        cgroups().into_iter().filter(|path| !before.contains(path) && !populated(path)).collect();
    // Children first.
    new.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    for path in new {
        // One that has come to use in the meantime refuses to go.
        let _ = fs::remove_dir(path);
    }
}

fn populated(cgroup: &Path) -> bool {
    let own = fs::read_to_string(cgroup.join("cgroup.procs")).is_ok_and(|text| !text.is_empty());
    own || fs::read_dir(cgroup)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()) && populated(&entry.path()))
}
