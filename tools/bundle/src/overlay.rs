//! The container's root: an overlay of the image's layers with a writable one on top, made as a detached mount
//! (`fsopen(2)`), which the kernel forgets by itself should this process end before it is attached.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::rootfs::open_directory;

/// What `mount(2)` takes for its options, with the NUL.
const OPTIONS_LIMIT: usize = 4096;

/// The option with which overlayfs keeps its notes, that a directory hides the lower ones above all, where root of a user
/// namespace may write them, as `unpack` does: overlayfs.rst, "User xattr".
const USER_XATTRS: &str = "userxattr";

/// The directories of an overlay.
pub(crate) struct Overlay<'a> {
    /// The lowest first, as in the record.
    pub(crate) layers: &'a [PathBuf],
    pub(crate) upper: &'a Path,
    pub(crate) work: &'a Path,
    /// Where it will be attached.
    pub(crate) target: &'a Path,
    /// Whether the kernel may leave out to write the upper directory to the disk, at the unmount above all, which has to
    /// wait for all that the machine writes there: overlayfs.rst, "Volatile mount".
    pub(crate) volatile: bool,
}

/// An overlay mount.
pub(crate) enum Mounted {
    /// Not attached yet.
    Detached(OwnedFd),
    /// Attached already, by kernels that cannot do it in two steps.
    Attached(OwnedFd),
}

impl Mounted {
    /// Returns the mount's root.
    pub(crate) fn root(&self) -> io::Result<OwnedFd> {
        let (Self::Detached(root) | Self::Attached(root)) = self;
        root.try_clone()
    }

    /// Attaches the mount where nothing is mounted yet.
    pub(crate) fn attach(&self, target: &Path) -> Result<()> {
        let Self::Detached(mount) = self else { return Ok(()) };
        let _span = trace::span("mount", target.display());
        Ok(sys::mount::attach(mount.as_fd(), open_directory(target)?.as_fd())?)
    }
}

/// Makes the overlay. The root of the container looks like the root of the topmost layer.
pub(crate) fn mount(overlay: &Overlay<'_>) -> Result<Mounted> {
    let _span = trace::span("make the overlay", overlay.target.display());
    let top = overlay.layers.last().context("the record's rootfs has no layers")?;
    for layer in overlay.layers {
        ensure!(layer.is_dir(), "layer {} does not exist", layer.display());
    }
    container::Unwritten::check(overlay.layers)?;
    // Before the mount: overlayfs shows the upper directory's own attributes for the root, and caches them.
    look_like(overlay.upper, top).with_context(|| format!("prepare {}", overlay.upper.display()))?;
    match detached(overlay) {
        Ok(mount) => Ok(Mounted::Detached(mount)),
        // Before Linux 6.7 overlayfs took no layers one by one; before 5.2 there was no fsopen.
        Err(Errno::INVAL | Errno::NOSYS) => attached(overlay).map(Mounted::Attached),
        Err(error) => Err(error.into()),
    }
}

/// Takes an overlay off, however often it is mounted; with none there it is content.
pub(crate) fn unmount(target: &Path) -> io::Result<()> {
    let _span = trace::span("unmount", target.display());
    loop {
        match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            // An ordinary user is not even told that there is nothing.
            Err(Errno::PERM) if !is_mounted(target) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Tells whether an overlay is mounted here: it is a file system of its own.
fn is_mounted(target: &Path) -> bool {
    let device =
        |path: Option<&Path>| path.and_then(|path| fs::symlink_metadata(path).ok()).map(|metadata| metadata.dev());
    device(Some(target)) != device(target.parent())
}

fn detached(overlay: &Overlay<'_>) -> Result<OwnedFd, Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", "overlay")?;
    for layer in overlay.layers.iter().rev() {
        // One by one (Linux 6.7): no limit of a page for all of them, and no colon or backslash to be escaped.
        fsconfig_set_string(context.as_fd(), "lowerdir+", layer)?;
    }
    fsconfig_set_string(context.as_fd(), "upperdir", overlay.upper)?;
    fsconfig_set_string(context.as_fd(), "workdir", overlay.work)?;
    if overlay.volatile {
        // Only for containers that are thrown away: overlayfs refuses to mount such an upper directory again, and a
        // crash may leave anything in it.
        fsconfig_set_flag(context.as_fd(), "volatile")?;
    }
    if rootless::in_user_namespace() {
        fsconfig_set_flag(context.as_fd(), USER_XATTRS)?;
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn attached(overlay: &Overlay<'_>) -> Result<OwnedFd> {
    let options = |layers: Vec<String>| {
        let text = |path: &Path| escape(&path.to_string_lossy());
        let volatile = if overlay.volatile { ",volatile" } else { "" };
        let xattrs = if rootless::in_user_namespace() { format!(",{USER_XATTRS}") } else { String::new() };
        let (layers, upper, work) = (layers.join(":"), text(overlay.upper), text(overlay.work));
        format!("lowerdir={layers},upperdir={upper},workdir={work}{volatile}{xattrs}")
    };
    let names = overlay.layers.iter().rev().map(|layer| escape(&layer.to_string_lossy())).collect();
    let mut held = Vec::new();
    let mut text = options(names);
    if text.len() >= OPTIONS_LIMIT {
        for layer in overlay.layers.iter().rev() {
            held.push(open_directory(layer)?);
        }
        // Forty bytes less for each layer than its path has.
        text = options(held.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect());
    }
    ensure!(text.len() < OPTIONS_LIMIT, "{} layers are too many for this kernel", overlay.layers.len());
    let text = std::ffi::CString::new(text).context("a path with NUL")?;
    rustix::mount::mount("overlay", overlay.target, "overlay", MountFlags::empty(), text.as_c_str())?;
    open_directory(overlay.target)
}

fn escape(path: &str) -> String {
    path.replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,")
}

/// The upper directory is the root that the container sees: it gets the mode and the owner that the image gives.
fn look_like(upper: &Path, layer: &Path) -> io::Result<()> {
    let metadata = fs::metadata(layer)?;
    std::os::unix::fs::chown(upper, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(upper, fs::Permissions::from_mode(metadata.mode() & 0o7777))
}
