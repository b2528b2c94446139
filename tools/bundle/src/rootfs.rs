//! The container's root file system as we look at it: every path of the image is resolved inside it, never by joining
//! strings.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::user::Accounts;

/// No account file is this long. Bytes.
const ACCOUNTS_LIMIT: u64 = 16 << 20;

/// A directory that stands for the container's root.
#[derive(Debug)]
pub(crate) enum Root {
    /// The whole: a mount or a flat root file system.
    Whole(OwnedFd),
    /// Layers that are not mounted, the lowest first: good for looking up a file, not for links from layer to layer.
    Layers(Vec<PathBuf>),
    /// Nothing is unpacked yet.
    Absent,
}

impl Root {
    /// Reads the image's accounts. A file that is not there is an empty one.
    pub(crate) fn accounts(&self) -> Result<Accounts> {
        ensure!(!matches!(self, Self::Absent), "the image's users are in its layers: run `unpack` first");
        let read = |path: &str| self.read(path).with_context(|| format!("read the image's /{path}"));
        Ok(Accounts::parse(&read("etc/passwd")?, &read("etc/group")?))
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let file = match self {
            Self::Whole(root) => open(root, path, OFlags::RDONLY)?,
            Self::Layers(layers) => open_in_layers(layers, path)?,
            Self::Absent => None,
        };
        let Some(file) = file else { return Ok(Vec::new()) };
        let file = File::from(file);
        ensure!(file.metadata()?.is_file(), "not a regular file");
        let mut text = Vec::new();
        let count = file.take(ACCOUNTS_LIMIT + 1).read_to_end(&mut text)?;
        ensure!(count as u64 <= ACCOUNTS_LIMIT, "larger than {ACCOUNTS_LIMIT} bytes");
        Ok(text)
    }

    /// Opens a directory of the image, where there is one.
    pub(crate) fn directory(&self, path: &str) -> io::Result<Option<OwnedFd>> {
        match self {
            Self::Whole(root) => {
                let opened = open(root, path.trim_start_matches('/'), OFlags::RDONLY | OFlags::DIRECTORY);
                Ok(sys::unless(&[Errno::NOTDIR], opened)?.flatten())
            }
            Self::Layers(_) | Self::Absent => Ok(None),
        }
    }
}

/// Opens a path inside `root`; `None` where nothing is.
fn open(root: impl AsFd, path: &str, flags: OFlags) -> io::Result<Option<OwnedFd>> {
    // The image may have a FIFO there, which would not open without a writer, or a terminal, which would become ours.
    let careful = if flags.contains(OFlags::PATH) { OFlags::empty() } else { OFlags::NONBLOCK | OFlags::NOCTTY };
    sys::file::there(root::open_with(root.as_fd(), Path::new(path), flags | careful, ResolveFlags::empty()))
}

fn open_in_layers(layers: &[PathBuf], path: &str) -> Result<Option<OwnedFd>> {
    for layer in layers.iter().rev() {
        let root = open_directory(layer)?;
        match open(&root, path, OFlags::PATH | OFlags::NOFOLLOW)? {
            None => {}
            Some(found) => {
                // A whiteout: removed in this layer.
                let whiteout = File::from(found).metadata()?.file_type().is_char_device();
                return if whiteout { Ok(None) } else { Ok(open(&root, path, OFlags::RDONLY)?) };
            }
        }
    }
    Ok(None)
}

/// Opens a directory of ours.
pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).with_context(|| format!("open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_of_the_image_stay_in_the_image() {
        let directory = std::env::temp_dir().join(format!("bundle-rootfs-{}", std::process::id()));
        fs::create_dir_all(directory.join("etc")).unwrap();
        fs::create_dir_all(directory.join("usr/etc")).unwrap();
        fs::write(directory.join("usr/etc/passwd"), "inside:x:5:5::/in:\n").unwrap();
        symlink("/usr/etc/passwd", directory.join("etc/passwd")).unwrap();
        symlink("../../../../../../../../etc/group", directory.join("etc/group")).unwrap();
        let accounts = Root::Whole(open_directory(&directory).unwrap()).accounts();
        // `group` points at itself inside the root.
        assert!(accounts.is_err());
        fs::remove_file(directory.join("etc/group")).unwrap();
        let root = Root::Whole(open_directory(&directory).unwrap());
        assert_eq!(root.accounts().unwrap().resolve("inside", &[]).unwrap().uid, 5);
        let layers = Root::Layers(vec![directory.clone()]);
        assert_eq!(layers.accounts().unwrap().resolve("inside", &[]).unwrap().uid, 5);
        assert!(root.directory("/etc").unwrap().is_some());
        assert!(root.directory("/usr/etc/passwd").unwrap().is_none());
        assert!(root.directory("/none/x").unwrap().is_none());
        fs::remove_dir_all(directory).unwrap();
    }
}
