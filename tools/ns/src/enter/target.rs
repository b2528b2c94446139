//! Whose namespaces are entered: a process, a container, or what a record tells.

use std::fmt;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail, ensure};
use record::{Input, Network, State};
use rustix::fs::fstat;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Whose namespaces are entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EnterTarget {
    /// A process; its pidfd's inode number tells it from a later one of the same number.
    Process { pid: i32, inode: Option<u64> },
    /// The first process of a container that another user has noted, and who that is.
    Foreign { pid: i32, user: u32 },
    /// A named network namespace, in which no process need be.
    Network(PathBuf),
}

impl EnterTarget {
    /// Finds the target that a `-t` names: `PID`, `PID:INODE` or a container's id, which `states` has.
    pub(crate) fn find(text: &str, states: impl FnOnce() -> PathBuf) -> Result<Self> {
        let (pid, inode) = text.split_once(':').map_or((text, None), |(pid, inode)| (pid, Some(inode)));
        if let Ok(pid) = pid.parse::<i32>() {
            let inode = inode.map(str::parse).transpose().with_context(|| format!("target {text}"))?;
            return Ok(Self::Process { pid, inode });
        }
        if let Some(noted) = container::find(&states(), text)? {
            return Ok(match noted.user {
                Some(user) => Self::Foreign { pid: noted.pid, user },
                None => Self::Process { pid: noted.pid, inode: None },
            });
        }
        let named = text.parse().map(|id| container::namespace(&id));
        if let Some(named) = named.ok().filter(|named| fs::metadata(named).is_ok_and(|file| file.is_file())) {
            return Ok(Self::Network(named));
        }
        bail!("no process, container or named namespace is called {text}")
    }

    /// Finds the target that the record on stdin tells.
    pub(crate) fn from_stdin() -> Result<Self> {
        let Input::Record(record) = Input::read(None)? else { bail!("stdin is a directory") };
        if let Some(pid) = record.find::<State>().ok().flatten().and_then(|state| state.pid).filter(|pid| *pid > 0) {
            return Ok(Self::Process { pid, inode: None });
        }
        if let Some(path) = record.find::<Network>()?.and_then(|network| network.namespace()) {
            return Ok(Self::Network(path));
        }
        Err(record::Error::Missing { member: "pid", stage: "spawn" }.into())
    }

    /// Returns the process, for what a namespace alone does not have.
    pub(crate) fn pid(&self) -> Result<i32> {
        match self {
            Self::Process { pid, .. } | Self::Foreign { pid, .. } => Ok(*pid),
            Self::Network(path) => bail!("{} is a network namespace only: no process is known", path.display()),
        }
    }

    /// Opens the process, so that its number cannot pass to another one meanwhile.
    pub(crate) fn open(&self) -> Result<OwnedFd> {
        let pid = self.pid()?;
        let raw = Some(pid).filter(|pid| *pid > 0).and_then(Pid::from_raw).ok_or_else(|| anyhow!("bad pid {pid}"))?;
        // Since Linux 6.9 a pidfd is a file of its own file system, with an inode number that no other process gets
        // before the next boot (pidfs); before that all have the same.
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).with_context(|| format!("open process {pid}"))?;
        if let Self::Process { inode: Some(inode), .. } = self {
            ensure!(fstat(&pidfd)?.st_ino == *inode, "process {pid} is not the one with pidfd inode {inode}");
        }
        Ok(pidfd)
    }
}

impl fmt::Display for EnterTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, .. } | Self::Foreign { pid, .. } => write!(f, "process {pid}"),
            Self::Network(path) => write!(f, "{}", path.display()),
        }
    }
}
