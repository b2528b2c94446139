//! The bundle's directory: claimed by making it, whole once config.json is in it, and locked
//! while it is in between, so that nobody takes a bundle being made for what a killed process has left.
//!
//! flock(2) on the directory itself needs no file that could be left over. mkdir(2) is what claims the name: it
//! succeeds once.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ::container::{ContainerId, Directories};
use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::overlay;

/// What makes a directory a bundle.
pub(crate) const CONFIG: &str = "config.json";
/// The record that `bundle` printed: which image and which layers the container stands on.
pub(crate) const RECORD: &str = record::FILE;
/// Directories on their way out.
const REMOVED: &str = ".removed-";

/// A bundle being made. Dropped before [`BundleClaim::commit`], it undoes everything.
pub(crate) struct BundleClaim {
    pub(crate) path: PathBuf,
    /// Made elsewhere, for undoing.
    pub(crate) made: Vec<MadeOutside>,
    committed: bool,
    _lock: File,
}

/// Something outside of the bundle that would not be there without it.
pub(crate) enum MadeOutside {
    /// An empty directory of the user's.
    Directory(PathBuf),
    /// A volume, filled by us.
    Volume(PathBuf),
}

impl BundleClaim {
    /// Takes an id, also from a bundle that a killed process has left half-made.
    pub(crate) fn new(directories: &Directories, id: &ContainerId) -> Result<Self> {
        let (parent, path) = (directories.bundles(), directories.bundle(id));
        make_private(&parent).with_context(|| format!("make {}", parent.display()))?;
        sweep_removed(directories)?;
        loop {
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => match BundleLock::half_made(&path)? {
                    Some(_lock) => {
                        log::debug!("sweep {}: left half-made", path.display());
                        remove(&path)?;
                        continue;
                    }
                    None => bail!("id `{id}` is taken: {} (`bundle delete {id}` frees it)", path.display()),
                },
                Err(error) => return Err(error).with_context(|| format!("make {}", path.display())),
            }
            // A sweeper may have come between; then the name is free again.
            if let Some(BundleLock(lock)) = BundleLock::take(&path).inspect_err(|_| drop(fs::remove_dir(&path)))? {
                return Ok(Self { path, made: Vec::new(), committed: false, _lock: lock });
            }
        }
    }

    /// Makes a directory of the bundle.
    pub(crate) fn subdirectory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    }

    /// Writes a file of the bundle, whole or not at all.
    pub(crate) fn write(&self, name: &str, text: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        let temporary = self.path.join(format!(".{name}"));
        // Files that are mounted into the container are everybody's to read there.
        let write = || {
            let mut file = File::options().write(true).create_new(true).mode(0o644).open(&temporary)?;
            rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o644))?;
            file.write_all(text)?;
            // No fsync: a bundle that a power cut has spoilt has no config.json, or is made again.
            drop(file);
            fs::rename(&temporary, &path)
        };
        write().with_context(|| format!("write {}", path.display()))
    }

    /// Makes it last.
    pub(crate) fn commit(mut self) {
        self.committed = true;
    }
}

impl Drop for BundleClaim {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        for made in self.made.iter().rev() {
            // What cannot be undone is no news after an error: it is in use.
            let _undone = match made {
                MadeOutside::Directory(path) => fs::remove_dir(path),
                MadeOutside::Volume(path) => root::remove_tree(path),
            };
        }
        cli::warn(remove(&self.path));
    }
}

/// A lock on a bundle's directory: held by who makes it, and shared by who runs from it.
pub(crate) struct BundleLock(File);

impl BundleLock {
    /// Locks the directory; `None` while somebody else does, or when it is gone.
    pub(crate) fn take(path: &Path) -> Result<Option<Self>> {
        let opened = sys::file::there(File::open(path)).with_context(|| format!("open {}", path.display()))?;
        let Some(file) = opened else { return Ok(None) };
        let locked = sys::unless(&[Errno::WOULDBLOCK], flock(&file, FlockOperation::NonBlockingLockExclusive));
        let Some(()) = locked.with_context(|| format!("lock {}", path.display()))? else { return Ok(None) };
        let there = sys::file::is_same(&file, path.symlink_metadata());
        Ok(there.with_context(|| format!("look at {}", path.display()))?.then_some(Self(file)))
    }

    /// Locks the directory if it is what a killed process has left.
    pub(crate) fn half_made(path: &Path) -> Result<Option<Self>> {
        if is_whole(path)? {
            return Ok(None);
        }
        // Looked at again under the lock: it may have become whole meanwhile.
        let lock = Self::take(path)?;
        Ok(if is_whole(path)? { None } else { lock })
    }
}

/// Tells whether a bundle has been finished. An error is not that it was not.
pub(crate) fn is_whole(path: &Path) -> Result<bool> {
    let config = path.join(CONFIG);
    config.try_exists().with_context(|| format!("look for {}", config.display()))
}

/// Removes a bundle: unmounted, then out of the way in one step, then piece by piece.
///
/// The rename is the moment at which the name is free. What it leaves is swept by the next `bundle`, if this one is
/// killed.
pub(crate) fn remove(path: &Path) -> Result<()> {
    // Others can tell that somebody is at work on it. Its keeper has it locked, too; it may be gone already.
    let at_work = File::open(path);
    let _shared = at_work.as_ref().map(|directory| flock(directory, FlockOperation::NonBlockingLockShared));
    let rootfs = path.join("rootfs");
    overlay::unmount(&rootfs).with_context(|| format!("unmount {}", rootfs.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let away = path.with_file_name(format!("{REMOVED}{name}-{}", std::process::id()));
    let moved = sys::file::there(fs::rename(path, &away)).with_context(|| format!("remove {}", path.display()))?;
    moved.map_or(Ok(()), |()| sweep(&away))
}

/// Removes what killed removals have left.
pub(crate) fn sweep_removed(directories: &Directories) -> Result<()> {
    for path in paths(directories)?.iter().filter(|path| is_removed(path)) {
        if let Some(_nobody) = BundleLock::take(path)? {
            log::debug!("sweep {}", path.display());
            sweep(path)?;
        }
    }
    Ok(())
}

fn sweep(path: &Path) -> Result<()> {
    root::remove_tree_soon(path).with_context(|| format!("remove {}", path.display()))
}

/// Returns the ids of the bundles.
pub(crate) fn entries(directories: &Directories) -> Result<Vec<ContainerId>> {
    let mut paths = paths(directories)?;
    let is_directory = |path: &Path| sys::file::known(path.metadata()).map(|found| found.is_some_and(|it| it.is_dir()));
    paths.retain(|path| !is_removed(path) && is_directory(path).unwrap_or(true));
    paths.sort();
    Ok(paths.iter().filter_map(|path| ContainerId::of_path(path).ok()).collect())
}

/// Returns whatever is where bundles are.
fn paths(directories: &Directories) -> Result<Vec<PathBuf>> {
    let parent = directories.bundles();
    sys::file::there(fs::read_dir(&parent))
        .and_then(|entries| entries.into_iter().flatten().map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("read {}", parent.display()))
}

fn is_removed(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(REMOVED.as_bytes()))
}

/// Makes a directory for root only: images hold set-user-ID programs that the host's users must not reach
/// (CVE-2021-41091).
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    sys::unless(&[Errno::EXIST], DirBuilder::new().mode(0o700).create(path)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_undone_unless_it_is_committed() {
        let data = std::env::temp_dir().join(format!("bundle-claim-{}", std::process::id()));
        let (directories, id) = (Directories::new(data.clone(), data.join("run")), "a".parse().unwrap());
        let claim = BundleClaim::new(&directories, &id).unwrap();
        claim.write("hosts", b"x").unwrap();
        assert!(BundleClaim::new(&directories, &id).is_err());
        drop(claim);
        assert!(!data.join("containers/a").exists());
        // What a killed process leaves has no config and no lock.
        fs::create_dir_all(data.join("containers/a/upper")).unwrap();
        let claim = BundleClaim::new(&directories, &id).unwrap();
        claim.write(CONFIG, b"{}").unwrap();
        claim.commit();
        let error = BundleClaim::new(&directories, &id).err().unwrap().to_string();
        assert!(error.starts_with("id `a` is taken"), "{error}");
        remove(&data.join("containers/a")).unwrap();
        // What a killed removal has left goes with the next bundle; not what somebody is still at.
        let left = data.join("containers/.removed-a-1");
        fs::create_dir_all(left.join("upper")).unwrap();
        let held = BundleLock::take(&left).unwrap();
        drop(BundleClaim::new(&directories, &"b".parse().unwrap()).unwrap());
        assert!(left.is_dir());
        drop(held);
        drop(BundleClaim::new(&directories, &"b".parse().unwrap()).unwrap());
        assert_eq!(fs::read_dir(data.join("containers")).unwrap().count(), 0);
        assert!(entries(&directories).unwrap().is_empty());
        fs::remove_dir_all(data).unwrap();
    }
}
