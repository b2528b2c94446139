//! Maps of sparse files: where the stored data belongs in the file (GNU tar's manual, "Storing Sparse Files").

use anyhow::{Context, ensure};

use super::BLOCK;

/// More pieces than any file has that a map of a megabyte could describe.
const SEGMENTS_LIMIT: usize = 1 << 18;

/// Bytes of a decimal line, with room to spare.
const LINE_LIMIT: usize = 32;

/// A piece of a sparse file that has data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

pub(super) fn check_count(count: usize) -> anyhow::Result<()> {
    ensure!(count <= SEGMENTS_LIMIT, "sparse map of more than {SEGMENTS_LIMIT} pieces");
    Ok(())
}

/// Checks that the pieces are in order, lie inside the file, and are all of the stored data and no more.
///
/// A map that lies could make one entry's data another's, or a file larger than its header says.
pub(super) fn check(segments: &[Segment], stored: u64, real_size: u64) -> anyhow::Result<()> {
    check_count(segments.len())?;
    let (mut end, mut total) = (0, 0_u64);
    for segment in segments {
        ensure!(segment.offset >= end, "sparse map is out of order");
        end = segment.offset.checked_add(segment.length).context("sparse map is out of range")?;
        total += segment.length;
    }
    ensure!(end <= real_size, "sparse map reaches beyond the file");
    ensure!(total == stored, "sparse map describes {total} bytes of {stored}");
    Ok(())
}

/// Pairs the numbers of a map that lists offset, length, offset, length and so on.
pub(super) fn pairs(numbers: &[u64]) -> anyhow::Result<Vec<Segment>> {
    ensure!(numbers.len() % 2 == 0, "sparse map has an offset without a length");
    Ok(numbers.chunks_exact(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect())
}

/// The map of format 1.0, which arrives block by block: a count, then that many offsets and lengths, a line each.
#[derive(Default)]
pub(super) struct PrefixMap {
    count: Option<usize>,
    numbers: Vec<u64>,
    line: Vec<u8>,
}

impl PrefixMap {
    pub(super) fn is_complete(&self) -> bool {
        self.count.is_some_and(|count| self.numbers.len() == count * 2)
    }

    pub(super) fn feed(&mut self, block: &[u8; BLOCK]) -> anyhow::Result<()> {
        for &byte in block {
            if self.is_complete() {
                break;
            }
            if byte != b'\n' {
                ensure!(self.line.len() < LINE_LIMIT, "sparse map has a number out of range");
                self.line.push(byte);
                continue;
            }
            let number = decimal(&self.line).context("sparse map")?;
            self.line.clear();
            if self.count.is_none() {
                let count = usize::try_from(number)?;
                check_count(count)?;
                self.count = Some(count);
            } else {
                self.numbers.push(number);
            }
        }
        Ok(())
    }

    pub(super) fn into_segments(self) -> anyhow::Result<Vec<Segment>> {
        pairs(&self.numbers)
    }
}

/// A decimal number without sign or blanks.
pub(super) fn decimal(text: &[u8]) -> anyhow::Result<u64> {
    ensure!(!text.is_empty(), "number is empty");
    text.iter().try_fold(0_u64, |value, &digit| {
        ensure!(digit.is_ascii_digit(), "not a decimal number");
        let value = value.checked_mul(10).and_then(|value| value.checked_add(u64::from(digit - b'0')));
        value.context("number out of range")
    })
}
