//! Files of a container as a tar archive, out of it and into it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use root::{Met, Walk};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chmodat, chownat, linkat, major, makedev,
    minor, mknodat, readlinkat, symlinkat, utimensat,
};
use tar::{EntryType, Header};

use super::c_name;
use super::place::{Object, Place};
use crate::interrupt::Interrupt;
use crate::tree::{Entry, Manner};

/// Writes an object, and what is below it.
pub(crate) fn write(source: &Object, interrupt: &Interrupt, out: impl Write) -> Result<()> {
    let mut writer = Writer { archive: tar::Builder::new(out), linked: HashMap::new(), interrupt };
    let name = Path::new(std::ffi::OsStr::from_bytes(source.name.to_bytes()));
    if let Some(directory) = writer.entry(source.entry(), &source.stat, name)? {
        writer.content(directory, name)?;
    }
    writer.archive.into_inner()?.flush()?;
    Ok(())
}

struct Writer<'a, W: Write> {
    archive: tar::Builder<W>,
    /// Where files with several names were written first.
    linked: HashMap<(u64, u64), PathBuf>,
    interrupt: &'a Interrupt,
}

impl<W: Write> Writer<'_, W> {
    /// Writes an entry; a directory is returned.
    fn entry(&mut self, entry: Entry<'_>, stat: &Stat, path: &Path) -> Result<Option<OwnedFd>> {
        self.interrupt.check()?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut header = header(stat);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.linked.get(&(stat.st_dev, stat.st_ino)) {
                header.set_entry_type(EntryType::Link);
                self.archive.append_link(&mut header, path, first)?;
                return Ok(None);
            }
            self.linked.insert((stat.st_dev, stat.st_ino), path.to_owned());
        }
        match kind {
            FileType::Directory => {
                header.set_entry_type(EntryType::Directory);
                self.archive.append_data(&mut header, path.join(""), io::empty())?;
                return Ok(Some(entry.open_directory()?));
            }
            FileType::RegularFile => {
                let file = entry.open_file().with_context(|| path.display().to_string())?;
                let size = file.metadata()?.len();
                header.set_size(size);
                // One that grows meanwhile must not get into the next entry's place, nor one that shrinks.
                let content = file.take(size).chain(io::repeat(0)).take(size);
                self.archive.append_data(&mut header, path, content)?;
            }
            FileType::Symlink => {
                header.set_entry_type(EntryType::Symlink);
                let target = readlinkat(entry.directory, entry.name, Vec::new())?;
                let target = Path::new(std::ffi::OsStr::from_bytes(target.to_bytes()));
                self.archive.append_link(&mut header, path, target)?;
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                header.set_entry_type(match kind {
                    FileType::CharacterDevice => EntryType::Char,
                    FileType::BlockDevice => EntryType::Block,
                    _ => EntryType::Fifo,
                });
                header.set_device_major(major(stat.st_rdev))?;
                header.set_device_minor(minor(stat.st_rdev))?;
                self.archive.append_data(&mut header, path, io::empty())?;
            }
            // A socket is nothing without its listener.
            _ => {}
        }
        Ok(None)
    }

    fn content(&mut self, directory: OwnedFd, path: &Path) -> Result<()> {
        let mut walk = Walk::new(directory)?;
        let mut path = path.to_owned();
        while let Some(met) = walk.advance()? {
            let Met::Entry(name) = met else {
                path.pop();
                continue;
            };
            path.push(std::ffi::OsStr::from_bytes(name.to_bytes()));
            let entry = Entry { directory: walk.directory(), name: &name };
            let stat = entry.stat().with_context(|| path.display().to_string())?;
            match self.entry(entry, &stat, &path)? {
                Some(directory) => walk.enter(name, directory)?,
                None => drop(path.pop()),
            }
        }
        Ok(())
    }
}

fn header(stat: &Stat) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    #[allow(clippy::useless_conversion, reason = "the types differ between architectures")]
    header.set_mtime(i64::from(stat.st_mtime).try_into().unwrap_or(0));
    header.set_size(0);
    header
}

/// Extracts an archive below a directory that is there.
pub(crate) fn read(input: impl Read, place: &Place, path: &Path, manner: &Manner<'_>) -> Result<()> {
    place.open(path, OFlags::RDONLY | OFlags::DIRECTORY).with_context(|| path.display().to_string())?;
    let mut archive = tar::Archive::new(input);
    let mut directories = Vec::new();
    for entry in archive.entries().context("read the archive")? {
        manner.interrupt.check()?;
        let mut entry = entry.context("read the archive")?;
        let inner = root::clean(Path::new(std::ffi::OsStr::from_bytes(&entry.path_bytes())));
        let made = extract(&mut entry, place, path, (&inner, manner));
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

fn extract<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    place: &Place,
    base: &Path,
    (inner, manner): (&Path, &Manner<'_>),
) -> Result<Made> {
    let Some(name) = inner.file_name() else { return Ok(None) };
    let directory = make_parents(place, base, inner.parent().unwrap_or(Path::new("")))?;
    let name = c_name(name)?;
    let to = Entry { directory: directory.as_fd(), name: &name };
    let kind = entry.header().entry_type();
    if kind == EntryType::Directory {
        to.make_directory(true)?;
        own(to, entry.header(), manner)?;
        return Ok(Some(times(entry.header())));
    }
    to.clear()?;
    match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let mut file: File = to.create()?;
            io::copy(entry, &mut file)?;
        }
        EntryType::Symlink => {
            let target = entry.link_name_bytes().context("a link to nothing")?;
            symlinkat(c_name(std::ffi::OsStr::from_bytes(&target))?.as_c_str(), to.directory, to.name)?;
        }
        EntryType::Link => {
            let target = entry.link_name_bytes().context("a link to nothing")?;
            let target = root::clean(Path::new(std::ffi::OsStr::from_bytes(&target)));
            let (from, first) = place.parent(&base.join(target))?;
            linkat(&from, &first, to.directory, to.name, AtFlags::empty())?;
            return Ok(None);
        }
        EntryType::Char | EntryType::Block | EntryType::Fifo => make_node(to, entry.header(), kind)?,
        other => bail!("a kind of entry that has no place in a file system: {other:?}"),
    }
    own(to, entry.header(), manner)?;
    utimensat(to.directory, to.name, &times(entry.header()), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(None)
}

fn make_parents(place: &Place, base: &Path, inner: &Path) -> Result<OwnedFd> {
    let mut path = base.to_owned();
    let open = |path: &Path| place.open(path, OFlags::RDONLY | OFlags::DIRECTORY);
    let mut directory = open(&path)?;
    for component in inner.components() {
        path.push(component);
        directory = match open(&path) {
            Err(rustix::io::Errno::NOENT) => {
                let name = c_name(component.as_os_str())?;
                let made = Entry { directory: directory.as_fd(), name: &name }.make_directory(false)?;
                rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
                rustix::fs::fchown(&made, Some(place.owner.0), Some(place.owner.1))?;
                made
            }
            opened => opened.with_context(|| path.display().to_string())?,
        };
    }
    Ok(directory)
}

fn make_node(to: Entry<'_>, header: &Header, kind: EntryType) -> Result<()> {
    let number = |field: io::Result<Option<u32>>| -> Result<u32> { Ok(field?.unwrap_or(0)) };
    let device = makedev(number(header.device_major())?, number(header.device_minor())?);
    let kind = match kind {
        EntryType::Char => FileType::CharacterDevice,
        EntryType::Block => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    Ok(mknodat(to.directory, to.name, kind, Mode::from_raw_mode(0o600), device)?)
}

fn own(to: Entry<'_>, header: &Header, manner: &Manner<'_>) -> Result<()> {
    let id = |id: io::Result<u64>| -> Result<u32> { Ok(u32::try_from(id?)?) };
    let own = (Uid::from_raw(id(header.uid())?), Gid::from_raw(id(header.gid())?));
    let (uid, gid) = manner.owner.unwrap_or(own);
    chownat(to.directory, to.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if header.entry_type() == EntryType::Symlink {
        return Ok(());
    }
    let mode = header.mode()?;
    ensure!(mode <= 0o7_777_777, "mode {mode:o}");
    let kept = if manner.owner.is_some() { 0o1777 } else { 0o7777 };
    Ok(chmodat(to.directory, to.name, Mode::from_raw_mode(mode & kept), AtFlags::empty())?)
}

fn times(header: &Header) -> Timestamps {
    let time = Timespec { tv_sec: header.mtime().unwrap_or(0).try_into().unwrap_or(0), tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}
