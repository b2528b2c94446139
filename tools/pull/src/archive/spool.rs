//! An archive's file, to be read at any place: as it is, or, if it is a pipe or compressed, by way of a file without a name.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Context;
use layout::Compression;

/// Enough to know a compression by. Bytes.
const MAGIC: usize = 6;

/// Opens an archive; `-` is the standard input. What has to be copied is put into a directory.
pub(super) fn open(path: &Path, directory: &Path) -> anyhow::Result<File> {
    let name = path.display();
    let file = if path == Path::new("-") {
        File::from(io::stdin().as_fd().try_clone_to_owned().context("open the standard input")?)
    } else {
        File::open(path).with_context(|| format!("open {name}"))?
    };
    let mut magic = [0; MAGIC];
    if file.metadata().with_context(|| format!("read {name}"))?.is_file() {
        let count = file.read_at(&mut magic, 0).with_context(|| format!("read {name}"))?;
        if is_plain(&magic[..count]) {
            return Ok(file);
        }
    }
    log::debug!("copy {name} to {}", directory.display());
    let copy = tempfile::tempfile_in(directory).with_context(|| format!("make a file in {}", directory.display()))?;
    let mut content = decoder(BufReader::with_capacity(128 << 10, file)).with_context(|| format!("read {name}"))?;
    io::copy(&mut content, &mut &copy).with_context(|| format!("read {name}"))?;
    Ok(copy)
}

fn is_plain(content: &[u8]) -> bool {
    Compression::detect(content) == Compression::Plain
        && !matches!(content, [0xfd, b'7', b'z', b'X', b'Z', 0, ..] | [b'B', b'Z', b'h', ..])
}

fn decoder(mut file: BufReader<File>) -> io::Result<Box<dyn Read + Send>> {
    let mut magic = Vec::new();
    file.by_ref().take(MAGIC as u64).read_to_end(&mut magic)?;
    let (found, plain, first) = (Compression::detect(&magic), is_plain(&magic), magic.first().copied());
    let whole = io::Cursor::new(magic).chain(file);
    Ok(match first {
        Some(b'B') if !plain => Box::new(bzip2::bufread::MultiBzDecoder::new(whole)),
        Some(0xfd) if !plain => Box::new(lzma_rust2::XzReader::new(whole, true)),
        _ => found.decoder(whole)?,
    })
}
