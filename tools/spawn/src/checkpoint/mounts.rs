//! Which of a container's mounts criu makes again by itself, and where the others come from: what was bound into the
//! container is known to the host alone.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use cgroup::Cgroups;
use rustix::fs::OFlags;
use rustix::process::Pid;

use crate::config::Config;
use crate::mount::ParsedMount;
use crate::{file, rootfs};

/// The mounts in a container.
pub(super) struct External {
    /// The numbers of all of them.
    pub own: BTreeSet<u64>,
    /// Where each of those from outside is mounted, and what it is: `bind DESTINATION\0BELOW` of the configuration, `cgroup
    /// CONTROLLERS`, or `file PATH`.
    pub found: BTreeMap<String, String>,
}

/// A line of `/proc/PID/mountinfo`: `proc_pid_mountinfo(5)`.
struct Line {
    id: u64,
    parent: u64,
    root: String,
    place: String,
    kind: String,
}

/// Finds the mounts of a container from outside of it.
pub(super) fn external(config: &Config, pid: Pid) -> anyhow::Result<External> {
    let process = PathBuf::from("/proc").join(pid.as_raw_pid().to_string());
    let lines = lines(&file::read(process.join("mountinfo")).context("read the container's mounts")?);
    // The container's paths are looked up in its root: they mean nothing in ours, and a link in it must not lead out.
    let root = file::open(process.join("root"), OFlags::PATH | OFlags::DIRECTORY)?;
    let mut bound = BTreeMap::new();
    for mount in config.mounts.iter().map(ParsedMount::parse).filter(|mount| mount.bind.is_some()) {
        // The destination may lead through links.
        let place = root::open(root.as_fd(), &mount.destination)
            .with_context(|| format!("open {}", mount.destination.display()))?;
        if let Some(id) = rootfs::mount_id(&place, Path::new("")) {
            bound.insert(id, (mount.destination.display().to_string(), String::new()));
        }
    }
    let mut found = BTreeMap::new();
    for line in lines.iter().filter(|line| line.place != "/") {
        let source = match line.kind.as_str() {
            _ if bound.contains_key(&line.id) => {
                bound.get(&line.id).map(|(mount, below)| format!("bind {mount}\0{below}"))
            }
            "cgroup" | "cgroup2" => line.place.rsplit('/').next().map(|name| format!("cgroup {name}")),
            // The file system of the host's devices has one instance: a container that has a part of it got it by a
            // bind mount.
            "devtmpfs" => Some(format!("file /dev{}", line.root)),
            _ => {
                // What was mounted below a source came along with it.
                let above = lines.iter().find(|above| above.id == line.parent);
                let inherited = above.and_then(|above| {
                    let (mount, below) = bound.get(&above.id)?;
                    let rest = line.place.strip_prefix(&above.place)?;
                    Some((mount.clone(), format!("{below}{rest}")))
                });
                inherited.map(|(mount, below)| {
                    let source = format!("bind {mount}\0{below}");
                    bound.insert(line.id, (mount, below));
                    source
                })
            }
        };
        found.extend(source.map(|source| (line.place.clone(), source)));
    }
    Ok(External { own: lines.iter().map(|line| line.id).collect(), found })
}

fn lines(text: &str) -> Vec<Line> {
    let parse = |line: &str| {
        // The optional fields before ` - ` are of any number: proc_pid_mountinfo(5) has the mark for this reason.
        let (mount, file_system) = line.split_once(" - ")?;
        let fields: Vec<&str> = mount.split(' ').collect();
        let plain = |field: &str| String::from_utf8_lossy(&file::unescape(field.as_bytes())).into_owned();
        Some(Line {
            id: fields.first()?.parse().ok()?,
            parent: fields.get(1)?.parse().ok()?,
            root: plain(fields.get(3)?),
            place: plain(fields.get(4)?),
            kind: file_system.split(' ').next()?.to_owned(),
        })
    };
    text.lines().filter_map(parse).collect()
}

/// Returns where the sources of such mounts are now.
pub(super) fn sources(
    found: &BTreeMap<String, String>,
    config: &Config,
    bundle: &Path,
    cgroups: &Cgroups,
) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let source = |what: &str| {
        let (kind, name) = what.split_once(' ').unwrap_or_default();
        match kind {
            "bind" => {
                let (destination, below) = name.split_once('\0').unwrap_or((name, ""));
                let mut mounts = config.mounts.iter().map(ParsedMount::parse);
                let mount = mounts.find(|mount| mount.destination == Path::new(destination));
                let mount = mount.with_context(|| format!("config.json has no mount on {destination}"))?;
                Ok(bundle.join(&mount.source).join(below.trim_start_matches('/')))
            }
            "cgroup" => {
                let unified = cgroups.unified.as_ref().filter(|_| name == "unified" || cgroups.is_unified());
                let found = unified.or_else(|| cgroups.v1.get(name));
                found.cloned().with_context(|| format!("there is no cgroup {name}"))
            }
            "file" => Ok(PathBuf::from(name)),
            _ => bail!("mounts.json: {what:?} is unknown"),
        }
    };
    found.iter().map(|(place, what)| Ok((place.clone(), source(what)?))).collect()
}

/// Makes the places of mounts in the rootfs and in what is bound into it: both may be new copies. What is in other file
/// systems criu makes itself.
pub(super) fn make_places(config: &Config, bundle: &Path, rootfs: &Path) -> anyhow::Result<()> {
    let mounts: Vec<ParsedMount> = config.mounts.iter().map(ParsedMount::parse).collect();
    for (at, mount) in mounts.iter().enumerate() {
        // Only mounts that come earlier in the list can lie under this one: the list is in the order of mounting.
        let above = mounts[..at].iter().rfind(|above| mount.destination.starts_with(&above.destination));
        let (root, place) = match above {
            None => (rootfs.to_owned(), mount.destination.as_path()),
            Some(above) if above.bind.is_some() => {
                let below = mount.destination.strip_prefix(&above.destination).unwrap_or(Path::new(""));
                (bundle.join(&above.source), below)
            }
            Some(_) => continue,
        };
        let root = file::open(root, OFlags::PATH | OFlags::DIRECTORY)?;
        let made = if mount.bind.is_some() && bundle.join(&mount.source).is_file() {
            root::make_file(root.as_fd(), place)
        } else {
            root::make_directory(root.as_fd(), place, 0o755)
        };
        made.with_context(|| format!("make {}", mount.destination.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_the_kernel_writes_them() {
        let text = "37 25 0:31 / /dev\\040two rw,nosuid shared:7 - tmpfs tmpfs rw,size=1k\nnonsense\n";
        let lines = lines(text);
        let [line] = lines.as_slice() else { panic!() };
        let read = (line.id, line.parent, line.root.as_str(), line.place.as_str(), line.kind.as_str());
        assert_eq!(read, (37, 25, "/", "/dev two", "tmpfs"));
    }
}
