//! One whole tree against the layers that it was extracted from: what differs in anything that a layer can say has
//! changed. Contents are compared, too: a time can be set back.

use std::collections::{BTreeSet, HashSet};
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::{Change, Node, Report, children, look, open_regular, unless_vanished};
use crate::lower::{Lower, LowerFile};
use crate::overlay::open_below;
use crate::path::join;
use archive::{Entry, EntryKind};

/// How much of two files is compared at once.
const PIECE: usize = 128 << 10;

/// Inodes of files with several names of which at least one is new or different. A layer must then have all its names,
/// or they would no longer be one file.
type Changed = HashSet<(u64, u64)>;

pub(super) fn tell(root: &OwnedFd, report: &mut Report<'_, '_>) -> anyhow::Result<()> {
    let mut changed = Changed::new();
    collect(root, &[], report.lower, &mut changed)?;
    directory(root, &[], report, &changed)
}

/// Looks at the files with several names only.
fn collect(fd: &OwnedFd, path: &[u8], lower: &Lower, changed: &mut Changed) -> anyhow::Result<()> {
    for (name, path) in children(fd, path)? {
        let Some(node) = look(fd, &name)? else { continue };
        if node.is(FileType::Directory) {
            if let Some(child) = open(&node)? {
                collect(&child, &path, lower, changed)?;
            }
        } else if node.stat.st_nlink > 1 && !changed.contains(&node.inode()) {
            let Some(entry) = node.entry(path.clone())? else { continue };
            if lower.find(&path)?.map_or(Ok(true), |below| differs(&node, &entry, &below))? {
                changed.insert(node.inode());
            }
        }
    }
    Ok(())
}

fn directory(fd: &OwnedFd, path: &[u8], report: &mut Report<'_, '_>, changed: &Changed) -> anyhow::Result<()> {
    let children = children(fd, path)?;
    let mut names: BTreeSet<Vec<u8>> = report.lower.names(path)?;
    names.extend(children.into_iter().map(|(name, _)| name.into_bytes()));
    for name in names {
        let path = join(path, &name);
        let below = report.lower.find(&path)?;
        let name = CString::new(name)?;
        let node = look(fd, &name)?;
        let told = match (node, below) {
            (None, None) => Ok(()),
            (None, Some(_)) => report.tell(Change::Removed(path.clone())),
            (Some(node), below) => child(&node, &path, below.as_ref(), (report, changed)),
        };
        unless_vanished(told, &path)?;
    }
    Ok(())
}

fn child(
    node: &Node<'_>,
    path: &[u8],
    below: Option<&LowerFile>,
    (report, changed): (&mut Report<'_, '_>, &Changed),
) -> anyhow::Result<()> {
    let Some(entry) = node.entry(path.to_vec())? else {
        log::debug!("a socket is left out");
        return below.map_or(Ok(()), |_| report.tell(Change::Removed(path.to_vec())));
    };
    let different = below.map_or(Ok(true), |below| differs(node, &entry, below))?;
    if !node.is(FileType::Directory) {
        let wanted = different || (node.stat.st_nlink > 1 && changed.contains(&node.inode()));
        return if wanted { report.file(node, entry, below.is_none()) } else { Ok(()) };
    }
    // Another file system is mounted there (NO_XDEV): what the image has below is out of sight, so nothing is told of
    // it.
    let Some(fd) = open(node)? else { return Ok(()) };
    report.enter(entry, different, below.is_none());
    directory(&fd, path, report, changed)?;
    report.leave()
}

/// Opens a directory of the same file system.
fn open(node: &Node<'_>) -> anyhow::Result<Option<OwnedFd>> {
    match open_below(node.directory, node.name.to_bytes()) {
        Err(Errno::XDEV) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

fn differs(node: &Node<'_>, entry: &Entry, below: &LowerFile) -> anyhow::Result<bool> {
    if below.entry(entry.path.clone())?.as_ref() != Some(entry) {
        return Ok(true);
    }
    Ok(entry.kind == EntryKind::Regular && entry.size > 0 && !same_content(open_regular(node)?, below.open()?)?)
}

/// Compares two files of the same size; what one has more at the end is noticed, because a container may write
/// meanwhile.
fn same_content(one: OwnedFd, other: OwnedFd) -> anyhow::Result<bool> {
    let (mut one, mut other) = (File::from(one), File::from(other));
    let (mut left, mut right) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let count = one.read(&mut left)?;
        if count == 0 {
            return Ok(other.read(&mut right[..1])? == 0);
        }
        if other.read_exact(&mut right[..count]).is_err() || left[..count] != right[..count] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_compared_to_their_ends() {
        let directory = tempfile::tempdir().unwrap();
        let long = vec![7; PIECE + 5];
        for (one, other, want) in [
            (&b"abc"[..], &b"abc"[..], true),
            (b"abc", b"abd", false),
            (b"abc", b"abcd", false),
            (b"abcd", b"abc", false),
            (&long, &long, true),
            (&long, &long[1..], false),
        ] {
            let [a, b] = [("a", one), ("b", other)].map(|(name, content)| {
                std::fs::write(directory.path().join(name), content).unwrap();
                OwnedFd::from(File::open(directory.path().join(name)).unwrap())
            });
            assert_eq!(same_content(a, b).unwrap(), want);
        }
    }
}
