//! Processes that the kernel has killed for want of memory (cgroup-v2.rst, "memory.events"; cgroup-v1/memory.rst, "OOM
//! Control").
//!
//! v1 signals an eventfd that was registered in `cgroup.event_control`; v2 marks the file `memory.events` as changed,
//! which poll(2) tells as POLLPRI until it is read again. Both can tell of more than kills, so the counter decides.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};

use crate::Cgroups;

/// Hears of processes that the kernel kills for want of memory.
#[derive(Debug)]
pub struct Killer {
    /// v1: an eventfd; v2: the file `memory.events`.
    told: File,
    /// The file in which they are counted.
    counter: PathBuf,
    flags: PollFlags,
    count: u64,
}

impl Cgroups {
    /// Returns how many processes were killed so.
    pub fn oom_kills(&self) -> u64 {
        self.oom_file().map_or(0, |(counter, _)| killed(&counter))
    }
}

impl Killer {
    /// None where memory is not counted.
    ///
    /// # Errors
    /// Where the kernel takes no registration; not where memory is not counted, which is `None`.
    pub fn watch(cgroups: &Cgroups) -> anyhow::Result<Option<Self>> {
        let Some((counter, v1)) = cgroups.oom_file() else { return Ok(None) };
        let opened = sys::file::there(File::open(&counter)).with_context(|| format!("open {}", counter.display()))?;
        let Some(opened) = opened else { return Ok(None) };
        let count = killed(&counter);
        if !v1 {
            return Ok(Some(Self { told: opened, counter, flags: PollFlags::PRI, count }));
        }
        let told = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("make an eventfd")?;
        let control = counter.with_file_name("cgroup.event_control");
        let order = format!("{} {}", told.as_raw_fd(), opened.as_raw_fd());
        let order_it = || File::options().write(true).open(&control)?.write_all(order.as_bytes());
        order_it().with_context(|| format!("write {}", control.display()))?;
        Ok(Some(Self { told: told.into(), counter, flags: PollFlags::IN, count }))
    }

    /// What to poll for the next.
    pub fn polled(&self) -> PollFd<'_> {
        PollFd::from_borrowed_fd(self.told.as_fd(), self.flags)
    }

    /// Tells whether somebody was killed since the last time that it was asked; makes ready to hear of the next.
    pub fn has_killed(&mut self) -> bool {
        let mut read = [0; 8];
        // An eventfd has mostly nothing to read, and cannot be read from a place.
        let _told = rustix::io::read(&self.told, &mut read);
        let _told = self.told.read_at(&mut read, 0);
        let before = std::mem::replace(&mut self.count, killed(&self.counter));
        self.count > before
    }
}

fn killed(counter: &Path) -> u64 {
    let text = sys::file::read(counter).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or_default()
}
