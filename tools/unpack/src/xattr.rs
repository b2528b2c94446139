//! Extended attributes: which of a layer's are set, and how a file that cannot be opened gets one.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use anyhow::Context;
use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, lgetxattr, llistxattr, lsetxattr};
use rustix::io::Errno;

use crate::form::Form;
use crate::path::c_string;
use archive::Name;

const ACCESS_ACL: &CStr = c"system.posix_acl_access";
pub(crate) const DEFAULT_ACL: &CStr = c"system.posix_acl_default";

/// Room for the names of a file's attributes: the kernel's own limit, xattr(7).
const LIST_LIMIT: usize = 64 << 10;

/// What gets an attribute.
pub(crate) enum Object<'a> {
    /// An open file or directory.
    Open(BorrowedFd<'a>),
    /// A name in a directory: a symbolic link, a device or a FIFO, none of which may be opened.
    Named(BorrowedFd<'a>, &'a CStr),
}

/// Sets a layer's attributes. Those with which overlayfs directs itself are no layer's to set: they could show a
/// container files of other layers. Labels of `SELinux` and NFS belong to the host that made the layer.
pub(crate) fn set_all(object: &Object<'_>, xattrs: &[(Vec<u8>, Vec<u8>)]) -> anyhow::Result<()> {
    for (name, value) in xattrs {
        if is_foreign(name) {
            log::trace!("extended attribute {} left out", Name(name));
            continue;
        }
        set(object, name, value).with_context(|| format!("set extended attribute {}", Name(name)))?;
    }
    Ok(())
}

fn is_foreign(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.")
        || name.starts_with(b"user.overlay.")
        || name == b"security.selinux"
        || name == b"system.nfs4_acl"
}

fn set(object: &Object<'_>, name: &[u8], value: &[u8]) -> anyhow::Result<()> {
    let name_c = c_string(name)?;
    let done = match object {
        Object::Open(fd) => fsetxattr(fd, &name_c, value, XattrFlags::empty()),
        Object::Named(directory, file) => lsetxattr(path_of(*directory, file)?, &name_c, value, XattrFlags::empty()),
    };
    let why = match done {
        Ok(()) => return Ok(()),
        // Docker, podman and umoci go on too: tmpfs had no user.* before Linux 6.6, and an image is not wrong for it.
        Err(Errno::OPNOTSUPP) => "file system cannot hold",
        // In a user namespace nobody may set these, and links, devices and FIFOs have none of user.*.
        Err(Errno::PERM) if [&b"trusted."[..], b"security.", b"user."].iter().any(|kind| name.starts_with(kind)) => {
            "no permission for"
        }
        // What new entries get is a directory's to say.
        Err(Errno::ACCESS) if name == DEFAULT_ACL.to_bytes() => "only a directory can have",
        Err(errno) => return Err(errno.into()),
    };
    log::warn!("{why} extended attribute {}", Name(name));
    Ok(())
}

/// There are no `*xattrat` calls before Linux 6.13.
fn path_of(directory: BorrowedFd<'_>, file: &CStr) -> anyhow::Result<CString> {
    let number = directory.as_raw_fd().to_string();
    c_string(&[b"/proc/self/fd/", number.as_bytes(), b"/", file.to_bytes()].concat())
}

/// Removes what attributes a directory of a lower layer has: those of its new entry are all that it will have.
pub(crate) fn clear(fd: BorrowedFd<'_>) -> anyhow::Result<()> {
    for name in names(&Object::Open(fd))? {
        fremovexattr(fd, &c_string(&name)?)?;
    }
    Ok(())
}

/// Returns what attributes a file has of those that a layer may set.
pub(crate) fn all(object: &Object<'_>) -> anyhow::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let with_value = |name: Vec<u8>| -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
        let mut value = vec![0; LIST_LIMIT];
        let name_c = c_string(&name)?;
        let length = match object {
            Object::Open(fd) => fgetxattr(fd, &name_c, &mut value)?,
            Object::Named(directory, file) => lgetxattr(path_of(*directory, file)?, &name_c, &mut value)?,
        };
        value.truncate(length);
        Ok((name, value))
    };
    names(object)?.into_iter().map(with_value).collect()
}

fn names(object: &Object<'_>) -> anyhow::Result<Vec<Vec<u8>>> {
    let list = all_names(object)?;
    let names = list.split(|&byte| byte == 0).filter(|name| !name.is_empty() && !is_foreign(name));
    let mut names: Vec<Vec<u8>> = names.map(<[u8]>::to_vec).collect();
    names.sort();
    Ok(names)
}

/// Returns the names of all attributes, each with a NUL behind it.
fn all_names(object: &Object<'_>) -> anyhow::Result<Vec<u8>> {
    let list_to = |list: &mut [u8]| {
        Ok(match object {
            Object::Open(fd) => flistxattr(fd, list),
            Object::Named(directory, file) => llistxattr(path_of(*directory, file)?, list),
        })
    };
    // Most files have none or a few.
    let mut list = vec![0; 256];
    let mut listed: anyhow::Result<_> = list_to(&mut list);
    if let Ok(Err(Errno::RANGE)) = listed {
        list.resize(LIST_LIMIT, 0);
        listed = list_to(&mut list);
    }
    match listed? {
        Ok(length) => list.truncate(length),
        Err(Errno::OPNOTSUPP) => list.clear(),
        Err(errno) => return Err(errno.into()),
    }
    Ok(list)
}

/// Tells whether new entries of a directory get an access control list.
pub(crate) fn has_default_acl(fd: impl AsFd) -> bool {
    fgetxattr(fd, DEFAULT_ACL, &mut [0_u8; 0]).is_ok_and(|length| length > 0)
}

/// Removes the access control lists that a new entry has got from its directory.
pub(crate) fn remove_inherited_acls(fd: BorrowedFd<'_>) -> anyhow::Result<()> {
    for name in [ACCESS_ACL, DEFAULT_ACL] {
        match fremovexattr(fd, name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Makes a directory hide the directories of the same path in lower layers.
pub(crate) fn set_opaque(fd: impl AsFd, form: Form) -> anyhow::Result<()> {
    fsetxattr(fd, form.opaque(), b"y", XattrFlags::empty()).context("make directory opaque")
}

/// Tells whether a directory hides those of lower layers.
pub(crate) fn is_opaque(fd: impl AsFd, form: Form) -> rustix::io::Result<bool> {
    let mut value = [0_u8; 1];
    match fgetxattr(fd, form.opaque(), &mut value) {
        Ok(length) => Ok(length == 1 && value == *b"y"),
        // One that is longer means something else.
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Tells whether overlayfs has left part of a file in a lower layer: its content (metacopy), or that of a renamed
/// directory (redirect).
pub(crate) fn refers_to_lower(object: &Object<'_>) -> anyhow::Result<bool> {
    let refers = |name: &[u8]| name.ends_with(b".overlay.redirect") || name.ends_with(b".overlay.metacopy");
    Ok(all_names(object)?.split(|&byte| byte == 0).any(refers))
}
