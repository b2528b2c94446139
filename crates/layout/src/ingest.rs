//! A blob on its way in: `ingest/<algorithm>-<hex>.partial`, kept over runs until it is whole and right.
//!
//! No blob is fsynced: its name is its digest and its descriptor has its size, so what a power cut leaves torn is
//! noticed: by its size before it is read, else by its reader, who removes it or says so. Then it is fetched again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use oci_spec::image::{Descriptor, Digest};
use rustix::fs::FlockOperation;

use crate::{Digester, Error, Layout};

/// One blob being written, under a lock: a second process that wants the same blob waits, then finds it there.
#[derive(Debug)]
pub struct Ingest {
    descriptor: Descriptor,
    file: File,
    partial: PathBuf,
    blob: PathBuf,
    digester: Digester,
    offset: u64,
}

impl Layout {
    /// Starts or resumes a blob; `None` where it is in place already.
    pub fn ingest(&self, descriptor: &Descriptor) -> Result<Option<Ingest>, Error> {
        let digest = descriptor.digest();
        let partial = self.partial_path(digest);
        let blob = self.blob_path(digest);
        let failed = || Error::io(format!("write blob {digest}"));
        for directory in [&partial, &blob].into_iter().filter_map(|path| path.parent()) {
            fs::create_dir_all(directory).map_err(failed())?;
        }
        loop {
            if self.has(descriptor) {
                return Ok(None);
            }
            let file = options().create(true).truncate(false).open(&partial).map_err(failed())?;
            rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|errno| failed()(errno.into()))?;
            // While we waited, the other process may have renamed the file into place or begun a new one.
            if sys::file::is_same(&file, partial.metadata()).map_err(failed())? && !self.has(descriptor) {
                let digester = Digester::like(digest)?;
                let mut ingest = Ingest { descriptor: descriptor.clone(), file, partial, blob, digester, offset: 0 };
                ingest.digest_again().map_err(failed())?;
                return Ok(Some(ingest));
            }
        }
    }

    pub(crate) fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.path().join(format!("ingest/{}-{}.partial", digest.algorithm(), digest.digest()))
    }
}

impl Ingest {
    /// Returns the blob's descriptor.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Returns how many bytes are there, digested.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Tells whether as many bytes are there as the descriptor says.
    pub fn is_whole(&self) -> bool {
        self.offset == self.descriptor.size()
    }

    /// Appends content, never beyond the descriptor's size.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let end = self.offset + bytes.len() as u64;
        if end > self.descriptor.size() {
            return Err(self.size_error(end));
        }
        self.file.write_all(bytes).map_err(|cause| self.failed(cause))?;
        self.digester.update(bytes);
        self.offset = end;
        Ok(())
    }

    /// Forgets what is there. The file is a new one, so that who reads along notices.
    pub fn restart(&mut self) -> Result<(), Error> {
        let new = self.partial.with_extension("new");
        let replace = || -> io::Result<File> {
            // A leftover of a killed process; nobody else writes it while we hold the lock.
            sys::file::there(fs::remove_file(&new))?;
            let file = options().create_new(true).open(&new)?;
            rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
            fs::rename(&new, &self.partial)?;
            Ok(file)
        };
        self.file = replace().map_err(|cause| self.failed(cause))?;
        self.digester = Digester::like(self.descriptor.digest())?;
        self.offset = 0;
        Ok(())
    }

    /// Checks the size, then the digest, and puts the blob into its place. After an error the blob can be restarted.
    pub fn commit(&mut self) -> Result<(), Error> {
        if !self.is_whole() {
            return Err(self.size_error(self.offset));
        }
        self.digester.clone().verify(self.descriptor.digest())?;
        fs::rename(&self.partial, &self.blob).map_err(|cause| self.failed(cause))
    }

    /// Removes what is there: for content that is wrong.
    pub fn discard(self) {
        // What cannot be removed is found wrong again by the next run.
        let _kept = fs::remove_file(&self.partial);
    }

    fn digest_again(&mut self) -> io::Result<()> {
        self.offset += self.digester.read(&mut self.file)?;
        if self.offset > self.descriptor.size() { self.restart().map_err(io::Error::from) } else { Ok(()) }
    }

    fn size_error(&self, got: u64) -> Error {
        Error::Size { digest: self.descriptor.digest().clone(), want: self.descriptor.size(), got }
    }

    fn failed(&self, cause: io::Error) -> Error {
        Error::io(format!("write blob {}", self.descriptor.digest()))(cause)
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o644);
    options
}

#[cfg(test)]
mod tests {
    use oci_spec::image::MediaType;

    use super::*;

    fn descriptor(content: &[u8]) -> Descriptor {
        Descriptor::new(MediaType::ImageLayer, content.len() as u64, crate::sha256(content))
    }

    #[test]
    fn a_partial_blob_is_resumed() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let blob = descriptor(b"abcdef");
        layout.ingest(&blob).unwrap().unwrap().write(b"abc").unwrap();
        let mut ingest = layout.ingest(&blob).unwrap().unwrap();
        assert_eq!(ingest.offset(), 3);
        assert!(matches!(ingest.commit(), Err(Error::Size { got: 3, want: 6, .. })));
        assert!(matches!(ingest.write(b"defg"), Err(Error::Size { got: 7, want: 6, .. })));
        ingest.write(b"def").unwrap();
        ingest.commit().unwrap();
        assert_eq!(layout.read(&blob, 6).unwrap(), b"abcdef");
        assert!(layout.ingest(&blob).unwrap().is_none());
        assert_eq!(fs::read_dir(directory.path().join("ingest")).unwrap().count(), 0);
    }

    #[test]
    fn a_wrong_blob_can_be_started_over() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let blob = descriptor(b"abc");
        let mut ingest = layout.ingest(&blob).unwrap().unwrap();
        ingest.write(b"abd").unwrap();
        assert!(matches!(ingest.commit(), Err(Error::Digest { .. })));
        ingest.restart().unwrap();
        ingest.write(b"abc").unwrap();
        ingest.commit().unwrap();
        assert!(layout.has(&blob));
    }

    #[test]
    fn a_second_process_waits_and_finds_the_blob() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let blob = descriptor(b"abc");
        let mut ingest = layout.ingest(&blob).unwrap().unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| layout.ingest(&blob).unwrap().is_none());
            ingest.write(b"abd").unwrap();
            ingest.restart().unwrap();
            ingest.write(b"abc").unwrap();
            ingest.commit().unwrap();
            drop(ingest);
            assert!(second.join().unwrap());
        });
    }
}
