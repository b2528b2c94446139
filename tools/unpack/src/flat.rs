//! One merged tree: all layers into one directory, which gets its name when it is whole.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, bail, ensure};

use crate::extraction::{ExtractManner, describe_root, extract};
use crate::form::Form;
use crate::image::Image;
use crate::interrupt::{self, Temporary};
use crate::lock::StoreLock;
use crate::store::was_replaced;
use crate::stream::{LayerStream, Limits};

/// Extracts an image to `path`, which is not there yet or is an empty directory. Returns it as an absolute path.
///
/// It has its name once it is on the disk: nobody looks into a tree of a user's after a power cut.
pub(crate) fn unpack(image: &Image, path: &Path, limits: &Arc<Limits>) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(path).with_context(|| format!("find {}", path.display()))?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        bail!("{}: a directory of this name cannot be made", path.display())
    };
    check_vacant(&path, parent)?;
    let prefix: OsString = [OsString::from("."), name.to_owned(), ".unpack-".into()].into_iter().collect();
    sweep(parent, &prefix);
    let mut stem = prefix;
    stem.push(std::process::id().to_string());
    let temporary_path = parent.join(stem);
    let lock_path = lock_of(&temporary_path);
    let _lock = StoreLock::wait(&lock_path).with_context(|| format!("lock {}", lock_path.display()))?;
    loop {
        let temporary = Temporary::new(temporary_path.clone());
        match extract_to(&temporary, image, limits) {
            Err(error) if was_replaced(&error) => log::debug!("{error:#}: start over"),
            Err(error) => return Err(error),
            Ok(root) => {
                let _pass = interrupt::pass();
                rustix::fs::syncfs(&root).with_context(|| format!("write {} to the disk", path.display()))?;
                // rename(2) replaces an empty directory, and nothing else: what has come there meanwhile stays, and
                // the rename fails.
                fs::rename(temporary.path(), &path).with_context(|| format!("rename to {}", path.display()))?;
                temporary.keep();
                return Ok(path);
            }
        }
    }
}

fn extract_to(temporary: &Temporary, image: &Image, limits: &Arc<Limits>) -> anyhow::Result<File> {
    let path = temporary.path();
    let made = || format!("make directory {}", path.display());
    let root = {
        let _pass = interrupt::pass();
        DirBuilder::new().mode(0o700).create(path).with_context(made)?;
        File::open(path).with_context(made)?
    };
    let mut entry = None;
    let mut streams = Ahead { image, limits, next: None };
    let mut writer = None;
    for (number, layer) in image.layers.iter().enumerate() {
        log::debug!("extract layer {} to {}", layer.blob.digest(), path.display());
        let named = || format!("extract layer {}", layer.blob.digest());
        let stream = streams.take(number).with_context(named)?;
        entry = extract(stream, layer, &root, ExtractManner { form: Form::Flat, implicit: None, lower: None }, limits)
            .with_context(named)?
            // The topmost layer that describes the root decides.
            .or(entry);
        if writer.as_ref().is_none_or(JoinHandle::is_finished) {
            writer = write_ahead(path);
        }
    }
    describe_root(&root, entry.as_ref())?;
    Ok(root)
}

/// Has the layers that are there written to the disk while the next one is extracted, so that the end waits for less.
fn write_ahead(path: &Path) -> Option<JoinHandle<()>> {
    // A description of its own: what goes wrong is told once for each, and whoever waits in the end has to hear it.
    let directory = File::open(path).ok()?;
    let write = move || {
        let _told_later = rustix::fs::syncfs(&directory);
    };
    thread::Builder::new().name("write".to_owned()).spawn(write).ok()
}

/// Lets the next layer be inflated while the present one is written.
struct Ahead<'a> {
    image: &'a Image,
    limits: &'a Arc<Limits>,
    next: Option<LayerStream>,
}

impl Ahead<'_> {
    fn take(&mut self, number: usize) -> anyhow::Result<LayerStream> {
        let stream = match self.next.take() {
            Some(stream) => stream,
            None => self.image.stream(&self.image.layers[number], self.limits)?,
        };
        if let Some(layer) = self.image.layers.get(number + 1) {
            // One ahead and no more: layers of one tree are written in order, and each stream holds a megabyte of
            // buffers.
            self.next = Some(self.image.stream(layer, self.limits)?);
        }
        Ok(stream)
    }
}

fn check_vacant(path: &Path, parent: &Path) -> anyhow::Result<()> {
    let (there, above) = match (fs::symlink_metadata(path), fs::metadata(parent)) {
        (_, Err(error)) => return Err(error).with_context(|| format!("find {}", parent.display())),
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        (there, above) => (there.with_context(|| format!("find {}", path.display()))?, above?),
    };
    ensure!(there.is_dir(), "{} already exists", path.display());
    let mut entries = fs::read_dir(path).with_context(|| format!("read {}", path.display()))?;
    ensure!(entries.next().is_none(), "{} is not empty", path.display());
    // A rename onto a mount point is EBUSY, and from another file system EXDEV: said before the work and not after
    // it.
    ensure!(there.dev() == above.dev(), "{} is a mount point: name a directory below it", path.display());
    Ok(())
}

fn lock_of(temporary: &Path) -> PathBuf {
    let mut path = temporary.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

/// Removes what killed runs for the same directory have left.
fn sweep(parent: &Path, prefix: &OsString) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
            continue;
        }
        let path = parent.join(&name);
        let stem =
            if path.extension().is_some_and(|extension| extension == "lock") { path.with_extension("") } else { path };
        if let Ok(Some(_lock)) = StoreLock::try_take(&lock_of(&stem)) {
            if stem.exists() {
                log::debug!("sweep {}", stem.display());
                interrupt::remove_tree(&stem);
            }
        }
    }
}
