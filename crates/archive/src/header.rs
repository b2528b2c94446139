//! One header block: its fields by their offsets (tar(5); GNU tar's manual, "Basic Tar Format").

use anyhow::{Context, bail, ensure};

use super::BLOCK;
use super::sparse::Segment;

/// What an entry is, by its type flag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// A file.
    #[default]
    Regular = b'0',
    /// Another name of a file.
    HardLink = b'1',
    /// A symbolic link.
    Symlink = b'2',
    /// A character device.
    CharacterDevice = b'3',
    /// A block device.
    BlockDevice = b'4',
    /// A directory.
    Directory = b'5',
    /// A named pipe.
    Fifo = b'6',
}

impl EntryKind {
    /// Tells whether it has a device's numbers.
    pub fn is_device(self) -> bool {
        matches!(self, Self::CharacterDevice | Self::BlockDevice)
    }
}

/// A point in time, before 1970 too: the nanoseconds always count forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Since 1970.
    pub seconds: i64,
    /// What is more than the second.
    pub nanoseconds: u32,
}

/// By the magic: what stands in the last 155 bytes depends on it. star keeps times behind a shorter prefix, GNU
/// sparse maps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// A header block whose checksum is right.
pub(super) struct Header {
    block: [u8; BLOCK],
    dialect: Dialect,
}

impl Header {
    pub(super) fn parse(block: &[u8; BLOCK]) -> anyhow::Result<Self> {
        let stated = octal(&block[148..156]).context("tar: header's checksum")?;
        let bytes = || block[..148].iter().chain(&[b' '; 8]).chain(&block[156..]);
        let unsigned: u64 = bytes().map(|&byte| u64::from(byte)).sum();
        // Some old writers summed signed bytes, which differs where a name is not ASCII.
        let signed: i64 = bytes().map(|&byte| i64::from(i8::from_ne_bytes([byte]))).sum();
        ensure!(stated == unsigned || i64::try_from(stated) == Ok(signed), "tar: wrong header checksum");
        let dialect = match &block[257..265] {
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar\0") && block[508..] == *b"tar\0" => Dialect::Star,
            magic if magic.starts_with(b"ustar\0") => Dialect::Ustar,
            // What has no magic is the oldest form, which has neither prefix nor devices' numbers.
            _ => Dialect::V7,
        };
        Ok(Self { block: *block, dialect })
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.block[156]
    }

    pub(super) fn kind(&self, path: &[u8]) -> anyhow::Result<EntryKind> {
        Ok(match self.type_flag() {
            // Before ustar a directory was a file whose name ends with a slash.
            0 if path.ends_with(b"/") => EntryKind::Directory,
            // '7' is a "contiguous" file, which no file system here knows; POSIX has readers treat it as a regular
            // one.
            0 | b'0' | b'7' => EntryKind::Regular,
            b'S' if self.dialect == Dialect::Gnu => EntryKind::Regular,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::CharacterDevice,
            b'4' => EntryKind::BlockDevice,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            flag => bail!("unknown tar entry type {:?}", char::from(flag)),
        })
    }

    pub(super) fn is_old_sparse(&self) -> bool {
        self.type_flag() == b'S'
    }

    pub(super) fn path(&self) -> Vec<u8> {
        let prefix = match self.dialect {
            Dialect::Ustar => text(&self.block[345..500]),
            Dialect::Star => text(&self.block[345..476]),
            Dialect::V7 | Dialect::Gnu => &[],
        };
        let name = text(&self.block[..100]);
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.block[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> anyhow::Result<u32> {
        // Some writers put the file type's bits there too.
        let mode = number(&self.block[100..108]).context("mode")?;
        Ok(u32::try_from(mode & 0o7777)?)
    }

    pub(super) fn uid(&self) -> anyhow::Result<u32> {
        number(&self.block[108..116]).map(owner).context("uid")
    }

    pub(super) fn gid(&self) -> anyhow::Result<u32> {
        number(&self.block[116..124]).map(owner).context("gid")
    }

    pub(super) fn size(&self) -> anyhow::Result<u64> {
        size(number(&self.block[124..136]).context("size")?)
    }

    pub(super) fn mtime(&self) -> anyhow::Result<Time> {
        Ok(Time { seconds: number(&self.block[136..148]).context("mtime")?, nanoseconds: 0 })
    }

    /// Returns the device's numbers. Linux has 12 bits of major and 20 of minor: more would be cut to another device.
    pub(super) fn device(&self) -> anyhow::Result<(u32, u32)> {
        ensure!(self.dialect != Dialect::V7, "device without its numbers");
        let major = number(&self.block[329..337]).context("device major")?;
        let minor = number(&self.block[337..345]).context("device minor")?;
        ensure!((0..1 << 12).contains(&major) && (0..1 << 20).contains(&minor), "no such device: {major}:{minor}");
        Ok((u32::try_from(major)?, u32::try_from(minor)?))
    }

    /// Adds the four segments of an old GNU header; `true` where blocks with more of them follow.
    pub(super) fn sparse_segments(&self, segments: &mut Vec<Segment>) -> anyhow::Result<bool> {
        add_segments(&self.block[386..482], segments)?;
        Ok(self.block[482] != 0)
    }

    pub(super) fn sparse_real_size(&self) -> anyhow::Result<u64> {
        size(number(&self.block[483..495]).context("sparse file's size")?)
    }
}

/// Adds the segments of an extension block; `true` where another one follows.
pub(super) fn extension_segments(block: &[u8; BLOCK], segments: &mut Vec<Segment>) -> anyhow::Result<bool> {
    add_segments(&block[..504], segments)?;
    Ok(block[504] != 0)
}

fn add_segments(fields: &[u8], segments: &mut Vec<Segment>) -> anyhow::Result<()> {
    for field in fields.chunks_exact(24) {
        if field[0] == 0 {
            break;
        }
        let offset = size(number(&field[..12])?)?;
        segments.push(Segment { offset, length: size(number(&field[12..])?)? });
    }
    Ok(())
}

/// Cuts ids to 32 bits, as docker has it: the system call takes no more. -1 leaves the owner to chown(2), who is root.
///
/// (`uid_t`) -1 means "leave it" to chown(2).
pub(super) fn owner(id: i64) -> u32 {
    u32::try_from(id & i64::from(u32::MAX)).ok().filter(|&id| id != u32::MAX).unwrap_or_default()
}

pub(super) fn size(size: i64) -> anyhow::Result<u64> {
    u64::try_from(size).with_context(|| format!("size {size}"))
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// A numeric field: octal digits, or with its top bit set a big-endian two's complement (GNU's base-256).
fn number(field: &[u8]) -> anyhow::Result<i64> {
    let [first, rest @ ..] = field else { return Ok(0) };
    if first & 0x80 == 0 {
        return Ok(i64::try_from(octal(field)?)?);
    }
    // Bit 6 is the sign; bit 7 only says which encoding this is.
    let mut value = i128::from(i8::from_ne_bytes([first << 1]) >> 1);
    for &byte in rest {
        value = value << 8 | i128::from(byte);
        ensure!(i64::try_from(value).is_ok(), "number out of range");
    }
    Ok(i64::try_from(value)?)
}

fn octal(field: &[u8]) -> anyhow::Result<u64> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !is_blank(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(is_blank).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0_u64, |value, &digit| {
        ensure!((b'0'..=b'7').contains(&digit), "not an octal number");
        value.checked_mul(8).map(|value| value + u64::from(digit - b'0')).context("number out of range")
    })
}
