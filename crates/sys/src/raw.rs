//! What system calls answer: a number, or -1 and `errno`.
//!
//! `libc::syscall` returns a long and `ioctl` an int; both have -1 for a failure, and the reason in `errno`, which
//! the next call may change. So the answer is looked at here, before anything else happens.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Returns the number.
pub(crate) fn check(answer: impl Into<i64>) -> io::Result<i32> {
    let answer = answer.into();
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(answer).unwrap_or(i32::MAX)) }
}

/// Tells whether the call was made.
pub(crate) fn done(answer: impl Into<i64>) -> io::Result<()> {
    check(answer).map(drop)
}

/// Takes the descriptor that a call, and nothing else, has just returned.
pub(crate) fn opened(answer: impl Into<i64>) -> io::Result<OwnedFd> {
    let fd = check(answer)?;
    // SAFETY: the call has just returned this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Turns an option of a socket on that is an int: `setsockopt(2)`.
pub(crate) fn turn_on(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = u32::try_from(size_of::<libc::c_int>()).unwrap_or_default();
    // SAFETY: the kernel reads `size` bytes, the size of `on`, which outlives the call.
    done(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), size) })
}
