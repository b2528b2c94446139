//! Tar archives as image layers use them (image-spec, layer.md), read and written as a stream: ustar, PAX (pax(1)), and the
//! GNU and star dialects. Three rules keep it in step with every other reader: the size of an entry's data is decided once,
//! extended headers count for the next entry only, and an extended header is never itself extended.
//!
//! Readers that disagree about where an entry ends see different files in one archive: one that was checked, and one
//! that is extracted (CVE-2025-62518 and its like). So what is ambiguous is an error here, and not a guess.
//!
//! ```
//! use archive::{Archive, Entry, EntryKind, Writer};
//!
//! let mut writer = Writer::new(Vec::new());
//! writer.entry(&Entry { path: b"etc/motd".to_vec(), size: 3, mode: 0o644, ..Entry::default() })?;
//! writer.data(b"hi\n")?;
//! let bytes = writer.finish()?;
//! let mut archive = Archive::new(bytes.as_slice());
//! let entry = archive.advance()?.expect("there is one");
//! assert_eq!((entry.path.as_slice(), entry.kind), (&b"etc/motd"[..], EntryKind::Regular));
//! assert_eq!(archive.data()?, b"hi\n");
//! # Ok::<(), anyhow::Error>(())
//! ```

#![forbid(unsafe_code)]

mod file;
mod header;
mod name;
mod pax;
mod sparse;
#[cfg(test)]
mod tests;
mod writer;

use std::io::BufRead;

use anyhow::{Context, bail, ensure};

pub use self::file::segments;
use self::header::Header;
pub use self::header::{EntryKind, Time};
pub use self::name::Name;
use self::pax::Pax;
pub use self::sparse::Segment;
pub use self::writer::Writer;

/// Tar's unit: headers are one block, data is padded to it.
pub const BLOCK: usize = 512;

/// The most that one extended header may hold, as in Go's reader, and so in all of Docker's family.
const EXTENDED_LIMIT: u64 = 1 << 20;

/// One entry, with all its extended headers applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// As the archive has it: any bytes but NUL.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// The permission bits, setuid, setgid and sticky; no file type.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When its content was changed last.
    pub mtime: Time,
    /// When it was read last.
    pub atime: Option<Time>,
    /// The target of a hard link or symbolic link.
    pub link: Vec<u8>,
    /// The file's size once it is extracted.
    pub size: u64,
    /// Where a sparse file's data goes; `None` for a file without holes.
    pub sparse: Option<Vec<Segment>>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes: names and values.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What the headers before an entry say about it.
#[derive(Default)]
struct Extensions {
    pax: Option<Pax>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

/// An archive that is being read.
#[derive(Debug)]
pub struct Archive<R> {
    source: R,
    globals: Pax,
    /// Data of the present entry that nobody has taken yet.
    remaining: u64,
    /// Zeros between the end of that data and the next block.
    padding: u64,
}

impl<R: BufRead> Archive<R> {
    /// Begins to read.
    pub fn new(source: R) -> Self {
        Self { source, globals: Pax::default(), remaining: 0, padding: 0 }
    }

    /// Gives the source back, at the end of the archive, for what may come behind it.
    pub fn into_inner(self) -> R {
        self.source
    }

    /// Returns the next entry, or `None` at the end of the archive. What was left of the last one's data is skipped.
    pub fn advance(&mut self) -> anyhow::Result<Option<Entry>> {
        self.skip_data()?;
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else {
                let dangling = extensions.pax.is_some() || extensions.path.is_some() || extensions.link.is_some();
                ensure!(!dangling, "tar: extended header without an entry");
                return Ok(None);
            };
            match header.type_flag() {
                b'x' => put_once(&mut extensions.pax, Pax::parse(&self.extended(&header)?)?, "PAX header")?,
                b'g' => {
                    let records = Pax::parse(&self.extended(&header)?)?;
                    self.globals.add_globals(records)?;
                }
                b'L' => put_once(&mut extensions.path, until_nul(self.extended(&header)?), "GNU long name")?,
                b'K' => put_once(&mut extensions.link, until_nul(self.extended(&header)?), "GNU long link")?,
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
    }

    /// Returns some of the present entry's data, without taking it; empty at its end.
    pub fn data(&mut self) -> anyhow::Result<&[u8]> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let buffer = self.source.fill_buf()?;
        ensure!(!buffer.is_empty(), "tar: archive ends inside an entry's data");
        let most = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        Ok(&buffer[..most])
    }

    /// Takes `count` bytes that [`Self::data`] has shown.
    pub fn take_data(&mut self, count: usize) {
        self.source.consume(count);
        self.remaining -= count as u64;
    }

    fn skip_data(&mut self) -> anyhow::Result<()> {
        loop {
            let count = self.data()?.len();
            if count == 0 {
                break;
            }
            self.take_data(count);
        }
        // Some writers leave out what would follow the last entry.
        while self.padding > 0 {
            let count = self.source.fill_buf()?.len().min(usize::try_from(self.padding)?);
            self.source.consume(count);
            self.padding = if count == 0 { 0 } else { self.padding - count as u64 };
        }
        Ok(())
    }

    /// Reads one block; `None` where the archive ends: at a block of zeros, or where the stream ends between entries,
    /// as some writers leave the two zero blocks out.
    fn header(&mut self) -> anyhow::Result<Option<Header>> {
        let mut block = [0; BLOCK];
        if !self.block(&mut block)? || block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        Header::parse(&block).map(Some)
    }

    /// Fills one block; `false` where the stream ends before it.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> anyhow::Result<bool> {
        let mut filled = 0;
        while filled < BLOCK {
            let buffer = self.source.fill_buf()?;
            if buffer.is_empty() {
                ensure!(filled == 0, "tar: archive ends inside a block");
                return Ok(false);
            }
            let count = buffer.len().min(BLOCK - filled);
            block[filled..filled + count].copy_from_slice(&buffer[..count]);
            self.source.consume(count);
            filled += count;
        }
        Ok(true)
    }

    /// Reads an extended header's data. Its size is its own header's, whatever an extended header before it says.
    fn extended(&mut self, header: &Header) -> anyhow::Result<Vec<u8>> {
        let size = header.size()?;
        ensure!(size <= EXTENDED_LIMIT, "tar: extended header of {size} bytes");
        self.set_data(size);
        let mut data = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        loop {
            let part = self.data()?;
            let count = part.len();
            if count == 0 {
                break;
            }
            data.extend_from_slice(part);
            self.take_data(count);
        }
        self.skip_data()?;
        Ok(data)
    }

    fn set_data(&mut self, size: u64) {
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> anyhow::Result<Entry> {
        let mut pax = self.globals.clone();
        pax.merge(extensions.pax.unwrap_or_default());
        // In this order Go's reader takes them, where an archive has several of them at once.
        let sparse_name = pax.sparse.name.take();
        let path = extensions.path.or(sparse_name).or(pax.path.take()).unwrap_or_else(|| header.path());
        self.described_entry(header, pax, path.clone(), extensions.link)
            .with_context(|| format!("entry {}", Name(&path)))
    }

    fn described_entry(
        &mut self,
        header: &Header,
        pax: Pax,
        path: Vec<u8>,
        gnu_link: Option<Vec<u8>>,
    ) -> anyhow::Result<Entry> {
        let kind = header.kind(&path)?;
        let stored = match pax.size {
            // Links, directories and devices have no data, whatever size they claim.
            _ if kind != EntryKind::Regular => 0,
            Some(size) => size,
            None => header.size()?,
        };
        self.set_data(stored);
        let (sparse, size) = if header.is_old_sparse() {
            self.old_sparse(header).map(|(segments, size)| (Some(segments), size))?
        } else if kind == EntryKind::Regular && pax.sparse.is_some() {
            self.pax_sparse(&pax.sparse, stored).map(|(segments, size)| (Some(segments), size))?
        } else {
            (None, stored)
        };
        Ok(Entry {
            kind,
            mode: header.mode()?,
            uid: pax.uid.map_or_else(|| header.uid(), Ok)?,
            gid: pax.gid.map_or_else(|| header.gid(), Ok)?,
            mtime: pax.mtime.map_or_else(|| header.mtime(), Ok)?,
            atime: pax.atime,
            link: gnu_link.or(pax.link).unwrap_or_else(|| header.link()),
            size,
            sparse,
            device: if kind.is_device() { header.device()? } else { (0, 0) },
            xattrs: pax.xattrs,
            path,
        })
    }

    /// The old GNU format: four segments in the header, and blocks of 21 more behind it, before the data.
    fn old_sparse(&mut self, header: &Header) -> anyhow::Result<(Vec<Segment>, u64)> {
        let mut segments = Vec::new();
        let mut more = header.sparse_segments(&mut segments)?;
        let real_size = header.sparse_real_size()?;
        while more {
            let mut block = [0; BLOCK];
            ensure!(self.block(&mut block)?, "tar: archive ends inside an entry");
            more = header::extension_segments(&block, &mut segments)?;
            sparse::check_count(segments.len())?;
        }
        sparse::check(&segments, self.remaining, real_size)?;
        Ok((segments, real_size))
    }

    fn pax_sparse(&mut self, records: &pax::Sparse, stored: u64) -> anyhow::Result<(Vec<Segment>, u64)> {
        let Some(real_size) = records.real_size else { bail!("sparse file without its size") };
        let segments = match (records.major, records.minor) {
            (Some(1), Some(0)) => self.sparse_prefix(stored)?,
            (None | Some(0), None | Some(0 | 1)) => records.segments()?,
            (major, minor) => {
                bail!("unknown sparse format {}.{}", major.unwrap_or_default(), minor.unwrap_or_default())
            }
        };
        sparse::check(&segments, self.remaining, real_size)?;
        Ok((segments, real_size))
    }

    /// Format 1.0: the map is decimal lines before the data, padded to whole blocks.
    fn sparse_prefix(&mut self, stored: u64) -> anyhow::Result<Vec<Segment>> {
        let mut map = sparse::PrefixMap::default();
        let mut left = stored;
        while !map.is_complete() {
            ensure!(left >= BLOCK as u64, "sparse map is longer than the entry");
            let mut block = [0; BLOCK];
            ensure!(self.block(&mut block)?, "tar: archive ends inside an entry");
            left -= BLOCK as u64;
            map.feed(&block)?;
        }
        self.set_data(left);
        map.into_segments()
    }
}

/// Two headers of one sort before one entry are how readers are made to disagree; no writer makes them.
fn put_once<T>(place: &mut Option<T>, value: T, what: &str) -> anyhow::Result<()> {
    ensure!(place.is_none(), "tar: second {what} for one entry");
    *place = Some(value);
    Ok(())
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}
