//! `linux.maskedPaths` and `linux.readonlyPaths` (runtime-spec, config-linux.md).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, ensure};
use rustix::fs::{OFlags, ResolveFlags};
use rustix::io::Errno;
use sys::mount::{Attributes, attach, clone_tree, set_attributes};

use super::cgroup::new_mount;
use super::{Rootfs, settle};
use crate::file::{self, leave_open};
use crate::mount::{NODEV, NOEXEC, NOSUID, RDONLY};
use crate::stdio::is_null;

/// What hides others: made when first needed.
#[derive(Default)]
struct Masks {
    null: Option<OwnedFd>,
    directory: Option<OwnedFd>,
}

impl Rootfs<'_> {
    pub(super) fn restrict(&self) -> anyhow::Result<()> {
        for path in &self.config.linux.readonly_paths {
            self.protect(path).with_context(|| format!("make {} read-only", path.display()))?;
        }
        let mut masks = Masks::default();
        let masked = &self.config.linux.masked_paths;
        for path in masked.iter().enumerate().filter(|(at, path)| !masked[..*at].contains(path)).map(|(_, path)| path) {
            self.hide(path, &mut masks).with_context(|| format!("mask {}", path.display()))?;
        }
        masks.null.into_iter().chain(masks.directory).for_each(leave_open);
        Ok(())
    }

    fn find(&self, path: &Path) -> anyhow::Result<Option<OwnedFd>> {
        match root::open(self.root(), path) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn protect(&self, path: &Path) -> anyhow::Result<()> {
        let Some(target) = self.find(path)? else { return Ok(()) };
        let tree = clone_tree(target.as_fd(), true)?;
        set_attributes(tree.as_fd(), false, &Attributes::new(RDONLY, 0))?;
        Ok(settle(tree, target)?)
    }

    fn hide(&self, path: &Path, masks: &mut Masks) -> anyhow::Result<()> {
        let Some(target) = self.find(path)? else { return Ok(()) };
        if file::is_directory(&target)? {
            let mask = masks.directory()?;
            attach(mask.as_fd(), target.as_fd())?;
            leave_open(target);
            if let Some(before) = masks.directory.replace(mask) {
                leave_open(before);
            }
            return Ok(());
        }
        let null = match masks.null.take() {
            Some(null) => null,
            None => self.null()?,
        };
        let mask = clone_tree(null.as_fd(), false)?;
        // Written to it may be, but its mode, owner and times are not the container's to change.
        set_attributes(mask.as_fd(), false, &Attributes::new(RDONLY, 0))?;
        settle(mask, target)?;
        masks.null = Some(null);
        Ok(())
    }

    /// Opens the container's own null device, or the host's where the image has put something else in its place.
    fn null(&self) -> anyhow::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let own = root::open_with(self.root(), Path::new("/dev/null"), flags, ResolveFlags::NO_SYMLINKS);
        if let Some(own) = own.ok().filter(|own| rustix::fs::fstat(own).is_ok_and(|stat| is_null(&stat))) {
            return Ok(own);
        }
        let null = file::open("/dev/null", flags)?;
        ensure!(is_null(&rustix::fs::fstat(&null)?), "/dev/null of the host is not the null device");
        Ok(null)
    }
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
