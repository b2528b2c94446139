//! Where files are: the host, or a container's root, out of which no path and no link leads.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use ::container::{ContainerId, Directories};
use anyhow::{Context, Result, bail};
use record::{Record, Rootfs};
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, readlinkat};
use rustix::io::Errno;

use super::c_name;
use crate::container::{self, BundleLock};
use crate::overlay::{self, Overlay};
use crate::state::runner;
use crate::tree::TreeEntry;
use crate::verbs::has_lost_its_mount;

/// As the kernel has it.
const MOST_LINKS: usize = 40;

/// A root, and whom that belongs to which is made there.
pub(crate) struct Side {
    /// The container's root; none for the host, where a path may begin anywhere.
    root: Option<OwnedFd>,
    pub(crate) owner: (Uid, Gid),
    /// Keeps others from mounting it meanwhile.
    _lock: Option<BundleLock>,
}

/// A file that was found: an entry of a directory.
pub(crate) struct FoundFile {
    pub(crate) directory: OwnedFd,
    pub(crate) name: CString,
    pub(crate) stat: Stat,
    /// A directory whose path ends with `/.`, or a root: not itself is meant, but what is in it.
    pub(crate) only_content: bool,
}

/// What looking for a path has found.
pub(crate) enum Found {
    Object(FoundFile),
    /// Nothing; the path is where the links have led to.
    Nothing(PathBuf),
}

impl Side {
    /// Returns the host, where everything is made for the caller.
    pub(crate) fn host() -> Self {
        let owner = (rustix::process::geteuid(), rustix::process::getegid());
        Self { root: None, owner, _lock: None }
    }

    /// Opens a container's root. What is made there belongs to the container's root user.
    pub(crate) fn of_container(id: &ContainerId, directories: &Directories) -> Result<Self> {
        let bundle = directories.bundle(&directories.in_full(id.clone())?);
        let Ok(text) = sys::file::read_regular(&bundle.join(container::RECORD)) else { bail!("no such container") };
        if let Some(pid) = runner(&bundle, directories)? {
            // The root as the process has it, with all mounts of its namespace (proc_pid_root(5)): volumes are there,
            // which the rootfs on the host has not.
            let path = format!("/proc/{pid}/root");
            let root = rustix::fs::open(&path, root_flags(), Mode::empty()).with_context(|| format!("open {path}"))?;
            let first = |map| fs::read_to_string(format!("/proc/{pid}/{map}")).map(|map| first_id(&map)).context(map);
            let owner = (Uid::from_raw(first("uid_map")?), Gid::from_raw(first("gid_map")?));
            return Ok(Self { root: Some(root), owner, _lock: None });
        }
        // A second overlay on the same directories would spoil the first, which may be in another mount namespace.
        let Some(lock) = BundleLock::take(&bundle)? else { bail!("it is in use: try again") };
        let rootfs: Rootfs = Record::parse(&text, container::RECORD)?.part()?;
        let root = stopped(&bundle, rootfs)?;
        Ok(Self { root: Some(root), owner: (Uid::ROOT, Gid::ROOT), _lock: Some(lock) })
    }

    /// Opens a path, and follows links on the way.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        // To open a FIFO would wait for its other end.
        let flags = flags | OFlags::NONBLOCK;
        match &self.root {
            None => rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()),
            // openat2(2) in the root, so that links of the container's, absolute ones too, stay inside while it runs
            // and changes them.
            Some(root) => root::open_with(root.as_fd(), path, flags, ResolveFlags::empty()),
        }
    }

    /// Finds what has to be there.
    pub(crate) fn look(&self, path: &Path, follow: bool) -> Result<FoundFile> {
        match self.find(path, follow)? {
            Found::Object(object) => Ok(object),
            Found::Nothing(_) => bail!("{}: no such file or directory", path.display()),
        }
    }

    /// Finds a file; the last link is followed only if that is wanted, or a slash stands behind it.
    pub(crate) fn find(&self, path: &Path, follow: bool) -> Result<Found> {
        let mut path = path.to_owned();
        for _ in 0..MOST_LINKS {
            let bytes = path.as_os_str().as_encoded_bytes();
            let (slash, dot) = (bytes.ends_with(b"/"), bytes.ends_with(b"/.") || bytes == b".");
            let Some(Component::Normal(name)) = path.components().next_back().filter(|_| !dot) else {
                return self.directory(&path, dot);
            };
            let (parent, name) = (parent_of(&path), c_name(name)?);
            let opened = sys::unless(&[Errno::NOENT], self.open(&parent, OFlags::RDONLY | OFlags::DIRECTORY));
            let opened = opened.with_context(|| parent.display().to_string())?;
            let Some(directory) = opened else { return Ok(Found::Nothing(path)) };
            let stat = sys::unless(&[Errno::NOENT], TreeEntry { directory: directory.as_fd(), name: &name }.stat());
            let Some(stat) = stat.with_context(|| path.display().to_string())? else { return Ok(Found::Nothing(path)) };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink || !(follow || slash) {
                return Ok(Found::Object(FoundFile { directory, name, stat, only_content: false }));
            }
            let target = readlinkat(&directory, &name, Vec::new())?;
            // It is looked up in the root again, wherever it leads.
            path = parent.join(Path::new(target.to_str().context("a link that is no text")?));
        }
        bail!("{}: too many links", path.display())
    }

    /// Opens the directory that a path's last component is in, and returns its name.
    pub(crate) fn parent(&self, path: &Path) -> Result<(OwnedFd, CString)> {
        let Some(Component::Normal(name)) = path.components().next_back() else {
            bail!("{}: no such file or directory", path.display())
        };
        let parent = parent_of(path);
        let directory = self.open(&parent, OFlags::RDONLY | OFlags::DIRECTORY);
        Ok((directory.with_context(|| parent.display().to_string())?, c_name(name)?))
    }

    /// A directory that has no name of its own: `/`, `..`, or what `/.` stands behind.
    fn directory(&self, path: &Path, dot: bool) -> Result<Found> {
        let opened = sys::unless(&[Errno::NOENT], self.open(path, OFlags::RDONLY | OFlags::DIRECTORY));
        let opened = opened.with_context(|| path.display().to_string())?;
        let Some(directory) = opened else { return Ok(Found::Nothing(path.to_owned())) };
        let stat = rustix::fs::fstat(&directory)?;
        let is_root = path.components().all(|component| component == Component::RootDir);
        let only_content = dot || is_root || path.ends_with("..");
        Ok(Found::Object(FoundFile { directory, name: c".".to_owned(), stat, only_content }))
    }
}

/// Returns the path of the directory that a path's last component is in.
fn parent_of(path: &Path) -> PathBuf {
    let mut components = path.components();
    components.next_back();
    let parent = components.as_path();
    if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() }
}

fn root_flags() -> OFlags {
    OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC
}

/// Opens the root of a container that does not run.
fn stopped(bundle: &Path, rootfs: Rootfs) -> Result<OwnedFd> {
    let target = bundle.join("rootfs");
    if has_lost_its_mount(bundle)? {
        let layers = rootfs.layers.or_else(|| rootfs.path.map(|path| vec![path])).context("it has no root")?;
        let (upper, work) = (bundle.join("upper"), bundle.join("work"));
        let overlay = Overlay { layers: &layers, upper: &upper, work: &work, target: &target, volatile: false };
        return Ok(overlay::mount(&overlay)?.root()?);
    }
    // Mounted, or flat.
    let path =
        if sys::file::may_be_there(&bundle.join("upper")) { target } else { rootfs.path.context("it has no root")? };
    rustix::fs::openat(CWD, &path, root_flags(), Mode::empty()).with_context(|| format!("open {}", path.display()))
}

/// Returns the id that a user namespace's root has outside of it: `user_namespaces(7)`, on `uid_map`.
fn first_id(map: &str) -> u32 {
    let lines = map.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let root = lines.into_iter().find(|fields| fields.first() == Some(&"0"));
    root.and_then(|fields| fields.get(1)?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_whom_the_map_says() {
        for (map, want) in [("0 0 4294967295\n", 0), ("1 5 1\n0 100000 65536\n", 100_000), ("", 0)] {
            assert_eq!(first_id(map), want, "{map}");
        }
    }

    #[test]
    fn parents_are_what_is_before_the_last_component() {
        for (path, want) in [("/a/b", "/a"), ("/a/b/", "/a"), ("/a", "/"), ("a", "."), ("a/b/.", "a")] {
            assert_eq!(parent_of(Path::new(path)), Path::new(want), "{path}");
        }
    }
}
