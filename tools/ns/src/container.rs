//! The containers that runtimes have noted, ours and others': one directory a container, in it a file with its process.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A container as its runtime has noted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    /// Its id.
    pub(crate) id: String,
    /// Its first process, which may be gone.
    pub(crate) pid: i32,
}

/// Runtimes' directories, the file in a container's directory, and the member with the pid.
const OTHERS: [(&str, &str, &str); 6] = [
    ("/run/runc", "state.json", "init_process_pid"),
    ("/run/crun", "status", "pid"),
    ("/run/docker/runtime-runc/moby", "state.json", "init_process_pid"),
    ("/run/containerd/runc/default", "state.json", "init_process_pid"),
    ("/run/containerd/runc/moby", "state.json", "init_process_pid"),
    ("/run/containerd/runc/k8s.io", "state.json", "init_process_pid"),
];

/// Returns all that are noted; ours are in `states`.
pub(crate) fn all(states: &Path) -> Vec<Noted> {
    let mut found = vec![];
    for (directory, file, member) in places(states) {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let pid = pid_in(&entry.path().join(file), member);
            found.extend(pid.zip(entry.file_name().into_string().ok()).map(|(pid, id)| Noted { id, pid }));
        }
    }
    found
}

/// Returns the container of that id, or the only one whose id begins so.
pub(crate) fn find(states: &Path, id: &str) -> Option<Noted> {
    // An id is one name: with a slash in it, it would lead anywhere.
    if !id.is_empty() && !id.contains('/') && !id.starts_with('.') {
        let exact = places(states).into_iter().find_map(|(directory, file, member)| {
            pid_in(&directory.join(id).join(file), member).map(|pid| Noted { id: id.to_owned(), pid })
        });
        if exact.is_some() {
            return exact;
        }
    }
    let mut begun = all(states).into_iter().filter(|noted| id.len() >= 4 && noted.id.starts_with(id));
    begun.next().filter(|_| begun.next().is_none())
}

fn places(states: &Path) -> Vec<(PathBuf, &'static str, &'static str)> {
    let own = [(states.to_owned(), "state.json", "init_process_pid")];
    let others = OTHERS.iter().map(|(directory, file, member)| (PathBuf::from(directory), *file, *member));
    own.into_iter().chain(others).collect()
}

fn pid_in(path: &Path, member: &str) -> Option<i32> {
    let state: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let pid = state.get(member)?.as_i64().and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0)?;
    match state.get("init_process_start").and_then(Value::as_u64) {
        Some(start) if started(pid) != Some(start) => None,
        _ => Some(pid),
    }
}

/// When a process started, in clock ticks since boot: tells it from an earlier one of the same number (`proc_pid_stat(5)`,
/// field 22).
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    String::from_utf8_lossy(&stat).rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_a_process_that_is_gone_is_none() {
        let own = i32::try_from(std::process::id()).unwrap();
        let start = started(own).unwrap();
        let directory = tempfile();
        for (id, start) in [("live-one", start), ("stale-one", start + 1)] {
            fs::create_dir_all(directory.join(id)).unwrap();
            let state = format!(r#"{{"init_process_pid":{own},"init_process_start":{start}}}"#);
            fs::write(directory.join(id).join("state.json"), state).unwrap();
        }
        for (id, want) in
            [("live-one", Some(own)), ("live", Some(own)), ("stale-one", None), ("li", None), ("../x", None)]
        {
            assert_eq!(find(&directory, id).map(|noted| noted.pid), want, "{id}");
        }
        fs::remove_dir_all(&directory).unwrap();
    }

    fn tempfile() -> PathBuf {
        let directory = std::env::temp_dir().join(format!("ns-states-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        directory
    }
}
