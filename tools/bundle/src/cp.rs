//! `bundle cp`: files out of a container and into it, with docker cp's rules. A container that runs is looked at through
//! its own process, volumes and all; one that does not through an overlay that is mounted nowhere.

mod archive;
pub(crate) mod end;
mod place;

use std::cell::RefCell;
use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use ::container::{ContainerId, Directories};
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::FileType;
use rustix::process::{Pid, PidfdFlags};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::cli_usage;
use crate::interrupt::Interrupt;
use crate::request::CopyRequest;
use crate::state::runner;
use crate::tree::{CopyMode, TreeEntry, copy_content, copy_entry};
use end::CopyEnd;
use place::{Found, FoundFile, Side};

/// Makes an ordinary user root of the namespace that the container's files belong to.
pub(crate) fn enter(options: &CopyRequest, roots: &cli::Roots) {
    let directories = &roots.directories();
    let named = [&options.source, &options.destination].into_iter().find_map(|name| match name {
        CopyEnd::Inside { id, .. } => Some(id),
        _ => None,
    });
    let bundle = named.map(|id| directories.bundle(id));
    match bundle.and_then(|bundle| runner(&bundle, directories).ok().flatten().and_then(Pid::from_raw)) {
        // The process's own namespace: another one with the same map would not have power over its mounts.
        Some(pid) if !rustix::process::geteuid().is_root() => {
            let joined = rustix::process::pidfd_open(pid, PidfdFlags::empty())
                .and_then(|process| move_into_thread_name_spaces(process.as_fd(), ThreadNameSpaceType::USER));
            // Who is in it already need not, and who may not sees what everybody sees.
            joined.unwrap_or_else(|error| log::info!("join the container's user namespace: {error}"));
        }
        Some(_) => {}
        None => ::rootless::enter_if_possible(roots),
    }
}

/// Copies.
pub(crate) fn run(options: &CopyRequest, directories: &Directories) -> Result<()> {
    let open = |id: &ContainerId| Side::of_container(id, directories).with_context(|| format!("container {id}"));
    // Before anything is made, so that a copy ends between two files, and an overlay is let go.
    let interrupt = Interrupt::watch()?;
    // Modes are the originals'.
    rustix::process::umask(rustix::fs::Mode::empty());
    let manner = |place: &Side| CopyMode {
        owner: (!options.archive).then_some(place.owner),
        merge: true,
        interrupt: &interrupt,
        links: RefCell::default(),
    };
    let done = match (&options.source, &options.destination) {
        (CopyEnd::Inside { id, path }, CopyEnd::Stream) => {
            archive::write(&open(id)?.look(path, options.follow_link)?, &interrupt, io::stdout().lock())
        }
        (CopyEnd::Stream, CopyEnd::Inside { id, path }) => {
            let place = open(id)?;
            archive::read(io::stdin().lock(), &place, path, &manner(&place))
        }
        (CopyEnd::Inside { id, path }, CopyEnd::Local(to)) => {
            let here = Side::host();
            copy(&open(id)?, path, &here, to, (options, &manner(&here)))
        }
        (CopyEnd::Local(from), CopyEnd::Inside { id, path }) => {
            let there = open(id)?;
            copy(&Side::host(), from, &there, path, (options, &manner(&there)))
        }
        _ => return Err(cli_usage("one of the two has to be CONTAINER:PATH, the other a path or -".to_owned())),
    };
    let shown = |name: &CopyEnd| match name {
        CopyEnd::Inside { id, path } => format!("{id}:{}", path.display()),
        CopyEnd::Local(path) => path.display().to_string(),
        CopyEnd::Stream => "-".to_owned(),
    };
    done.with_context(|| format!("copy {} to {}", shown(&options.source), shown(&options.destination)))
}

fn copy(
    from: &Side,
    path: &Path,
    to: &Side,
    target: &Path,
    (options, manner): (&CopyRequest, &CopyMode<'_>),
) -> Result<()> {
    let source = from.look(path, options.follow_link)?;
    ensure!(source.is_directory() || !ends_with_slash(path), "{}: not a directory", path.display());
    let (directory, name) = match to.find(target, true)? {
        Found::Nothing(path) => {
            ensure!(source.is_directory() || !ends_with_slash(target), "{}: no such directory", target.display());
            to.parent(&path)?
        }
        Found::Object(object) if object.is_directory() => {
            let directory = object.open_directory()?;
            if source.only_content {
                return copy_content(source.open_directory()?, directory, manner);
            }
            (directory, source.name.clone())
        }
        Found::Object(_) if source.is_directory() => bail!("{}: not a directory", target.display()),
        Found::Object(_) if ends_with_slash(target) => bail!("{}: not a directory", target.display()),
        Found::Object(object) => (object.directory, object.name),
    };
    if source.only_content {
        // docker cp: `DIR/.` to a name that is not there makes the directory, as `DIR` would.
        let made = TreeEntry { directory: directory.as_fd(), name: &name }.make_directory(false)?;
        return copy_content(source.open_directory()?, made, manner);
    }
    let entry = TreeEntry { directory: directory.as_fd(), name: &name };
    copy_entry(source.entry(), entry, &source.stat, manner)
}

fn ends_with_slash(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

impl FoundFile {
    fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }

    fn entry(&self) -> TreeEntry<'_> {
        TreeEntry { directory: self.directory.as_fd(), name: &self.name }
    }

    fn open_directory(&self) -> Result<std::os::fd::OwnedFd> {
        Ok(self.entry().open_directory()?)
    }
}

/// Makes a name for a directory's entry.
fn c_name(name: &std::ffi::OsStr) -> Result<CString> {
    CString::new(name.as_encoded_bytes()).context("a name with NUL")
}
