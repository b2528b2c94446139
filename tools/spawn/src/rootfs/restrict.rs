//! `linux.maskedPaths` and `linux.readonlyPaths` (runtime-spec, config-linux.md).
//!
//! Both work on what is there now. A path that does not exist is left alone, as the specification and peers have it:
//! the default list names files that not every kernel has.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, ensure};
use rustix::fs::OFlags;
use rustix::io::Errno;
use sys::mount::{MountAttributes, attach, clone_tree, set_attributes};

use super::cgroup::new_mount;
use super::{Rootfs, attach_for_good};
use crate::file::{self, leave_open};
use crate::mount::{NODEV, NOEXEC, NOSUID, RDONLY};
use crate::stdio::{self, is_null};

/// What hides others: made when first needed.
#[derive(Default)]
struct Masks {
    /// The container's own null device, where it has one.
    own_null: Option<OwnedFd>,
    null: Option<OwnedFd>,
    directory: Option<OwnedFd>,
}

impl Rootfs<'_> {
    /// Returns the container's own null device, if one was needed.
    pub(super) fn restrict(&self) -> anyhow::Result<Option<OwnedFd>> {
        for path in &self.config.linux.readonly_paths {
            self.protect(path).with_context(|| format!("make {} read-only", path.display()))?;
        }
        let mut masks = Masks::default();
        let masked = &self.config.linux.masked_paths;
        for path in masked.iter().enumerate().filter(|(at, path)| !masked[..*at].contains(path)).map(|(_, path)| path) {
            self.hide(path, &mut masks).with_context(|| format!("mask {}", path.display()))?;
        }
        masks.null.into_iter().chain(masks.directory).for_each(leave_open);
        Ok(masks.own_null)
    }

    fn find(&self, path: &Path) -> anyhow::Result<Option<OwnedFd>> {
        // To peers an empty path is none.
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        Ok(sys::unless(&[Errno::NOENT, Errno::NOTDIR], root::open(self.root(), path))?)
    }

    fn protect(&self, path: &Path) -> anyhow::Result<()> {
        let Some(target) = self.find(path)? else { return Ok(()) };
        if root::clean(path).as_os_str().is_empty() {
            // What is mounted over the root nobody sees whose root it is.
            return Ok(set_attributes(self.root(), false, &MountAttributes::new(RDONLY, 0))?);
        }
        // With what is mounted below, or /proc/sys would lose binfmt_misc; read-only is the top alone, as in runc.
        let tree = clone_tree(target.as_fd(), true)?;
        set_attributes(tree.as_fd(), false, &MountAttributes::new(RDONLY, 0))?;
        Ok(attach_for_good(tree, target)?)
    }

    fn hide(&self, path: &Path, masks: &mut Masks) -> anyhow::Result<()> {
        let Some(target) = self.find(path)? else { return Ok(()) };
        if file::is_directory(&target)? {
            // A tmpfs without room for one file, read-only: the container's root cannot put anything there, and
            // nothing of the host shows through.
            let mask = masks.directory()?;
            attach(mask.as_fd(), target.as_fd())?;
            leave_open(target);
            masks.directory.replace(mask).into_iter().for_each(leave_open);
            return Ok(());
        }
        // Clones of the first, without another lookup of /dev/null for each path.
        let mask = if let Some(first) = &masks.null {
            clone_tree(first.as_fd(), false)?
        } else {
            masks.own_null = stdio::open_null(self.root());
            let own = masks.own_null.as_ref();
            let mask = own.map_or_else(hosts_null, |own| Ok(clone_tree(own.as_fd(), false)?))?;
            // Written to it may be, but its mode, owner and times are not the container's to change.
            set_attributes(mask.as_fd(), false, &MountAttributes::new(RDONLY, 0))?;
            mask
        };
        attach(mask.as_fd(), target.as_fd())?;
        leave_open(target);
        masks.null.replace(mask).into_iter().for_each(leave_open);
        Ok(())
    }
}

/// Clones the host's null device, where the image has put something else in the place of the container's.
fn hosts_null() -> anyhow::Result<OwnedFd> {
    let null = file::open("/dev/null", OFlags::PATH | OFlags::NOFOLLOW)?;
    ensure!(is_null(&rustix::fs::fstat(&null)?), "/dev/null of the host is not the null device");
    Ok(clone_tree(null.as_fd(), false)?)
}

impl Masks {
    /// Returns an empty, read-only directory's mount, each time another one of the same file system.
    fn directory(&self) -> anyhow::Result<OwnedFd> {
        match &self.directory {
            Some(first) => Ok(clone_tree(first.as_fd(), false)?),
            None => new_mount("tmpfs", &["nr_blocks=1", "nr_inodes=1"], RDONLY | NOSUID | NODEV | NOEXEC)
                .context("mount tmpfs"),
        }
    }
}
