//! What a process takes away from itself for good: system calls, by a seccomp filter (`seccomp(2)`).

use std::io;

use crate::raw::done;

/// Has a filter, `struct sock_filter`s of eight bytes each, decide on the calling thread's system calls from here on, and
/// on those of the threads that it makes.
///
/// The caller has `no_new_privs`, or `CAP_SYS_ADMIN` in its user namespace. A filter stays for good, through `execve`.
/// # Errors
/// `EINVAL` for one that the kernel's verifier refuses or that has more than 4,096 instructions; `EACCES` without
/// that right.
pub fn filter(program: &[u8]) -> io::Result<()> {
    load(&mut instructions(program), 0)
}

/// Reads a seccomp filter.
pub(crate) fn instructions(program: &[u8]) -> Vec<libc::sock_filter> {
    let instruction = |bytes: &[u8]| libc::sock_filter {
        code: u16::from_ne_bytes([bytes[0], bytes[1]]),
        jt: bytes[2],
        jf: bytes[3],
        k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    };
    program.chunks_exact(8).map(instruction).collect()
}

/// Gives the kernel a filter, with `SECCOMP_FILTER_FLAG_*`. It makes a system call and does nothing else.
pub(crate) fn load(program: &mut [libc::sock_filter], flags: u64) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the filter is as long as it says and lives until the kernel has copied it.
    done(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) })
}
