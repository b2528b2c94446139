//! `bundle cp`: files out of a container and into it, with docker cp's rules. A container that runs is looked at through
//! its own process, volumes and all; one that does not through an overlay that is mounted nowhere.

mod archive;
mod place;

use std::cell::RefCell;
use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ::container::{ContainerId, Directories, NameError};
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::FileType;
use rustix::process::{Pid, PidfdFlags};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::cli_usage;
use crate::interrupt::Interrupt;
use crate::options::Cp;
use crate::state::runner;
use crate::tree::{Entry, Manner, copy_content, copy_entry};
use place::{Found, Object, Place};

/// What is written for a source or a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// `CONTAINER:PATH`.
    Inside { id: ContainerId, path: PathBuf },
    /// A path of the host's.
    Local(PathBuf),
    /// `-`: a tar archive.
    Stream,
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Stream);
        }
        // As with docker: who means a file with a colon in its name writes ./ before it.
        match text.split_once(':').filter(|_| !text.starts_with(['/', '.'])) {
            Some((_, "") | ("", _)) => Err("not CONTAINER:PATH".to_owned()),
            Some((id, path)) => {
                let id = id.parse().map_err(|error: NameError| error.to_string())?;
                Ok(Self::Inside { id, path: Path::new("/").join(path) })
            }
            None if text.is_empty() => Err("an empty path".to_owned()),
            None => Ok(Self::Local(text.into())),
        }
    }
}

/// Makes an ordinary user root of the namespace that the container's files belong to.
pub(crate) fn enter(options: &Cp, roots: &cli::Roots) {
    let directories = &roots.directories();
    let named = [&options.source, &options.destination].into_iter().find_map(|name| match name {
        Name::Inside { id, .. } => Some(id),
        _ => None,
    });
    let bundle = named.map(|id| directories.bundle(id));
    match bundle.and_then(|bundle| runner(&bundle, directories).ok().flatten().and_then(Pid::from_raw)) {
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
pub(crate) fn run(options: &Cp, directories: &Directories) -> Result<()> {
    let open = |id: &ContainerId| Place::of_container(id, directories).with_context(|| format!("container {id}"));
    let interrupt = Interrupt::watch()?;
    // Modes are the originals'.
    rustix::process::umask(rustix::fs::Mode::empty());
    let manner = |place: &Place| Manner {
        owner: (!options.archive).then_some(place.owner),
        merge: true,
        interrupt: &interrupt,
        links: RefCell::default(),
    };
    let done = match (&options.source, &options.destination) {
        (Name::Inside { id, path }, Name::Stream) => {
            let source = open(id)?.look(path, options.follow_link)?;
            archive::write(&source, &interrupt, io::stdout().lock())
        }
        (Name::Stream, Name::Inside { id, path }) => {
            let place = open(id)?;
            archive::read(io::stdin().lock(), &place, path, &manner(&place))
        }
        (Name::Inside { id, path }, Name::Local(to)) => {
            let here = Place::host();
            copy(&open(id)?, path, &here, to, (options, &manner(&here)))
        }
        (Name::Local(from), Name::Inside { id, path }) => {
            let there = open(id)?;
            copy(&Place::host(), from, &there, path, (options, &manner(&there)))
        }
        _ => return Err(cli_usage("one of the two has to be CONTAINER:PATH, the other a path or -".to_owned())),
    };
    let shown = |name: &Name| match name {
        Name::Inside { id, path } => format!("{id}:{}", path.display()),
        Name::Local(path) => path.display().to_string(),
        Name::Stream => "-".to_owned(),
    };
    done.with_context(|| format!("copy {} to {}", shown(&options.source), shown(&options.destination)))
}

fn copy(from: &Place, path: &Path, to: &Place, target: &Path, (options, manner): (&Cp, &Manner<'_>)) -> Result<()> {
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
        let made = Entry { directory: directory.as_fd(), name: &name }.make_directory(false)?;
        return copy_content(source.open_directory()?, made, manner);
    }
    let entry = Entry { directory: directory.as_fd(), name: &name };
    copy_entry(source.entry(), entry, &source.stat, manner)
}

fn ends_with_slash(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

impl Object {
    fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }

    fn entry(&self) -> Entry<'_> {
        Entry { directory: self.directory.as_fd(), name: &self.name }
    }

    fn open_directory(&self) -> Result<std::os::fd::OwnedFd> {
        Ok(self.entry().open_directory()?)
    }
}

/// Makes a name for a directory's entry.
fn c_name(name: &std::ffi::OsStr) -> Result<CString> {
    CString::new(name.as_encoded_bytes()).context("a name with NUL")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_docker_s() {
        let inside = |id: &str, path: &str| Ok(Name::Inside { id: id.parse().unwrap(), path: path.into() });
        for (text, want) in [
            ("web:/etc/hosts", inside("web", "/etc/hosts")),
            ("web:etc/hosts", inside("web", "/etc/hosts")),
            ("web:/a:b/.", inside("web", "/a:b/.")),
            ("./web:x", Ok(Name::Local("./web:x".into()))),
            ("/a:b", Ok(Name::Local("/a:b".into()))),
            ("plain", Ok(Name::Local("plain".into()))),
            ("-", Ok(Name::Stream)),
            ("web:", Err(())),
            (":/x", Err(())),
            ("", Err(())),
        ] {
            assert_eq!(text.parse::<Name>().map_err(|_| ()), want, "{text}");
        }
    }
}
