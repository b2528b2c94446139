//! Directories that a layer needs but does not describe, such as `/tmp` of a layer with only `/tmp/file`. Overlayfs
//! shows the topmost layer's directory, so a made-up one would hide the mode, owner and time that a lower layer gives.
//! Where that is so, one more layer on top has the right ones and nothing else.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, fstat, futimens, mkdirat, openat2};
use rustix::io::Errno;

use crate::form::Form;
use crate::path::{Inner, split};
use crate::tar::Name;
use crate::tree::{RESOLVE, times_of};
use crate::xattr;

/// A list of undescribed directories longer than this is not looked at: no memory for what no builder makes. Bytes.
const LIST_LIMIT: u64 = 4 << 20;

/// Returns where the list of a layer's undescribed directories is: paths with a NUL behind each; a `+` before one means
/// that an entry described it later. The root's path is empty.
pub(crate) fn list_path(layer: &Path) -> PathBuf {
    let mut path = layer.as_os_str().to_owned();
    path.push(".implicit");
    path.into()
}

struct Layer {
    path: PathBuf,
    root: OwnedFd,
    implicit: HashSet<Inner>,
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
            Ok(Layer { path: path.clone(), root: root.into(), implicit: read_list(path)? })
        };
        Ok(Self { layers: paths.iter().map(open).collect::<anyhow::Result<_>>()?, form })
    }

    /// Returns the directories that the top layer must describe, each with the number of the layer that it is to be like.
    pub(crate) fn wanted(&self) -> anyhow::Result<BTreeMap<Inner, usize>> {
        let mut wanted = BTreeMap::new();
        let implicit: HashSet<&Inner> = self.layers.iter().flat_map(|layer| &layer.implicit).collect();
        for path in implicit {
            let Some((top, source)) = self.find(path)? else { continue };
            if top == source || same(&self.layers[top].open(path)?, &self.layers[source].open(path)?, path.is_empty())?
            {
                continue;
            }
            wanted.insert(path.clone(), source);
            let mut rest = path.as_slice();
            while let Some((directory, _)) = split(rest) {
                rest = directory;
                if let Some((_, source)) = self.find(directory)? {
                    wanted.insert(directory.to_vec(), source);
                }
            }
        }
        Ok(wanted)
    }

    /// Finds the layer whose directory overlayfs shows at `path`, and the topmost one where an entry describes it.
    fn find(&self, path: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
        let mut top = None;
        for (number, layer) in self.layers.iter().enumerate().rev() {
            match layer.open(path) {
                Ok(_) if !layer.implicit.contains(path) => return Ok(Some((top.unwrap_or(number), number))),
                Ok(_) => top = top.or(Some(number)),
                Err(Errno::NOENT) => {}
                // A whiteout or another file in the way hides what is below.
                Err(Errno::NOTDIR | Errno::LOOP) => break,
                Err(errno) => return Err(errno).with_context(|| format!("look into {}", layer.path.display())),
            }
            if layer.hides(path, self.form) {
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
                fchown(&fd, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
                fchmod(&fd, Mode::from_raw_mode(stat.st_mode))?;
                xattr::clear(fd.as_fd())?;
                xattr::set_all(&xattr::Object::Open(fd.as_fd()), &xattr::all(like.as_fd())?)
            };
            describe().with_context(|| format!("make directory {}", Name(path)))?;
        }
        for (path, &source) in wanted.iter().rev() {
            futimens(open_below(root, path)?, &times_of(&fstat(self.layers[source].open(path)?)?))?;
        }
        Ok(())
    }
}

fn open_below(root: impl AsFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = if path.is_empty() { b"." } else { path };
    openat2(root, path, flags, Mode::empty(), RESOLVE)
}

impl Layer {
    fn open(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        open_below(&self.root, path)
    }

    /// Tells whether the path or a directory on the way to it is opaque.
    fn hides(&self, path: &[u8], form: Form) -> bool {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(place, _)| place);
        slashes
            .chain([path.len()])
            .map_while(|end| self.open(&path[..end]).ok())
            .any(|directory| xattr::is_opaque(directory, form))
    }
}

fn read_list(layer: &Path) -> anyhow::Result<HashSet<Inner>> {
    let path = list_path(layer);
    let list = match fs::metadata(&path) {
        Ok(there) if there.len() > LIST_LIMIT => {
            log::warn!("{}: too long, attributes of directories may be wrong", path.display());
            return Ok(HashSet::new());
        }
        Ok(_) => fs::read(&path).with_context(|| format!("read {}", path.display()))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let mut implicit = HashSet::new();
    for item in list.strip_suffix(b"\0").unwrap_or_default().split(|&byte| byte == 0) {
        match item {
            [b'+', path @ ..] => implicit.remove(path),
            [_, path @ ..] => implicit.insert(path.to_vec()),
            [] => false,
        };
    }
    Ok(implicit)
}

/// Tells whether two directories look the same. The root's time is nobody's concern: a container's own layer is above.
fn same(one: &OwnedFd, other: &OwnedFd, root: bool) -> anyhow::Result<bool> {
    let (one_stat, other_stat) = (fstat(one)?, fstat(other)?);
    let looks = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid);
    let time = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
    Ok(looks(&one_stat) == looks(&other_stat)
        && (root || time(&one_stat) == time(&other_stat))
        && xattr::all(one.as_fd())? == xattr::all(other.as_fd())?)
}
