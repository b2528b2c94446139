//! What a process has used.

use std::mem::MaybeUninit;
use std::time::Duration;

/// What this process has used so far, in all its threads, without its children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Processor time, its own and the kernel's for it.
    pub processor: Duration,
    /// Page faults, with those that needed no disk.
    pub faults: u64,
}

impl Usage {
    /// Asks the kernel: `getrusage(2)`, `RUSAGE_SELF`. A program has its fork's time from before execve, too.
    pub fn own() -> Self {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: the kernel writes at most one `rusage`.
        unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
        // SAFETY: all bytes were zeroed before, and the type is plain integers.
        let usage = unsafe { usage.assume_init() };
        let count = |number: i64| u64::try_from(number).unwrap_or_default();
        let time =
            |time: libc::timeval| Duration::from_secs(count(time.tv_sec)) + Duration::from_micros(count(time.tv_usec));
        Self {
            processor: time(usage.ru_utime) + time(usage.ru_stime),
            faults: count(usage.ru_minflt + usage.ru_majflt),
        }
    }
}
