//! What a container has changed of its image, told in the order of the paths, directories before what is in them: out of
//! the upper directory of an overlay, or by comparing a tree with the layers that it was extracted from.

mod compare;
mod upper;

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

use crate::entry;
use crate::form::Form;
use crate::layer::WHITEOUT;
use crate::lower::Lower;
use crate::path::{Inner, join};
use crate::xattr::{self, Object};
use archive::{Entry, EntryKind, Name};

/// Directories that nest deeper are not gone into: each takes a descriptor while it is.
const DEPTH_LIMIT: usize = 400;

/// One difference. Paths are those below the root, which is empty itself.
pub(crate) enum Change {
    /// A file that is new or different, with its content if it is a regular one and no hard link to an earlier one.
    Present { entry: Entry, content: Option<OwnedFd>, added: bool },
    /// A file of the image that is gone.
    Removed(Inner),
    /// What the image has in a directory is gone. Comes behind the new directory's own change.
    Replaced(Inner),
}

/// Where the changes are.
#[derive(Debug)]
pub(crate) enum ChangesPlace {
    /// The upper directory of an overlay.
    Upper(PathBuf),
    /// One whole tree.
    Flat(PathBuf),
}

impl ChangesPlace {
    pub(crate) fn path(&self) -> &Path {
        let (Self::Upper(path) | Self::Flat(path)) = self;
        path
    }
}

/// Takes the changes.
pub(crate) type Sink<'a> = dyn FnMut(Change) -> anyhow::Result<()> + 'a;

/// Tells `sink` all changes. Empty files and directories at the paths in `mount_points` are a runtime's, not the
/// container's.
pub(crate) fn tell(
    place: &ChangesPlace,
    layers: &[PathBuf],
    mount_points: &HashSet<Inner>,
    sink: &mut Sink<'_>,
) -> anyhow::Result<()> {
    let named = || format!("read {}", place.path().display());
    let root = open_root(place.path())?;
    let lower = Lower::open(layers, Form::overlay())?;
    if let Some(top) = layers.last() {
        let entry = root_entry(&root).with_context(named)?;
        // The root has no name that a layer must mention: it counts only where the container has changed it.
        if !looks_alike(&entry, &root_entry(&open_root(top)?)?) {
            sink(Change::Present { entry, content: None, added: false })?;
        }
    }
    let mut report = Report { lower: &lower, mount_points, sink, open: Vec::new(), links: HashMap::new() };
    match place {
        ChangesPlace::Upper(_) => upper::directory(&root, &[], &mut report).with_context(named),
        ChangesPlace::Flat(_) => compare::tell(&root, &mut report).with_context(named),
    }
}

/// A name in a directory, and what is there.
struct Node<'a> {
    directory: BorrowedFd<'a>,
    name: &'a CStr,
    stat: Stat,
}

impl Node<'_> {
    fn is(&self, kind: FileType) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == kind
    }

    /// Describes it; `None` for a socket.
    fn entry(&self, path: Inner) -> anyhow::Result<Option<Entry>> {
        entry::of(self.directory, self.name, path, &self.stat)
    }

    fn inode(&self) -> (u64, u64) {
        (self.stat.st_dev, self.stat.st_ino)
    }
}

/// A directory whose change is told when something in it has changed, or else when it is left.
struct Open {
    entry: Option<Entry>,
    changed: bool,
    added: bool,
    /// Something in it was left out that a runtime has made.
    ///
    /// Then its new time is the runtime's doing, and alone is no change.
    touched: bool,
}

/// The changes on their way to the sink.
struct Report<'a, 's> {
    lower: &'a Lower,
    mount_points: &'a HashSet<Inner>,
    sink: &'a mut Sink<'s>,
    /// The directories down to where we are.
    open: Vec<Open>,
    /// The first path of each file that has several.
    links: HashMap<(u64, u64), Inner>,
}

impl Report<'_, '_> {
    fn enter(&mut self, entry: Entry, changed: bool, added: bool) {
        let touched = added && self.mount_points.contains(&entry.path);
        self.open.push(Open { entry: Some(entry), changed, added, touched });
    }

    /// Tells a directory's change, unless it has none, or only that a runtime has made mount points in it.
    fn leave(&mut self) -> anyhow::Result<()> {
        let Some(Open { entry: Some(entry), changed, added, touched }) = self.open.pop() else { return Ok(()) };
        if touched && self.is_as_below(&entry)? {
            self.touch();
        } else if changed {
            self.tell(Change::Present { entry, content: None, added })?;
        }
        Ok(())
    }

    /// Tells whether a directory is new or looks as in the image but for its time.
    fn is_as_below(&self, entry: &Entry) -> anyhow::Result<bool> {
        let Some(found) = self.lower.find(&entry.path)? else { return Ok(true) };
        Ok(found.entry(entry.path.clone())?.is_some_and(|below| looks_alike(entry, &below)))
    }

    /// Says that a runtime has made something in the present directory.
    fn touch(&mut self) {
        if let Some(open) = self.open.last_mut() {
            open.touched = true;
        }
    }

    /// Tells a change, behind those of the directories that lead to it.
    /// Tells a change, behind those of the directories that lead to it: a layer describes each directory on the way,
    /// or an extraction would make it up (`parents.rs`).
    fn tell(&mut self, change: Change) -> anyhow::Result<()> {
        for open in &mut self.open {
            if let Some(entry) = open.entry.take() {
                (self.sink)(Change::Present { entry, content: None, added: open.added })?;
            }
        }
        (self.sink)(change)
    }

    /// Tells of a changed file that is no directory.
    fn file(&mut self, node: &Node<'_>, mut entry: Entry, added: bool) -> anyhow::Result<()> {
        if added && entry.size == 0 && entry.kind == EntryKind::Regular && self.mount_points.contains(&entry.path) {
            self.touch();
            return Ok(());
        }
        if node.stat.st_nlink > 1 {
            // The same file under a second name: a hard link's entry, whose header says nothing else (image-spec,
            // layer.md, "Hardlinks").
            if let Some(first) = self.links.get(&node.inode()) {
                entry.kind = EntryKind::HardLink;
                entry.link.clone_from(first);
                (entry.size, entry.device) = (0, (0, 0));
                entry.xattrs.clear();
                return self.tell(Change::Present { entry, content: None, added });
            }
            self.links.insert(node.inode(), entry.path.clone());
        }
        let mut content = None;
        if entry.kind == EntryKind::Regular {
            let file = open_regular(node)?;
            entry.size = u64::try_from(fstat(&file)?.st_size).unwrap_or_default();
            content = Some(file);
        }
        self.tell(Change::Present { entry, content, added })
    }
}

fn open_root(path: &Path) -> anyhow::Result<OwnedFd> {
    Ok(File::open(path).with_context(|| format!("open {}", path.display()))?.into())
}

fn root_entry(root: &OwnedFd) -> anyhow::Result<Entry> {
    let mut entry = entry::of(root.as_fd(), c".", Inner::new(), &fstat(root)?)?.context("a socket")?;
    ensure!(entry.kind == EntryKind::Directory, "not a directory");
    entry.xattrs = xattr::all(&Object::Open(root.as_fd()))?;
    Ok(entry)
}

/// Tells whether two files are the same but for their times and their content.
fn looks_alike(one: &Entry, other: &Entry) -> bool {
    let looks = |it: &Entry| (it.kind, it.mode, it.uid, it.gid, it.device);
    looks(one) == looks(other) && one.link == other.link && one.xattrs == other.xattrs
}

/// Returns the names in a directory in their order, each with its path. A name that means something else in a layer is
/// an error: it would be gone, and take a file of the image with it.
fn children(directory: &OwnedFd, path: &[u8]) -> anyhow::Result<Vec<(CString, Inner)>> {
    let mut names: Vec<CString> = match root::list(directory) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        listed => listed?.into_iter().map(|(name, _)| name).collect(),
    };
    names.sort_unstable();
    let depth = path.split(|&byte| byte == b'/').count();
    ensure!(depth < DEPTH_LIMIT || names.is_empty(), "{}: directories nest deeper than {DEPTH_LIMIT}", Name(path));
    let child = |name: CString| {
        let path = join(path, name.to_bytes());
        ensure!(!name.to_bytes().starts_with(WHITEOUT), "{}: no layer can hold a file of that name", Name(&path));
        Ok((name, path))
    };
    names.into_iter().map(child).collect()
}

/// Where in the tree something is wrong: said once, however deep it is.
#[derive(Debug)]
struct At(String);

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names the place in an error, which is none where the container, which may still run, has removed the file while it was
/// read.
fn unless_vanished(told: anyhow::Result<()>, path: &[u8]) -> anyhow::Result<()> {
    match told {
        Err(error) if error.downcast_ref() == Some(&Errno::NOENT) => Ok(()),
        Err(error) if !error.is::<At>() => Err(error.context(At(Name(path).to_string()))),
        told => told,
    }
}

/// Looks at what a name stands for, if it is there.
fn look<'a>(directory: &'a OwnedFd, name: &'a CStr) -> anyhow::Result<Option<Node<'a>>> {
    let stat = sys::file::there(statat(directory, name, AtFlags::SYMLINK_NOFOLLOW))?;
    Ok(stat.map(|stat| Node { directory: directory.as_fd(), name, stat }))
}

/// Opens a regular file for reading. The container may still run: what has taken the file's place meanwhile, such as a
/// FIFO or a device, is looked at before it is opened.
fn open_regular(node: &Node<'_>) -> anyhow::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = openat(node.directory, node.name, flags, Mode::empty())?;
    let kind = FileType::from_raw_mode(fstat(&handle)?.st_mode);
    ensure!(kind == FileType::RegularFile, "replaced while it was read");
    entry::reopen(&handle)
}
