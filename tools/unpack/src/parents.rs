//! Directories that a layer needs but does not describe, such as `/tmp` of a layer with only `/tmp/file`. Overlayfs
//! shows the topmost layer's directory, so a made-up one would hide the mode, owner and time that a lower layer gives.
//! Where that is so, one more layer on top has the right ones and nothing else.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{Gid, Mode, Stat, Uid, fchmod, fchown, fstat, futimens, mkdirat};
use rustix::io::Errno;

use crate::form::{Form, list_path};
use crate::lower::Lower;
use crate::overlay::{absent_or, open_below};
use crate::path::{Inner, split};
use crate::xattr::{self, Object};
use archive::Name;

/// A list of undescribed directories longer than this is not looked at: no memory for what no builder makes. Bytes.
const LIST_LIMIT: u64 = 4 << 20;
/// So many directories of a layer are remembered.
const KNOWN: usize = 4096;

struct Layer {
    path: PathBuf,
    root: OwnedFd,
    notes: Notes,
    /// What is known of directories that hide those of lower layers, or do not.
    hiding: RefCell<HashMap<Inner, bool>>,
}

/// What was noted when a layer was extracted.
#[derive(Default)]
struct Notes {
    /// Directories that no entry describes.
    implicit: HashSet<Inner>,
    /// Directories that were needed before an entry described them, if one did.
    ///
    /// `implicit` loses those that are described after all; whether a link was in the way is asked of both.
    made_up: HashSet<Inner>,
    /// Directories with whiteouts.
    whiteouts: HashSet<Inner>,
    /// Directories that are opaque and yet the lower layers' ones.
    emptied: HashSet<Inner>,
    /// It has a hard link to a file of a lower layer, or more notes than are read.
    dependent: bool,
}

/// Tells whether a layer must be extracted with those below at hand.
pub(crate) fn is_dependent(layer: &Path, lower: &Lower) -> anyhow::Result<bool> {
    let notes = read_list(layer)?;
    if notes.dependent {
        return Ok(true);
    }
    for path in &notes.made_up {
        // Where a lower layer has a symbolic link, a merged extraction goes through it; here a directory was made up
        // that would hide the link. So the layer is extracted again with that one in sight.
        if let Some(found) = lower.find(path)? {
            if found.link()?.is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The layers of one image, as they are stacked.
pub(crate) struct Stack {
    layers: Vec<Layer>,
    form: Form,
}

impl Stack {
    /// Opens the layers, the lowest first.
    pub(crate) fn open(paths: &[PathBuf], form: Form) -> anyhow::Result<Self> {
        let open = |path: &PathBuf| -> anyhow::Result<Layer> {
            let root = File::open(path).with_context(|| format!("open {}", path.display()))?;
            Ok(Layer { path: path.clone(), root: root.into(), notes: read_list(path)?, hiding: RefCell::default() })
        };
        Ok(Self { layers: paths.iter().map(open).collect::<anyhow::Result<_>>()?, form })
    }

    /// Returns the directories that the top layer must describe, each with the number of the layer that it is to be like.
    pub(crate) fn wanted(&self) -> anyhow::Result<BTreeMap<Inner, usize>> {
        let mut wanted = BTreeMap::new();
        // Only these can be wrong: a directory that an entry describes is right by itself, and hides the rest.
        let implicit: HashSet<&Inner> = self.layers.iter().flat_map(|layer| &layer.notes.implicit).collect();
        for path in implicit {
            let Some((top, source)) = self.find(path)? else { continue };
            if top == source || same(&self.layers[top].open(path)?, &self.layers[source].open(path)?, path.is_empty())?
            {
                continue;
            }
            self.want(path, &mut wanted)?;
        }
        for (number, layer) in self.layers.iter().enumerate() {
            for path in &layer.notes.whiteouts {
                if self.is_alone(number, path).with_context(|| format!("look into {}", layer.path.display()))? {
                    self.want(path, &mut wanted)?;
                }
            }
        }
        Ok(wanted)
    }

    fn want(&self, path: &[u8], wanted: &mut BTreeMap<Inner, usize>) -> anyhow::Result<()> {
        let mut rest = Some(path);
        // Whose parents are there, too, if it is.
        while let Some(directory) = rest.filter(|directory| !wanted.contains_key(*directory)) {
            if let Some((_, source)) = self.find(directory)? {
                wanted.insert(directory.to_vec(), source);
            }
            rest = split(directory).map(|(parent, _)| parent);
        }
        Ok(())
    }

    /// Tells whether a directory is seen and no other layer's is merged with it. Overlayfs looks for whiteouts only
    /// where it merges, and lists them elsewhere; so the top layer has such a directory, too.
    fn is_alone(&self, number: usize, path: &[u8]) -> rustix::io::Result<bool> {
        let Some(directory) = absent_or(self.layers[number].open(path))? else { return Ok(false) };
        if xattr::is_opaque(directory, self.form)? {
            // It has none: see `Tree::make_opaque`.
            return Ok(false);
        }
        let (lower, upper) = (&self.layers[..number], &self.layers[number + 1..]);
        for layer in upper {
            match layer.open(path) {
                Err(Errno::NOENT) if !layer.hides(path, self.form)? => {}
                // There, hidden, or with another file in the way.
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
        if self.layers[number].hides(path, self.form)? {
            return Ok(true);
        }
        for layer in lower.iter().rev() {
            match layer.open(path) {
                Ok(_) => return Ok(false),
                Err(Errno::NOENT) if !layer.hides(path, self.form)? => {}
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(true)
    }

    /// Finds the layer whose directory overlayfs shows at `path`, and the topmost one where an entry describes it.
    fn find(&self, path: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
        let mut top = None;
        for (number, layer) in self.layers.iter().enumerate().rev() {
            match layer.open(path) {
                Ok(_) if !layer.notes.implicit.contains(path) => return Ok(Some((top.unwrap_or(number), number))),
                Ok(_) => top = top.or(Some(number)),
                Err(Errno::NOENT) => {}
                // A whiteout or another file in the way hides what is below.
                Err(Errno::NOTDIR | Errno::LOOP) => break,
                Err(errno) => return Err(errno).with_context(|| format!("look into {}", layer.path.display())),
            }
            let parent = split(path).map(|(parent, _)| parent).filter(|_| layer.notes.emptied.contains(path));
            if layer.hides(parent.unwrap_or(path), self.form)? {
                break;
            }
        }
        Ok(top.map(|top| (top, top)))
    }

    /// Makes the top layer below `root`.
    pub(crate) fn make(&self, root: &File, wanted: &BTreeMap<Inner, usize>) -> anyhow::Result<()> {
        // In the map's order a directory comes before what is in it.
        for (path, &source) in wanted {
            let describe = || -> anyhow::Result<()> {
                if !path.is_empty() {
                    mkdirat(root, path.as_slice(), Mode::RWXU)?;
                }
                let (fd, like) = (open_below(root, path)?, self.layers[source].open(path)?);
                let stat = fstat(&like)?;
                // Owner, then mode, then attributes, as in `node.rs`; times in a pass of their own below, from the
                // leaves upwards, because making a directory changes the time of the one that it is in.
                fchown(&fd, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
                fchmod(&fd, Mode::from_raw_mode(stat.st_mode))?;
                xattr::clear(fd.as_fd())?;
                xattr::set_all(&Object::Open(fd.as_fd()), &xattr::all(&Object::Open(like.as_fd()))?)
            };
            describe().with_context(|| format!("make directory {}", Name(path)))?;
        }
        for (path, &source) in wanted.iter().rev() {
            futimens(open_below(root, path)?, &root::times(&fstat(self.layers[source].open(path)?)?))?;
        }
        Ok(())
    }
}

impl Layer {
    fn open(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        open_below(&self.root, path)
    }

    /// Tells whether the directory or one on the way to it is opaque. Each is looked at once, as paths may be deep.
    fn hides(&self, path: &[u8], form: Form) -> rustix::io::Result<bool> {
        let mut hiding = self.hiding.borrow_mut();
        if hiding.len() > KNOWN {
            hiding.clear();
        }
        let (mut known, mut below) = (path, Vec::new());
        let mut hides = loop {
            if let Some(&hides) = hiding.get(known) {
                break hides;
            }
            below.push(known);
            let Some((parent, _)) = split(known) else { break false };
            known = parent;
        };
        for directory in below.into_iter().rev() {
            hides = hides
                || match absent_or(self.open(directory))? {
                    Some(directory) => xattr::is_opaque(directory, form)?,
                    None => false,
                };
            hiding.insert(directory.to_vec(), hides);
        }
        Ok(hides)
    }
}

fn read_list(layer: &Path) -> anyhow::Result<Notes> {
    let path = list_path(layer);
    let failed = || format!("read {}", path.display());
    let Some(there) = sys::file::there(fs::metadata(&path)).with_context(failed)? else { return Ok(Notes::default()) };
    if there.len() > LIST_LIMIT {
        log::warn!("{}: too long, attributes of directories may be wrong", path.display());
        return Ok(Notes { dependent: true, ..Notes::default() });
    }
    let list = fs::read(&path).with_context(failed)?;
    let mut notes = Notes::default();
    for item in list.strip_suffix(b"\0").unwrap_or_default().split(|&byte| byte == 0) {
        match item {
            [b'+', path @ ..] => drop(notes.implicit.remove(path)),
            [b'w', path @ ..] => drop(notes.whiteouts.insert(path.to_vec())),
            [b'o', path @ ..] => drop(notes.emptied.insert(path.to_vec())),
            [b'h', ..] => notes.dependent = true,
            [_, path @ ..] => {
                notes.implicit.insert(path.to_vec());
                notes.made_up.insert(path.to_vec());
            }
            [] => {}
        }
    }
    Ok(notes)
}

/// Tells whether two directories look the same. The root's time is nobody's concern: a container's own layer is above.
fn same(one: &OwnedFd, other: &OwnedFd, root: bool) -> anyhow::Result<bool> {
    let (one_stat, other_stat) = (fstat(one)?, fstat(other)?);
    let looks = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid);
    let time = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
    Ok(looks(&one_stat) == looks(&other_stat)
        && (root || time(&one_stat) == time(&other_stat))
        && xattr::all(&Object::Open(one.as_fd()))? == xattr::all(&Object::Open(other.as_fd()))?)
}
