//! Volumes: directories that outlive a container (by name) or go with it, which start with what the image has at
//! their place.

use std::cell::RefCell;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::container::make_private;
use crate::interrupt::Interrupt;
use crate::rootfs::{Root, open_directory};
use crate::tree::{Manner, copy_content};

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
        match renameat_with(CWD, &temporary, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            // Another bundle was faster; the volume is theirs and ours.
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("make {}", path.display())),
        }
    })();
    if !matches!(made, Ok(true)) {
        // The first error is the one to tell.
        let _secondary = root::remove_tree(&temporary);
    }
    Ok(made?.then(|| path.to_owned()))
}

/// The volume belongs to those whom the image's directory belongs to.
fn copy(source: OwnedFd, target: OwnedFd, interrupt: &Interrupt) -> Result<()> {
    copy_content(source, target, &Manner { owner: None, merge: false, interrupt, links: RefCell::default() })
}
