//! Removing a tree of any depth with a bounded number of open directories.
//!
//! A container can nest directories deeper than a process may have descriptors, and longer than a path may be.
//! Instead of recursing, what is deeper than 32 levels is renamed to the top, where it is 0 levels deep. A rename
//! within one tree is cheap, and each directory is moved at most once for every 32 levels of its depth.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Directories deeper than this are first moved up to the top of the tree that is removed.
const DEPTH: usize = 32;

/// How many entries the caller waits for: some milliseconds. Not a time, since a busy machine would change what is done.
const SOON: usize = 2000;

/// Removes whatever `name` in `parent` is, with all that is below it. It is no error if nothing is there.
///
/// Nothing is followed: a link is removed, and a mount point is EBUSY.
/// # Errors
/// `EBUSY` for a mount point in there; `EACCES` and `EPERM` as unlink(2) has them.
pub fn remove(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    remove_some(parent, name, usize::MAX)
}

fn remove_some(parent: BorrowedFd<'_>, name: &CStr, budget: usize) -> rustix::io::Result<()> {
    let Some(top) = unlink_or_open(parent, name)? else { return Ok(()) };
    let mut removal = Removal { top: top.as_fd(), moved: 0, budget };
    // What was moved up while the directory was read is met the next time round.
    while removal.empty(top.as_fd(), 0)? {}
    drop(top);
    remove_directory(parent, name)
}

/// Another thread or process may remove the same tree: what is gone is gone.
fn remove_directory(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    sys::unless(&[Errno::NOENT], unlinkat(parent, name, AtFlags::REMOVEDIR)).map(drop)
}

/// Removes a file and returns `None`, or returns the directory that it is.
fn unlink_or_open(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Option<OwnedFd>> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        // Linux's own answer (POSIX allows EPERM): unlink first, since most names are files, and a look before costs
        // a call for each.
        Err(Errno::ISDIR) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    sys::unless(&[Errno::NOENT], openat(parent, name, flags, Mode::empty()))
}

struct Removal<'a> {
    /// What is removed.
    top: BorrowedFd<'a>,
    /// How many directories were moved up there.
    moved: usize,
    /// After how many more entries it stops with `ECANCELED`.
    budget: usize,
}

impl Removal<'_> {
    /// Removes what is in a directory; tells whether there was anything.
    fn empty(&mut self, directory: BorrowedFd<'_>, depth: usize) -> rustix::io::Result<bool> {
        let mut found = false;
        let mut buffer = [MaybeUninit::uninit(); 8 << 10];
        let mut entries = RawDir::new(directory, &mut buffer);
        // A fresh descriptor begins at the start, and so does a second look at the top.
        rustix::fs::seek(directory, rustix::fs::SeekFrom::Start(0))?;
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            self.budget = self.budget.checked_sub(1).ok_or(Errno::CANCELED)?;
            found = true;
            let Some(child) = unlink_or_open(directory, name)? else { continue };
            if depth < DEPTH {
                while self.empty(child.as_fd(), depth + 1)? {}
                remove_directory(directory, name)?;
            } else {
                self.move_up(directory, name)?;
            }
        }
        Ok(found)
    }

    fn move_up(&mut self, directory: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
        loop {
            self.moved += 1;
            let Ok(place) = CString::new(format!("removed.{}", self.moved)) else { return Err(Errno::INVAL) };
            // An empty directory of that name would be replaced, which is as good; anything else: the next name.
            match renameat(directory, name, self.top, &place) {
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                Err(Errno::NOENT) => return Ok(()),
                done => return done,
            }
        }
    }
}

/// Removes a tree by its path. It is no error if nothing is there.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    remove_some_of_tree(path, usize::MAX)
}

/// Removes a tree by its path, and leaves what is beyond its first 2,000 entries to a process that nobody waits for. Locks
/// of the caller's on open files (flock(2)) are held until that one has ended, too.
///
/// What it cannot remove stays there; whoever finds the tree without a lock tries again.
pub fn remove_tree_soon(path: &Path) -> io::Result<()> {
    match remove_some_of_tree(path, SOON) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::CANCELED) => {}
        done => return done,
    }
    match sys::clone::detach() {
        Ok(Some(_child)) => Ok(()),
        Ok(None) => sys::clone::exit_now(i32::from(remove_tree(path).is_err())),
        Err(_) => remove_tree(path),
    }
}

fn remove_some_of_tree(path: &Path, budget: usize) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL.into()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let name = CString::new(name.as_bytes())?;
    match File::open(parent) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        parent => Ok(remove_some(parent?.as_fd(), &name, budget)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_depth_is_removed() {
        let directory = std::env::temp_dir().join(format!("removal-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let root = File::open(&directory).unwrap();
        rustix::fs::mkdirat(&root, "top", Mode::RWXU).unwrap();
        let mut deep = openat(&root, "top", OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&deep, "d", Mode::RWXU).unwrap();
            rustix::fs::mkdirat(&deep, "removed.1", Mode::RWXU).unwrap();
            drop(openat(&deep, "f", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap());
            deep = openat(&deep, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        remove(root.as_fd(), c"top").unwrap();
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
        remove(root.as_fd(), c"nothing").unwrap();
        remove_tree(&directory.join("neither/nor")).unwrap();
        remove_tree(&directory).unwrap();
        assert!(!directory.exists());
    }
}
