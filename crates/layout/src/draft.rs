//! A blob whose digest is not known before it is written: a layer being made. The file has no name until it is whole, so
//! a killed process leaves nothing.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use oci_spec::image::{Descriptor, MediaType};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat};
use rustix::io::Errno;
use tempfile::TempPath;

use crate::{Digester, Error, Layout};

/// One blob being made.
#[derive(Debug)]
pub struct Draft {
    layout: Layout,
    file: BufWriter<File>,
    /// Its name until then, on file systems without `O_TMPFILE` of open(2).
    temporary: Option<TempPath>,
    digester: Digester,
    size: u64,
}

impl Layout {
    /// Starts a blob. The caller holds [`Layout::share`] until an image names it.
    pub fn draft(&self) -> Result<Draft, Error> {
        let ingest = self.path().join("ingest");
        let start = || -> io::Result<(File, Option<TempPath>)> {
            fs::create_dir_all(&ingest)?;
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            match rustix::fs::open(&ingest, flags, Mode::from_raw_mode(0o644)) {
                Ok(file) => Ok((file.into(), None)),
                Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => {
                    let file = tempfile::Builder::new().prefix("draft-").suffix(".partial").tempfile_in(&ingest)?;
                    rustix::fs::fchmod(&file, 0o644.into())?;
                    let (file, path) = file.into_parts();
                    Ok((file, Some(path)))
                }
                Err(errno) => Err(errno.into()),
            }
        };
        let (file, temporary) = start().map_err(Error::io(format!("write a blob to {}", ingest.display())))?;
        let file = BufWriter::with_capacity(256 << 10, file);
        Ok(Draft { layout: self.clone(), file, temporary, digester: Digester::sha256(), size: 0 })
    }
}

impl Draft {
    /// Returns the whole blob as a file that is gone once it is closed.
    pub fn finish(self, media_type: MediaType) -> Result<(Descriptor, File), Error> {
        let (descriptor, file, _removed) = self.end(media_type)?;
        Ok((descriptor, file))
    }

    fn end(self, media_type: MediaType) -> Result<(Descriptor, File, Option<TempPath>), Error> {
        let descriptor = Descriptor::new(media_type, self.size, self.digester.finish());
        let failed = Error::io(format!("write blob {}", descriptor.digest()));
        let file = self.file.into_inner().map_err(|error| failed(error.into_error()))?;
        Ok((descriptor, file, self.temporary))
    }

    /// Puts the whole blob into its place and returns its descriptor.
    pub fn commit(self, media_type: MediaType) -> Result<Descriptor, Error> {
        let layout = self.layout.clone();
        let (descriptor, file, temporary) = self.end(media_type)?;
        if !layout.has(&descriptor) {
            let path = layout.blob_path(descriptor.digest());
            let named = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| match temporary {
                Some(temporary) => temporary.persist(&path).map_err(|error| error.error),
                None => link(&file, &path),
            });
            named.map_err(Error::io(format!("write blob {}", descriptor.digest())))?;
        }
        Ok(descriptor)
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.digester.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Gives a file a name.
fn link(file: &File, path: &Path) -> io::Result<()> {
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = || linkat(CWD, &unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW);
    match link() {
        // A torn one, since the right size is nowhere.
        Err(Errno::EXIST) => {
            fs::remove_file(path)?;
            Ok(link()?)
        }
        linked => Ok(linked?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_has_no_name_until_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let names = || fs::read_dir(directory.path().join("ingest")).unwrap().count();
        for _ in 0..2 {
            let mut draft = layout.draft().unwrap();
            draft.write_all(b"abc").unwrap();
            draft.flush().unwrap();
            let blob = draft.commit(MediaType::ImageLayer).unwrap();
            assert_eq!(*blob.digest(), crate::sha256(b"abc"));
            assert_eq!(layout.read(&blob, 3).unwrap(), b"abc");
            assert_eq!(names(), 0);
            // What is torn is made anew.
            fs::write(layout.blob_path(blob.digest()), b"ab").unwrap();
        }
    }
}
