//! What ends a process that serves a container: signals, the end of a process, and the end of the container's network
//! namespace.

use std::fs::{self, Metadata};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use sys::signal::SignalFd;

/// What such a process does not outlive.
#[derive(Debug)]
pub(crate) struct LifetimeWatch {
    signals: SignalFd,
    processes: Vec<OwnedFd>,
    /// A name that a namespace has in the file system, and which namespace it was.
    name: Option<(PathBuf, (u64, u64))>,
    looked: Instant,
    /// How long a look at the name may be put off, which tells nothing by itself.
    pause: Duration,
}

impl LifetimeWatch {
    /// Watches processes and, if it is a name and no process's, the namespace.
    pub(crate) fn new(processes: &[Pid], netns: &Path, pause: Duration) -> anyhow::Result<Self> {
        let signals = SignalFd::block(&[Signal::INT, Signal::TERM, Signal::HUP]).context("read signals")?;
        let open = |pid: &Pid| {
            pidfd_open(*pid, PidfdFlags::empty()).with_context(|| format!("watch process {}", pid.as_raw_nonzero()))
        };
        let processes = processes.iter().map(open).collect::<anyhow::Result<_>>()?;
        // A path in /proc goes with its process, which a pidfd tells at once; for a name that is unmounted nothing
        // wakes a poll, so that it is looked at.
        let name = Some(netns).filter(|netns| !netns.starts_with("/proc")).map(|netns| {
            let metadata = fs::metadata(netns).with_context(|| format!("watch {}", netns.display()))?;
            anyhow::Ok((netns.to_owned(), identity(&metadata)))
        });
        let name = name.transpose()?;
        Ok(Self { signals, processes, name, looked: Instant::now(), pause })
    }

    pub(crate) fn register(&self, epoll: &OwnedFd, data: EventData) -> anyhow::Result<()> {
        epoll::add(epoll, &self.signals, data, EventFlags::IN)?;
        for process in &self.processes {
            epoll::add(epoll, process, data, EventFlags::IN)?;
        }
        Ok(())
    }

    /// Returns how long the name need not be looked at.
    pub(crate) fn interval(&self) -> Option<Duration> {
        self.name.is_some().then_some(self.pause)
    }

    /// Tells whether the namespace has lost its name: a proxy itself keeps the namespace.
    pub(crate) fn has_ended(&mut self) -> bool {
        let Some((path, was)) = &self.name else { return false };
        if self.looked.elapsed() < self.pause {
            return false;
        }
        self.looked = Instant::now();
        // The file stays where the mount was, with another identity: that it is there says nothing.
        fs::metadata(path).map_or(true, |now| identity(&now) != *was)
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
