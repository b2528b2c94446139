//! Files of a container as a tar archive, out of it and into it.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use archive::{Archive, Entry as Header, EntryKind, Name, Writer};
use root::{Met, Walk};
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Stat, Timestamps, Uid, chmodat, chownat, linkat, makedev, mknodat, symlinkat, utimensat,
};

use super::c_name;
use super::place::{FoundFile, Side};
use crate::interrupt::Interrupt;
use crate::tree::{CopyMode, TreeEntry};

/// Writes an object, and what is below it.
pub(crate) fn write(source: &FoundFile, interrupt: &Interrupt, out: impl Write) -> Result<()> {
    let mut writer = Tree { archive: Writer::new(out), linked: HashMap::new(), interrupt };
    if let Some(directory) = writer.entry(source.entry(), &source.stat, source.name.to_bytes())? {
        writer.content(directory, source.name.to_bytes())?;
    }
    Ok(writer.archive.finish()?.flush()?)
}

/// A tree on its way into an archive.
struct Tree<'a, W: Write> {
    archive: Writer<W>,
    /// Where files with several names were written first.
    linked: HashMap<(u64, u64), Vec<u8>>,
    interrupt: &'a Interrupt,
}

impl<W: Write> Tree<'_, W> {
    /// Writes an entry; a directory is returned.
    fn entry(&mut self, entry: TreeEntry<'_>, stat: &Stat, path: &[u8]) -> Result<Option<OwnedFd>> {
        self.interrupt.check()?;
        // A socket is nothing without its listener.
        let Some(mut header) = Header::of(entry.directory, entry.name, path.to_vec(), stat)? else { return Ok(None) };
        if header.kind == EntryKind::Directory {
            header.path.push(b'/');
            self.archive.entry(&header)?;
            return Ok(Some(entry.open_directory()?));
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.linked.get(&(stat.st_dev, stat.st_ino)) {
                self.archive.entry(&Header { kind: EntryKind::HardLink, link: first.clone(), ..header })?;
                return Ok(None);
            }
            self.linked.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        if header.kind != EntryKind::Regular {
            self.archive.entry(&header)?;
            return Ok(None);
        }
        let file = entry.open_file()?;
        header.size = file.metadata()?.len();
        self.archive.file(header, &file, false)?;
        Ok(None)
    }

    /// Writes what is below a directory, whose name is `top` in the archive.
    fn content(&mut self, directory: OwnedFd, top: &[u8]) -> Result<()> {
        let mut walk = Walk::new(directory)?;
        while let Some(met) = walk.advance()? {
            let Met::Entry(name) = met else { continue };
            let below = walk.path().iter().chain([&name]).map(|name| name.to_bytes());
            let child = std::iter::once(top).chain(below).collect::<Vec<_>>().join(&b'/');
            let entry = TreeEntry { directory: walk.directory(), name: &name };
            let written = entry.stat().map_err(Into::into).and_then(|stat| self.entry(entry, &stat, &child));
            if let Some(directory) = written.with_context(|| Name(&child).to_string())? {
                walk.enter(name, directory)?;
            }
        }
        Ok(())
    }
}

/// Extracts an archive below a directory that is there.
pub(crate) fn read(input: impl BufRead, place: &Side, path: &Path, manner: &CopyMode<'_>) -> Result<()> {
    place.open(path, OFlags::RDONLY | OFlags::DIRECTORY).with_context(|| path.display().to_string())?;
    let mut archive = Archive::new(input);
    let mut directories = Vec::new();
    while let Some(header) = archive.advance().context("read the archive")? {
        manner.interrupt.check()?;
        // `..` is resolved by the words alone, before anything is looked up: an archive's names cannot leave the
        // directory.
        let inner = root::clean(Path::new(std::ffi::OsStr::from_bytes(&header.path)));
        let made = extract((&mut archive, &header), place, path, (&inner, manner));
        if let Some(directory) = made.with_context(|| format!("entry {}", inner.display()))? {
            directories.push((inner, directory));
        }
    }
    // What was put into them has changed their times.
    for (inner, time) in directories.iter().rev() {
        let directory = place.open(&path.join(inner), OFlags::RDONLY | OFlags::DIRECTORY)?;
        rustix::fs::futimens(directory, time)?;
    }
    Ok(())
}

/// The time of a directory that was made.
type Made = Option<Timestamps>;

fn extract(
    (archive, header): (&mut Archive<impl BufRead>, &Header),
    place: &Side,
    base: &Path,
    (inner, manner): (&Path, &CopyMode<'_>),
) -> Result<Made> {
    let Some(name) = inner.file_name() else { return Ok(None) };
    let directory = make_parents(place, base, inner.parent().unwrap_or(Path::new("")))?;
    let name = c_name(name)?;
    let to = TreeEntry { directory: directory.as_fd(), name: &name };
    if header.kind == EntryKind::Directory {
        to.make_directory(true)?;
        own(to, header, manner)?;
        return Ok(Some(header.times()));
    }
    to.clear()?;
    let link = std::ffi::OsStr::from_bytes(&header.link);
    match header.kind {
        EntryKind::Symlink => symlinkat(c_name(link)?.as_c_str(), to.directory, to.name)?,
        EntryKind::HardLink => {
            // A hard link's target is a name in the archive, from its top, and not relative to the entry: tar(5).
            let (from, first) = place.parent(&base.join(root::clean(Path::new(link))))?;
            linkat(&from, &first, to.directory, to.name, AtFlags::empty())?;
            return Ok(None);
        }
        kind => match kind.node() {
            Some(node) => {
                let device = makedev(header.device.0, header.device.1);
                mknodat(to.directory, to.name, node, Mode::from_raw_mode(0o600), device)?;
            }
            None => archive.extract(header, to.create()?.as_fd(), || manner.interrupt.check())?,
        },
    }
    own(to, header, manner)?;
    utimensat(to.directory, to.name, &header.times(), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(None)
}

fn make_parents(place: &Side, base: &Path, inner: &Path) -> Result<OwnedFd> {
    let mut path = base.to_owned();
    let open = |path: &Path| place.open(path, OFlags::RDONLY | OFlags::DIRECTORY);
    let mut directory = open(&path)?;
    for component in inner.components() {
        path.push(component);
        directory = match open(&path) {
            Err(rustix::io::Errno::NOENT) => {
                let name = c_name(component.as_os_str())?;
                let made = TreeEntry { directory: directory.as_fd(), name: &name }.make_directory(false)?;
                rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
                rustix::fs::fchown(&made, Some(place.owner.0), Some(place.owner.1))?;
                made
            }
            opened => opened.with_context(|| path.display().to_string())?,
        };
    }
    Ok(directory)
}

fn own(to: TreeEntry<'_>, header: &Header, manner: &CopyMode<'_>) -> Result<()> {
    let (uid, gid) = manner.owner.unwrap_or((Uid::from_raw(header.uid), Gid::from_raw(header.gid)));
    chownat(to.directory, to.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if header.kind == EntryKind::Symlink {
        return Ok(());
    }
    // Bits that make a program somebody else's are worth something only with the owner they were given for.
    let kept = if manner.owner.is_some() { 0o1777 } else { 0o7777 };
    Ok(chmodat(to.directory, to.name, Mode::from_raw_mode(header.mode & kept), AtFlags::empty())?)
}
