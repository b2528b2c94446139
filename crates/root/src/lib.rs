//! Paths that a container's files could lead astray: each is resolved by the kernel inside an open root, and what is
//! found is used by its descriptor. No path is ever resolved twice.
//!
//! # Example
//!
//! ```
//! use std::os::fd::AsFd;
//! use std::path::Path;
//!
//! let directory = std::env::temp_dir().join(format!("root-{}", std::process::id()));
//! std::fs::create_dir(&directory)?;
//! std::os::unix::fs::symlink("/etc", directory.join("link"))?;
//! let root = std::fs::File::open(&directory)?;
//! // The image's link leads to the root's own /etc, which is made, not to the host's.
//! root::make_directory(root.as_fd(), Path::new("/link/app"), 0o755)?;
//! assert!(directory.join("etc/app").is_dir());
//! root::remove_tree(&directory)?;
//! # Ok::<(), std::io::Error>(())
//! ```

#![forbid(unsafe_code)]

mod removal;
mod walk;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use sys::file::leave_open;

pub use removal::{remove, remove_tree, remove_tree_soon};
pub use walk::{Descent, Met, Walk, list};

const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// As many as the kernel follows: `path_resolution(7)`.
const MAX_LINKS: u32 = 40;

/// Returns a path as it counts from a root, out of which no `..` leads, without the leading slash.
///
/// `/a/../../b` is `b`. It works on the text alone, without asking what is a link: a path that is looked up
/// afterwards may lead elsewhere than the same path before.
pub fn clean(path: impl AsRef<Path>) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for part in path.as_ref().components() {
        match part {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => drop(cleaned.pop()),
            _ => {}
        }
    }
    cleaned
}

/// Returns a file's times, to be set again.
pub fn times(stat: &Stat) -> Timestamps {
    let time = |tv_sec: i64, nanoseconds: u64| Timespec { tv_sec, tv_nsec: nanoseconds.try_into().unwrap_or_default() };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Opens `path` inside `root` for reference only (`O_PATH`).
pub fn open(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    open_with(root, path, OFlags::PATH, ResolveFlags::empty())
}

/// Opens `path` inside `root`.
///
/// `RESOLVE_IN_ROOT` treats `root` as `/` for absolute links and for `..`; `RESOLVE_NO_MAGICLINKS` refuses links such
/// as `/proc/PID/root`, which lead out of any root (openat2(2)).
/// # Errors
/// Those of openat2(2); `ELOOP` for a magic link, and for any with `NO_SYMLINKS` in `more`.
pub fn open_with(root: BorrowedFd<'_>, path: &Path, flags: OFlags, more: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), IN_ROOT | more) {
            // The kernel could not prove that a `..` stayed inside while something was renamed: openat2(2).
            Err(Errno::AGAIN | Errno::INTR) if tries < 128 => tries += 1,
            other => return other,
        }
    }
}

/// Opens the file `path` inside `root`, making an empty one (and directories above it) if nothing is there. Dangling
/// symbolic links are followed inside too.
///
/// # Errors
/// `EISDIR` where the path has no last name; `ELOOP` behind forty links.
pub fn make_file(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    make_file_through(root, path, MAX_LINKS)
}

fn make_file_through(root: BorrowedFd<'_>, path: &Path, links: u32) -> io::Result<OwnedFd> {
    if let Some(found) = sys::unless(&[Errno::NOENT], open(root, path))? {
        return Ok(found);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::ISDIR.into()) };
    let parent = make_directory(root, parent, 0o755)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o755));
    if sys::unless(&[Errno::EXIST], made)?.is_none() {
        // A dangling link, or somebody was faster: what it means is resolved inside.
        let target = sys::unless(&[Errno::INVAL], rustix::fs::readlinkat(&parent, name, Vec::new()))?;
        let Some(target) = target else { return Ok(open(root, path)?) };
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        let links = links.checked_sub(1).ok_or(Errno::LOOP)?;
        let above = path.parent().filter(|_| !target.has_root()).unwrap_or(Path::new("/"));
        return make_file_through(root, &above.join(target), links);
    }
    Ok(rustix::fs::openat(&parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens the directory `path` inside `root`, making what is missing. Dangling symbolic links are followed inside too.
///
/// It must not be `mkdir -p` on joined text: between two components a container that shares a volume may exchange one
/// for a link (CVE-2024-45310). Here each is opened in the root anew, and what is made is made in an open directory.
pub fn make_directory(root: BorrowedFd<'_>, path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let open_directory = |path: &Path| open_with(root, path, flags, ResolveFlags::empty());
    if let Some(found) = sys::unless(&[Errno::NOENT], open_directory(path))? {
        return Ok(found);
    }
    // Mostly the last part alone is missing.
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
        let last = open(root, parent).and_then(|parent| {
            rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(mode))?;
            // What was just made is a directory, unless somebody has replaced it in this moment: then this fails, and
            // the long way below looks again.
            let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = rustix::fs::openat(&parent, name, flags, Mode::empty());
            leave_open(parent);
            found
        });
        if let Ok(found) = last {
            return Ok(found);
        }
    }
    let mut wanted: VecDeque<OsString> = normal(path);
    let mut reached = PathBuf::new();
    let mut links = 0_u32;
    while let Some(name) = wanted.pop_front() {
        if name == ".." {
            reached.pop();
            continue;
        }
        let next = reached.join(&name);
        if sys::unless(&[Errno::NOENT], open(root, &next))?.is_some() {
            reached = next;
            continue;
        }
        let parent = open(root, &reached)?;
        let fresh = rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(mode));
        if sys::unless(&[Errno::EXIST], fresh)?.is_some() {
            reached = next;
            continue;
        }
        // `open` found nothing, and yet the name is taken: a dangling link, whose target is made in the root.
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = rustix::fs::readlinkat(&parent, &name, Vec::new())?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.has_root() {
            reached = PathBuf::new();
        }
        for part in normal(&target).into_iter().rev() {
            wanted.push_front(part);
        }
    }
    Ok(open_directory(&reached)?)
}

fn normal(path: &Path) -> VecDeque<OsString> {
    let part = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn paths_are_cleaned_as_if_they_began_at_the_root() {
        for (path, want) in [
            ("/proc/", "proc"),
            ("//proc/../proc/.", "proc"),
            ("/../../proc", "proc"),
            ("/", ""),
            ("a/b", "a/b"),
            ("/etc/x", "etc/x"),
            ("../../x", "x"),
            ("a/../../b/./c", "b/c"),
            ("./", ""),
        ] {
            assert_eq!(clean(Path::new(path)), Path::new(want), "{path}");
        }
    }

    #[test]
    fn nothing_is_made_outside_the_root() {
        let base = std::env::temp_dir().join(format!("root-{}", std::process::id()));
        let root = base.join("root");
        fs::create_dir_all(root.join("real")).unwrap();
        for (link, target) in [("abs", "/new/dir"), ("up", "../../../outside"), ("loop", "loop"), ("ok", "real")] {
            std::os::unix::fs::symlink(target, root.join(link)).unwrap();
        }
        let handle = fs::File::open(&root).unwrap();
        for (path, made) in [
            ("/a/b/c", Some("a/b/c")),
            ("../x", Some("x")),
            ("abs/y", Some("new/dir/y")),
            ("up/z", Some("outside/z")),
            ("ok/w", Some("real/w")),
            ("loop/x", None),
        ] {
            let result = make_directory(handle.as_fd(), Path::new(path), 0o755);
            match made {
                Some(made) => {
                    result.unwrap();
                    assert!(root.join(made).is_dir(), "{path}");
                }
                None => assert!(result.is_err(), "{path}"),
            }
        }
        make_file(handle.as_fd(), Path::new("/f/g")).unwrap();
        assert!(root.join("f/g").is_file());
        for (link, target) in
            [("far", "/deep/er/file"), ("near", "beside"), ("out", "../../../etc/x"), ("self", "self")]
        {
            std::os::unix::fs::symlink(target, root.join("real").join(link)).unwrap();
        }
        for (path, made) in [
            ("real/far", Some("deep/er/file")),
            ("ok/near", Some("real/beside")),
            ("real/out", Some("etc/x")),
            ("ok/self", None),
        ] {
            assert_eq!(make_file(handle.as_fd(), Path::new(path)).is_ok(), made.is_some(), "{path}");
            assert!(made.is_none_or(|made| root.join(made).is_file()), "{path}");
        }
        assert_eq!(fs::read_dir(&base).unwrap().count(), 1);
        fs::remove_dir_all(&base).unwrap();
    }
}
