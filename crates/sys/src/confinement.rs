//! What a process takes away from itself for good: files, by a Landlock ruleset (`landlock(7)`), and system calls, by a
//! seccomp filter (`seccomp(2)`).

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use crate::raw::{done, opened};

const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;

/// `struct landlock_ruleset_attr`, of which an older kernel takes a shorter part.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handled {
    /// Rights to files: what no rule gives is refused.
    pub files: u64,
    /// Rights to TCP ports.
    pub ports: u64,
    /// What may not reach beyond those that are restricted alike.
    pub scopes: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// A Landlock ruleset that is being made.
#[derive(Debug)]
pub struct Ruleset(OwnedFd);

impl Ruleset {
    /// Returns which version of Landlock the kernel has; 0 for none.
    pub fn version() -> u32 {
        let none = std::ptr::null::<Handled>();
        // SAFETY: with this flag the kernel reads no memory.
        let version =
            unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, CREATE_RULESET_VERSION) };
        u32::try_from(version).unwrap_or(0)
    }

    /// Begins a ruleset. What is handled must be known to the kernel's version, zeros may be unknown.
    pub fn new(handled: &Handled) -> io::Result<Self> {
        let (handled, size) = (&raw const *handled, size_of::<Handled>());
        // SAFETY: the kernel reads the structure, which is as long as it says.
        opened(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, handled, size, 0_u32) }).map(Self)
    }

    /// Gives rights to a file, or to all that is below a directory.
    pub fn allow(&self, below: BorrowedFd<'_>, rights: u64) -> io::Result<()> {
        let rule = PathBeneath { allowed: rights, parent: below.as_raw_fd() };
        // SAFETY: the kernel reads the structure, which has the layout of this kind of rule.
        done(unsafe {
            libc::syscall(libc::SYS_landlock_add_rule, self.0.as_raw_fd(), RULE_PATH_BENEATH, &raw const rule, 0_u32)
        })
    }

    /// Restricts the calling thread and those that it makes. It must not be able to gain privileges (`no_new_privs`).
    pub fn restrict(self) -> io::Result<()> {
        // SAFETY: the call takes no memory.
        done(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0_u32) })
    }
}

/// Has a filter, `struct sock_filter`s of eight bytes each, decide on the calling thread's system calls from here on, and
/// on those of the threads that it makes.
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
