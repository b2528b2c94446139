//! The tree that is being written: its directories, found component by component with `openat2` and kept open. Symbolic
//! links in the way are legal in a layer and are followed by hand, inside the root; missing directories are made.
//!
//! A directory's times change with every entry, so they are put right when it is closed: those that the layer gives, or
//! those that it had.

use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, Timestamps, fstat, futimens, mkdirat, openat2, readlinkat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::form::Form;
use crate::lower::{Lower, LowerFile};
use crate::overlay::{RESOLVE, hides, is_whiteout};
use crate::path::{Component, Inner, PATH_LIMIT, join, split};
use crate::stream::Limits;
use crate::xattr;
use archive::{Entry, Name, Time};

/// How many directories are kept open. Layers list their entries directory by directory, so a few would do.
const OPEN: usize = 64;

/// How many paths lead to them.
const PLACES: usize = 1024;

/// Symbolic links that one path may go through: the kernel's own limit, `path_resolution(7)`.
const LINKS: usize = 40;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open directory of the tree.
pub(crate) struct Directory {
    fd: Rc<OwnedFd>,
    /// Its path without symbolic links.
    path: Inner,
    inode: u64,
    /// New entries get more than their mode from it: a group or an access control list.
    pub(crate) inherits: bool,
    /// It is in the list of directories with whiteouts.
    noted: bool,
    /// The times to set when it is closed.
    times: Option<Timestamps>,
    used: u64,
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One path being found.
struct Walk {
    /// Missing directories are made.
    make: bool,
    /// Symbolic links so far.
    links: usize,
}

/// A tree with one layer going into it.
pub(crate) struct Tree<'a> {
    pub(crate) form: Form,
    root: OwnedFd,
    slots: Vec<Directory>,
    /// Paths, also those through symbolic links, to the places of their directories in `slots`.
    places: HashMap<Inner, usize>,
    clock: u64,
    /// What this layer has made, where lower layers are in the same tree: hashes of the parent's inode and the name.
    made: HashSet<u64>,
    /// What this layer has of lower ones that are not in the same tree, likewise.
    copied: HashSet<u64>,
    hasher: RandomState,
    /// The modification time of directories that no entry describes.
    pub(crate) implicit_time: Time,
    /// Gets the paths of directories that no entry described when they were needed, each with a NUL behind it.
    implicit: Option<BufWriter<File>>,
    /// Where this layer depends on those below: what is there.
    pub(crate) lower: Option<&'a Lower>,
    limits: &'a Limits,
}

impl<'a> Tree<'a> {
    pub(crate) fn new(root: OwnedFd, form: Form, limits: &'a Limits, implicit: Option<File>) -> Self {
        Self {
            form,
            root,
            slots: Vec::new(),
            places: HashMap::new(),
            clock: 0,
            made: HashSet::new(),
            copied: HashSet::new(),
            hasher: RandomState::new(),
            implicit_time: Time::default(),
            implicit: implicit.map(BufWriter::new),
            lower: None,
            limits,
        }
    }

    /// Returns the open directory at `path`, through symbolic links, and makes what is missing of it.
    pub(crate) fn directory(&mut self, path: &[u8]) -> Result<usize> {
        self.bound()?;
        self.find(path, &mut Walk { make: true, links: 0 })?.context("directory is missing")
    }

    /// Returns the open directory at `path`, through symbolic links, if it is there.
    pub(crate) fn existing_directory(&mut self, path: &[u8]) -> Result<Option<usize>> {
        self.bound()?;
        self.find(path, &mut Walk { make: false, links: 0 })
    }

    /// Keeps paths through symbolic links, of which there may be any number, from filling the memory.
    fn bound(&mut self) -> Result<()> {
        if self.places.len() > PLACES { self.flush() } else { Ok(()) }
    }

    /// Returns an open directory. The place is good until the next call that opens or closes one.
    pub(crate) fn at(&self, place: usize) -> &Directory {
        &self.slots[place]
    }

    fn find(&mut self, path: &[u8], walk: &mut Walk) -> Result<Option<usize>> {
        self.clock += 1;
        // From the nearest directory that is open, upwards by its text: not by recursion, since a path may have
        // thousands of components, and not from the root, since layers list a directory's entries one after another.
        let mut known = path;
        let mut place = loop {
            if let Some(&place) = self.places.get(known) {
                self.slots[place].used = self.clock;
                break place;
            }
            let Some((parent, _)) = split(known) else {
                break self.insert(Vec::new(), openat2(&self.root, c".", DIRECTORY, Mode::empty(), RESOLVE)?)?;
            };
            known = parent;
        };
        while known.len() < path.len() {
            let start = if known.is_empty() { 0 } else { known.len() + 1 };
            let length = path[start..].iter().position(|&byte| byte == b'/').unwrap_or(path.len() - start);
            let Some(child) = self.child(place, &path[start..start + length], walk)? else { return Ok(None) };
            known = &path[..start + length];
            self.places.insert(known.to_vec(), child);
            place = child;
        }
        Ok(Some(place))
    }

    /// Opens a directory's child, which is a directory, a symbolic link to one, or missing.
    fn child(&mut self, parent: usize, name: &[u8], walk: &mut Walk) -> Result<Option<usize>> {
        let real = join(&self.slots[parent].path, name);
        // Reached by another name, a link's for one: two descriptors of one directory would each set its times when
        // closed.
        if let Some(&place) = self.places.get(&real) {
            self.slots[place].used = self.clock;
            return Ok(Some(place));
        }
        ensure!(real.len() <= PATH_LIMIT, "directories nest too deep");
        let name_c = Component::new(name)?;
        let name_c = name_c.as_c_str();
        let directory = self.slots[parent].fd.as_fd();
        match openat2(directory, name_c, DIRECTORY, Mode::empty(), RESOLVE) {
            Ok(fd) => {
                if walk.make {
                    self.mark(parent, name);
                }
                self.insert(real, fd).map(Some)
            }
            Err(Errno::NOENT) => {
                if let Some(target) = self.lower_file(&real)?.map_or(Ok(None), |found| found.link())? {
                    return self.follow(parent, (&real, &target), walk);
                }
                if walk.make { self.make_implicit(parent, name_c, real).map(Some) } else { Ok(None) }
            }
            // openat2(2) with NO_SYMLINKS answers ELOOP for a link, and with O_DIRECTORY ENOTDIR for any other file.
            Err(Errno::LOOP | Errno::NOTDIR) => {
                self.through(parent, name_c, &statat(directory, name_c, AtFlags::SYMLINK_NOFOLLOW)?, walk)
            }
            Err(errno) => Err(errno).with_context(|| format!("open directory {}", Name(&real))),
        }
    }

    /// Goes on where a path's component is no directory.
    fn through(&mut self, parent: usize, name: &CStr, stat: &Stat, walk: &mut Walk) -> Result<Option<usize>> {
        let real = join(&self.slots[parent].path, name.to_bytes());
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            if walk.make {
                self.mark(parent, name.to_bytes());
            }
            let target = readlinkat(&self.slots[parent].fd, name, Vec::new())?;
            return self.follow(parent, (&real, target.as_bytes()), walk);
        }
        if !walk.make {
            return Ok(None);
        }
        let whiteout = is_whiteout(stat);
        let lower = self.form.is_flat() && !self.has_made(parent, name.to_bytes());
        let replaceable = lower || (whiteout && !self.form.is_flat());
        ensure!(replaceable, "{} is not a directory", Name(&real));
        // A lower layer's file, or a whiteout, gives way to the directory that this layer needs in its place.
        unlinkat(&self.slots[parent].fd, name, AtFlags::empty())?;
        let place = self.make_implicit(parent, name, real)?;
        // The whiteout has hidden a lower directory; the one that replaces it must go on hiding it.
        if whiteout && !self.form.is_flat() {
            self.make_opaque(place)?;
        }
        Ok(Some(place))
    }

    /// Returns what the layers below show at a path without symbolic links where this layer has nothing.
    pub(crate) fn lower_file(&self, path: &[u8]) -> Result<Option<LowerFile>> {
        let Some(lower) = self.lower else { return Ok(None) };
        let parent = split(path).map_or(path, |(parent, _)| parent);
        if hides(&self.root, parent, self.form)? { Ok(None) } else { lower.find(path) }
    }

    /// Follows a symbolic link, of this path and target, inside the root, as `RESOLVE_IN_ROOT` does, but makes what is
    /// missing.
    fn follow(&mut self, parent: usize, (link, target): (&[u8], &[u8]), walk: &mut Walk) -> Result<Option<usize>> {
        walk.links += 1;
        ensure!(walk.links <= LINKS, "{}: too many symbolic links in the way", Name(link));
        let mut path = if target.starts_with(b"/") { Vec::new() } else { self.slots[parent].path.clone() };
        for component in target.split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => {}
                // The path so far is without links, so its last name is all that `..` takes back.
                b".." => path = split(&path).map(|(directory, _)| directory.to_vec()).unwrap_or_default(),
                name => {
                    let Some(place) = self.find(&join(&path, name), walk)? else { return Ok(None) };
                    path.clone_from(&self.slots[place].path);
                }
            }
        }
        self.find(&path, walk)
    }

    /// Makes a directory that the layer needs and that no entry has described, or not yet: `parents.rs` puts right
    /// how it looks.
    fn make_implicit(&mut self, parent: usize, name: &CStr, real: Inner) -> Result<usize> {
        mkdirat(&self.slots[parent].fd, name, Mode::from_raw_mode(0o755))
            .with_context(|| format!("make directory {}", Name(&real)))?;
        self.limits.add_entry()?;
        self.mark(parent, name.to_bytes());
        self.note(b'-', &real)?;
        let fd = openat2(&self.slots[parent].fd, name, DIRECTORY, Mode::empty(), RESOLVE)?;
        let place = self.insert(real, fd)?;
        self.set_times(place, &Entry { mtime: self.implicit_time, ..Entry::default() });
        Ok(place)
    }

    /// Notes a directory that no entry describes (`-`), or that one describes after all (`+`).
    pub(crate) fn note(&mut self, sign: u8, path: &[u8]) -> Result<()> {
        let Some(implicit) = &mut self.implicit else { return Ok(()) };
        implicit.write_all(&[&[sign], path, b"\0"].concat()).context("write the list of directories")
    }

    /// Notes a directory with whiteouts; once for many.
    pub(crate) fn note_whiteout(&mut self, place: usize) -> Result<()> {
        if std::mem::replace(&mut self.slots[place].noted, true) {
            return Ok(());
        }
        let path = self.slots[place].path.clone();
        self.note(b'w', &path)
    }

    /// Opens a directory that has just been made or that an entry describes.
    pub(crate) fn open_child(&mut self, parent: usize, name: &CStr) -> Result<usize> {
        let real = join(&self.slots[parent].path, name.to_bytes());
        if let Some(&place) = self.places.get(&real) {
            return Ok(place);
        }
        self.insert(real, openat2(&self.slots[parent].fd, name, DIRECTORY, Mode::empty(), RESOLVE)?)
    }

    fn insert(&mut self, path: Inner, fd: OwnedFd) -> Result<usize> {
        self.clock += 1;
        let stat = fstat(&fd)?;
        let setgid = stat.st_mode & 0o2000 != 0;
        let directory = Directory {
            inherits: setgid || xattr::has_default_acl(&fd),
            inode: stat.st_ino,
            noted: false,
            times: Some(root::times(&stat)),
            used: self.clock,
            path: path.clone(),
            fd: Rc::new(fd),
        };
        let place = if self.slots.len() < OPEN {
            self.slots.push(directory);
            self.slots.len() - 1
        } else {
            let oldest = self.slots.iter().enumerate().min_by_key(|(_, slot)| slot.used).map_or(0, |(place, _)| place);
            // Every name that led to it, links too: the slot is another directory's from here on.
            self.places.retain(|_, place| *place != oldest);
            std::mem::replace(&mut self.slots[oldest], directory).close()?;
            oldest
        };
        self.places.insert(path, place);
        Ok(place)
    }

    /// Sets the times that a directory will have in the end.
    pub(crate) fn set_times(&mut self, place: usize, entry: &Entry) {
        self.slots[place].times = Some(entry.times());
    }

    /// Says what a directory's entry means for those that come into it.
    pub(crate) fn set_inherits(&mut self, place: usize, entry: &Entry) {
        let acl = entry.xattrs.iter().any(|(name, _)| name == xattr::DEFAULT_ACL.to_bytes());
        self.slots[place].inherits = acl || entry.mode & 0o2000 != 0;
    }

    /// Returns a descriptor that stays open, whatever becomes of the directory's place.
    pub(crate) fn fd(&self, place: usize) -> Rc<OwnedFd> {
        Rc::clone(&self.slots[place].fd)
    }

    /// Writes everything out that is still to be done when the layer has come to its end.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.flush()?;
        self.implicit.as_mut().map_or(Ok(()), BufWriter::flush).context("write the list of directories")
    }

    /// Closes all directories: their times get right, and no path leads to one that is about to go.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.places.clear();
        self.slots.drain(..).try_for_each(Directory::close)
    }

    /// Removes what is at `name`, whatever it is. Returns the parent's new place.
    pub(crate) fn remove(&mut self, parent: usize, name: &CStr) -> Result<usize> {
        let path = self.slots[parent].path.clone();
        self.flush()?;
        let parent = self.directory(&path)?;
        root::remove(self.slots[parent].fd.as_fd(), name)
            .with_context(|| format!("remove {}", Name(&join(&path, name.to_bytes()))))?;
        Ok(parent)
    }

    /// Removes a directory's entries that this layer has not made: what an opaque whiteout hides.
    ///
    /// Removing closes all directories, so each name is looked up anew.
    pub(crate) fn purge(&mut self, place: usize) -> Result<()> {
        let path = self.slots[place].path.clone();
        for (name, kind) in root::list(&self.slots[place].fd)? {
            let place = self.directory(&path)?;
            if !self.has_made(place, name.to_bytes()) {
                self.remove(place, &name)?;
            } else if kind == FileType::Directory {
                let child = self.open_child(place, &name)?;
                self.purge(child)?;
            }
        }
        Ok(())
    }

    /// Makes a directory hide those of lower layers. Whiteouts in it have nothing left to hide, and overlayfs would
    /// list them, as it looks for them only where it merges directories.
    pub(crate) fn make_opaque(&mut self, place: usize) -> Result<()> {
        let whiteouts =
            root::list(&self.slots[place].fd)?.into_iter().filter(|(_, kind)| *kind == FileType::CharacterDevice);
        for (name, _) in whiteouts {
            let directory = &self.slots[place].fd;
            if is_whiteout(&statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)?) {
                unlinkat(directory, &name, AtFlags::empty())?;
            }
        }
        xattr::set_opaque(&self.slots[place].fd, self.form)
    }

    /// Remembers that this layer has made `name`, so that its whiteouts spare it.
    pub(crate) fn mark(&mut self, parent: usize, name: &[u8]) {
        if self.form.is_flat() {
            self.made.insert(self.key(parent, name));
        } else if self.lower.is_some() {
            self.copied.remove(&self.key(parent, name));
        }
    }

    /// Remembers that `name` is a lower layer's file, and here only for a link's sake.
    pub(crate) fn mark_copied(&mut self, parent: usize, name: &[u8]) {
        self.copied.insert(self.key(parent, name));
    }

    /// Removes such a file.
    pub(crate) fn remove_copied(&mut self, parent: usize, name: &CStr) -> Result<()> {
        if self.copied.remove(&self.key(parent, name.to_bytes())) {
            unlinkat(&self.slots[parent].fd, name, AtFlags::empty())?;
        }
        Ok(())
    }

    /// Tells whether this layer has made `name`. A hash may lie once in 2^64; its key is random, so nobody can aim.
    pub(crate) fn has_made(&self, parent: usize, name: &[u8]) -> bool {
        self.made.contains(&self.key(parent, name))
    }

    /// The inode stands for the directory, whatever path led to it. If one is given again after a removal, then to a
    /// directory that this layer makes, in which everything is this layer's.
    fn key(&self, parent: usize, name: &[u8]) -> u64 {
        self.hasher.hash_one((self.slots[parent].inode, name))
    }
}

impl Directory {
    /// Returns its path without symbolic links.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Sets the times that entries coming and going have spoilt, as the last thing that happens to the directory.
    fn close(self) -> Result<()> {
        let Some(times) = self.times else { return Ok(()) };
        futimens(&self.fd, &times).with_context(|| format!("set times of {}", Name(&self.path)))
    }
}
