//! A writer of layers: ustar, with PAX records for what that cannot say, as the image-spec's layer.md asks for. The same
//! entries give the same bytes: names of owners are left out, and an extended header has no time of its own.

use std::io::Write;

use anyhow::{Context, ensure};

use super::{BLOCK, Entry, EntryKind, Segment, Time};

/// What 11 octal digits hold.
const SIZE_LIMIT: u64 = 1 << 33;
/// What 7 octal digits hold.
const ID_LIMIT: u32 = 1 << 21;
/// Room for a name or a link's target in a header.
const NAME: usize = 100;

const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// An archive that is being written.
///
/// What is written depends on the entries alone, neither on the clock nor on the order of a map: a layer made twice
/// has one digest.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Data of the present entry that is still to come.
    remaining: u64,
    padding: usize,
    /// For a file's content.
    pub(super) buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins an archive.
    pub fn new(out: W) -> Self {
        Self { out, remaining: 0, padding: 0, buffer: Vec::new() }
    }

    /// Writes an entry's headers. A regular file's data follow; of a sparse one only the segments.
    ///
    /// # Errors
    /// An empty name or one with a NUL; less data than the entry before had; and those of the sink.
    pub fn entry(&mut self, entry: &Entry) -> anyhow::Result<()> {
        self.end_entry()?;
        let mut records = Records::default();
        let mut stored = if entry.kind == EntryKind::Regular { entry.size } else { 0 };
        let mut map = Vec::new();
        if let Some(segments) = &entry.sparse {
            map = sparse_map(segments);
            stored = map.len() as u64 + segments.iter().map(|segment| segment.length).sum::<u64>();
            records.add(b"GNU.sparse.major", b"1");
            records.add(b"GNU.sparse.minor", b"0");
            records.add(b"GNU.sparse.name", &entry.path);
            records.add(b"GNU.sparse.realsize", entry.size.to_string().as_bytes());
        }
        let block = header(entry, stored, &mut records)?;
        for (name, value) in &entry.xattrs {
            records.add(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        if !records.0.is_empty() {
            self.records(&records.0)?;
        }
        self.out.write_all(&block)?;
        self.out.write_all(&map)?;
        self.remaining = stored - map.len() as u64;
        self.padding = usize::try_from(stored.wrapping_neg() % BLOCK as u64)?;
        Ok(())
    }

    /// Writes some of the present entry's data.
    pub fn data(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.remaining = self.remaining.checked_sub(bytes.len() as u64).context("more data than the entry has")?;
        Ok(self.out.write_all(bytes)?)
    }

    /// Writes the end of the archive and gives the sink back.
    ///
    /// Two blocks of zeros are the end (tar(5)); what they are padded to is the medium's affair.
    pub fn finish(mut self) -> anyhow::Result<W> {
        self.end_entry()?;
        self.out.write_all(&ZEROS)?;
        self.out.write_all(&ZEROS)?;
        Ok(self.out)
    }

    fn end_entry(&mut self) -> anyhow::Result<()> {
        ensure!(self.remaining == 0, "less data than the entry has");
        Ok(self.out.write_all(&ZEROS[..std::mem::take(&mut self.padding)])?)
    }

    fn records(&mut self, records: &[u8]) -> anyhow::Result<()> {
        let mut block = [0; BLOCK];
        block[..8].copy_from_slice(b"././@Pax");
        octal(&mut block[100..108], 0o644);
        octal(&mut block[108..116], 0);
        octal(&mut block[116..124], 0);
        octal(&mut block[124..136], records.len() as u64);
        octal(&mut block[136..148], 0);
        block[156] = b'x';
        self.out.write_all(&sealed(block))?;
        self.out.write_all(records)?;
        Ok(self.out.write_all(&ZEROS[..records.len().wrapping_neg() % BLOCK])?)
    }
}

/// PAX records, in the order in which they are added.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        // The length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + length.to_string().len() != length {
            length = rest + length.to_string().len();
        }
        for part in [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"] {
            self.0.extend_from_slice(part);
        }
    }
}

fn header(entry: &Entry, stored: u64, records: &mut Records) -> anyhow::Result<[u8; BLOCK]> {
    ensure!(!entry.path.is_empty() && !entry.path.contains(&0), "no name for an archive");
    let mut block = [0; BLOCK];
    name(&mut block[..NAME], &entry.path, b"path", records);
    name(&mut block[157..257], &entry.link, b"linkpath", records);
    octal(&mut block[100..108], entry.mode.into());
    id(&mut block[108..116], entry.uid, b"uid", records);
    id(&mut block[116..124], entry.gid, b"gid", records);
    if stored < SIZE_LIMIT {
        octal(&mut block[124..136], stored);
    } else {
        octal(&mut block[124..136], 0);
        // The field is 0 then: readers that know the record do not look at it, and others must not take a cut number
        // for the size.
        records.add(b"size", stored.to_string().as_bytes());
    }
    let Time { seconds, nanoseconds } = entry.mtime;
    match u64::try_from(seconds) {
        Ok(seconds) if seconds < SIZE_LIMIT && nanoseconds == 0 => octal(&mut block[136..148], seconds),
        fits => {
            octal(&mut block[136..148], fits.ok().filter(|seconds| *seconds < SIZE_LIMIT).unwrap_or_default());
            records.add(b"mtime", time(entry.mtime).as_bytes());
        }
    }
    if let Some(atime) = entry.atime {
        records.add(b"atime", time(atime).as_bytes());
    }
    block[156] = entry.kind as u8;
    octal(&mut block[329..337], entry.device.0.into());
    octal(&mut block[337..345], entry.device.1.into());
    Ok(sealed(block))
}

fn name(field: &mut [u8], value: &[u8], key: &[u8], records: &mut Records) {
    let fits = value.len().min(NAME);
    field[..fits].copy_from_slice(&value[..fits]);
    // Readers take bytes beyond ASCII in a header for some code page or other; in a record they are UTF-8.
    if value.len() > NAME || !value.is_ascii() {
        records.add(key, value);
    }
}

fn id(field: &mut [u8], value: u32, key: &[u8], records: &mut Records) {
    octal(field, if value < ID_LIMIT { value.into() } else { 0 });
    if value >= ID_LIMIT {
        records.add(key, value.to_string().as_bytes());
    }
}

/// Fills a numeric field; the value fits.
fn octal(field: &mut [u8], value: u64) {
    let width = field.len() - 1;
    field[..width].copy_from_slice(format!("{value:0width$o}").as_bytes());
}

/// Adds the magic and the checksum.
fn sealed(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    octal(&mut block[148..155], sum);
    block
}

/// Seconds with as many decimals as it takes: pax(1). A time before 1970 counts them backward.
fn time(Time { seconds, nanoseconds }: Time) -> String {
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let (sign, total) = if total < 0 { ("-", -total) } else { ("", total) };
    let text = format!("{sign}{}.{:09}", total / 1_000_000_000, total % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// GNU's format 1.0: the count, then offset and length of each segment, a line each, padded to whole blocks. A hole at the
/// end is said by an empty segment there, without which GNU tar would make the file too short.
fn sparse_map(segments: &[Segment]) -> Vec<u8> {
    let mut map = format!("{}\n", segments.len()).into_bytes();
    for segment in segments {
        map.extend_from_slice(format!("{}\n{}\n", segment.offset, segment.length).as_bytes());
    }
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}
