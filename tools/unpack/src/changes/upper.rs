//! The upper directory of an overlay: all that is in it has changed. A device 0:0 stands for a file that is gone, and an
//! attribute says that a directory hides the image's (the kernel's overlayfs.rst, "whiteouts and opaque directories").

use std::os::fd::OwnedFd;

use anyhow::ensure;
use rustix::fs::FileType;

use super::{Change, Node, Report, children, look, unless_vanished};
use crate::form::Form;
use crate::lower::LowerFile;
use crate::overlay::{is_whiteout, open_below};
use crate::path::Inner;
use crate::xattr::{self, Object};

pub(super) fn directory(fd: &OwnedFd, path: &[u8], report: &mut Report<'_, '_>) -> anyhow::Result<()> {
    for (name, path) in children(fd, path)? {
        // Where the container runs, it may have removed it meanwhile.
        let Some(node) = look(fd, &name)? else { continue };
        unless_vanished(child(&node, path.clone(), report), &path)?;
    }
    Ok(())
}

fn child(node: &Node<'_>, path: Inner, report: &mut Report<'_, '_>) -> anyhow::Result<()> {
    let below = report.lower.find(&path)?;
    if is_whiteout(&node.stat) {
        // A whiteout of what the image never had stands for a file that came and went in the container.
        return if below.is_some() { report.tell(Change::Removed(path)) } else { Ok(()) };
    }
    let partial = xattr::refers_to_lower(&Object::Named(node.directory, node.name))?;
    ensure!(!partial, "overlayfs has only noted that it was renamed or described anew (redirect_dir, metacopy)");
    let Some(entry) = node.entry(path)? else {
        log::debug!("a socket is left out");
        return Ok(());
    };
    if !node.is(FileType::Directory) {
        return report.file(node, entry, below.is_none());
    }
    let path = entry.path.clone();
    let fd = open_below(node.directory, node.name.to_bytes())?;
    // Overlayfs marks every new directory so, whether or not there is something to hide.
    let hides = xattr::is_opaque(&fd, Form::overlay())? && below.as_ref().is_some_and(LowerFile::is_directory);
    report.enter(entry, true, below.is_none());
    if hides {
        report.tell(Change::Replaced(path.clone()))?;
    }
    directory(&fd, &path, report)?;
    report.leave()
}
