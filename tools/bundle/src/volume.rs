//! Volumes: directories that outlive a container (by name) or go with it, which start with what the image has at
//! their place.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ::container::{ContainerId, Directories, VolumeName};
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::container::{entries, make_private};
use crate::interrupt::Interrupt;
use crate::rootfs::{Root, open_directory};
use crate::tree::{CopyMode, copy_content};

/// What the name begins with of a volume that is being removed.
const REMOVED: &str = ".removed-";

/// Makes a volume's directory if it is not there, and fills it while it is empty with what the root has at `image`.
/// Returns what was made, for undoing.
pub(crate) fn prepare(
    path: &Path,
    bundle: &Path,
    image: &str,
    root: Option<&Root>,
    interrupt: &Interrupt,
) -> Result<Option<PathBuf>> {
    let parent = path.parent().context("a volume at the root")?;
    make_private(parent).with_context(|| format!("make {}", parent.display()))?;
    let content = match root {
        Some(root) => root.directory(image).with_context(|| format!("look at the image's {image}"))?,
        None => None,
    };
    if path.is_dir() {
        // docker fills a volume as long as it is empty, not only when it is made.
        let empty = fs::read_dir(path).with_context(|| format!("read {}", path.display()))?.next().is_none();
        if let Some(content) = content.filter(|_| empty) {
            let target = open_directory(path)?;
            copy(content, target, interrupt).with_context(|| format!("copy the image's {image}"))?;
        }
        return Ok(None);
    }
    // Filled in the bundle, so that nobody meets a half-filled volume, and who sweeps the bundle sweeps this too.
    let temporary = bundle.join(".volume");
    let made = (|| {
        fs::create_dir(&temporary).with_context(|| format!("make {}", temporary.display()))?;
        if let Some(content) = content {
            let target = open_directory(&temporary)?;
            copy(content, target, interrupt).with_context(|| format!("copy the image's {image}"))?;
        }
        // Plain rename(2) would replace an empty directory: another container's volume that was made in this moment.
        let renamed = renameat_with(CWD, &temporary, CWD, path, RenameFlags::NOREPLACE);
        // EEXIST: another bundle was faster; the volume is theirs and ours.
        let renamed = sys::unless(&[Errno::EXIST], renamed).map(|renamed| renamed.is_some());
        renamed.with_context(|| format!("make {}", path.display()))
    })();
    if !matches!(made, Ok(true)) {
        // The first error is the one to tell.
        let _secondary = root::remove_tree(&temporary);
    }
    Ok(made?.then(|| path.to_owned()))
}

/// The volume belongs to those whom the image's directory belongs to.
fn copy(source: OwnedFd, target: OwnedFd, interrupt: &Interrupt) -> Result<()> {
    copy_content(source, target, &CopyMode { owner: None, merge: false, interrupt, links: RefCell::default() })
}

/// Makes volumes; one that exists stays as it is, as with docker.
pub(crate) fn create(names: &[VolumeName], directories: &Directories) -> Result<()> {
    let parent = directories.volumes();
    make_private(&parent).with_context(|| format!("make {}", parent.display()))?;
    cli::each("bundle", names, |name| {
        let made = fs::create_dir(directories.volume(name));
        sys::unless(&[Errno::EXIST], made).with_context(|| format!("make {name}"))?;
        Ok(writeln!(io::stdout(), "{name}")?)
    })
}

/// Prints these volumes, or all.
pub(crate) fn list(names: &[VolumeName], form: cli::ListForm, directories: &Directories) -> Result<()> {
    let mut volumes = volumes(directories)?;
    if let Some(unknown) = names.iter().find(|name| !volumes.contains_key(*name)) {
        bail!("no volume `{unknown}`");
    }
    volumes.retain(|name, _| names.is_empty() || names.contains(name));
    let mut rows = Vec::new();
    let mut lines = vec![["NAME", "CONTAINERS", "PATH"].map(str::to_owned)];
    for (name, containers) in volumes {
        let path = directories.volume(&name).to_string_lossy().into_owned();
        rows.push(json!({"name": name.to_string(), "containers": containers, "path": path}));
        let containers: Vec<&str> = containers.iter().map(|id| &**id).collect();
        lines.push([name.into(), containers.join(","), path]);
    }
    Ok(form.print(&rows, "name", || cli::table(&lines))?)
}

/// Removes these volumes, or all that no container has, and prints their names.
pub(crate) fn remove(names: Option<&[VolumeName]>, force: bool, directories: &Directories) -> Result<()> {
    let parent = directories.volumes();
    // What a killed removal has left.
    for entry in sys::file::entries(&parent).with_context(|| format!("read {}", parent.display()))? {
        if entry.file_name().as_encoded_bytes().starts_with(REMOVED.as_bytes()) {
            root::remove_tree(&entry.path()).with_context(|| format!("remove {}", entry.path().display()))?;
        }
    }
    let known = volumes(directories)?;
    let unused = known.iter().filter(|(_, users)| users.is_empty()).map(|(name, _)| name);
    let names: Vec<&VolumeName> = names.map_or_else(|| unused.collect(), |names| names.iter().collect());
    cli::each("bundle", names, |name| {
        if !known.contains_key(name) {
            ensure!(force, "no volume `{name}`");
            return Ok(());
        }
        let (path, removed) = (directories.volume(name), parent.join(format!("{REMOVED}{name}")));
        // Looked at twice: a bundle that is being made may choose the volume between this and the rename. After it,
        // its source is not there under the name, and it fails or makes a new one.
        ensure_unused(name, &path, directories)?;
        let rename = |from: &Path, to: &Path| {
            renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)
                .with_context(|| format!("rename {}", from.display()))
        };
        // Nobody gets it under its name from here on. Whoever has got it meanwhile keeps it.
        rename(&path, &removed)?;
        if let Err(used) = ensure_unused(name, &removed, directories) {
            rename(&removed, &path)?;
            return Err(used);
        }
        root::remove_tree(&removed).with_context(|| format!("remove volume `{name}`"))?;
        Ok(writeln!(io::stdout(), "{name}")?)
    })
}

/// Fails where a container has a volume, or may have: one that is being made says nothing of it yet.
fn ensure_unused(name: &VolumeName, at: &Path, directories: &Directories) -> Result<()> {
    for (id, sources) in sources(directories)? {
        let sources = sources.with_context(|| {
            format!("volume `{name}`: container {id} is half-made (`bundle prune` removes abandoned ones)")
        })?;
        ensure!(!lead_into(&sources, &directories.volume(name), at), "volume `{name}`: container {id} uses it");
    }
    Ok(())
}

/// Returns all volumes with names, each with the containers whose mounts lead into it.
fn volumes(directories: &Directories) -> Result<BTreeMap<VolumeName, Vec<ContainerId>>> {
    let (parent, sources) = (directories.volumes(), sources(directories)?);
    let mut volumes = BTreeMap::new();
    for entry in sys::file::entries(&parent).with_context(|| format!("read {}", parent.display()))? {
        let Some(name) = entry.file_name().to_str().and_then(|name| name.parse::<VolumeName>().ok()) else { continue };
        let has_it = |sources: &Option<Vec<PathBuf>>| {
            sources.as_ref().is_some_and(|sources| lead_into(sources, &directories.volume(&name), &entry.path()))
        };
        let users = sources.iter().filter(|(_, sources)| has_it(sources)).map(|(id, _)| id.clone()).collect();
        volumes.insert(name, users);
    }
    Ok(volumes)
}

/// Returns what each container mounts; nothing for one that is being made.
fn sources(directories: &Directories) -> Result<Vec<(ContainerId, Option<Vec<PathBuf>>)>> {
    let of = |id: ContainerId| {
        let path = directories.bundle(&id).join("config.json");
        let context = || format!("read {}", path.display());
        let Some(config) = sys::file::known(fs::read(&path)).with_context(context)? else { return Ok((id, None)) };
        let config: Value = serde_json::from_slice(&config).with_context(context)?;
        let mounts = config["mounts"].as_array().into_iter().flatten();
        Ok((id, Some(mounts.filter_map(|mount| Some(mount["source"].as_str()?.into())).collect())))
    };
    entries(directories)?.into_iter().map(of).collect()
}

/// Tells whether something that is mounted is in a volume, which is `at` a place now. The directory of all state may have
/// several paths.
fn lead_into(sources: &[PathBuf], volume: &Path, at: &Path) -> bool {
    let inode = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let own = inode(at);
    sources.iter().any(|source| source.starts_with(volume) || (own.is_some() && inode(source) == own))
}
