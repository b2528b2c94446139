//! Layers that may not be on the disk as a whole yet: an empty file in their store, `unwritten/BOOT.KIND.NAME`, says in
//! which boot the layer `KIND/NAME` was made, until the disk has it. The name says all, since of a file that the power was
//! taken from the content may be missing; a file system whose journal keeps the order of names has it before the layer's.

use std::fs::{DirEntry, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// A layer with a mark.
#[derive(Debug)]
pub struct Unwritten {
    /// The layer's directory, which may be gone.
    pub layer: PathBuf,
    /// The file that says so.
    pub mark: PathBuf,
    /// Whether the machine has been running since. If not, the layer may be wrong.
    pub is_of_this_boot: bool,
}

impl Unwritten {
    /// The directory of the marks, in a store of layers.
    pub const DIRECTORY: &str = "unwritten";

    /// Makes the mark of a layer that is about to get this name in the store.
    ///
    /// # Errors
    /// Those of making a file; `InvalidInput` for a path that is not two names below the store.
    pub fn make(store: &Path, layer: &Path) -> io::Result<()> {
        let name = layer.strip_prefix(store).ok().and_then(Path::to_str).ok_or(ErrorKind::InvalidInput)?;
        let mark = format!("{}.{}", boot()?, name.replace('/', "."));
        File::create(store.join(Self::DIRECTORY).join(mark)).map(drop)
    }

    /// Returns the layers of a store that have a mark.
    ///
    /// # Errors
    /// Those of reading a directory that is there.
    pub fn of_store(store: &Path) -> io::Result<Vec<Self>> {
        let entries = sys::file::entries(store.join(Self::DIRECTORY))?;
        let boot = if entries.is_empty() { String::new() } else { boot()? };
        let layer = |entry: &DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            // Other names are not ours, and would lead elsewhere: a layer in doubt is removed.
            let [made_in, kind, name] = *name.split('.').filter(|part| !part.is_empty()).collect::<Vec<_>>() else {
                return None;
            };
            let layer = store.join(kind).join(name);
            Some(Self { layer, mark: entry.path(), is_of_this_boot: made_in == boot })
        };
        Ok(entries.iter().filter_map(layer).collect())
    }

    /// Refuses layers that may be wrong.
    ///
    /// # Errors
    /// Those of [`Unwritten::of_store`]; `InvalidData`, which names the layer.
    pub fn check(layers: &[PathBuf]) -> io::Result<()> {
        // They are all of one store.
        let Some(store) = layers.last().and_then(|layer| layer.parent()?.parent()) else { return Ok(()) };
        let marked = Self::of_store(store)?;
        let Some(wrong) = marked.iter().find(|mark| !mark.is_of_this_boot && layers.contains(&mark.layer)) else {
            return Ok(());
        };
        let cause = "the machine stopped before it was on the disk: unpack its image again";
        Err(io::Error::new(ErrorKind::InvalidData, format!("layer {}: {cause}", wrong.layer.display())))
    }
}

/// Returns the id of this boot (random(4)).
fn boot() -> io::Result<String> {
    Ok(sys::file::read_once("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_names_a_layer_of_its_store_and_nothing_else() {
        let store = tempfile::tempdir().unwrap();
        let path = |name: &str| store.path().join(name);
        std::fs::create_dir(path(Unwritten::DIRECTORY)).unwrap();
        Unwritten::make(store.path(), &path("sha256/ab")).unwrap();
        for name in ["old.sha256.cd", "old", "old..", "old..etc", "old.sha256.", "old.sha256...", "old.a.b.c"] {
            File::create(path("unwritten").join(name)).unwrap();
        }
        let mut found = Unwritten::of_store(store.path()).unwrap();
        found.sort_by(|a, b| a.layer.cmp(&b.layer));
        let found: Vec<_> = found.iter().map(|mark| (mark.layer.clone(), mark.is_of_this_boot)).collect();
        assert_eq!(found, [(path("sha256/ab"), true), (path("sha256/cd"), false)]);
        Unwritten::check(&[path("sha256/ab")]).unwrap();
        let refused = Unwritten::check(&[path("sha256/cd"), path("sha256/ab")]).unwrap_err().to_string();
        assert!(refused.contains("sha256/cd: the machine stopped"), "{refused}");
        Unwritten::check(&["/".into(), "".into()]).unwrap();
        assert!(Unwritten::make(store.path(), Path::new("/etc/passwd")).is_err());
    }
}
