//! What a program that executes others asks of the kernel for them.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitStatus, getppid, set_parent_process_death_signal};

use crate::raw::{done, opened};
use crate::ready::{after, readable};

/// Returns an exit code for how a process has ended, as a shell does.
///
/// 128 + N for a process killed by signal N; 255 where it cannot be told.
pub fn exit_code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255)
}

/// Lets the kernel send `signal` to the program that `command` starts as soon as the thread that starts it is gone,
/// however it went: `PR_SET_PDEATHSIG(2const)`.
///
/// The signal is bound to the *thread* that starts the program, not to its process, and is lost when the program's
/// ids change or it is set-user-ID.
pub fn die_with_parent(command: &mut Command, signal: Signal) -> &mut Command {
    let parent = rustix::process::getpid();
    let arrange = move || {
        crate::signal::unblock_all()?;
        set_parent_process_death_signal(Some(signal))?;
        // The parent may have gone before the line above, and then no signal comes.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EOWNERDEAD)) }
    };
    // SAFETY: between fork and exec the closure makes system calls on values that it owns; it neither allocates
    // nor takes a lock.
    unsafe { command.pre_exec(arrange) }
}

/// Waits for the end of a process, for as long as `limit` at most. Returns true if it has ended.
pub fn ends_within(process: impl AsFd, limit: Option<Duration>) -> io::Result<bool> {
    Ok(readable([process.as_fd()], limit.map(after))?[0])
}

/// Sets the program that `command` starts apart from this one's surroundings: a session of its own, `/` as working
/// directory, no signal blocked, and no descriptor but the three standard ones and `more` after them.
pub fn apart(command: &mut Command, more: u32) -> &mut Command {
    let first = more.saturating_add(3);
    let arrange = move || {
        crate::signal::unblock_all()?;
        rustix::process::setsid()?;
        rustix::process::chdir(c"/")?;
        close_on_exec(first)
    };
    // SAFETY: between fork and exec the closure makes four system calls; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(arrange) }
}

/// Reaps the children that have ended, up to `own`: its status is for who waits for it.
///
/// `waitid` with `WNOWAIT` only looks at who is next. If that is `own` it returns, and so leaves others behind it for
/// the next SIGCHLD: a status that is taken here would be lost for its waiter.
pub fn reap_orphans(own: Pid) {
    loop {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        let options = libc::WEXITED | libc::WNOHANG;
        // SAFETY: the kernel writes at most one `siginfo_t`.
        let found = unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), options | libc::WNOWAIT) };
        // SAFETY: all bytes were zeroed before, and the type is plain integers.
        let info = unsafe { info.assume_init() };
        // SAFETY: of a child that has ended this member is set, and of none it is 0.
        let pid = unsafe { info.si_pid() };
        let Some(pid) = Pid::from_raw(pid).filter(|pid| found == 0 && *pid != own) else { return };
        let _reaped = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}

/// Has execve close all descriptors from `first` on.
///
/// `close_range(2)` with `CLOSE_RANGE_CLOEXEC` needs Linux 5.11.
/// # Errors
/// `ENOSYS` and `EINVAL` before that version.
pub fn close_on_exec(first: u32) -> io::Result<()> {
    // SAFETY: the flag only marks descriptors; none is closed under its owner.
    done(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) })
}

/// Returns a descriptor that this program was started with, by its number there.
///
/// It is a copy; the number itself stays open, for a program that is started later. See [`taken`].
/// # Errors
/// `EBADF` where the caller has opened nothing there.
pub fn inherited(number: u32) -> io::Result<OwnedFd> {
    let number = i32::try_from(number).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the call only makes a new descriptor; a number that is not open is answered with EBADF.
    opened(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) })
}

/// The same, and no program that this one starts gets it.
pub fn taken(number: u32) -> io::Result<OwnedFd> {
    let copy = inherited(number)?;
    // SAFETY: F_SETFD only marks the descriptor, which `inherited` has found open.
    done(unsafe { libc::fcntl(i32::try_from(number).unwrap_or(-1), libc::F_SETFD, libc::FD_CLOEXEC) })?;
    Ok(copy)
}

/// Tells whether this program was started with a descriptor of that number. Its own are all close-on-exec, from birth.
///
/// So a descriptor that is not, was opened by the caller for this program, or by mistake.
pub fn is_inherited(number: u32) -> bool {
    // SAFETY: F_GETFD takes no memory, and says so if the descriptor is not open.
    let flags = i32::try_from(number).map_or(-1, |number| unsafe { libc::fcntl(number, libc::F_GETFD) });
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// How many descriptors after stderr are sockets that were opened for this process: `sd_listen_fds(3)`.
///
/// `LISTEN_PID` must name this process: variables that an ancestor was given mean the ancestor's descriptors.
pub fn listen_fds() -> u32 {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    number("LISTEN_FDS").filter(|_| number("LISTEN_PID") == Some(std::process::id())).unwrap_or(0)
}

/// Closes what this process was started with, from descriptor `first` on, but for those in `keep`, which must have all that
/// are owned in this program and not close-on-exec.
pub fn close_inherited(first: u32, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let listed = std::fs::read_dir("/proc/self/fd")?.flatten();
    let numbers = listed.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let kept = |number: u32| keep.iter().any(|fd| u32::try_from(fd.as_raw_fd()) == Ok(number));
    // Collected first: closing changes the directory that is read.
    let given: Vec<u32> =
        numbers.filter(|number| *number >= first && is_inherited(*number) && !kept(*number)).collect();
    for number in given {
        // SAFETY: it is not close-on-exec, and not in `keep`, which has all such that this program owns.
        unsafe { libc::close(i32::try_from(number).unwrap_or(-1)) };
    }
    Ok(())
}

/// Gives the program that `command` starts the default signal mask and SIGPIPE's default, which this process changed
/// for itself, and no descriptor but the three standard ones.
pub fn afresh(command: &mut Command) -> &mut Command {
    let arrange = || {
        crate::signal::restore(Signal::PIPE);
        crate::signal::unblock_all()?;
        close_on_exec(3)
    };
    // SAFETY: between fork and exec the closure makes three system calls; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(arrange) }
}

/// Has `program`, a [`crate::launch::Launch`] whose failures go to `report`, execute what `command` is to start.
///
/// It must be the last step that `command` is given: it does not return where it succeeds, so that no step behind it
/// runs.
pub fn by_launch(command: &mut Command, program: OwnedFd, report: OwnedFd) -> &mut Command {
    let arrange = move || {
        rustix::io::fcntl_setfd(&report, rustix::io::FdFlags::empty())?;
        Err(crate::launch::execute_init(program.as_fd()))
    };
    // SAFETY: between fork and exec the closure makes two system calls; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(arrange) }
}
