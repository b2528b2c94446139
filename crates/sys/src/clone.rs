//! `clone3(2)` for a program that makes containers: the child goes straight into its namespaces and its cgroup, and
//! the parent gets a pidfd, so that no pid is ever guessed.
//!
//! It is made by syscall(2), not by libc's fork(3): no `pthread_atfork` handler runs in the child, and libc does not
//! learn there that the thread has another id. What the child does before its execve or [`exit_now`] is therefore
//! plain system calls and ordinary code of one thread.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::process::Pid;

/// Which of the two processes the caller is after [`clone`].
#[derive(Debug)]
pub enum Cloned {
    /// The caller is the parent.
    Parent {
        /// The child's pid, as the caller numbers processes.
        pid: Pid,
        /// A descriptor of the child, close-on-exec.
        pidfd: OwnedFd,
    },
    /// The caller is the child, on a copy of the parent's memory.
    Child,
}

/// How [`clone`] makes the child.
#[derive(Clone, Copy, Debug, Default)]
pub struct How<'a> {
    /// New namespaces: the `CLONE_NEW*` flags.
    pub namespaces: u32,
    /// A cgroup2 directory to be born in: `CLONE_INTO_CGROUP`.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Be born in the caller's own cgroup if that one is closed to it.
    ///
    /// For users who may write to a cgroup but have no right at the common ancestor (cgroups(7), "Delegation
    /// containment").
    pub or_outside: bool,
    /// The child becomes a child of the caller's parent: `CLONE_PARENT`.
    ///
    /// Then the caller's parent is sent the signal that the caller's own end would send, and waits for both.
    pub sibling: bool,
}

/// Makes a child process. Refuses with `EDEADLK` while the process has a second thread: the child could find any lock
/// taken for ever, and ordinary Rust would not be sound in it.
///
/// # Errors
/// `EDEADLK` as said; `EBUSY` where the cgroup has controllers for its children, `EOPNOTSUPP` where it is "domain
/// invalid" (cgroups(7)), `EACCES` where it is closed to the caller; `EPERM`, `ENOSPC` and `EAGAIN` as clone(2) has
/// them.
pub fn clone(how: How<'_>) -> io::Result<Cloned> {
    require_one_thread()?;
    let mut pidfd: libc::c_int = -1;
    // SAFETY: all bytes zero are a valid clone_args: numbers, of which 0 is what was not asked for.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = u64::from(how.namespaces) | CLONE_PIDFD;
    arguments.pidfd = (&raw mut pidfd) as u64;
    arguments.exit_signal = SIGCHLD;
    if let Some(cgroup) = how.cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap_or_default();
    }
    if how.sibling {
        arguments.flags |= CLONE_PARENT;
        // The kernel refuses any other with CLONE_PARENT (EINVAL): it takes the caller's.
        arguments.exit_signal = 0;
    }
    // SAFETY: the stack is null and CLONE_VM is unset, so the child runs on its own copy of our stack; the process has
    // one thread, so that no lock is held in the copy.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    if pid < 0 {
        let error = io::Error::last_os_error();
        return if how.or_outside && how.cgroup.is_some() { clone(How { cgroup: None, ..how }) } else { Err(error) };
    }
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(Cloned::Child) };
    // SAFETY: the kernel has just stored this descriptor for us, and nobody else has it.
    Ok(Cloned::Parent { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Makes a child process that executes a program, on the caller's own memory: nothing is copied, and the caller stands still
/// until `child` has executed the program or has returned, which ends the child with code 127. As vfork(2), but with a stack
/// of its own.
///
/// What `child` changes of descriptors, signals, ids and directories is the child's alone; what it changes in memory is the
/// caller's, too, and nothing is dropped where it succeeds. `environ`, which std's `exec` sets, is put back. What remains of
/// that call is the environment that it has made, if it made one, and std's lock on it: the caller may read the variables,
/// and not change them.
///
/// # Errors
/// `EDEADLK` as [`clone`] has it; `EAGAIN` and `ENOMEM` as clone(2) has them.
pub fn vfork(mut child: impl FnMut()) -> io::Result<(Pid, OwnedFd)> {
    extern "C" fn entry<F: FnMut()>(child: *mut libc::c_void) -> libc::c_int {
        // SAFETY: `vfork` passes a pointer to its `child`, and stands still meanwhile.
        unsafe { (*child.cast::<F>())() };
        127
    }
    fn entry_of<F: FnMut()>(_: &F) -> extern "C" fn(*mut libc::c_void) -> libc::c_int {
        entry::<F>
    }
    require_one_thread()?;
    let mut stack = Vec::<u128>::with_capacity(STACK);
    let (entry, top) = (entry_of(&child), stack.spare_capacity_mut().as_mut_ptr_range().end);
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let mut pidfd: libc::c_int = -1;
    // SAFETY: there is no other thread that could change it.
    let environment = unsafe { environ };
    // SAFETY: `entry` gets what it expects. The stack grows down from `top`, which is aligned as both ABIs want it; the child
    // has left it, and all other memory, when the call returns here.
    let pid = unsafe { libc::clone(entry, top.cast(), flags, (&raw mut child).cast(), &raw mut pidfd) };
    // SAFETY: as above.
    unsafe { environ = environment };
    let pid = if pid > 0 { Pid::from_raw(pid) } else { None }.ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just stored this descriptor for us, and nobody else has it.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

unsafe extern "C" {
    static mut environ: *const *const libc::c_char;
}

/// In units of 16 bytes: 2 MiB, of which few are touched. libc copies the arguments there to have a shell execute a file
/// without `#!`, and the kernel takes no more of them.
const STACK: usize = 128 << 10;

/// Refuses with `EDEADLK` while the process has a second thread, as far as /proc tells. One that has been joined is counted
/// until the kernel has put it away, which takes a moment.
pub fn require_one_thread() -> io::Result<()> {
    for _ in 0..100 {
        // A directory has one link for itself, one for its name, and one for each subdirectory: one for each thread.
        if rustix::fs::stat("/proc/self/task")?.st_nlink == 3 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(io::Error::from_raw_os_error(libc::EDEADLK))
}

/// Makes a child process for work that nobody waits for, and returns its pid, or `None` in the child: in a session of its
/// own, with nothing of what this program was started with, on a copy of the caller's memory.
///
/// By clone(2), which a process that has given up namespaces (seccomp(2)) may call still. The child ends with [`exit_now`].
///
/// # Errors
/// `EDEADLK` as [`clone`] has it; `EAGAIN` and `ENOMEM` as clone(2) has them.
pub fn detach() -> io::Result<Option<Pid>> {
    let pid = fork()?;
    if pid.is_none() {
        // What fails here leaves the caller's terminal or pipe open a little longer.
        let (_session, _closed) = (rustix::process::setsid(), crate::child::close_inherited(0, &[]));
    }
    Ok(pid)
}

/// Makes a child process that goes on beside this one, and may outlive it, on a copy of the caller's memory: in a session of
/// its own, with no signal blocked, and of the caller's descriptors with `keep` alone. It ends with `work`; nothing of the
/// caller's is dropped there.
///
/// `name` (15 bytes) is its name, and its command line, too, where the caller has `CAP_SYS_RESOURCE` (`PR_SET_MM(2const)`).
///
/// # Errors
/// `EDEADLK` as [`clone`] has it; `EAGAIN` and `ENOMEM` as clone(2) has them.
pub fn beside(name: &CStr, keep: &[BorrowedFd<'_>], work: impl FnOnce()) -> io::Result<()> {
    if fork()?.is_some() {
        return Ok(());
    }
    let (_renamed, _session) = (rustix::thread::set_name(name), rustix::process::setsid());
    let words = name.to_bytes_with_nul().as_ptr_range();
    for (what, at) in [(libc::PR_SET_MM_ARG_START, words.start), (libc::PR_SET_MM_ARG_END, words.end)] {
        // SAFETY: it says where /proc reads the command line, and this memory stays as long as the process.
        unsafe { libc::prctl(libc::PR_SET_MM, what, at, 0, 0) };
    }
    let mut kept: Vec<u32> = keep.iter().filter_map(|fd| fd.as_raw_fd().try_into().ok()).collect();
    kept.sort_unstable();
    let mut first: u32 = 0;
    for number in kept.into_iter().chain([u32::MAX]) {
        if first < number {
            // SAFETY: `work` has only `keep`, and nobody comes back to the caller's code, which owns the others.
            let closed = crate::raw::done(unsafe { libc::syscall(libc::SYS_close_range, first, number - 1, 0) });
            // With what it was not to have it could wait for itself.
            closed.unwrap_or_else(|_| exit_now(1));
        }
        first = number.saturating_add(1);
    }
    crate::start::open_standard();
    let _unblocked = crate::signal::unblock_all();
    exit_now(i32::from(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err()))
}

/// Makes a child process on a copy of the caller's memory; `None` in the child.
fn fork() -> io::Result<Option<Pid>> {
    require_one_thread()?;
    // SAFETY: as in `clone`: no CLONE_VM, no stack, and one thread. The order of the later arguments, which differs
    // between architectures, is of no account while all are 0.
    let pid = unsafe { libc::syscall(libc::SYS_clone, SIGCHLD, 0, 0, 0, 0) };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(pid).ok().and_then(Pid::from_raw)) }
}

// As 64-bit flags, which libc's constants are not.
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const SIGCHLD: u64 = 17;

/// Ends the calling process at once, without running anything that the parent has registered: `_exit(2)`.
///
/// The parent's buffers, which the child has a copy of, are not written twice, and its temporary files not removed.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any number and does not return.
    unsafe { libc::_exit(code) }
}
