//! Walking through a tree of any depth with a bounded number of open directories, and without recursion.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, RawDir, SeekFrom, fstat, openat, seek};
use rustix::io::Errno;

/// So many directories are kept open: those in which we are and those above it. The others are opened again from below.
/// So many directories are kept open: those in which we are and those above it. Those that are farther up are opened
/// again by `..` from below, and recognised by device and inode, because a container may move a directory while we
/// are in it.
const OPEN: usize = 64;

/// The directories from a tree's top to where we are.
#[derive(Debug)]
pub struct Descent {
    here: OwnedFd,
    /// Those above, from the top.
    above: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    directory: Option<OwnedFd>,
    identity: (u64, u64),
}

impl Descent {
    /// Begins at the top of a tree.
    pub fn new(top: OwnedFd) -> Self {
        Self { here: top, above: Vec::new() }
    }

    /// Returns the directory in which we are.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.here.as_fd()
    }

    /// Goes into a directory that is in the present one.
    pub fn enter(&mut self, directory: OwnedFd) -> rustix::io::Result<()> {
        if let Some(far) = self.above.len().checked_sub(OPEN) {
            self.above[far].directory = None;
        }
        let identity = identity(&self.here)?;
        self.above.push(Level { directory: Some(std::mem::replace(&mut self.here, directory)), identity });
        Ok(())
    }

    /// Goes back to the directory above; false at the top. One that was moved elsewhere meanwhile is not followed: `ESTALE`.
    pub fn leave(&mut self) -> rustix::io::Result<bool> {
        let Some(above) = self.above.pop() else { return Ok(false) };
        self.here = if let Some(directory) = above.directory {
            directory
        } else {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = openat(&self.here, "..", flags, Mode::empty())?;
            if identity(&found)? != above.identity {
                return Err(Errno::STALE);
            }
            found
        };
        Ok(true)
    }
}

fn identity(directory: &OwnedFd) -> rustix::io::Result<(u64, u64)> {
    let stat = fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// What a [`Walk`] meets next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Met {
    /// A name in the present directory. Who wants to see what is in there goes on with [`Walk::enter`].
    Entry(CString),
    /// The present directory's end: the next names are those of the one above.
    End,
}

/// A walk through a tree.
#[derive(Debug)]
pub struct Walk {
    descent: Descent,
    /// The names that are left, for each directory from the top.
    names: Vec<std::vec::IntoIter<(CString, FileType)>>,
    /// Those of the directories down to where we are.
    path: Vec<CString>,
    ended: bool,
}

impl Walk {
    /// Begins with what is in a directory.
    pub fn new(top: OwnedFd) -> rustix::io::Result<Self> {
        let names = vec![list(&top)?.into_iter()];
        Ok(Self { descent: Descent::new(top), names, path: Vec::new(), ended: false })
    }

    /// Returns the directory in which we are.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.descent.directory()
    }

    /// Returns the names from the top to the directory in which we are.
    pub fn path(&self) -> &[CString] {
        &self.path
    }

    /// Goes on; `None` when the top has been left.
    pub fn advance(&mut self) -> rustix::io::Result<Option<Met>> {
        if self.ended {
            self.ended = false;
            self.names.pop();
            self.path.pop();
            if !self.descent.leave()? {
                return Ok(None);
            }
        }
        let Some(names) = self.names.last_mut() else { return Ok(None) };
        let next = names.next();
        self.ended = next.is_none();
        Ok(Some(next.map_or(Met::End, |(name, _)| Met::Entry(name))))
    }

    /// Goes into the directory `name` of the present one.
    pub fn enter(&mut self, name: CString, directory: OwnedFd) -> rustix::io::Result<()> {
        self.names.push(list(&directory)?.into_iter());
        self.path.push(name);
        self.descent.enter(directory)
    }
}

/// Returns the names in a directory, as the file system has them, without `.` and `..`, and what they stand for.
pub fn list(directory: impl AsFd) -> rustix::io::Result<Vec<(CString, FileType)>> {
    let mut names = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 8 << 10];
    seek(&directory, SeekFrom::Start(0))?;
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use rustix::fs::mkdirat;

    use super::*;

    #[test]
    fn a_deep_tree_is_walked_and_a_moved_one_is_not_followed() {
        let base = std::env::temp_dir().join(format!("walk-{}", std::process::id()));
        std::fs::create_dir(&base).unwrap();
        let top: OwnedFd = std::fs::File::open(&base).unwrap().into();
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let mut deep = Descent::new(top.try_clone().unwrap());
        for _ in 0..3000 {
            mkdirat(deep.directory(), "d", Mode::RWXU).unwrap();
            deep.enter(openat(deep.directory(), "d", flags, Mode::empty()).unwrap()).unwrap();
        }
        let walk = |top: OwnedFd| {
            let mut walk = Walk::new(top).unwrap();
            let (mut entered, mut ended, mut deepest) = (0, 0, 0);
            loop {
                match walk.advance()? {
                    Some(Met::Entry(name)) => {
                        let child = openat(walk.directory(), &name, flags, Mode::empty()).unwrap();
                        walk.enter(name, child).unwrap();
                        entered += 1;
                        deepest = deepest.max(walk.path().len());
                    }
                    Some(Met::End) => ended += 1,
                    None => return Ok::<_, Errno>((entered, ended, deepest)),
                }
            }
        };
        assert_eq!(walk(top.try_clone().unwrap()), Ok((3000, 3001, 3000)));
        // The directory that is 100 deep moves to the top.
        let far = format!("{}d", "d/".repeat(99));
        std::fs::rename(base.join(far), base.join("moved")).unwrap();
        let moved = (0..100).try_for_each(|_| deep.leave().map(drop));
        assert_eq!(moved, Ok(()));
        assert_eq!((0..3000).try_for_each(|_| deep.leave().map(drop)), Err(Errno::STALE));
        crate::remove_tree(&base).unwrap();
        assert!(!base.exists());
    }
}
