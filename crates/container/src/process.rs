//! A process as a note has it: by its number and by when it was born, since numbers are given again.
//!
//! The birth is the 22nd field of /proc/PID/stat (`proc_pid_stat(5)`), in clock ticks since boot: numbers come round
//! after some four million processes at the earliest, or 32,768 on small machines, which takes more than one tick.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// A process that was noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotedProcess {
    /// Its number; 0 is none.
    pub pid: i32,
    /// When it was started, in clock ticks since boot, where that was noted.
    pub birth: Option<u64>,
}

impl NotedProcess {
    /// Notes the own process. One that cannot be looked at now is noted by its number alone.
    pub fn own() -> Self {
        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        Self { pid, birth: birth(pid).unwrap_or_default() }
    }

    /// Returns its number while it lives. One that cannot be looked at now is not taken for dead.
    pub fn alive(self) -> Option<Pid> {
        self.look().unwrap_or_else(|_| self.number())
    }

    fn number(self) -> Option<Pid> {
        // A note may be damaged.
        Some(self.pid).filter(|pid| *pid > 0).and_then(Pid::from_raw)
    }

    fn look(self) -> io::Result<Option<Pid>> {
        let Some(pid) = self.number() else { return Ok(None) };
        let birth = born(sys::file::read(stat(self.pid)))?;
        Ok(birth.is_some_and(|birth| self.birth.is_none_or(|noted| noted == birth)).then_some(pid))
    }

    /// Opens it while it lives: the descriptor is this one's, whoever gets its number next.
    ///
    /// The process is looked at before and behind the opening: only if both are this one, so is the descriptor.
    pub fn open(self) -> io::Result<Option<(Pid, OwnedFd)>> {
        let Some(pid) = self.look()? else { return Ok(None) };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => Ok(None),
            // Only now it cannot become another process's number unseen.
            opened => {
                let pidfd = opened?;
                Ok(self.look()?.map(|pid| (pid, pidfd)))
            }
        }
    }
}

/// Returns when a process was started, in clock ticks since boot; `None` if it is gone or a zombie.
pub fn birth(pid: i32) -> io::Result<Option<u64>> {
    born(sys::file::read_once(stat(pid)))
}

fn stat(pid: i32) -> String {
    format!("/proc/{pid}/stat")
}

fn born(stat: io::Result<String>) -> io::Result<Option<u64>> {
    match sys::file::there(stat) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => Ok(None),
        stat => Ok(stat?.and_then(|stat| parse_birth(&stat))),
    }
}

fn parse_birth(stat: &str) -> Option<u64> {
    // The name may contain anything, so the fields are counted from its closing parenthesis: proc_pid_stat(5).
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_process_of_that_number_is_another() {
        let own = NotedProcess::own();
        for (noted, want) in [
            (own, true),
            (NotedProcess { birth: None, ..own }, true),
            (NotedProcess { birth: own.birth.map(|birth| birth + 1), ..own }, false),
            (NotedProcess { birth: Some(0), ..own }, false),
            (NotedProcess { pid: i32::MAX, birth: None }, false),
            (NotedProcess { pid: -1, birth: None }, false),
            (NotedProcess::default(), false),
        ] {
            assert_eq!(noted.alive().is_some(), want, "{noted:?}");
            assert_eq!(noted.open().unwrap().is_some(), want, "{noted:?}");
        }
    }
}
