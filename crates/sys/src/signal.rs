//! Signals as data: a set of them blocked, and read from a descriptor: `signalfd(2)`.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, Signal};

use crate::raw::{done, opened};

/// Signals that libc keeps for its threads and lets nobody block: 32 and 33.
const LIBC_S_OWN: u64 = 3 << 31;

/// Signals that this process reads instead of being interrupted by them.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

/// One signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its number: `signal(7)`.
    pub signal: u32,
    /// Whether a process sent it. The kernel's own (Ctrl-C on a terminal) reached every process of the group, so that
    /// forwarding them would deliver them twice.
    pub from_process: bool,
}

impl SignalFd {
    /// Blocks `signals` in the calling thread and opens a non-blocking descriptor that yields them.
    pub fn block(signals: &[Signal]) -> io::Result<Self> {
        Self::block_set(set_of(signals))
    }

    /// Does so with all signals that can be caught, the real-time ones among them, but `signals`.
    pub fn block_all_but(signals: &[Signal]) -> io::Result<Self> {
        Self::block_set(!set_of(signals) & !LIBC_S_OWN)
    }

    fn block_set(set: u64) -> io::Result<Self> {
        change_mask(libc::SIG_BLOCK, set)?;
        let (size, flags) = (size_of::<u64>(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        // SAFETY: the kernel reads the set, which has the size that it is told; -1 asks for a new descriptor.
        opened(unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const set, size, flags) }).map(Self)
    }

    /// Returns the next signal that came, or `None`.
    pub fn read(&self) -> io::Result<Option<Received>> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the kernel writes at most `size` bytes, and `info` has that many.
        let count = unsafe { libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) };
        }
        // SAFETY: all bytes were zeroed before, and the type is plain integers.
        let info = unsafe { info.assume_init() };
        let signal = info.ssi_signo;
        // A pipe that nobody reads any more sends it to its writer; the write tells the same.
        // SIGPIPE is blocked with all others and so arrives here, though nobody has sent it.
        if signal == libc::SIGPIPE.unsigned_abs() && info.ssi_pid == std::process::id() {
            return self.read();
        }
        Ok(Some(Received { signal, from_process: info.ssi_code <= 0 }))
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends a signal by its number to the process behind a pidfd: rustix has no real-time signals, and images are stopped
/// by them.
pub fn send(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open; a null siginfo asks for what kill(2) fills in; the kernel checks the number.
    done(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, none, 0) })
}

/// Sends a signal by its number to a process by its id: `kill(2)`.
pub fn send_to(pid: Pid, number: i32) -> io::Result<()> {
    // SAFETY: kill takes no memory, and the kernel checks both numbers.
    done(unsafe { libc::kill(pid.as_raw_pid(), number) })
}

/// Unblocks every signal in the calling thread: for a child before it becomes another program, since the mask survives
/// `execve(2)`.
pub fn unblock_all() -> io::Result<()> {
    change_mask(libc::SIG_SETMASK, 0)
}

/// Gives a signal its default action back: one that is ignored stays so through `execve(2)`.
pub fn restore(signal: Signal) {
    restore_number(signal.as_raw());
}

/// Does so for every signal that the caller ignored. SIGPIPE stays as it is: the Rust runtime ignores that.
///
/// It is written for the process between `clone` and `execve`, before any file of the container's is in reach.
pub fn restore_ignored() {
    let ignored = crate::file::read_once("/proc/self/status").unwrap_or_default();
    let ignored = ignored.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    // `SigIgn` in proc_pid_status(5): bit N-1 is signal N.
    let ignored = ignored.unwrap_or(0) & !(1 << (libc::SIGPIPE - 1));
    (1..=64).filter(|number| ignored >> (number - 1) & 1 == 1).for_each(restore_number);
}

fn restore_number(number: i32) {
    // The kernel's `struct sigaction`: all bytes zero are SIG_DFL without flags. libc's own function refuses its internal
    // signals, 32 and 33, which a caller may have left ignored all the same.
    let default = [0_u64; 4];
    // SAFETY: rt_sigaction reads 32 bytes of `default` and a mask of 8 bytes in it; no handler of ours is replaced.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), std::ptr::null_mut::<u64>(), 8_usize) };
}

/// A set as the kernel has it: a bit for each of the 64 signals.
fn set_of(signals: &[Signal]) -> u64 {
    signals.iter().fold(0, |set, signal| set | 1 << (signal.as_raw() - 1))
}

fn change_mask(how: i32, set: u64) -> io::Result<()> {
    let none = std::ptr::null_mut::<u64>();
    // SAFETY: the kernel reads the set, which has the size that it is told; a null third argument asks for no old mask.
    done(unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const set, none, size_of::<u64>()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_read_with_its_sender() {
        let signals = SignalFd::block(&[Signal::USR1]).unwrap();
        assert_eq!(signals.read().unwrap(), None);
        // SAFETY: raises a signal that this thread has blocked.
        assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
        assert_eq!(signals.read().unwrap(), Some(Received { signal: 10, from_process: true }));
    }
}
