//! What a test may not leave behind: mounts, named network namespaces, interfaces, firewall tables, processes, control
//! groups, changes to the host's device nodes. Listed before and after each test, and the two must be equal.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Sandbox, wait};

/// How long the kernel may take to finish what a test has ended.
const GRACE: Duration = Duration::from_secs(5);

/// One listing of everything that can be left behind.
pub(crate) struct Listing {
    things: BTreeSet<String>,
}

impl Listing {
    pub(crate) fn take(sandbox: &Sandbox) -> Self {
        Self { things: things(sandbox) }
    }
}

/// Returns what is there now and was not there before, after giving it time to go.
pub(crate) fn since(before: &Listing, sandbox: &Sandbox) -> Vec<String> {
    let mut left = Vec::new();
    wait::start_the_clock();
    wait::poll_until(wait::deadline(GRACE), &mut || {
        left = things(sandbox).difference(&before.things).cloned().collect();
        left.is_empty().then_some(())
    });
    left
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
    // What may be changed of the host's own nodes is as bad as what is left.
    for node in ["null", "zero", "full", "random", "urandom"] {
        if let Ok(status) = fs::metadata(Path::new("/dev").join(node)) {
            things.insert(format!("/dev/{node} of {}:{}, {:o}", status.uid(), status.gid(), status.mode()));
        }
    }
    things.extend(processes(init));
    let cgroups = sandbox.name().map(cgroups).unwrap_or_default().into_iter();
    // The tools' common parent stays, as /docker and /machine.slice do.
    things.extend(cgroups.filter(|path| !path.ends_with("drayage")).map(|path| format!("cgroup {}", path.display())));
    things
}

/// Lists the processes of the sandbox's pid namespace, but not those that are about to look at it.
fn processes(init: i32) -> Vec<String> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    // The init itself is still about to become the program that it stays.
    let init = init.to_string();
    let Some(own) = namespace(&init) else { return Vec::new() };
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    pids.filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()) && *pid != init)
        .filter(|pid| namespace(pid).as_ref() == Some(&own))
        .filter_map(|pid| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let shown = String::from_utf8_lossy(&command).replace('\0', " ");
            Some(format!("process {pid} {}", shown.trim_end()))
        })
        .collect()
}

/// Lists the control groups below those that stand for the root in a sandbox, in every hierarchy, parents first.
fn cgroups(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = roots(name);
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(entry.path());
                found.push(entry.path());
            }
        }
    }
    found
}

fn roots(name: &str) -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(top).into_iter().flatten().flatten();
    // Some hierarchies have two names, one of them a symlink.
    let real = hierarchies.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let paths = real.map(|entry| entry.path().join(name)).chain([top.join(name)]);
    paths.filter(|path| path.is_dir()).collect()
}

/// Removes a sandbox's control groups once its processes are gone.
pub(super) fn remove_cgroups(name: &str) {
    let mut all = roots(name);
    all.extend(cgroups(name));
    all.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    for path in all {
        // The kernel takes a moment to let go of the last process.
        wait::poll_until(Instant::now() + GRACE, &mut || {
            (fs::remove_dir(&path).is_ok() || !path.exists()).then_some(())
        });
    }
}
