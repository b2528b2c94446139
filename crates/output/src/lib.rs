//! Files that are written where others may write too, a service's user in `/run/app`, say: under a random name that must be new,
//! and renamed when they are whole. What is there and is no regular file, `/dev/null` or a pipe, is written to as it is.
//!
//! A fixed name such as `x.tmp` could be a link that another user has put there, or be held by another writer.
//!
//! ```
//! let directory = tempfile::tempdir()?;
//! let path = directory.path().join("ready");
//! let mut output = output::Output::create(&path)?;
//! std::io::Write::write_all(&mut output, b"whole\n")?;
//! assert!(!path.exists());
//! output.commit()?;
//! assert_eq!(std::fs::read(&path)?, b"whole\n");
//! # Ok::<(), std::io::Error>(())
//! ```

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, fcntl_setfl};

/// A file that is being written.
#[derive(Debug)]
pub struct Output {
    file: File,
    path: PathBuf,
    /// Where it is until it is whole; a file that is written in place is nowhere else.
    draft: Option<PathBuf>,
}

impl Output {
    /// Begins to write the file `path`.
    pub fn create(path: &Path) -> io::Result<Self> {
        if is_written_in_place(path)? {
            return Ok(Self { file: open(path)?, path: path.to_owned(), draft: None });
        }
        let name = path.file_name().ok_or(ErrorKind::IsADirectory)?;
        loop {
            let random = RandomState::new().hash_one(std::process::id());
            let mut draft = std::ffi::OsString::from(".");
            // A name may have 255 bytes.
            draft.push(if name.len() < 200 { name } else { "draft".as_ref() });
            draft.push(format!(".{random:016x}"));
            let draft = path.with_file_name(draft);
            // O_EXCL: neither a file that is there nor what a link leads to.
            match File::create_new(&draft) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => return Ok(Self { file: made?, path: path.to_owned(), draft: Some(draft) }),
            }
        }
    }

    /// Gives the file its name.
    ///
    /// Nothing is synced to the disk: what a crash loses is written again by whoever needs it.
    pub fn commit(&mut self) -> io::Result<()> {
        let Some(draft) = &self.draft else { return Ok(()) };
        fs::rename(draft, &self.path)?;
        self.draft = None;
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(draft) = &self.draft {
            // Why it was not committed is the error to be told.
            let _left = fs::remove_file(draft);
        }
    }
}

/// Writes a whole file.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut output = Output::create(path)?;
    output.write_all(bytes)?;
    output.commit()
}

/// Writes a whole file in the place of one that is there, with its mode.
///
/// The owner becomes the caller's. Who reads the old file meanwhile keeps it.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions();
    let mut output = Output::create(path)?;
    output.file.set_permissions(mode)?;
    output.write_all(bytes)?;
    output.commit()
}

/// Tells whether a file is there that must not be replaced: it is not regular. A link is replaced, as anybody's may lead
/// anywhere, but for those to descriptors, such as `/dev/stderr`.
pub fn is_written_in_place(path: &Path) -> io::Result<bool> {
    match sys::file::there(fs::symlink_metadata(path))? {
        Some(found) if found.is_dir() => Err(ErrorKind::IsADirectory.into()),
        found => Ok(found.is_some_and(|it| !it.is_file() && (!it.is_symlink() || is_descriptor(path)))),
    }
}

/// Opens a file that is there to add to it, through no link but a descriptor's, and without waiting for who reads a FIFO.
pub fn open(path: &Path) -> io::Result<File> {
    let link = if is_descriptor(path) { OFlags::empty() } else { OFlags::NOFOLLOW };
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | link;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    // O_NONBLOCK was for opening alone; the file description may be somebody's stderr.
    fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(file.into())
}

/// Tells whether a path is one by which the kernel gives a descriptor.
fn is_descriptor(path: &Path) -> bool {
    let parents = ["/dev/fd", "/proc/self/fd", "/proc/thread-self/fd"];
    ["/dev/stdin", "/dev/stdout", "/dev/stderr"].iter().any(|name| path == Path::new(name))
        || parents.iter().any(|parent| path.parent() == Some(Path::new(parent)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_replaced_and_devices_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("precious"), "precious").unwrap();
        symlink(at("precious"), at("link")).unwrap();
        symlink("/dev/null", at("device")).unwrap();
        for name in ["new", "link", "device", "precious-too"] {
            write(&at(name), b"text").unwrap();
            assert_eq!(fs::read(at(name)).unwrap(), b"text", "{name}");
            assert!(fs::symlink_metadata(at(name)).unwrap().is_file());
        }
        assert_eq!(fs::read(at("precious")).unwrap(), b"precious");
        for name in ["/dev/null", "/dev/stderr", "/proc/self/fd/2"] {
            assert!(is_written_in_place(Path::new(name)).unwrap(), "{name}");
        }
        write(Path::new("/dev/null"), b"").unwrap();
        drop(Output::create(&at("undone")).unwrap());
        assert!(write(directory.path(), b"").is_err() && open(&at("link-to")).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 5);
    }
}
