//! Mounts of type `cgroup`: what the container sees under `/sys/fs/cgroup`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use rustix::fs::Mode;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};
use sys::mount::{MountAttributes, attach, set_attributes};

use super::Rootfs;
use super::attach::detached;
use crate::config::NamespaceKind;
use crate::file::leave_open;
use crate::mount::{NODEV, NOEXEC, NOSUID, ParsedMount, RDONLY};

impl Rootfs<'_> {
    pub(super) fn mount_cgroup(&mut self, mount: &ParsedMount) -> anyhow::Result<()> {
        let target = root::make_directory(self.root(), &mount.destination, 0o755).context("make the mount point")?;
        if self.cgroups.is_unified() || mount.kind == "cgroup2" {
            return self.mount_unified(mount, target.as_fd());
        }
        let base = new_mount("tmpfs", &["mode=755"], NOSUID | NODEV | NOEXEC).context("mount tmpfs")?;
        attach(base.as_fd(), target.as_fd()).context("attach tmpfs")?;
        leave_open(target);
        let cgroups = self.cgroups;
        // The names under which systemd's hybrid form has them on the host, which programs inside look for.
        let unified = cgroups.unified.iter().map(|directory| ("unified", directory));
        for (controllers, directory) in cgroups.v1.iter().map(|(name, path)| (name.as_str(), path)).chain(unified) {
            rustix::fs::mkdirat(&base, controllers, Mode::from_raw_mode(0o755))
                .with_context(|| format!("make {controllers}"))?;
            let hierarchy = self.hierarchy(controllers, directory)?;
            rustix::mount::move_mount(&hierarchy, c"", &base, controllers, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
                .with_context(|| format!("attach {controllers}"))?;
            leave_open(hierarchy);
            if controllers.contains(',') {
                // `cpu` beside `cpu,cpuacct`: programs open hierarchies by a single controller's name.
                for one in controllers.split(',') {
                    rustix::fs::symlinkat(controllers, &base, one).with_context(|| format!("link {one}"))?;
                }
            }
        }
        let change = MountAttributes::new(mount.attributes.set, mount.attributes.clear);
        // Recursively: the tmpfs and all hierarchies in it. A writable one would let the container's root change its
        // own limits.
        set_attributes(base.as_fd(), true, &change).context("set options")?;
        if mount.attributes.set & RDONLY != 0 {
            // Only the hierarchies yet, if what is mounted beside them needs a place.
            let place = &mount.destination;
            let mut others = self.config.mounts.iter().map(|other| &other.destination).filter(|other| *other != place);
            if others.any(|other| other.starts_with(place)) {
                set_attributes(base.as_fd(), false, &MountAttributes::new(0, RDONLY)).context("set options")?;
                self.read_only_later.push(base);
                return Ok(());
            }
        }
        leave_open(base);
        Ok(())
    }

    /// With a cgroup namespace the kernel shows the own cgroup as the root; without one it is bound there.
    fn hierarchy(&self, controllers: &str, directory: &Path) -> anyhow::Result<OwnedFd> {
        let v2 = controllers == "unified" && self.cgroups.unified.as_deref() == Some(directory);
        if self.config.linux.has(NamespaceKind::Cgroup) {
            let named = format!("name={controllers}");
            let (kind, words) = match (v2, controllers) {
                (true, _) => ("cgroup2", Vec::new()),
                // A named hierarchy without controllers (cgroups(7), "Named hierarchies").
                (false, "systemd") => ("cgroup", vec!["none", named.as_str()]),
                (false, _) => ("cgroup", controllers.split(',').collect()),
            };
            return new_mount(kind, &words, 0).with_context(|| format!("mount cgroup {controllers}"));
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        rustix::mount::open_tree(rustix::fs::CWD, directory, flags)
            .with_context(|| format!("clone {}", directory.display()))
    }

    fn mount_unified(&mut self, mount: &ParsedMount, target: BorrowedFd<'_>) -> anyhow::Result<()> {
        let made = match &self.cgroups.unified {
            Some(directory) if !self.config.linux.has(NamespaceKind::Cgroup) => self.hierarchy("unified", directory)?,
            _ => new_mount("cgroup2", &[], 0).context("mount cgroup2")?,
        };
        super::attach::change(made.as_fd(), mount)?;
        attach(made.as_fd(), target).context("attach the mount")
    }
}

/// Makes a file system, mounted nowhere.
pub(crate) fn new_mount(kind: &str, words: &[&str], attributes: u64) -> anyhow::Result<OwnedFd> {
    detached(&ParsedMount { kind: kind.to_owned(), ..ParsedMount::default() }, words, attributes)
}
