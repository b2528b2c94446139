//! The OCI image layout on disk (image-spec, image-layout.md): verify while reading, write atomically, index under a
//! lock. The only place where the digest of a blob is computed or compared.

#![forbid(unsafe_code)]

mod compression;
mod digest;
mod draft;
mod error;
pub mod extracted;
mod follow;
mod index;
mod ingest;
pub mod lenient;
mod manifest;
mod platform;
pub mod reference;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, Digest, MediaType};
use rustix::fs::FlockOperation;

pub use compression::Compression;
pub use digest::{Digester, Verified, sha256, verify};
pub use draft::Draft;
pub use error::Error;
pub use follow::Follow;
pub use index::{IMAGE_NAME, IndexEntry, REF_NAME, referrers_tag};
pub use ingest::Ingest;
pub use manifest::{CONFIG_LIMIT, Document, DocumentKind, MANIFEST_LIMIT, essence};
pub use platform::Platform;
pub use reference::Reference;

/// The directory that is locked by who changes the index.
const INDEX_LOCK: &str = ".index";

/// An image layout: a directory.
#[derive(Clone, Debug)]
pub struct Layout {
    path: PathBuf,
}

/// Keeps [`Layout::exclusive`] callers out for as long as it lives.
#[derive(Debug)]
pub struct LayoutGuard(File);

impl Drop for LayoutGuard {
    /// Closing it would not do while a process has it that this one has made.
    fn drop(&mut self) {
        let _unlocked = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

impl Layout {
    /// Opens a layout, and makes one where nothing or an empty directory is.
    pub fn create(path: &Path) -> Result<Self, Error> {
        match Self::open(path) {
            Err(Error::NotALayout { .. }) if is_empty(path) => {}
            // Another process may have made it between the two looks.
            Err(Error::NotALayout { .. }) => return Self::open(path),
            done => return done,
        }
        let layout = Self { path: absolute(path)? };
        let failed = |cause| Error::Io { operation: format!("make layout {}", path.display()), cause };
        fs::create_dir_all(layout.path.join("blobs/sha256")).map_err(failed)?;
        // The directory that takes what is being brought.
        drop(layout.share()?);
        let _lock = layout.lock_index()?;
        if !layout.path.join("index.json").exists() {
            layout.replace("index.json", index::EMPTY)?;
        }
        // Last: what makes the directory a layout.
        layout.replace("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(layout)
    }

    /// Opens a layout that anybody's tool has made.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let not = |cause: String| Error::NotALayout { path: path.to_owned(), cause };
        let read = sys::file::there(sys::file::read_regular(&path.join("oci-layout")));
        let read = read.and_then(|text| Ok(text.map(|text| serde_json::from_slice(&text)).transpose()?));
        let file: Option<serde_json::Value> = read.map_err(|error| not(format!("oci-layout: {error}")))?;
        let file = file.ok_or_else(|| not("it has no file oci-layout".into()))?;
        let version = file.get("imageLayoutVersion").and_then(serde_json::Value::as_str).unwrap_or_default();
        if !version.starts_with("1.") {
            return Err(not(format!("oci-layout: version {version:?} is unknown")));
        }
        Ok(Self { path: absolute(path)? })
    }

    /// Returns the directory, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells whether the blob is in place, by its size only: who reads it checks the digest.
    pub fn has(&self, descriptor: &Descriptor) -> bool {
        fs::metadata(self.blob_path(descriptor.digest()))
            .is_ok_and(|metadata| metadata.is_file() && metadata.len() == descriptor.size())
    }

    /// Returns where the blob is or will be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs").join(digest.algorithm().as_ref()).join(digest.digest())
    }

    /// Opens a blob for reading; the reader checks it.
    pub fn blob(&self, descriptor: &Descriptor) -> Result<Verified<File>, Error> {
        let digest = descriptor.digest();
        let file = sys::file::open_regular(&self.blob_path(digest)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::Missing(digest.clone()),
            _ => Error::Io { operation: format!("open blob {digest}"), cause: error },
        })?;
        let got = file.metadata().map_err(Error::io(format!("open blob {digest}")))?.len();
        if got != descriptor.size() {
            return Err(Error::Size { digest: digest.clone(), want: descriptor.size(), got });
        }
        Verified::new(file, descriptor)
    }

    /// Reads a blob of at most `limit` bytes, checked.
    pub fn read(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, Error> {
        let digest = descriptor.digest();
        check_limit(descriptor, limit)?;
        let mut bytes = Vec::new();
        let read = self.blob(descriptor)?.read_to_end(&mut bytes).map_err(Error::io(format!("read blob {digest}")));
        read.map_err(|error| removed_if_wrong(error, &self.blob_path(digest), &self.partial_path(digest)))?;
        Ok(bytes)
    }

    /// Writes a blob and returns its descriptor.
    pub fn write(&self, bytes: &[u8], media_type: MediaType) -> Result<Descriptor, Error> {
        let descriptor = Descriptor::new(media_type, bytes.len() as u64, sha256(bytes));
        self.write_as(&descriptor, bytes)?;
        Ok(descriptor)
    }

    /// Writes a blob whose descriptor is known, checked.
    pub fn write_as(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), Error> {
        verify(descriptor, bytes)?;
        let Some(mut ingest) = self.ingest(descriptor)? else { return Ok(()) };
        if ingest.offset() > 0 {
            ingest.restart()?;
        }
        ingest.write(bytes)?;
        ingest.commit()
    }

    /// Keeps blobs that no image names yet from being collected while this process brings them.
    pub fn share(&self) -> Result<LayoutGuard, Error> {
        self.lock("ingest", FlockOperation::LockShared)
    }

    /// Waits until nobody brings blobs, and keeps it so.
    pub fn exclusive(&self) -> Result<LayoutGuard, Error> {
        self.lock("ingest", FlockOperation::LockExclusive)
    }

    pub(crate) fn lock_index(&self) -> Result<LayoutGuard, Error> {
        self.lock(INDEX_LOCK, FlockOperation::LockExclusive)
    }

    /// Locks a directory that is closed to all who may not write to the layout: whoever can open it can keep it locked.
    fn lock(&self, directory: &str, operation: FlockOperation) -> Result<LayoutGuard, Error> {
        let path = self.path.join(directory);
        let open = || {
            let writers = fs::metadata(&self.path)?.mode() & 0o022;
            let mode = 0o700 | ((writers >> 1) * 7);
            match DirBuilder::new().mode(mode).create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let file = File::open(&path)?;
            let found = file.metadata()?;
            if found.mode() & 0o777 != mode && found.uid() == rustix::process::geteuid().as_raw() {
                rustix::fs::fchmod(&file, mode.into())?;
            }
            Ok(file)
        };
        let failed = || Error::io(format!("lock {}", path.display()));
        let file = open().map_err(failed())?;
        let shown = path.display().to_string();
        let told = move || log::warn!("wait for the lock on {shown}, which another process holds");
        sys::file::lock(&file, operation, told).map_err(|errno| failed()(errno.into()))?;
        Ok(LayoutGuard(file))
    }

    /// Replaces one of the layout's own small files; whoever reads meanwhile sees the old one or the new one.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.path.join(name);
        let temporary = self.path.join(temporary(name));
        let write = || -> io::Result<()> {
            // The caller holds the index's lock, so this one is what a killed caller left.
            sys::file::there(fs::remove_file(&temporary))?;
            let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
            file.write_all(bytes)?;
            rustix::fs::fchmod(&file, 0o644.into())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|cause| {
            let _gone = fs::remove_file(&temporary);
            Error::io(format!("write {}", path.display()))(cause)
        })
    }
}

/// Names the file that becomes the layout's own file `name`.
fn temporary(name: &str) -> String {
    format!(".{name}.new")
}

/// Removes a blob whose reader has found that it is not what its name says, so that it is fetched again. Only where blobs
/// are fetched: another layout is its owner's. A reader that may not remove it says who has to.
pub(crate) fn removed_if_wrong(error: Error, blob: &Path, partial: &Path) -> Error {
    match error {
        Error::Digest { want, got } if partial.parent().is_some_and(Path::is_dir) => {
            let removed = fs::remove_file(blob).is_ok();
            let by_hand = || format!("remove {}, and pull the image again", blob.display());
            let remedy = if removed { "removed, to be pulled again".to_owned() } else { by_hand() };
            Error::Damaged { want, got, remedy }
        }
        error => error,
    }
}

pub(crate) fn check_limit(descriptor: &Descriptor, limit: u64) -> Result<(), Error> {
    let (digest, size) = (descriptor.digest().clone(), descriptor.size());
    if size > limit { Err(Error::TooLarge { digest, size, limit }) } else { Ok(()) }
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(Error::io(format!("find {}", path.display())))
}

fn is_empty(path: &Path) -> bool {
    match fs::read_dir(path) {
        // What a killed `create` leaves is as good as empty.
        Ok(entries) => entries.flatten().all(|entry| {
            let name = entry.file_name();
            let own = ["blobs", "ingest", "index.json", INDEX_LOCK].iter().any(|own| name == *own);
            own || ["index.json", "oci-layout"].iter().any(|file| name == *temporary(file))
        }),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_is_made_once_and_never_among_other_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        let layout = Layout::create(&path).unwrap();
        let blob = layout.write(b"abc", MediaType::ImageConfig).unwrap();
        assert!(Layout::create(&path).unwrap().has(&blob));
        assert_eq!(Layout::open(&path).unwrap().read(&blob, 3).unwrap(), b"abc");
        assert!(matches!(layout.read(&blob, 2), Err(Error::TooLarge { .. })));
        assert!(matches!(Layout::create(&directory.path().join("a")), Err(Error::NotALayout { .. })));
    }

    #[test]
    fn what_a_killed_create_leaves_becomes_a_layout() {
        for leftover in ["blobs/sha256/", "ingest/", "index.json", ".index.json.new", ".oci-layout.new"] {
            let directory = tempfile::tempdir().unwrap();
            match leftover.strip_suffix('/') {
                Some(leftover) => fs::create_dir_all(directory.path().join(leftover)).unwrap(),
                None => fs::write(directory.path().join(leftover), index::EMPTY).unwrap(),
            }
            Layout::create(directory.path()).unwrap_or_else(|error| panic!("{leftover}: {error}"));
            let mut names: Vec<_> =
                fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names, [INDEX_LOCK, "blobs", "index.json", "ingest", "oci-layout"], "{leftover}");
        }
    }

    #[test]
    fn a_blob_is_checked_when_it_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let blob = layout.write(b"abc", MediaType::ImageConfig).unwrap();
        fs::write(layout.blob_path(blob.digest()), b"abd").unwrap();
        fs::remove_dir(layout.path().join("ingest")).unwrap();
        assert!(matches!(layout.read(&blob, 9), Err(Error::Digest { .. })));
        // Ours: it is removed, so that it is fetched again.
        fs::create_dir(layout.path().join("ingest")).unwrap();
        assert!(matches!(layout.read(&blob, 9), Err(Error::Damaged { .. })));
        assert!(!layout.has(&blob));
        fs::write(layout.blob_path(blob.digest()), b"ab").unwrap();
        assert!(!layout.has(&blob));
        assert!(matches!(layout.read(&blob, 9), Err(Error::Size { got: 2, want: 3, .. })));
        fs::remove_file(layout.blob_path(blob.digest())).unwrap();
        assert!(matches!(layout.read(&blob, 9), Err(Error::Missing(_))));
    }
}
