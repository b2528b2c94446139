//! What is done with bundles that are there: `delete`, `list`, `mount`, `prune`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ::container::{ContainerId, Directories, Known, NameError, Owner};
use anyhow::{Context, Result, bail, ensure};
use record::{Id, Image, Input, OwnedBy, Record, Rootfs};
use serde_json::json;

use crate::cli_usage;
use crate::container::{self, BundleLock};
use crate::overlay::{self, Overlay};
use crate::state::runner;

/// Does something to bundles, given by id, by path or by the record on standard input.
pub(crate) fn each(bundles: &[String], what: &str, one: impl Fn(&str) -> Result<()>) -> Result<()> {
    cli::each("bundle", bundles, |bundle| {
        let stdin = Path::new("-");
        let read = if Path::new(bundle) == stdin { Some(Input::read(Some(stdin))?) } else { None };
        let id = if let Some(Input::Record(record)) = read { Some(record.part::<Id>()?.0) } else { None };
        let bundle = id.as_deref().unwrap_or(bundle);
        one(bundle).with_context(|| format!("{what} `{bundle}`"))
    })
}

/// Unmounts and removes a bundle.
pub(crate) fn delete(bundle: &str, how: Delete, directories: &Directories) -> Result<()> {
    let path = locate(bundle, directories)?;
    if sys::file::there(fs::symlink_metadata(&path))?.is_none() {
        return if how.force { Ok(()) } else { bail!("no such bundle") };
    }
    if is_others(&path, how.owner)? {
        return Ok(());
    }
    if !how.force {
        wait_for_keeper(&path, directories)?;
        ensure_ended(&path, directories)?;
        ensure!(!is_claimed(&path, directories)?, "its container is being started or removed");
    }
    log::debug!("remove {}", path.display());
    container::remove(&path)
}

/// Unmounts a bundle's root file system. What is not there or not mounted is no error: it may be called twice. A bundle
/// that a killed process has left half-made has nothing to keep.
pub(crate) fn unmount(bundle: &str, owner: Option<Owner>, directories: &Directories) -> Result<()> {
    let path = locate(bundle, directories)?;
    if !sys::file::may_be_there(&path) || is_others(&path, owner)? {
        return Ok(());
    }
    ensure_ended(&path, directories)?;
    if let Some(_lock) = BundleLock::half_made(&path)? {
        return container::remove(&path);
    }
    overlay::unmount(&path.join("rootfs")).context("rootfs")
}

fn ensure_ended(path: &Path, directories: &Directories) -> Result<()> {
    match runner(path, directories)? {
        Some(pid) => bail!("its container runs (process {pid}): stop it first"),
        None => Ok(()),
    }
}

/// Waits for a keeper that is ending: whoever has heard of its container's end finds it still at work for a moment.
fn wait_for_keeper(path: &Path, directories: &Directories) -> Result<()> {
    ContainerId::of_path(path).map_or(Ok(()), |id| stage::claim::wait_while(directories, &id, |holder| holder.ending))
}

/// How bundles are deleted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delete {
    /// Also when a container of it seems to run.
    pub(crate) force: bool,
    /// Only where it is this owner's.
    pub(crate) owner: Option<Owner>,
}

/// Returns the directory that an id or a path names: nothing else than a bundle of ours is ever removed.
fn locate(bundle: &str, directories: &Directories) -> Result<PathBuf> {
    let refused = |error: NameError| cli_usage(error.to_string());
    if !bundle.contains('/') {
        return Ok(directories.bundle(&directories.in_full(bundle.parse().map_err(refused)?)?));
    }
    let path = std::path::absolute(bundle)?;
    let path: PathBuf = path.components().collect();
    // A path is as good as an id only where a bundle can be: `bundle delete /home` must find nothing to do.
    let in_place = path.parent() == Some(&directories.bundles());
    let ours = Directories::is_place_of_bundle(&path) && path.join(container::RECORD).is_file();
    ensure!(in_place || ours, cli_usage("that is not a bundle made by `bundle`".to_owned()));
    ContainerId::of_path(&path).map_err(refused)?;
    Ok(path)
}

/// Tells whether a bundle is another's than this owner's. What a killed process has left half-made nobody has any more; who
/// is making one has it locked.
fn is_others(path: &Path, owner: Option<Owner>) -> Result<bool> {
    let Some(owner) = owner else { return Ok(false) };
    let record = Record::known_of(path)?.and_then(|record| record.find::<OwnedBy>().ok()?);
    Ok(record != Some(OwnedBy(owner)) && BundleLock::half_made(path)?.is_none())
}

/// Tells whether somebody has the claim on a container's name: `run` that is starting it, or its keeper.
fn is_claimed(path: &Path, directories: &Directories) -> Result<bool> {
    ContainerId::of_path(path).map_or(Ok(false), |id| stage::claim::is_held(directories, &id))
}

/// Prints the bundles.
pub(crate) fn list(form: cli::ListForm, directories: &Directories) -> Result<()> {
    let mut rows = Vec::new();
    let mut lines = vec![["ID", "STATUS", "PID", "IMAGE", "BUNDLE"].map(str::to_owned)];
    for id in container::entries(directories)? {
        // It may go in between.
        let Some(known) = Known::of(directories, id.clone().into())? else { continue };
        let path = directories.bundle(&id);
        let (status, pid, image) = (known.condition.name(), known.pid, image_name(&path));
        let bundle = path.to_string_lossy().into_owned();
        rows.push(json!({"id": id, "status": status, "pid": pid, "image": image, "bundle": bundle}));
        let pid = pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        lines.push([id.into(), status, pid, image.unwrap_or_else(|| "-".to_owned()), bundle]);
    }
    Ok(form.print(&rows, "id", || cli::table(&lines))?)
}

fn image_name(path: &Path) -> Option<String> {
    let image: Image = Record::of_bundle(path).ok()?.find().ok()??;
    image.reference.or_else(|| image.manifest.get("digest")?.as_str().map(str::to_owned))
}

/// Removes what no container runs from: what was left half-made, what has lost its mount (with its mount namespace or a
/// reboot), with `all` every bundle that is not in use. A bundle is in use that somebody holds a lock on, or on its name.
pub(crate) fn prune(all: bool, directories: &Directories) -> Result<()> {
    let bundles = container::entries(directories)?.into_iter().map(Some);
    // One that cannot be removed keeps no other.
    cli::each("bundle", std::iter::once(None).chain(bundles), |id| {
        let Some(id) = id else { return container::sweep_removed(directories) };
        let path = directories.bundle(&id);
        let is_used = || -> Result<bool> {
            let whole = container::is_whole(&path)?;
            let kept = whole && (runner(&path, directories)?.is_some() || !(all || has_lost_its_mount(&path)?));
            Ok(kept || is_claimed(&path, directories)?)
        };
        if is_used()? {
            return Ok(());
        }
        let Some(_lock) = BundleLock::take(&path)? else { return Ok(()) };
        // It may have begun before it was locked.
        if !is_used()? {
            log::debug!("remove {}", path.display());
            container::remove(&path)?;
            writeln!(io::stdout().lock(), "{id}")?;
        }
        Ok(())
    })
}

/// Mounts a bundle's root file system again, where it has lost its mount, and prints the bundle's record: a container
/// that has ended can be started once more.
pub(crate) fn mount(bundle: &str, directories: &Directories) -> Result<()> {
    let path = locate(bundle, directories)?;
    ensure!(!matches!(path.join(container::RECORD).try_exists(), Ok(false)), "no bundle `{bundle}`");
    let mut record = Record::of_bundle(&path)?;
    // Networks and ports of the run before are no more.
    record.forget_the_run();
    wait_for_keeper(&path, directories)?;
    // A second overlay on the same directories would spoil the first, which may be in another mount namespace.
    let lock = BundleLock::take(&path)?;
    ensure!(lock.is_some() && runner(&path, directories)?.is_none(), "container `{bundle}` is in use: stop it first");
    if has_lost_its_mount(&path)? {
        let Rootfs { layers, path: tree, .. } = record.part()?;
        let layers = layers.or_else(|| tree.map(|tree| vec![tree])).context("the record's rootfs is empty")?;
        let (upper, work, target) = (path.join("upper"), path.join("work"), path.join("rootfs"));
        let overlay = Overlay { layers: &layers, upper: &upper, work: &work, target: &target, volatile: false };
        let mount = || overlay::mount(&overlay)?.attach(&target);
        mount().with_context(|| format!("mount the overlay on {}", target.display()))?;
    }
    Ok(record.print()?)
}

/// Tells whether an overlay is mounted elsewhere, or nowhere any more.
pub(crate) fn has_lost_its_mount(path: &Path) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let look = |path: &Path| {
        let found = sys::file::known(fs::symlink_metadata(path)).with_context(|| format!("look at {}", path.display()));
        found.map(|found| found.map(|found| found.dev()))
    };
    // A flat root file system has no mount to lose.
    Ok(look(&path.join("upper"))?.is_some() && look(&path.join("rootfs"))? == look(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bundles_are_located() {
        let data = &Directories::new("/data".into(), "/data/run".into());
        assert_eq!(locate("web", data).unwrap(), Path::new("/data/containers/web"));
        assert_eq!(locate("/data/containers/web/", data).unwrap(), Path::new("/data/containers/web"));
        for bundle in ["/", "/etc", "../x", "/data/containers", "/data/containers/web/../../..", "..", ""] {
            assert!(locate(bundle, data).is_err(), "{bundle}");
        }
    }
}
