//! A container's changes as a layer (image-spec, layer.md, "Distinguishing Layer Changes"), or as a list for the eye.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use anyhow::{Context, ensure};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use serde_json::json;

use crate::changes::{self, Change};
use crate::container::Container;
use crate::layer::{OPAQUE, WHITEOUT};
use crate::path::{Inner, join, split};
use crate::tar::{Entry, Kind, Name, Segment, Time, Writer};

/// How much of a file is copied at once.
const PIECE: usize = 128 << 10;

/// A file with more pieces between its holes is written with them.
const SEGMENTS: usize = 1 << 16;

static ZEROS: [u8; PIECE] = [0; PIECE];

/// What is free in how a layer is written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Style {
    /// Holes are left out, which not every reader understands: the specification advises against it.
    pub(crate) sparse: bool,
    /// No time is later: reproducible-builds.org's `SOURCE_DATE_EPOCH`.
    pub(crate) epoch: Option<i64>,
}

/// Writes the changes of a container as an uncompressed layer. Returns the sink and the number of entries.
pub(crate) fn write<W: Write>(container: &Container, style: Style, out: W) -> anyhow::Result<(W, u64)> {
    let mut writer = Writer::new(out);
    let mut buffer = vec![0; PIECE];
    let mut count = 0;
    container.changes(&mut |change| {
        count += 1;
        put(&mut writer, change, style, &mut buffer)
    })?;
    Ok((writer.finish()?, count))
}

/// Prints the changes as `docker diff` does, or as one JSON array, an object a line.
pub(crate) fn list(container: &Container, as_json: bool, mut out: impl Write) -> anyhow::Result<()> {
    let mut separator = "[";
    container.changes(&mut |change| {
        let (sign, kind, path) = match &change {
            Change::Present { entry, added: true, .. } => ('A', "added", &entry.path),
            Change::Present { entry, added: false, .. } => ('C', "changed", &entry.path),
            Change::Removed(path) => ('D', "removed", path),
            // Its directory's line stands above.
            Change::Replaced(_) => return Ok(()),
        };
        if as_json {
            let path = format!("/{}", String::from_utf8_lossy(path));
            write!(out, "{separator}{}", json!({"kind": kind, "path": path}))?;
            separator = ",\n";
        } else {
            writeln!(out, "{sign} /{}", cli::printable(&Name(path).to_string()))?;
        }
        Ok(())
    })?;
    if as_json {
        writeln!(out, "{}]", if separator == "[" { "[" } else { "" })?;
    }
    Ok(out.flush()?)
}

fn put<W: Write>(writer: &mut Writer<W>, change: Change, style: Style, buffer: &mut [u8]) -> anyhow::Result<()> {
    let (mut entry, content) = match change {
        Change::Present { entry, content, .. } => (entry, content),
        Change::Removed(path) => {
            let (directory, name) = split(&path).context("the root is gone")?;
            (mark(join(directory, &[WHITEOUT, name].concat())), None)
        }
        Change::Replaced(path) => (mark(join(&path, OPAQUE)), None),
    };
    if entry.kind == Kind::Directory {
        entry.path.extend_from_slice(if entry.path.is_empty() { b"./" } else { b"/" });
    }
    if let Some(epoch) = style.epoch.filter(|epoch| entry.mtime.seconds >= *epoch) {
        entry.mtime = Time { seconds: epoch, nanoseconds: 0 };
    }
    entry.xattrs.retain(|(name, _)| {
        let fits = !name.contains(&b'=');
        if !fits {
            log::warn!("{}: no layer can hold extended attribute {}", Name(&entry.path), Name(name));
        }
        fits
    });
    let Some(content) = content else { return writer.entry(&entry) };
    let mut segments = segments(&content, entry.size)?;
    let whole = segments.iter().map(|segment| segment.length).sum::<u64>() == entry.size;
    if style.sparse && !whole && segments.len() < SEGMENTS {
        if segments.last().is_none_or(|last| last.offset + last.length < entry.size) {
            // Says where a hole at the end has its end.
            segments.push(Segment { offset: entry.size, length: 0 });
        }
        entry.sparse = Some(segments.clone());
    }
    writer.entry(&entry)?;
    copy(writer, &entry, &segments, (content, buffer)).with_context(|| Name(&entry.path).to_string())
}

/// An empty file that means something by its name.
fn mark(path: Inner) -> Entry {
    Entry { path, kind: Kind::Regular, ..Entry::default() }
}

/// Returns where a file has data; holes are not read, however large they are.
fn segments(file: &OwnedFd, size: u64) -> anyhow::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    let mut end = 0;
    while end < size {
        let offset = match seek(file, SeekFrom::Data(end)) {
            Err(Errno::NXIO) => break,
            // A file system that knows nothing of holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => end,
            found => found?,
        };
        end = match seek(file, SeekFrom::Hole(offset)) {
            Err(Errno::INVAL | Errno::OPNOTSUPP) => size,
            found => found?.min(size),
        };
        if offset < end {
            segments.push(Segment { offset, length: end - offset });
        }
    }
    Ok(segments)
}

fn copy<W: Write>(
    writer: &mut Writer<W>,
    entry: &Entry,
    segments: &[Segment],
    (content, buffer): (OwnedFd, &mut [u8]),
) -> anyhow::Result<()> {
    let mut file = File::from(content);
    let mut end = 0;
    for segment in segments {
        if entry.sparse.is_none() {
            zeros(writer, segment.offset - end)?;
        }
        seek(&file, SeekFrom::Start(segment.offset))?;
        let mut left = segment.length;
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = file.read(&mut buffer[..most])?;
            ensure!(count > 0, "became shorter while it was read");
            writer.data(&buffer[..count])?;
            left -= count as u64;
        }
        end = segment.offset + segment.length;
    }
    if entry.sparse.is_none() { zeros(writer, entry.size - end) } else { Ok(()) }
}

fn zeros<W: Write>(writer: &mut Writer<W>, mut count: u64) -> anyhow::Result<()> {
    while count > 0 {
        let most = ZEROS.len().min(usize::try_from(count).unwrap_or(usize::MAX));
        writer.data(&ZEROS[..most])?;
        count -= most as u64;
    }
    Ok(())
}

impl Container {
    /// Tells all that the container has changed.
    fn changes(&self, sink: &mut changes::Sink<'_>) -> anyhow::Result<()> {
        changes::tell(&self.place, &self.layers, &self.mount_points, sink)
    }
}
