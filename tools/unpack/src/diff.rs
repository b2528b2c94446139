//! A container's changes as a layer (image-spec, layer.md, "Distinguishing Layer Changes"), or as a list for the eye.

use std::io::Write;

use anyhow::{Context, ensure};
use serde_json::json;

use crate::changes::{self, Change};
use crate::container::CommittedContainer;
use crate::layer::{OPAQUE, WHITEOUT};
use crate::path::{Inner, join, split};
use archive::{Entry, EntryKind, Name, Time, Writer};

/// What is free in how a layer is written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Style {
    /// Holes are left out, which not every reader understands: the specification advises against it.
    pub(crate) sparse: bool,
    /// No time is later: reproducible-builds.org's `SOURCE_DATE_EPOCH`.
    pub(crate) epoch: Option<i64>,
}

/// Writes the changes of a container as an uncompressed layer. Returns the sink and the number of entries.
pub(crate) fn write<W: Write>(container: &CommittedContainer, style: Style, out: W) -> anyhow::Result<(W, u64)> {
    let mut writer = Writer::new(out);
    let mut count = 0;
    container.changes(&mut |change| {
        count += 1;
        put(&mut writer, change, style)
    })?;
    Ok((writer.finish()?, count))
}

/// Prints the changes as `docker diff` does, or as one JSON array, an object a line.
pub(crate) fn list(container: &CommittedContainer, as_json: bool, mut out: impl Write) -> anyhow::Result<()> {
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

fn put<W: Write>(writer: &mut Writer<W>, change: Change, style: Style) -> anyhow::Result<()> {
    let (mut entry, content) = match change {
        Change::Present { entry, content, .. } => (entry, content),
        Change::Removed(path) => {
            let (directory, name) = split(&path).context("the root is gone")?;
            (mark(join(directory, &[WHITEOUT, name].concat())), None)
        }
        // The specification has readers accept both forms; this one is a single entry where whiteouts would be one
        // for each name.
        Change::Replaced(path) => (mark(join(&path, OPAQUE)), None),
    };
    if entry.kind == EntryKind::Directory {
        entry.path.extend_from_slice(if entry.path.is_empty() { b"./" } else { b"/" });
    }
    if let Some(epoch) = style.epoch.filter(|epoch| entry.mtime.seconds >= *epoch) {
        entry.mtime = Time { seconds: epoch, nanoseconds: 0 };
    }
    entry.xattrs.retain(|(name, _)| {
        // A PAX record is `KEYWORD=VALUE`, and the name is part of the keyword (pax, "Extended Header").
        let fits = !name.contains(&b'=');
        if !fits {
            log::warn!("{}: no layer can hold extended attribute {}", Name(&entry.path), Name(name));
        }
        fits
    });
    let Some(content) = content else { return writer.entry(&entry) };
    let path = entry.path.clone();
    let is_whole = writer.file(entry, &content.into(), style.sparse).with_context(|| Name(&path).to_string())?;
    // The container may run. A file that grew is cut at the size that its header says; one that shrank cannot be made
    // whole.
    ensure!(is_whole, "{}: became shorter while it was read", Name(&path));
    Ok(())
}

/// An empty file that means something by its name.
fn mark(path: Inner) -> Entry {
    Entry { path, kind: EntryKind::Regular, ..Entry::default() }
}

impl CommittedContainer {
    /// Tells all that the container has changed.
    fn changes(&self, sink: &mut changes::Sink<'_>) -> anyhow::Result<()> {
        changes::tell(&self.place, &self.layers, &self.mount_points, sink)
    }
}
