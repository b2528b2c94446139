//! PAX records (pax(1), "pax Extended Header"), and the vendors' records for extended attributes and sparse files.

use anyhow::{Context, bail, ensure};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, alphabet};

use super::header::{self, Time};
use super::sparse::{self, Segment};
use super::{Name, header::owner};

/// Linux's own limit for one extended attribute, xattr(7).
const XATTR_LIMIT: usize = 64 << 10;

/// What the records of one extended header say. An empty value takes a global record back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Time>,
    pub(super) atime: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Sparse,
    /// Records of a global header that this one takes back.
    erased: Vec<Vec<u8>>,
}

/// The `GNU.sparse` records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// Offsets and lengths in turn.
    numbers: Vec<u64>,
    blocks: Option<u64>,
}

impl Pax {
    /// Parses a whole extended header: `LENGTH KEY=VALUE\n`, the length being the record's own.
    pub(super) fn parse(mut text: &[u8]) -> anyhow::Result<Self> {
        let mut pax = Self::default();
        while !text.is_empty() {
            let (record, rest) = split_record(text).context("tar: malformed PAX record")?;
            let (key, value) = record;
            pax.set(key, value).with_context(|| format!("tar: PAX record {}", Name(key)))?;
            text = rest;
        }
        Ok(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        if value.is_empty() && !key.starts_with(b"SCHILY.xattr.") {
            self.erased.push(key.to_vec());
            return Ok(());
        }
        match key {
            b"path" => self.path = Some(without_nul(value)?),
            b"linkpath" => self.link = Some(without_nul(value)?),
            b"size" => self.size = Some(header::size(i64::try_from(sparse::decimal(value)?)?)?),
            b"uid" => self.uid = Some(id(value)?),
            b"gid" => self.gid = Some(id(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            b"atime" => self.atime = Some(time(value)?),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.add_xattr(without_nul(name)?, value.to_vec(), true)?;
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    self.add_xattr(without_nul(&percent_decoded(name)?)?, base64_decoded(value)?, false)?;
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.set(name, value)?;
                }
            }
        }
        Ok(())
    }

    /// `SCHILY.xattr` is star's and what image builders write; where libarchive wrote both, they say the same, and
    /// star's wins.
    fn add_xattr(&mut self, name: Vec<u8>, value: Vec<u8>, replace: bool) -> anyhow::Result<()> {
        ensure!(!name.is_empty(), "extended attribute without a name");
        ensure!(name.len() <= 255 && value.len() <= XATTR_LIMIT, "extended attribute is too large");
        match self.xattrs.iter_mut().find(|(present, _)| *present == name) {
            Some(present) if replace => present.1 = value,
            Some(_) => {}
            None => self.xattrs.push((name, value)),
        }
        Ok(())
    }

    /// Lays `other`, which counts for one entry, over the global records.
    pub(super) fn merge(&mut self, other: Self) {
        for key in &other.erased {
            match key.as_slice() {
                b"uid" => self.uid = None,
                b"gid" => self.gid = None,
                b"mtime" => self.mtime = None,
                b"atime" => self.atime = None,
                _ => {}
            }
        }
        self.path = other.path.or(self.path.take());
        self.link = other.link.or(self.link.take());
        self.size = other.size.or(self.size);
        self.uid = other.uid.or(self.uid);
        self.gid = other.gid.or(self.gid);
        self.mtime = other.mtime.or(self.mtime);
        self.atime = other.atime.or(self.atime);
        for (name, value) in other.xattrs {
            self.xattrs.retain(|(present, _)| *present != name);
            self.xattrs.push((name, value));
        }
        if other.sparse != Sparse::default() {
            self.sparse = other.sparse;
        }
    }

    /// Takes the records of a global header over. What tells one entry from another cannot be said of all of them, and
    /// readers disagree about it: refused.
    pub(super) fn add_globals(&mut self, records: Self) -> anyhow::Result<()> {
        let Self { path, link, size, sparse, .. } = &records;
        let is_general = path.is_none() && link.is_none() && size.is_none() && *sparse == Sparse::default();
        ensure!(is_general, "tar: global PAX header with a path, size or sparse map");
        self.merge(records);
        let total: usize = self.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        ensure!(total <= XATTR_LIMIT, "tar: global PAX headers with {total} bytes of extended attributes");
        Ok(())
    }
}

impl Sparse {
    /// Tells whether the records describe a sparse file.
    pub(super) fn is_some(&self) -> bool {
        self.major.is_some() || !self.numbers.is_empty() || self.blocks.is_some()
    }

    fn set(&mut self, name: &[u8], value: &[u8]) -> anyhow::Result<()> {
        let numbers = &mut self.numbers;
        match name {
            b"major" => self.major = Some(sparse::decimal(value)?),
            b"minor" => self.minor = Some(sparse::decimal(value)?),
            b"name" => self.name = Some(without_nul(value)?),
            b"size" | b"realsize" => self.real_size = Some(sparse::decimal(value)?),
            b"numblocks" => self.blocks = Some(sparse::decimal(value)?),
            // Format 0.0 has a pair of records for each piece, 0.1 one list.
            b"offset" => {
                ensure!(numbers.len() % 2 == 0, "two offsets in a row");
                numbers.push(sparse::decimal(value)?);
            }
            b"numbytes" => {
                ensure!(numbers.len() % 2 == 1, "length without an offset");
                numbers.push(sparse::decimal(value)?);
            }
            b"map" => {
                *numbers = value.split(|&byte| byte == b',').map(sparse::decimal).collect::<anyhow::Result<_>>()?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the map of formats 0.0 and 0.1.
    pub(super) fn segments(&self) -> anyhow::Result<Vec<Segment>> {
        let segments = sparse::pairs(&self.numbers)?;
        let stated = self.blocks.unwrap_or(segments.len() as u64);
        ensure!(stated == segments.len() as u64, "sparse map has {} pieces, not {stated}", segments.len());
        Ok(segments)
    }
}

type Record<'a> = (&'a [u8], &'a [u8]);

fn split_record(text: &[u8]) -> Option<(Record<'_>, &[u8])> {
    // A length of more than twenty digits has no end in 64 bits.
    let space = text.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(sparse::decimal(&text[..space]).ok()?).ok()?;
    let record = text.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    (equals > 0).then(|| ((&record[..equals], &record[equals + 1..]), &text[length..]))
}

fn without_nul(text: &[u8]) -> anyhow::Result<Vec<u8>> {
    ensure!(!text.contains(&0), "name with a NUL byte");
    Ok(text.to_vec())
}

fn id(text: &[u8]) -> anyhow::Result<u32> {
    let (negative, digits) = text.strip_prefix(b"-").map_or((false, text), |digits| (true, digits));
    let id = i64::try_from(sparse::decimal(digits)?)?;
    Ok(owner(if negative { -id } else { id }))
}

/// Parses decimal seconds with a sign and any number of decimals; what is finer than a nanosecond is dropped.
fn time(text: &[u8]) -> anyhow::Result<Time> {
    let (negative, digits) = text.strip_prefix(b"-").map_or((false, text), |digits| (true, digits));
    let (whole, decimals) = match digits.iter().position(|&byte| byte == b'.') {
        Some(point) => (&digits[..point], &digits[point + 1..]),
        None => (digits, &[][..]),
    };
    ensure!(decimals.iter().all(u8::is_ascii_digit), "not a time");
    let seconds = i64::try_from(sparse::decimal(whole)?)?;
    let mut nanoseconds = 0;
    for place in 0..9 {
        nanoseconds = nanoseconds * 10 + u32::from(decimals.get(place).map_or(0, |digit| digit - b'0'));
    }
    Ok(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds },
        (true, _) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

fn percent_decoded(text: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            decoded.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = tail else { bail!("malformed name") };
        let digit = |byte: u8| char::from(byte).to_digit(16).context("malformed name");
        decoded.push(u8::try_from(digit(*high)? * 16 + digit(*low)?)?);
        rest = tail;
    }
    Ok(decoded)
}

/// Base64, with or without its padding: libarchive leaves it out.
fn base64_decoded(text: &[u8]) -> anyhow::Result<Vec<u8>> {
    let text: Vec<u8> = text.iter().copied().filter(|byte| !b"=\n\r".contains(byte)).collect();
    let config = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    let config = config.with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&alphabet::STANDARD, config).decode(text).context("not base64")
}
