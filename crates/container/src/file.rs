//! Files that others write: whoever reads them must not wait for a FIFO, follow a link, or read without end.

use std::fs::{DirEntry, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// Nobody notes more. Bytes.
const LIMIT: u64 = 16 << 20;

/// Reads a regular file of `user`; without one, of root or the caller. Of users' files no error counts, which they could make.
pub(crate) fn read(path: &Path, user: Option<u32>) -> io::Result<Option<Vec<u8>>> {
    let read = sys::file::known(read_believed(path, user));
    if user.is_some() { Ok(read.unwrap_or_default().flatten()) } else { read.map(Option::flatten) }
}

fn read_believed(path: &Path, user: Option<u32>) -> io::Result<Option<Vec<u8>>> {
    // Root reads what a user has put into /run/user: a FIFO would hang it, a link lead it to a file of root's, a
    // terminal become its own.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let found = file.metadata()?;
    let believed = match user {
        Some(user) => found.uid() == user,
        None => found.uid() == 0 || found.uid() == caller(),
    };
    if !believed || !found.is_file() || found.len() > LIMIT {
        return Ok(None);
    }
    let mut text = Vec::new();
    file.take(LIMIT).read_to_end(&mut text)?;
    Ok(Some(text))
}

/// Returns the paths in a directory, if it is there.
pub(crate) fn paths_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(sys::file::entries(directory)?.iter().map(DirEntry::path).collect())
}

/// Who asks.
pub(crate) fn caller() -> u32 {
    rustix::process::geteuid().as_raw()
}
