//! The names in a directory.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::fs::{FileType, RawDir, SeekFrom, seek};

/// Returns the names in an open directory, as the file system has them, without `.` and `..`.
pub(crate) fn of(directory: impl AsFd) -> anyhow::Result<Vec<(CString, FileType)>> {
    let mut names = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 8 << 10];
    let directory = directory.as_fd();
    seek(directory, SeekFrom::Start(0))?;
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    Ok(names)
}
