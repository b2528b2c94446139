//! What an image shows below one of its layers. A layer's directory is shared by all images, so what it holds may not
//! depend on other layers; but a hard link may have its target, and a path its symbolic link, in a layer below. Such a
//! layer is extracted once more, with those below at hand.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, ensure};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, major, minor, openat, readlinkat, statat};
use rustix::io::Errno;

use crate::form::Form;
use crate::node::{self, Place};
use crate::parents::{hides, open_below};
use crate::path::{Component, split};
use crate::tar::{Entry, Kind, Time};
use crate::tree::is_whiteout;
use crate::xattr::{self, Object};

/// The layers below, the lowest first.
pub(crate) struct Lower {
    layers: Vec<OwnedFd>,
    form: Form,
}

/// A file of one of the layers below, in its directory.
pub(crate) struct Found {
    directory: OwnedFd,
    name: Component,
    stat: Stat,
}

impl Lower {
    pub(crate) fn open(layers: &[PathBuf], form: Form) -> anyhow::Result<Self> {
        let open = |path: &PathBuf| {
            std::fs::File::open(path).map(OwnedFd::from).with_context(|| format!("open {}", path.display()))
        };
        Ok(Self { layers: layers.iter().map(open).collect::<anyhow::Result<_>>()?, form })
    }

    /// Returns what overlayfs shows at a path without symbolic links.
    pub(crate) fn find(&self, path: &[u8]) -> anyhow::Result<Option<Found>> {
        let Some((parent, name)) = split(path) else { return Ok(None) };
        for layer in self.layers.iter().rev() {
            let name = Component::new(name)?;
            match open_below(layer, parent) {
                Ok(directory) => match statat(&directory, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => return Ok((!is_whiteout(&stat)).then_some(Found { directory, name, stat })),
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno.into()),
                },
                Err(Errno::NOENT) => {}
                // Another file in the way hides what is below.
                Err(Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
            if hides(layer, parent, self.form) {
                return Ok(None);
            }
        }
        Ok(None)
    }
}

impl Found {
    /// Returns the target of a symbolic link.
    pub(crate) fn link(&self) -> anyhow::Result<Option<Vec<u8>>> {
        if FileType::from_raw_mode(self.stat.st_mode) != FileType::Symlink {
            return Ok(None);
        }
        Ok(Some(readlinkat(&self.directory, self.name.as_c_str(), Vec::new())?.into_bytes()))
    }

    /// Copies the file up, as overlayfs does when it is changed: with all that it has but its other names.
    pub(crate) fn copy(&self, place: &Place<'_>) -> anyhow::Result<()> {
        let name = self.name.as_c_str();
        let kind = match FileType::from_raw_mode(self.stat.st_mode) {
            FileType::RegularFile => Kind::Regular,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::CharacterDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Fifo => Kind::Fifo,
            _ => Kind::Directory,
        };
        ensure!(kind != Kind::Directory, "hard link to a directory");
        let time =
            |seconds, nanoseconds: u64| Time { seconds, nanoseconds: u32::try_from(nanoseconds).unwrap_or_default() };
        let stat = &self.stat;
        let entry = Entry {
            path: name.to_bytes().to_vec(),
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            atime: Some(time(stat.st_atime, stat.st_atime_nsec)),
            link: self.link()?.unwrap_or_default(),
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            sparse: None,
            device: (major(stat.st_rdev), minor(stat.st_rdev)),
            xattrs: xattr::all(&Object::Named(self.directory.as_fd(), name))?,
        };
        if kind != Kind::Regular {
            return node::special(place, &entry);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        node::copy(place, &entry, &openat(&self.directory, name, flags, Mode::empty())?)
    }
}
