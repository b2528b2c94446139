//! Files as entries, and entries as files: with their holes.

use std::ffi::CStr;
use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Result, ensure};
use rustix::fs::{FileType, SeekFrom, Stat, Timespec, Timestamps, ftruncate, major, minor, readlinkat, seek};
use rustix::io::{Errno, pwrite};

use super::{Archive, Entry, EntryKind, Segment, Time, Writer};

/// How much of a file is copied at once.
const PIECE: usize = 128 << 10;

/// A file with more pieces between its holes is written with them.
const SEGMENTS: usize = 1 << 16;

static ZEROS: [u8; PIECE] = [0; PIECE];

impl Entry {
    /// Describes a name in a directory, but for extended attributes; `None` for a socket, which no archive can hold and
    /// nobody would listen on.
    ///
    /// The times of access are left out: they change by looking, and the same tree must give the same archive.
    pub fn of(directory: BorrowedFd<'_>, name: &CStr, path: Vec<u8>, stat: &Stat) -> Result<Option<Self>> {
        let Some(kind) = EntryKind::of(stat) else { return Ok(None) };
        let is = |this: EntryKind| kind == this;
        let link = if is(EntryKind::Symlink) { readlinkat(directory, name, Vec::new())?.into_bytes() } else { vec![] };
        Ok(Some(Self {
            path,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Time::new(stat.st_mtime, stat.st_mtime_nsec),
            link,
            size: if is(EntryKind::Regular) { u64::try_from(stat.st_size).unwrap_or_default() } else { 0 },
            device: if kind.is_device() { (major(stat.st_rdev), minor(stat.st_rdev)) } else { (0, 0) },
            ..Self::default()
        }))
    }

    /// Returns the times that its file gets.
    pub fn times(&self) -> Timestamps {
        let spec = |time: Time| Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
        Timestamps { last_access: spec(self.atime.unwrap_or(self.mtime)), last_modification: spec(self.mtime) }
    }
}

impl EntryKind {
    /// Returns a file's type, unless it is a socket.
    pub fn of(stat: &Stat) -> Option<Self> {
        Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Self::Regular,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::CharacterDevice => Self::CharacterDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Fifo => Self::Fifo,
            _ => return None,
        })
    }

    /// Returns the kernel's word for a device or a FIFO.
    pub fn node(self) -> Option<FileType> {
        match self {
            Self::CharacterDevice => Some(FileType::CharacterDevice),
            Self::BlockDevice => Some(FileType::BlockDevice),
            Self::Fifo => Some(FileType::Fifo),
            _ => None,
        }
    }
}

impl Time {
    /// Makes one of what stat(2) says.
    pub fn new(seconds: i64, nanoseconds: u64) -> Self {
        Self { seconds, nanoseconds: u32::try_from(nanoseconds).unwrap_or_default() }
    }
}

impl<R: BufRead> Archive<R> {
    /// Writes the present entry's data into its file, which is new. `pass` is asked before each piece, and what it gives is
    /// held while that is written.
    pub fn extract<P>(&mut self, entry: &Entry, file: BorrowedFd<'_>, pass: impl Fn() -> Result<P>) -> Result<()> {
        for segment in entry.sparse.as_deref().unwrap_or(&[Segment { offset: 0, length: entry.size }]) {
            let (mut offset, mut left) = (segment.offset, segment.length);
            while left > 0 {
                let data = self.data()?;
                ensure!(!data.is_empty(), "sparse map has more data than the entry");
                let most = data.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let _pass = pass()?;
                let count = pwrite(file, &data[..most], offset)?;
                self.take_data(count);
                offset += count as u64;
                left -= count as u64;
            }
        }
        if entry.sparse.is_some() { Ok(ftruncate(file, entry.size)?) } else { Ok(()) }
    }
}

impl<W: Write> Writer<W> {
    /// Writes an entry with the content of its file; with holes, where `sparse` says so and there are any. Tells whether the
    /// file had all of it: what has become shorter is filled up.
    pub fn file(&mut self, mut entry: Entry, file: &File, sparse: bool) -> Result<bool> {
        let mut segments = segments(file, entry.size)?;
        let whole = segments.iter().map(|segment| segment.length).sum::<u64>() == entry.size;
        if sparse && !whole && segments.len() < SEGMENTS {
            if segments.last().is_none_or(|last| last.offset + last.length < entry.size) {
                // Says where a hole at the end has its end.
                segments.push(Segment { offset: entry.size, length: 0 });
            }
            entry.sparse = Some(segments.clone());
        }
        self.entry(&entry)?;
        let mut end = 0;
        let mut is_whole = true;
        for segment in &segments {
            if entry.sparse.is_none() {
                self.zeros(segment.offset - end)?;
            }
            seek(file, SeekFrom::Start(segment.offset))?;
            let left = self.copy(file, segment.length)?;
            is_whole &= left == 0;
            self.zeros(left)?;
            end = segment.offset + segment.length;
        }
        if entry.sparse.is_none() {
            self.zeros(entry.size - end)?;
        }
        Ok(is_whole)
    }

    /// Copies so many bytes; returns how many there were not.
    fn copy(&mut self, mut file: &File, mut left: u64) -> Result<u64> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(PIECE, 0);
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = file.read(&mut buffer[..most])?;
            if count == 0 {
                break;
            }
            self.data(&buffer[..count])?;
            left -= count as u64;
        }
        self.buffer = buffer;
        Ok(left)
    }

    fn zeros(&mut self, mut count: u64) -> Result<()> {
        while count > 0 {
            let most = ZEROS.len().min(usize::try_from(count).unwrap_or(usize::MAX));
            self.data(&ZEROS[..most])?;
            count -= most as u64;
        }
        Ok(())
    }
}

/// Returns where a file has data; holes are not read, however large they are.
///
/// `SEEK_DATA` and `SEEK_HOLE` (lseek(2)) move the file's offset, which all of its descriptors share.
pub fn segments(file: impl AsFd, size: u64) -> Result<Vec<Segment>> {
    let (mut segments, mut end) = (Vec::new(), 0);
    while end < size {
        let offset = match seek(&file, SeekFrom::Data(end)) {
            Err(Errno::NXIO) => break,
            // A file system that knows nothing of holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => end,
            found => found?,
        };
        end = match seek(&file, SeekFrom::Hole(offset)) {
            Err(Errno::INVAL | Errno::OPNOTSUPP) => size,
            // It was cut meanwhile.
            Err(Errno::NXIO) => break,
            found => found?.min(size),
        };
        if offset < end {
            segments.push(Segment { offset, length: end - offset });
        }
    }
    Ok(segments)
}
