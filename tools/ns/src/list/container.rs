//! Which container a process belongs to: by the runtimes' own states, or by the name of its cgroup.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::path::Path;

use container::{Names, Noted};
use sys::namespace::Kind;

use super::process::ScannedProcess;
use super::scan::process_links;
use super::users::Users;

/// The containers that runtimes have noted, by what is theirs alone.
#[derive(Debug, Default)]
pub(crate) struct Containers {
    by_namespace: HashMap<u64, String>,
    by_pid: HashMap<i32, String>,
    names: Names,
}

impl Containers {
    /// Reads the states; ours are in `states`.
    pub(crate) fn read(proc: BorrowedFd<'_>, states: &Path) -> Self {
        let mut found = Self::default();
        // What is the host's belongs to no container, even if one shares it.
        let host = process_links(proc, "self/ns", &Kind::ALL).unwrap_or_default();
        let users = Users::read();
        let noted = container::all(states).inspect_err(|error| log::warn!("look for containers: {error}"));
        for Noted { id, pid, user, .. } in noted.unwrap_or_default() {
            let name = found.named(&id, user);
            let name = user.map_or_else(|| name.clone(), |user| format!("{}/{name}", users.name(user)));
            for inode in process_links(proc, &format!("{pid}/ns"), &Kind::ALL).unwrap_or_default() {
                if inode != 0 && !host.contains(&inode) {
                    found.by_namespace.entry(inode).or_insert_with(|| name.clone());
                }
            }
            found.by_pid.entry(pid).or_insert(name);
        }
        found
    }

    /// Returns the container of a namespace whose lowest process is `lead`, if it has one.
    pub(crate) fn find(&mut self, inode: u64, lead: Option<(i32, &ScannedProcess)>) -> Option<String> {
        if let Some(name) = self.by_namespace.get(&inode) {
            // Where several share it, it is the one's whose process was there first.
            let first = lead.and_then(|(pid, _)| self.by_pid.get(&pid));
            return Some(first.unwrap_or(name).clone());
        }
        let (pid, process) = lead?;
        if let Some(name) = self.by_pid.get(&pid) {
            return Some(name.clone());
        }
        let name = self.named(&in_cgroups(&process.cgroups)?, None);
        self.by_pid.insert(pid, name.clone());
        Some(name)
    }

    /// Engines keep the names that people give; an id of 64 digits is cut as docker cuts it.
    fn named(&mut self, id: &str, user: Option<u32>) -> String {
        if !is_digest(id) {
            return id.to_owned();
        }
        self.names.of(id, user).unwrap_or_else(|| id.chars().take(12).collect())
    }
}

/// Finds a container's id in /proc/PID/cgroup: the schemes of docker, podman, cri-o, containerd's CRI and ours.
pub(crate) fn in_cgroups(cgroups: &str) -> Option<String> {
    let paths = || cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    // A scope of ours comes last: anything may have a name that begins so.
    let scope = |name: &str| name.strip_prefix("drayage-").filter(|id| !id.is_empty()).map(str::to_owned);
    paths().find_map(in_path).or_else(|| paths().flat_map(|path| path.split('/')).map(without_scope).find_map(scope))
}

fn in_path(path: &str) -> Option<String> {
    let mut parent = "";
    path.split('/').find_map(|segment| {
        let name = without_scope(segment);
        let below = std::mem::replace(&mut parent, segment);
        // Any segment of 64 digits, not only behind a known prefix: docker's cgroupfs driver and kubelet's have the
        // bare id.
        if is_digest(name) {
            return Some(name.to_owned());
        }
        if below == "drayage" && !segment.is_empty() {
            return Some(without_root(segment).to_owned());
        }
        ["docker-", "libpod-", "crio-", "cri-containerd-"]
            .iter()
            .find_map(|prefix| name.strip_prefix(prefix))
            .filter(|id| is_digest(id))
            .map(str::to_owned)
    })
}

fn without_scope(name: &str) -> &str {
    name.strip_suffix(".scope").unwrap_or(name)
}

/// Takes off what tells containers of the same id in other roots apart: eight hexadecimal digits.
fn without_root(name: &str) -> &str {
    let is_root = |text: &str| text.len() == 8 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    name.rsplit_once('-').filter(|(id, root)| !id.is_empty() && is_root(root)).map_or(name, |(id, _)| id)
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_in_every_engines_cgroup() {
        let id = "0123456789abcdef".repeat(4);
        for (path, want) in [
            (format!("0::/docker/{id}"), Some(id.as_str())),
            (format!("0::/system.slice/docker-{id}.scope"), Some(&id)),
            (format!("12:cpu:/\n0::/machine.slice/libpod-{id}.scope/container"), Some(&id)),
            (format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"), Some(&id)),
            (format!("4:memory:/kubepods/besteffort/pod1/{id}"), Some(&id)),
            ("0::/drayage-web".to_owned(), Some("web")),
            ("0::/drayage/web".to_owned(), Some("web")),
            ("9:pids:/drayage/web-2-0a1b2c3d/inner".to_owned(), Some("web-2")),
            ("0::/drayage-e2e/drayage/db-12".to_owned(), Some("db-12")),
            ("0::/drayage".to_owned(), None),
            ("0::/user.slice/user-0.slice/session-1.scope".to_owned(), None),
            ("0::/docker/short".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(in_cgroups(&path).as_deref(), want, "{path}");
        }
    }
}
