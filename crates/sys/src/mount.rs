//! The parts of the mount interface that rustix lacks: `mount_setattr(2)`, cloning a tree with its attributes, and
//! `mount(2)` on a descriptor.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::raw::done;

/// What [`set_attributes`] changes: `struct mount_attr`.
///
/// The kernel tells versions of the structure apart by its size, `MOUNT_ATTR_SIZE_VER0`, 32 bytes: nothing may be
/// added here without asking for a newer kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MountAttributes {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MS_SHARED`, `MS_PRIVATE`, `MS_SLAVE`, `MS_UNBINDABLE`, or 0.
    pub propagation: u64,
    user_namespace: u64,
}

impl MountAttributes {
    /// Sets and clears `MOUNT_ATTR_*`.
    pub const fn new(set: u64, clear: u64) -> Self {
        Self { set, clear, propagation: 0, user_namespace: 0 }
    }

    /// Changes the propagation alone.
    pub const fn propagation(propagation: u64) -> Self {
        Self { set: 0, clear: 0, propagation, user_namespace: 0 }
    }

    /// Maps the mount's ids by a user namespace: `MOUNT_ATTR_IDMAP`.
    #[must_use]
    pub fn mapped(mut self, user_namespace: BorrowedFd<'_>) -> Self {
        self.set |= libc::MOUNT_ATTR_IDMAP;
        self.user_namespace = u64::try_from(user_namespace.as_raw_fd()).unwrap_or_default();
        self
    }

    /// Tells whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Changes the mount that `mount` is the root of, or with `recursive` all mounts below it too: `mount_setattr(2)`.
///
/// `clear` of an access time needs the whole field, `MOUNT_ATTR__ATIME`, because its values are numbers and not bits.
/// # Errors
/// `EINVAL` where `mount` is not the root of a mount; `EPERM` for what a more privileged namespace has locked
/// (`mount_namespaces(7)`).
pub fn set_attributes(mount: BorrowedFd<'_>, recursive: bool, attributes: &MountAttributes) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let (attributes, size) = (&raw const *attributes, size_of::<MountAttributes>());
    // SAFETY: the path is NUL-terminated, and `attributes` has the layout and size of `struct mount_attr`.
    done(unsafe { libc::syscall(libc::SYS_mount_setattr, mount.as_raw_fd(), c"".as_ptr(), flags, attributes, size) })
}

/// Clones the mount that holds the open file `source`, detached, with all mounts below it if `recursive`:
/// `open_tree(2)`. Unlike a path, the descriptor cannot be exchanged between check and use.
///
/// Mount propagation comes along: a clone of a shared mount is shared, of a slave a slave.
/// # Errors
/// `EINVAL` where the mount is in another mount namespace, or unbindable.
pub fn clone_tree(source: BorrowedFd<'_>, recursive: bool) -> io::Result<std::os::fd::OwnedFd> {
    use rustix::mount::OpenTreeFlags as Flags;
    let flags = Flags::OPEN_TREE_CLONE | Flags::OPEN_TREE_CLOEXEC | Flags::AT_EMPTY_PATH;
    let flags = if recursive { flags | Flags::AT_RECURSIVE } else { flags };
    Ok(rustix::mount::open_tree(source, c"", flags)?)
}

/// Attaches the detached mount `mount` on the open file or directory `target`: `move_mount(2)`.
///
/// # Errors
/// `EINVAL` where one is a directory and the other is not, where the mount is attached already and shared there, or
/// where the target is in another mount namespace.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    use rustix::mount::MoveMountFlags as Flags;
    let flags = Flags::MOVE_MOUNT_F_EMPTY_PATH | Flags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, c"", target, c"", flags)?)
}
