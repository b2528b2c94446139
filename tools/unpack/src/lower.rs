//! What an image shows below one of its layers. A layer's directory is shared by all images, so what it holds may not
//! depend on other layers; but a hard link may have its target, and a path its symbolic link, in a layer below. Such a
//! layer is extracted once more, with those below at hand.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, ensure};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};
use rustix::io::Errno;
use sys::file::there;

use crate::entry;
use crate::form::Form;
use crate::node::{self, NodeName};
use crate::overlay::{hides, is_whiteout, open_below};
use crate::path::{Component, Inner, split};
use archive::{Entry, EntryKind};

/// The layers below, the lowest first.
pub(crate) struct Lower {
    layers: Vec<OwnedFd>,
    form: Form,
    /// The path that was asked for last, and what is there.
    last: RefCell<Option<(Inner, Merged)>>,
}

/// Directories of several layers.
type Merged = Rc<Vec<Rc<OwnedFd>>>;

/// A file of one of the layers below, in its directory.
pub(crate) struct LowerFile {
    directory: Rc<OwnedFd>,
    name: Component,
    stat: Stat,
}

impl Lower {
    pub(crate) fn open(layers: &[PathBuf], form: Form) -> anyhow::Result<Self> {
        let mut lower = Self { layers: Vec::with_capacity(layers.len()), form, last: RefCell::default() };
        layers.iter().try_for_each(|layer| lower.push(layer))?;
        Ok(lower)
    }

    /// Puts one more layer on top.
    pub(crate) fn push(&mut self, layer: &Path) -> anyhow::Result<()> {
        let opened = std::fs::File::open(layer).with_context(|| format!("open {}", layer.display()))?;
        self.layers.push(opened.into());
        self.last.take();
        Ok(())
    }

    /// Returns what overlayfs shows at a path without symbolic links.
    pub(crate) fn find(&self, path: &[u8]) -> anyhow::Result<Option<LowerFile>> {
        let Some((parent, name)) = split(path) else { return Ok(None) };
        // The topmost that has the name decides, a whiteout among them.
        for directory in self.merged(parent)?.iter() {
            let name = Component::new(name)?;
            if let Some(stat) = there(statat(directory, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW))? {
                let found = LowerFile { directory: Rc::clone(directory), name, stat };
                return Ok((!is_whiteout(&stat)).then_some(found));
            }
        }
        Ok(None)
    }

    /// Returns the names that overlayfs shows in a directory, or in what is at its path in the layers.
    pub(crate) fn names(&self, path: &[u8]) -> anyhow::Result<BTreeSet<Vec<u8>>> {
        let (mut names, mut hidden) = (BTreeSet::new(), HashSet::new());
        for directory in self.merged(path)?.iter() {
            for (name, _) in root::list(directory)? {
                let whiteout = is_whiteout(&statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)?);
                let name = name.into_bytes();
                if whiteout {
                    hidden.insert(name);
                } else if !hidden.contains(&name) {
                    names.insert(name);
                }
            }
        }
        Ok(names)
    }

    /// Returns the directories that overlayfs merges at a path, the topmost first. Who asks comes for many names of one.
    fn merged(&self, path: &[u8]) -> anyhow::Result<Merged> {
        let mut last = self.last.borrow_mut();
        if let Some((_, directories)) = last.as_ref().filter(|(known, _)| known == path) {
            return Ok(Rc::clone(directories));
        }
        let mut directories = Vec::new();
        for layer in self.layers.iter().rev() {
            match open_below(layer, path) {
                Ok(directory) => directories.push(Rc::new(directory)),
                Err(Errno::NOENT) => {}
                // Another file in the way hides what is below.
                Err(Errno::NOTDIR | Errno::LOOP) => break,
                Err(errno) => return Err(errno.into()),
            }
            // Asked behind the layer's own directory: an opaque one is shown itself and hides those below it.
            if hides(layer, path, self.form)? {
                break;
            }
        }
        let directories = Rc::new(directories);
        *last = Some((path.to_vec(), Rc::clone(&directories)));
        Ok(directories)
    }
}

impl LowerFile {
    /// Returns the target of a symbolic link.
    pub(crate) fn link(&self) -> anyhow::Result<Option<Vec<u8>>> {
        if FileType::from_raw_mode(self.stat.st_mode) != FileType::Symlink {
            return Ok(None);
        }
        Ok(Some(readlinkat(&self.directory, self.name.as_c_str(), Vec::new())?.into_bytes()))
    }

    /// Copies the file up, as overlayfs does when it is changed: with all that it has but its other names.
    pub(crate) fn copy(&self, place: &NodeName<'_>) -> anyhow::Result<()> {
        let name = self.name.as_c_str();
        let stat = &self.stat;
        let mut entry = self.entry(name.to_bytes().to_vec())?.context("hard link to a socket")?;
        ensure!(entry.kind != EntryKind::Directory, "hard link to a directory");
        entry.atime = Some(archive::Time::new(stat.st_atime, stat.st_atime_nsec));
        if entry.kind != EntryKind::Regular {
            return node::special(place, &entry);
        }
        node::copy(place, &entry, &self.open()?)
    }

    /// Describes the file as an entry of a layer; `None` for a socket.
    pub(crate) fn entry(&self, path: Inner) -> anyhow::Result<Option<Entry>> {
        entry::of(self.directory.as_fd(), self.name.as_c_str(), path, &self.stat)
    }

    pub(crate) fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }

    /// Opens a regular file for reading.
    pub(crate) fn open(&self) -> anyhow::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.directory, self.name.as_c_str(), flags, Mode::empty())?)
    }
}
