//! What a row tells about a process: parent, owner, command line.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, statat};

use super::scan::in_threads;

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ScannedProcess {
    pub(crate) ppid: i32,
    pub(crate) uid: u32,
    pub(crate) command: String,
    /// Its line in each cgroup hierarchy.
    pub(crate) cgroups: String,
}

/// Which of a process's properties are wanted: each costs system calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of four")]
pub(crate) struct Wanted {
    pub(crate) ppid: bool,
    pub(crate) uid: bool,
    pub(crate) command: bool,
    pub(crate) cgroups: bool,
}

impl ScannedProcess {
    /// Reads what is wanted of each process; what one that is gone does not tell stays empty.
    pub(crate) fn read_all(proc: BorrowedFd<'_>, pids: &[i32], wanted: Wanted) -> Vec<(i32, Self)> {
        in_threads(pids, |pids| {
            let mut buffer = vec![];
            pids.iter().map(|pid| (*pid, Self::read(proc, *pid, wanted, &mut buffer))).collect()
        })
    }

    fn read(proc: BorrowedFd<'_>, pid: i32, wanted: Wanted, buffer: &mut Vec<u8>) -> Self {
        let mut process = Self::default();
        if wanted.ppid {
            read_into(proc, &format!("{pid}/stat"), buffer);
            process.ppid = ppid(&String::from_utf8_lossy(buffer)).unwrap_or_default();
        }
        if wanted.uid {
            // The directory belongs to the effective user; that of a process which may not be dumped belongs to root
            // (proc_pid(5)). lsns shows it as this does.
            process.uid = statat(proc, pid.to_string(), AtFlags::empty()).map_or(0, |stat| stat.st_uid);
        }
        if wanted.command {
            read_into(proc, &format!("{pid}/cmdline"), buffer);
            process.command = command(buffer);
            // Threads of the kernel and zombies have no command line: their name stands for it.
            if process.command.is_empty() {
                read_into(proc, &format!("{pid}/comm"), buffer);
                process.command = String::from_utf8_lossy(buffer.trim_ascii_end()).into_owned();
            }
        }
        if wanted.cgroups {
            read_into(proc, &format!("{pid}/cgroup"), buffer);
            process.cgroups = String::from_utf8_lossy(buffer).into_owned();
        }
        process
    }
}

/// Reads a file that comes in pieces, or nothing.
pub(crate) fn read(path: &str) -> Vec<u8> {
    let mut bytes = vec![];
    if let Ok(file) = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        while read_more(&file, &mut bytes) > 0 {}
    }
    bytes
}

/// The files of a process are shorter than this, command lines mostly. Bytes.
const USUAL: usize = 8192;

/// Reads a file of /proc into the buffer, in place of what is in there. The standard library would ask for its size, which
/// /proc does not tell, and read it in small pieces; but the kernel gives it all at once.
fn read_into(proc: impl AsFd, name: &str, buffer: &mut Vec<u8>) {
    buffer.clear();
    let Ok(file) = openat(proc, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else { return };
    while read_more(&file, buffer) >= USUAL {}
}

/// Appends what one call reads. What was read before the process went is as good as any.
fn read_more(file: &OwnedFd, buffer: &mut Vec<u8>) -> usize {
    buffer.reserve_exact(USUAL);
    rustix::io::read(file, rustix::buffer::spare_capacity(buffer)).unwrap_or(0)
}

/// The words end in zero bytes; a program that writes over its own may leave more of those.
fn command(line: &[u8]) -> String {
    let end = line.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    String::from_utf8_lossy(line.get(..end).unwrap_or_default()).replace('\0', " ")
}

/// The fourth field of `stat`. The second is the program's name, in which anything may stand, parentheses too.
fn ppid(stat: &str) -> Option<i32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_stands_behind_the_name_whatever_the_name() {
        for stat in ["7 (sh) S 1 7 7", "7 (a) R 9 (b)) S 1 7 7", "7 (\n) S 1 7"] {
            assert_eq!(ppid(stat), Some(1), "{stat:?}");
        }
        assert_eq!(ppid("7 (sh"), None);
    }

    #[test]
    fn a_command_line_is_its_words() {
        for (line, want) in [
            (&b"sleep\x00300\x00"[..], "sleep 300"),
            (b"nginx: master\x00\x00\x00\x00", "nginx: master"),
            (b"a\x00\x00b\x00", "a  b"),
            (b"\x00\x00", ""),
            (b"", ""),
        ] {
            assert_eq!(command(line), want);
        }
    }
}
