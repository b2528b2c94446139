//! Volumes: directories that outlive a container (by name) or go with it, which start with what the image has at
//! their place.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, fchmod,
    fchown, fgetxattr, flistxattr, fsetxattr, futimens, mkdirat, mknodat, openat, readlinkat, renameat_with, statat,
    symlinkat,
};
use rustix::io::Errno;

use crate::container::make_private;
use crate::interrupt::Interrupt;
use crate::rootfs::{Root, open_directory};

/// Makes a volume's directory if it is not there, and fills it while it is empty with what the root has at `image`.
/// Returns what was made, for undoing.
pub(crate) fn prepare(
    path: &Path,
    bundle: &Path,
    image: &str,
    root: Option<&Root>,
    interrupt: &Interrupt,
) -> Result<Option<PathBuf>> {
    let parent = path.parent().context("a volume at the root")?;
    make_private(parent).with_context(|| format!("make {}", parent.display()))?;
    let content = match root {
        Some(root) => root.directory(image).with_context(|| format!("look at the image's {image}"))?,
        None => None,
    };
    if path.is_dir() {
        let empty = fs::read_dir(path).with_context(|| format!("read {}", path.display()))?.next().is_none();
        if let Some(content) = content.filter(|_| empty) {
            let target = open_directory(path)?;
            copy(&content, &target, interrupt).with_context(|| format!("copy the image's {image}"))?;
        }
        return Ok(None);
    }
    // Filled in the bundle, so that nobody meets a half-filled volume, and who sweeps the bundle sweeps this too.
    let temporary = bundle.join(".volume");
    let made = (|| {
        fs::create_dir(&temporary).with_context(|| format!("make {}", temporary.display()))?;
        if let Some(content) = content {
            let target = open_directory(&temporary)?;
            copy(&content, &target, interrupt).with_context(|| format!("copy the image's {image}"))?;
        }
        match renameat_with(CWD, &temporary, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            // Another bundle was faster; the volume is theirs and ours.
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("make {}", path.display())),
        }
    })();
    if !matches!(made, Ok(true)) {
        // The first error is the one to tell.
        let _secondary = fs::remove_dir_all(&temporary);
    }
    Ok(made?.then(|| path.to_owned()))
}

/// Copies what is in a directory, and the directory's own mode, owner and attributes.
fn copy(source: &OwnedFd, target: &OwnedFd, interrupt: &Interrupt) -> Result<()> {
    for entry in Dir::read_from(source)? {
        interrupt.check()?;
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
        copy_entry(source, target, name, &stat, interrupt).with_context(|| name.to_string_lossy().into_owned())?;
    }
    let stat = rustix::fs::fstat(source)?;
    finish(source.as_fd(), target.as_fd(), &stat)
}

fn copy_entry(
    source: &OwnedFd,
    target: &OwnedFd,
    name: &std::ffi::CStr,
    stat: &Stat,
    interrupt: &Interrupt,
) -> Result<()> {
    let look = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            mkdirat(target, name, Mode::RWXU)?;
            let from = openat(source, name, look | OFlags::DIRECTORY, Mode::empty())?;
            let to = openat(target, name, look | OFlags::DIRECTORY, Mode::empty())?;
            copy(&from, &to, interrupt)
        }
        FileType::RegularFile => {
            let from = openat(source, name, look, Mode::empty())?;
            let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let to = openat(target, name, create, Mode::RUSR | Mode::WUSR)?;
            let (mut reader, mut writer) = (File::from(from), File::from(to));
            io::copy(&mut reader, &mut writer)?;
            finish(reader.as_fd(), writer.as_fd(), stat)
        }
        FileType::Symlink => {
            symlinkat(readlinkat(source, name, Vec::new())?.as_c_str(), target, name)?;
            own(target.as_fd(), name, stat)
        }
        kind => {
            mknodat(target, name, kind, Mode::from_raw_mode(stat.st_mode), stat.st_rdev)?;
            own(target.as_fd(), name, stat)?;
            // The mask may have taken bits away.
            Ok(rustix::fs::chmodat(target, name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?)
        }
    }
}

fn own(directory: BorrowedFd<'_>, name: &std::ffi::CStr, stat: &Stat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(rustix::fs::utimensat(directory, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Gives a file or directory the look of its original: the owner first, since changing it clears bits of the mode and
/// capabilities, the times last.
fn finish(source: BorrowedFd<'_>, target: BorrowedFd<'_>, stat: &Stat) -> Result<()> {
    fchown(target, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(target, Mode::from_raw_mode(stat.st_mode))?;
    let mut names = vec![0_u8; 65536];
    let length = flistxattr(source, &mut names)?;
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        // The overlay's own bookkeeping is not the image's.
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0_u8; 65536];
        let length = fgetxattr(source, name, &mut value)?;
        match fsetxattr(target, name, &value[..length], XattrFlags::empty()) {
            // The volume's file system need not know what the layers' does.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(futimens(target, &times(stat))?)
}

fn times(stat: &Stat) -> Timestamps {
    let time =
        |seconds: i64, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds.try_into().unwrap_or(0) };
    #[allow(clippy::useless_conversion, reason = "the types differ between architectures")]
    Timestamps {
        last_access: time(stat.st_atime.into(), stat.st_atime_nsec.into()),
        last_modification: time(stat.st_mtime.into(), stat.st_mtime_nsec.into()),
    }
}
