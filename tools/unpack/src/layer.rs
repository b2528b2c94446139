//! One layer's entries into a tree (image-spec, layer.md, "Applying Changesets"). Entries replace what is at their path;
//! whiteouts touch lower layers only, wherever in the archive they stand.
//!
//! The order of entries decides what a layer means, and archives come from anywhere: an entry may come twice, be a
//! file first and a directory later, or go through a symbolic link that the same layer has made. What the
//! specification leaves open is done as docker, podman and umoci do; tests/images has the cases.

use std::ffi::CStr;
use std::io::BufRead;
use std::os::fd::AsFd;

use anyhow::{Context, bail, ensure};
use rustix::fs::{AtFlags, FileType, Mode, Stat, linkat, mkdirat, mknodat, statat, unlinkat};
use rustix::io::Errno;
use sys::file::there;

use crate::interrupt;
use crate::node::{self, NodeName};
use crate::overlay::is_whiteout;
use crate::path::{Component, inner, join, split};
use crate::stream::Limits;
use crate::tree::Tree;
use crate::xattr;
use archive::{Archive, Entry, EntryKind, Name};

pub(crate) const WHITEOUT: &[u8] = b".wh.";
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
/// AUFS's own files, which mean nothing elsewhere.
const AUFS: &[u8] = b".wh..wh.";
/// But for these: what AUFS had several names for is there once, and the names are hard links to it.
const PSEUDO_LINKS: &[u8] = b".wh..wh.plnk";

/// Applies a layer. Returns the entry of the root directory, which is the caller's to apply: the root gets its mode last, as
/// until then nobody else may enter the tree.
pub(crate) fn apply<R: BufRead>(
    archive: &mut Archive<R>,
    tree: &mut Tree<'_>,
    limits: &Limits,
) -> anyhow::Result<Option<Entry>> {
    let (mut root, mut pseudo_links) = (None, false);
    while let Some(entry) = archive.advance()? {
        limits.add_entry()?;
        let path = inner(&entry.path).with_context(|| shown(&entry))?;
        if path.is_empty() {
            ensure!(entry.kind == EntryKind::Directory, "entry {}: the root is not a directory", Name(&entry.path));
            root = Some(entry);
            continue;
        }
        // Holes need no space, but a file of exabytes is a trap for whoever copies it.
        ensure!(entry.size <= limits.size, "entry {}: a file of {} bytes (--max-size)", Name(&entry.path), entry.size);
        tree.implicit_time = entry.mtime;
        pseudo_links |= path.starts_with(PSEUDO_LINKS);
        add(archive, tree, &entry, &path).with_context(|| shown(&entry))?;
    }
    if pseudo_links {
        let _pass = interrupt::pass();
        let place = tree.directory(b"")?;
        tree.remove(place, Component::new(PSEUDO_LINKS)?.as_c_str())?;
    }
    Ok(root)
}

/// An entry as an error names it.
fn shown(entry: &Entry) -> String {
    format!("entry {}", Name(&entry.path))
}

fn add<R: BufRead>(archive: &mut Archive<R>, tree: &mut Tree<'_>, entry: &Entry, path: &[u8]) -> anyhow::Result<()> {
    let Some((directory, name)) = split(path) else { return Ok(()) };
    if directory == PSEUDO_LINKS && entry.kind == EntryKind::Regular {
        let parent = tree.directory(directory)?;
        return add_node(archive, tree, parent, Component::new(name)?.as_c_str(), entry);
    }
    if let Some(component) = directory.split(|&byte| byte == b'/').find(|name| name.starts_with(WHITEOUT)) {
        ensure!(component.starts_with(AUFS), "{} is a whiteout, not a directory", Name(component));
        return Ok(());
    }
    if name.starts_with(WHITEOUT) {
        ensure!(entry.kind != EntryKind::Directory || name.starts_with(AUFS), "whiteout is a directory");
        return whiteout(tree, directory, name);
    }
    let parent = {
        let _pass = interrupt::pass();
        tree.directory(directory)?
    };
    let name = Component::new(name)?;
    match entry.kind {
        EntryKind::Directory => add_directory(tree, parent, name.as_c_str(), entry),
        EntryKind::HardLink => add_hard_link(tree, parent, name.as_c_str(), entry),
        _ => add_node(archive, tree, parent, name.as_c_str(), entry),
    }
}

fn add_node<R: BufRead>(
    archive: &mut Archive<R>,
    tree: &mut Tree<'_>,
    mut parent: usize,
    name: &CStr,
    entry: &Entry,
) -> anyhow::Result<()> {
    // Most names are new, so a file is made without looking first; only EEXIST makes room, once. A second EEXIST
    // would be somebody else in the tree.
    for attempt in 0.. {
        let directory = tree.at(parent);
        let place = NodeName { directory: directory.as_fd(), name, inherits: directory.inherits };
        let made = if entry.kind == EntryKind::Regular {
            node::file(&place, entry, archive)
        } else {
            let _pass = interrupt::pass();
            node::special(&place, entry)
        };
        match made {
            Err(error) if attempt == 0 && error.downcast_ref() == Some(&Errno::EXIST) => {
                let _pass = interrupt::pass();
                parent = clear(tree, parent, name)?;
            }
            made => {
                made?;
                break;
            }
        }
    }
    tree.mark(parent, name.to_bytes());
    Ok(())
}

/// Makes room for an entry: removes what is at its name. Returns the parent's new place.
fn clear(tree: &mut Tree<'_>, parent: usize, name: &CStr) -> anyhow::Result<usize> {
    let stat = there(statat(tree.at(parent), name, AtFlags::SYMLINK_NOFOLLOW))?;
    let Some(stat) = stat else { return Ok(parent) };
    match FileType::from_raw_mode(stat.st_mode) {
        // A directory that goes may be open itself, or be the way to one that is; a link may be in the paths by which
        // open ones are known. `Tree::remove` forgets them all.
        FileType::Directory | FileType::Symlink => tree.remove(parent, name),
        _ => {
            unlinkat(tree.at(parent), name, AtFlags::empty())?;
            Ok(parent)
        }
    }
}

fn add_directory(tree: &mut Tree<'_>, mut parent: usize, name: &CStr, entry: &Entry) -> anyhow::Result<()> {
    let _pass = interrupt::pass();
    // Whether a directory of a lower layer shows through.
    let mut opaque = false;
    let mut fresh = true;
    // Mode 0700 until the entry's own is set: a set-user-ID program in a directory that others may enter would be
    // theirs while its owner is still ours.
    match mkdirat(tree.at(parent), name, Mode::RWXU) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let stat = statat(tree.at(parent), name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                fresh = false;
            } else {
                // What was there hid the lower directory, so the new one must.
                opaque = !tree.form.is_flat();
                parent = clear(tree, parent, name)?;
                mkdirat(tree.at(parent), name, Mode::RWXU)?;
            }
        }
        Err(errno) => return Err(errno.into()),
    }
    tree.mark(parent, name.to_bytes());
    // A directory with a default ACL or the set-group-ID bit passes these on (acl(5), mkdir(2)); a layer's entry says
    // all that its file has, so what was inherited goes.
    let inherits = tree.at(parent).inherits;
    let place = tree.open_child(parent, name)?;
    if fresh && inherits {
        xattr::remove_inherited_acls(tree.at(place).as_fd())?;
    } else if !fresh {
        let path = tree.at(place).path().to_vec();
        tree.note(b'+', &path)?;
        xattr::clear(tree.at(place).as_fd())?;
    }
    node::describe_directory(tree.at(place).as_fd(), entry)?;
    if opaque {
        tree.make_opaque(place)?;
    }
    tree.set_inherits(place, entry);
    tree.set_times(place, entry);
    Ok(())
}

/// Makes a hard link. A file has one owner, mode and time, and they are its first entry's: GNU tar and umoci take no notice
/// of the link's own header either, while containers' storage gives the file the link's.
fn add_hard_link(tree: &mut Tree<'_>, parent: usize, name: &CStr, entry: &Entry) -> anyhow::Result<()> {
    let _pass = interrupt::pass();
    let target = inner(&entry.link).with_context(|| format!("hard link to {}", Name(&entry.link)))?;
    let missing = || format!("hard link to {}, which is not in the layer before it", Name(&entry.link));
    let Some((target_directory, target_name)) = split(&target) else { bail!("hard link to the root") };
    let path = join(tree.at(parent).path(), name.to_bytes());
    // Where layers are below, the target may be in a directory of theirs.
    let target_place = if tree.lower.is_some() {
        Some(tree.directory(target_directory)?)
    } else {
        tree.existing_directory(target_directory)?
    };
    let Some(target_place) = target_place else { return later(tree, &path, missing) };
    // Held open by its own count: the look-ups below may close the place.
    let from = tree.fd(target_place);
    let same = join(tree.at(target_place).path(), target_name) == path;
    let target_name = Component::new(target_name)?;
    let target_name = target_name.as_c_str();
    let stat = match statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => {
            let target = join(tree.at(target_place).path(), target_name.to_bytes());
            // overlayfs cannot link across layers, so the lower file is copied up and linked here, under its old
            // name, too.
            let Some(found) = tree.lower_file(&target)? else { return later(tree, &path, missing) };
            let inherits = tree.at(target_place).inherits;
            found.copy(&NodeName { directory: from.as_fd(), name: target_name, inherits })?;
            tree.mark_copied(target_place, target_name.to_bytes());
            statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW)?
        }
        found => found?,
    };
    ensure!(FileType::from_raw_mode(stat.st_mode) != FileType::Directory, "hard link to a directory");
    // A link to a whiteout of our own would make a second file vanish.
    ensure!(tree.form.is_flat() || !is_whiteout(&stat), missing());
    if same {
        // An entry that links to itself changes nothing.
        return Ok(());
    }
    // Finding the target may have closed the parent.
    let (parent_path, name_bytes) = split(&path).context("hard link over the root")?;
    let mut parent = tree.directory(parent_path)?;
    let mut linked = linkat(&from, target_name, tree.at(parent), name, AtFlags::empty());
    if linked == Err(Errno::EXIST) {
        parent = clear(tree, parent, name)?;
        linked = linkat(&from, target_name, tree.at(parent), name, AtFlags::empty());
    }
    linked.with_context(|| format!("hard link to {}", Name(&entry.link)))?;
    tree.mark(parent, name_bytes);
    Ok(())
}

/// Leaves a hard link out whose target is not in this layer: one below may have it, for which the layer is extracted
/// again.
fn later(tree: &mut Tree<'_>, path: &[u8], missing: impl FnOnce() -> String) -> anyhow::Result<()> {
    ensure!(!tree.form.is_flat() && tree.lower.is_none(), missing());
    tree.note(b'h', path)
}

/// In the flat form a whiteout removes at once what lower layers have left, and spares what this layer has made,
/// wherever it stands in the archive (image-spec, layer.md, "Whiteouts": they apply to lower layers only).
fn whiteout(tree: &mut Tree<'_>, directory: &[u8], name: &[u8]) -> anyhow::Result<()> {
    let _pass = interrupt::pass();
    if name == OPAQUE {
        return opaque(tree, directory);
    }
    if name.starts_with(AUFS) {
        return Ok(());
    }
    let hidden = &name[WHITEOUT.len()..];
    ensure!(!hidden.is_empty(), "whiteout without a name");
    ensure!(hidden != b"." && hidden != b"..", "whiteout of {}", Name(hidden));
    let hidden = Component::new(hidden)?;
    let hidden = hidden.as_c_str();
    if tree.form.is_flat() {
        let Some(parent) = tree.existing_directory(directory)? else { return Ok(()) };
        if !tree.has_made(parent, hidden.to_bytes()) {
            tree.remove(parent, hidden)?;
        } else if let Some(place) = directory_at(tree, parent, hidden)? {
            tree.purge(place)?;
        }
        return Ok(());
    }
    let parent = tree.directory(directory)?;
    // Everything below is hidden already, and overlayfs would show a whiteout in an opaque directory as a device.
    if xattr::is_opaque(tree.at(parent), tree.form)? {
        return Ok(());
    }
    tree.remove_copied(parent, hidden)?;
    match mknodat(tree.at(parent), hidden, FileType::CharacterDevice, Mode::empty(), 0) {
        // This layer's own entry hides a lower file by itself, but a directory would show the lower one's entries.
        Err(Errno::EXIST) => match directory_at(tree, parent, hidden)? {
            Some(place) => tree.make_opaque(place),
            None => Ok(()),
        },
        made => {
            made?;
            tree.note_whiteout(parent)
        }
    }
}

/// Opens what is at a name if it is a directory.
fn directory_at(tree: &mut Tree<'_>, parent: usize, name: &CStr) -> anyhow::Result<Option<usize>> {
    let stat = there(statat(tree.at(parent), name, AtFlags::SYMLINK_NOFOLLOW))?;
    let is_directory = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    stat.filter(is_directory).map(|_| tree.open_child(parent, name)).transpose()
}

/// `.wh..wh..opq`: nothing of lower layers is in this directory.
fn opaque(tree: &mut Tree<'_>, directory: &[u8]) -> anyhow::Result<()> {
    if tree.form.is_flat() {
        let place = tree.existing_directory(directory)?;
        return place.map_or(Ok(()), |place| tree.purge(place));
    }
    let place = tree.directory(directory)?;
    // The directory itself stays as it is below, where no entry describes it.
    let path = tree.at(place).path().to_vec();
    tree.note(b'o', &path)?;
    tree.make_opaque(place)
}

#[cfg(test)]
mod tests;
