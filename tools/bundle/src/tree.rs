//! Copies trees by descriptors: neither the source nor the target is found by a path twice, so that a container that
//! changes them meanwhile leads nobody out of its root.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use root::{Descent, Met, Walk};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags, chmodat, chownat, fchmod, fchown, fgetxattr,
    flistxattr, fsetxattr, fstat, futimens, linkat, mkdirat, mknodat, openat, readlinkat, statat, symlinkat, unlinkat,
    utimensat,
};
use rustix::io::Errno;

use crate::interrupt::Interrupt;

/// Set-user-ID and set-group-ID.
const SET_ID: u32 = 0o6000;

/// How a tree is copied.
pub(crate) struct CopyMode<'a> {
    /// Whom the copies belong to; nobody: whom the originals do, with their attributes. Another's bits to become somebody
    /// are not given to them.
    pub(crate) owner: Option<(Uid, Gid)>,
    /// Whether files may be there that are replaced, and directories that are filled.
    pub(crate) merge: bool,
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) links: RefCell<Links>,
}

/// Where the files are that have several names in the source: below the first directory that is filled.
#[derive(Default)]
pub(crate) struct Links {
    root: Option<OwnedFd>,
    /// The names from there to the present directory.
    names: Vec<CString>,
    first: HashMap<(u64, u64), Vec<CString>>,
}

impl Links {
    /// Makes a name of a file that was copied before; `false` where there is none, or no longer.
    fn link(&self, stat: &Stat, to: TreeEntry<'_>) -> bool {
        let (Some(names), Some(root)) = (self.first.get(&(stat.st_dev, stat.st_ino)), &self.root) else { return false };
        let Some((name, parents)) = names.split_last() else { return false };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut directory = openat(root, c".", flags, Mode::empty());
        for parent in parents {
            directory = directory.and_then(|directory| openat(directory, parent, flags, Mode::empty()));
        }
        directory.and_then(|directory| linkat(directory, name, to.directory, to.name, AtFlags::empty())).is_ok()
    }

    fn note(&mut self, stat: &Stat, name: &CStr) {
        let names = self.names.iter().cloned().chain([name.to_owned()]).collect();
        self.first.insert((stat.st_dev, stat.st_ino), names);
    }
}

impl CopyMode<'_> {
    fn owner(&self, stat: &Stat) -> (Uid, Gid) {
        self.owner.unwrap_or((Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid)))
    }

    fn mode(&self, stat: &Stat) -> Mode {
        Mode::from_raw_mode(if self.owner.is_some() { stat.st_mode & !SET_ID } else { stat.st_mode })
    }
}

/// An entry of a directory.
#[derive(Clone, Copy)]
pub(crate) struct TreeEntry<'a> {
    pub(crate) directory: BorrowedFd<'a>,
    pub(crate) name: &'a CStr,
}

impl TreeEntry<'_> {
    /// Returns what it is; a link is not followed.
    pub(crate) fn stat(&self) -> Result<Stat, Errno> {
        statat(self.directory, self.name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn open(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        // NONBLOCK: it may have become a FIFO.
        let look = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        openat(self.directory, self.name, look | flags, Mode::empty())
    }

    /// Opens a directory.
    pub(crate) fn open_directory(&self) -> Result<OwnedFd, Errno> {
        self.open(OFlags::DIRECTORY)
    }

    /// Opens a regular file, which nothing may have taken the place of.
    pub(crate) fn open_file(&self) -> Result<File> {
        let file = self.open(OFlags::empty())?;
        ensure!(FileType::from_raw_mode(fstat(&file)?.st_mode) == FileType::RegularFile, "it has changed");
        Ok(file.into())
    }

    /// Makes room for what is to be made: a file goes, a directory does not.
    pub(crate) fn clear(&self) -> Result<()> {
        match unlinkat(self.directory, self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => bail!("a directory is there"),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a file.
    pub(crate) fn create(&self) -> Result<File> {
        // 0600 until its owner is set: nobody else may read a copy that is not theirs yet. `O_EXCL` follows no link,
        // whoever put one there just now.
        let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(self.directory, self.name, create, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// Makes a directory, and opens it; one that is there is as good where that is said.
    pub(crate) fn make_directory(&self, merge: bool) -> Result<OwnedFd> {
        // 0700 until all is in it; `finish` gives it its mode.
        match mkdirat(self.directory, self.name, Mode::RWXU) {
            Err(Errno::EXIST) if merge => {}
            made => made?,
        }
        // Not what mkdirat(2) made but what is there now: a container may have put a link in its place, which
        // `O_NOFOLLOW` refuses.
        match self.open_directory() {
            Err(Errno::NOTDIR | Errno::LOOP) => bail!("something other than a directory is there"),
            opened => Ok(opened?),
        }
    }
}

/// Copies what is in a directory, and the directory's own mode, owner and attributes.
pub(crate) fn copy_content(source: OwnedFd, target: OwnedFd, manner: &CopyMode<'_>) -> Result<()> {
    if manner.links.borrow().root.is_none() {
        manner.links.borrow_mut().root = Some(target.try_clone()?);
    }
    let (mut walk, mut targets) = (Walk::new(source)?, Descent::new(target));
    while let Some(met) = walk.advance()? {
        manner.interrupt.check()?;
        let Met::Entry(name) = met else {
            let source = walk.directory();
            let finished = finish(source, targets.directory(), &fstat(source)?, manner);
            finished.with_context(|| shown(walk.path(), None))?;
            if targets.leave()? {
                manner.links.borrow_mut().names.pop();
            }
            continue;
        };
        let from = TreeEntry { directory: walk.directory(), name: &name };
        let to = TreeEntry { directory: targets.directory(), name: &name };
        let copied = from.stat().map_err(Into::into).and_then(|stat| copy_one(from, to, &stat, manner));
        if let Some((from, to)) = copied.with_context(|| shown(walk.path(), Some(&name)))? {
            targets.enter(to)?;
            manner.links.borrow_mut().names.push(name.clone());
            walk.enter(name, from)?;
        }
    }
    Ok(())
}

/// Shows where something is. A path may be of any length.
fn shown(path: &[CString], name: Option<&CString>) -> String {
    let cut = path.len().saturating_sub(8);
    let names = path[cut..].iter().chain(name).map(|name| name.to_string_lossy().into_owned());
    (cut > 0).then(|| "...".to_owned()).into_iter().chain(names).collect::<Vec<_>>().join("/")
}

/// Copies an entry, whatever it is.
pub(crate) fn copy_entry(from: TreeEntry<'_>, to: TreeEntry<'_>, stat: &Stat, manner: &CopyMode<'_>) -> Result<()> {
    match copy_one(from, to, stat, manner)? {
        Some((source, target)) => copy_content(source, target, manner),
        None => Ok(()),
    }
}

/// A directory and its copy.
type Pair = (OwnedFd, OwnedFd);

/// Copies an entry; a directory is only made, and both are returned.
fn copy_one(from: TreeEntry<'_>, to: TreeEntry<'_>, stat: &Stat, manner: &CopyMode<'_>) -> Result<Option<Pair>> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::Directory {
        return Ok(Some((from.open_directory()?, to.make_directory(manner.merge)?)));
    }
    if manner.merge {
        to.clear()?;
    }
    if stat.st_nlink > 1 {
        // By walking down from the root again: the first copy may have been renamed by a container that runs, and
        // then it is copied once more.
        if manner.links.borrow().link(stat, to) {
            return Ok(None);
        }
        manner.links.borrow_mut().note(stat, to.name);
    }
    match kind {
        FileType::RegularFile => {
            let (mut reader, mut writer) = (from.open_file()?, to.create()?);
            io::copy(&mut reader, &mut writer)?;
            finish(reader.as_fd(), writer.as_fd(), stat, manner)?;
        }
        FileType::Symlink => {
            symlinkat(readlinkat(from.directory, from.name, Vec::new())?.as_c_str(), to.directory, to.name)?;
            own(to, stat, manner)?;
        }
        kind => {
            mknodat(to.directory, to.name, kind, Mode::from_raw_mode(stat.st_mode), stat.st_rdev)?;
            own(to, stat, manner)?;
            // The mask may have taken bits away.
            chmodat(to.directory, to.name, manner.mode(stat), AtFlags::empty())?;
        }
    }
    Ok(None)
}

fn own(to: TreeEntry<'_>, stat: &Stat, manner: &CopyMode<'_>) -> Result<()> {
    let (uid, gid) = manner.owner(stat);
    chownat(to.directory, to.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(utimensat(to.directory, to.name, &root::times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Gives a file or directory the look of its original: the owner first, since changing it clears bits of the mode and
/// capabilities, the times last.
fn finish(source: BorrowedFd<'_>, target: BorrowedFd<'_>, stat: &Stat, manner: &CopyMode<'_>) -> Result<()> {
    let (uid, gid) = manner.owner(stat);
    fchown(target, Some(uid), Some(gid))?;
    fchmod(target, manner.mode(stat))?;
    if manner.owner.is_none() {
        copy_attributes(source, target)?;
    }
    Ok(futimens(target, &root::times(stat))?)
}

fn copy_attributes(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let mut names = vec![0_u8; 65536];
    let length = flistxattr(source, &mut names)?;
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        // The overlay's own bookkeeping is not the image's.
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0_u8; 65536];
        let length = fgetxattr(source, name, &mut value)?;
        // The target's file system need not know what the source's does.
        sys::unless(&[Errno::OPNOTSUPP], fsetxattr(target, name, &value[..length], XattrFlags::empty()))?;
    }
    Ok(())
}
