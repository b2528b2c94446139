//! What a row tells about a process: parent, owner, command line.

use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) ppid: i32,
    pub(crate) uid: u32,
    pub(crate) command: String,
}

/// Which of a process's properties are wanted: each costs system calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) ppid: bool,
    pub(crate) uid: bool,
    pub(crate) command: bool,
}

impl Process {
    /// Reads what is wanted; what a process that is gone does not tell stays empty.
    pub(crate) fn read(proc: BorrowedFd<'_>, pid: i32, wanted: Wanted) -> Self {
        let mut process = Self::default();
        if wanted.ppid {
            let stat = read(proc, &format!("{pid}/stat"));
            process.ppid = ppid(&String::from_utf8_lossy(&stat)).unwrap_or_default();
        }
        if wanted.uid {
            process.uid = statat(proc, pid.to_string(), AtFlags::empty()).map_or(0, |stat| stat.st_uid);
        }
        if wanted.command {
            let line = read(proc, &format!("{pid}/cmdline"));
            process.command = command(&line);
            if process.command.is_empty() {
                let name = read(proc, &format!("{pid}/comm"));
                process.command = String::from_utf8_lossy(name.trim_ascii_end()).into_owned();
            }
        }
        process
    }
}

/// Reads a file of /proc, or nothing.
pub(crate) fn read(proc: BorrowedFd<'_>, path: &str) -> Vec<u8> {
    let mut bytes = vec![];
    if let Ok(fd) = openat(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        // What could be read before the process went is as good as any.
        let _read = std::fs::File::from(fd).read_to_end(&mut bytes);
    }
    bytes
}

/// The words end in zero bytes; a program that writes over its own may leave more of those.
fn command(line: &[u8]) -> String {
    let end = line.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let words = line.get(..end).unwrap_or_default();
    String::from_utf8_lossy(words).replace('\0', " ")
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
