//! Signals as data: a set of them blocked, and read from a descriptor: `signalfd(2)`.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::{Pid, Signal};

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
        Self::block_set(set_of(signals)?)
    }

    /// Does so with all signals that can be caught, the real-time ones among them, but `signals`.
    pub fn block_all_but(signals: &[Signal]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigfillset writes the whole set.
        check(unsafe { libc::sigfillset(set.as_mut_ptr()) })?;
        // SAFETY: sigfillset has just initialised it.
        let mut set = unsafe { set.assume_init() };
        for signal in signals {
            // SAFETY: `set` is initialised.
            check(unsafe { libc::sigdelset(&raw mut set, signal.as_raw()) })?;
        }
        Self::block_set(set)
    }

    fn block_set(set: libc::sigset_t) -> io::Result<Self> {
        change_mask(libc::SIG_BLOCK, &set)?;
        // SAFETY: `set` is an initialised signal set; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd has just returned this descriptor, and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
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
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, none, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a signal by its number to a process by its id: `kill(2)`.
pub fn send_to(pid: Pid, number: i32) -> io::Result<()> {
    // SAFETY: kill takes no memory, and the kernel checks both numbers.
    check(unsafe { libc::kill(pid.as_raw_pid(), number) })
}

/// Unblocks every signal in the calling thread: for a child before it becomes another program, since the mask survives
/// `execve(2)`.
pub fn unblock_all() -> io::Result<()> {
    change_mask(libc::SIG_SETMASK, &set_of(&[])?)
}

/// Gives a signal its default action back: one that is ignored stays so through `execve(2)`.
pub fn restore(signal: Signal) {
    restore_number(signal.as_raw());
}

/// Does so for every signal that the caller ignored. SIGPIPE stays as it is: the Rust runtime ignores that.
pub fn restore_ignored() {
    let ignored = crate::file::read_once("/proc/self/status").unwrap_or_default();
    let ignored = ignored.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
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

fn set_of(signals: &[Signal]) -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset writes the whole set.
    check(unsafe { libc::sigemptyset(set.as_mut_ptr()) })?;
    // SAFETY: sigemptyset has just initialised it.
    let mut set = unsafe { set.assume_init() };
    for signal in signals {
        // SAFETY: `set` is initialised.
        check(unsafe { libc::sigaddset(&raw mut set, signal.as_raw()) })?;
    }
    Ok(set)
}

fn change_mask(how: i32, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: `set` is initialised; a null third argument asks for no old mask.
    match unsafe { libc::pthread_sigmask(how, set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
