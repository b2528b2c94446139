//! Layers that may not be on the disk as a whole yet. An empty file in their store, `unwritten/BOOT.KIND.NAME.TIME`, says in
//! which boot the layer `KIND/NAME` was made, until the disk has it. After a power cut a file's content may be missing, so its
//! name says everything. A journal keeps names in order, so the mark is on disk before the layer's name.

use std::fs::{self, DirEntry, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

/// A layer with a mark.
#[derive(Debug)]
pub struct Unwritten {
    /// The layer's directory, which may be gone.
    pub layer: PathBuf,
    /// The file that says so.
    pub mark: PathBuf,
    /// Whether the machine has been running since. If not, the layer may be wrong.
    pub is_of_this_boot: bool,
    /// Whether the disk has refused it, so that its mark stays.
    pub has_failed: bool,
}

impl Unwritten {
    /// The directory of the marks, in a store of layers.
    pub const DIRECTORY: &str = "unwritten";

    /// Makes the mark of a layer that is about to get this name in the store. No other has its name, so who has listed the
    /// marks takes off those only.
    ///
    /// # Errors
    /// Those of making a file; `InvalidInput` for a path that is not two names below the store.
    pub fn make(store: &Path, layer: &Path) -> io::Result<()> {
        let name = layer.strip_prefix(store).ok().and_then(Path::to_str).ok_or(ErrorKind::InvalidInput)?;
        let time = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let mark = format!("{}.{}.{time}", boot()?, name.replace('/', "."));
        let path = store.join(Self::DIRECTORY).join(mark);
        File::options().write(true).create_new(true).mode(0o600).open(path).map(drop)
    }

    /// Takes the mark off, since the disk has the layer, or notes that it has refused it.
    ///
    /// # Errors
    /// Those of removing or renaming a file. That another was as quick is none.
    pub fn end(&self, has_failed: bool) -> io::Result<()> {
        let (mark, failed) = (&self.mark, self.mark.with_extension(FAILED));
        sys::file::there(if has_failed { fs::rename(mark, failed) } else { fs::remove_file(mark) }).map(drop)
    }

    /// Returns the layers of a store that have a mark.
    ///
    /// # Errors
    /// Those of reading a directory that is there.
    pub fn of_store(store: &Path) -> io::Result<Vec<Self>> {
        let entries = sys::file::there(fs::read_dir(store.join(Self::DIRECTORY)))?;
        let entries: Vec<DirEntry> = entries.into_iter().flatten().collect::<io::Result<_>>()?;
        let boot = if entries.is_empty() { "" } else { boot()? };
        let layer = |entry: &DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let [made_in, kind, name, time] = *name.split('.').collect::<Vec<_>>() else { return None };
            let layer = store.join(kind).join(name);
            Some(Self { layer, mark: entry.path(), is_of_this_boot: made_in == boot, has_failed: time == FAILED })
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
        let wrong = marked.iter().find(|mark| !mark.is_of_this_boot && layers.contains(&mark.layer));
        let cause = "the machine stopped before it was on the disk: unpack its image again";
        let refuse =
            |layer: &Path| io::Error::new(ErrorKind::InvalidData, format!("layer {}: {cause}", layer.display()));
        wrong.map_or(Ok(()), |wrong| Err(refuse(&wrong.layer)))
    }
}

/// Stands for the time in the mark of a layer that the disk has refused.
const FAILED: &str = "failed";

/// Returns the id of this boot, a UUID: `boot_id` in random(4). It is read once, since a process that has given up files may
/// not be able to open it later: Landlock knows directories by their inodes, and the kernel makes those of /proc anew when it
/// has dropped them.
///
/// # Errors
/// Those of reading a file in /proc.
pub fn boot() -> io::Result<&'static str> {
    static BOOT: OnceLock<String> = OnceLock::new();
    if let Some(boot) = BOOT.get() {
        return Ok(boot);
    }
    let read = sys::file::read("/proc/sys/kernel/random/boot_id")?;
    Ok(BOOT.get_or_init(|| read.trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_names_a_layer_and_the_boot() {
        let store = tempfile::tempdir().unwrap();
        let path = |name: &str| store.path().join(name);
        fs::create_dir(path(Unwritten::DIRECTORY)).unwrap();
        Unwritten::make(store.path(), &path("sha256/ab")).unwrap();
        for name in ["old.sha256.cd.1", "old", "old..etc", "old.sha256.", "old.a.b.c.1"] {
            File::create(path("unwritten").join(name)).unwrap();
        }
        let listed = || {
            let mut found = Unwritten::of_store(store.path()).unwrap();
            found.sort_by(|a, b| a.layer.cmp(&b.layer));
            found
        };
        let shown = || {
            let found = listed().into_iter();
            found.map(|mark| (mark.layer, mark.is_of_this_boot, mark.has_failed)).collect::<Vec<_>>()
        };
        assert_eq!(shown(), [(path("sha256/ab"), true, false), (path("sha256/cd"), false, false)]);
        Unwritten::check(&[path("sha256/ab")]).unwrap();
        let refused = Unwritten::check(&[path("sha256/cd"), path("sha256/ab")]).unwrap_err().to_string();
        assert!(refused.contains("sha256/cd: the machine stopped"), "{refused}");
        Unwritten::check(&["/".into(), "".into()]).unwrap();
        assert!(Unwritten::make(store.path(), Path::new("/etc/passwd")).is_err());
        listed()[0].end(true).unwrap();
        assert_eq!(shown()[0], (path("sha256/ab"), true, true));
        for mark in listed() {
            mark.end(false).unwrap();
            mark.end(false).unwrap();
        }
        assert_eq!(shown(), []);
    }
}
