//! Two root file systems compared entry by entry: type, mode, owner, time, device, target, content, extended attributes
//! and which names are one file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What an entry is, but for a file's bytes.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    device: u64,
    size: u64,
    target: Option<PathBuf>,
    xattrs: BTreeMap<OsString, Vec<u8>>,
    /// The first name of the same file.
    same_as: Option<PathBuf>,
}

/// Returns the differences between two trees, one line each; equal trees give none. `times_of_directories` says whether
/// those count: extractors differ in them where a layer does not name a directory that it changes.
pub(crate) fn differences(a: &Path, b: &Path, times_of_directories: bool) -> Vec<String> {
    let (left, right) = (scan(a), scan(b));
    let mut found = Vec::new();
    let names: std::collections::BTreeSet<&PathBuf> = left.keys().chain(right.keys()).collect();
    for name in names {
        let shown = name.display();
        match (left.get(name), right.get(name)) {
            (Some(_), None) => found.push(format!("{shown}: only in {}", a.display())),
            (None, _) => found.push(format!("{shown}: only in {}", b.display())),
            (Some(one), Some(other)) => {
                if let Some(text) = compare(one, other, times_of_directories) {
                    found.push(format!("{shown}: {text}"));
                } else if one.kind == "file" && !same_bytes(&a.join(name), &b.join(name)) {
                    found.push(format!("{shown}: content differs"));
                }
            }
        }
    }
    found
}

fn compare(one: &Entry, other: &Entry, times_of_directories: bool) -> Option<String> {
    // overlayfs's whiteouts (0/0) are no entries of a layer, and have no time of its.
    let whiteout = one.kind == "character device" && one.device == 0;
    let timeless = whiteout || (one.kind == "directory" && !times_of_directories);
    let equal = one.kind == other.kind
        && one.mode == other.mode
        && one.owner == other.owner
        && (timeless || one.modified == other.modified)
        && (one.device, one.size) == (other.device, other.size)
        && (&one.target, &one.xattrs, &one.same_as) == (&other.target, &other.xattrs, &other.same_as);
    (!equal).then(|| format!("{one:?} against {other:?}"))
}

fn scan(root: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut entries = BTreeMap::new();
    let mut files: BTreeMap<(u64, u64), Vec<PathBuf>> = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(directory) = pending.pop() {
        let listing = fs::read_dir(root.join(&directory)).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
        for name in listing.map(|entry| entry.expect("an entry").file_name()) {
            let path = directory.join(name);
            let metadata = fs::symlink_metadata(root.join(&path)).expect("an entry that was listed");
            if metadata.is_dir() {
                pending.push(path.clone());
            } else if metadata.nlink() > 1 {
                files.entry((metadata.dev(), metadata.ino())).or_default().push(path.clone());
            }
            entries.insert(path.clone(), entry(&root.join(&path), &metadata));
        }
    }
    // A name that another layer hides is not a name of the tree.
    for mut names in files.into_values().filter(|names| names.len() > 1) {
        names.sort();
        for name in &names {
            entries.get_mut(name).expect("it was just inserted").same_as = Some(names[0].clone());
        }
    }
    entries
}

fn entry(path: &Path, metadata: &fs::Metadata) -> Entry {
    let kind = metadata.file_type();
    let kind = match () {
        () if kind.is_dir() => "directory",
        () if kind.is_file() => "file",
        () if kind.is_symlink() => "symlink",
        () if kind.is_fifo() => "fifo",
        () if kind.is_char_device() => "character device",
        () if kind.is_block_device() => "block device",
        () => "socket",
    };
    Entry {
        kind,
        mode: metadata.mode() & 0o7777,
        owner: (metadata.uid(), metadata.gid()),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        device: if kind.ends_with("device") { metadata.rdev() } else { 0 },
        size: if kind == "file" { metadata.size() } else { 0 },
        target: (kind == "symlink").then(|| fs::read_link(path).expect("a symlink's target")),
        xattrs: xattrs(path),
        same_as: None,
    }
}

/// Reads all extended attributes but overlayfs's own and the security module's, which are the machine's.
fn xattrs(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let mut names = vec![0_u8; 64 << 10];
    let Ok(length) = rustix::fs::llistxattr(path, &mut names) else { return BTreeMap::new() };
    names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && !name.starts_with(b"trusted.overlay.") && *name != b"security.selinux")
        .map(|name| {
            let name = OsString::from_vec(name.to_vec());
            let mut value = vec![0_u8; 64 << 10];
            let length = rustix::fs::lgetxattr(path, name.as_bytes(), &mut value).expect("an attribute's value");
            value.truncate(length);
            (name, value)
        })
        .collect()
}

fn same_bytes(a: &Path, b: &Path) -> bool {
    let read = |path: &Path| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        fs::File::open(path)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    matches!((read(a), read(b)), (Ok(a), Ok(b)) if a == b)
}
