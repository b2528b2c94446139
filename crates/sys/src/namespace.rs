//! Namespaces: their types, what nsfs tells about them (`ioctl_nsfs(2)`), making and entering them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FsWord, statfs};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags};

use crate::file;
use crate::raw::{check, opened};

/// The eight types of namespaces, in the order in which `lsns(8)` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Mount points.
    Mount,
    /// Interfaces, routes, firewalls, ports.
    Network,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// User and group ids, capabilities.
    User,
    /// Process ids.
    Pid,
    /// Host name.
    Uts,
    /// The root of the cgroup tree.
    Cgroup,
    /// Offsets of the monotonic clocks.
    Time,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Mount, Self::Network, Self::Ipc, Self::User, Self::Pid, Self::Uts, Self::Cgroup, Self::Time];

    /// Returns the name that the kernel uses in `/proc/PID/ns`.
    pub const fn name(self) -> &'static str {
        self.names().0
    }

    /// Returns the type of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Returns the flag with which `clone(2)`, `unshare(2)` and `setns(2)` name the type.
    pub const fn flag(self) -> ThreadNameSpaceType {
        self.names().1
    }

    const fn names(self) -> (&'static str, ThreadNameSpaceType) {
        match self {
            Self::Mount => ("mnt", ThreadNameSpaceType::MOUNT),
            Self::Network => ("net", ThreadNameSpaceType::NETWORK),
            Self::Ipc => ("ipc", ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION),
            Self::User => ("user", ThreadNameSpaceType::USER),
            Self::Pid => ("pid", ThreadNameSpaceType::PROCESS_ID),
            Self::Uts => ("uts", ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME),
            Self::Cgroup => ("cgroup", ThreadNameSpaceType::CONTROL_GROUP),
            Self::Time => ("time", ThreadNameSpaceType::TIME),
        }
    }
}

/// The magic number of the file system that namespaces are files of (include/uapi/linux/magic.h).
const NSFS_MAGIC: FsWord = 0x6e73_6673;

/// Tells whether a namespace is at a path, or may be: what is left of a named one that was unmounted is an empty file.
///
/// An error that says nothing of the path counts as "may be": a caller that removes things must not take it for
/// absence.
pub fn is_at(path: &Path) -> bool {
    let looked_at = file::known(statfs(path).map_err(Into::into));
    looked_at.map_or(true, |found| found.is_some_and(|found| found.f_type == NSFS_MAGIC))
}

/// The calling thread's own network namespace.
pub const OWN_NETWORK: &str = "/proc/thread-self/ns/net";

/// Tells whether the network namespace at a path is the calling thread's own.
pub fn is_own_network(path: &Path) -> bool {
    let identity = |path: &Path| path.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
    let own = identity(Path::new(OWN_NETWORK));
    own.is_some() && identity(path) == own
}

/// Moves the calling thread into the namespace that `fd` refers to, which must be of type `kind`: `setns(2)`.
///
/// # Errors
/// `EINVAL` where `fd` is of another type, is the caller's own user namespace, or where a user or mount namespace is
/// to be joined with several threads; `EPERM` without `CAP_SYS_ADMIN` in the owner.
pub fn enter(fd: BorrowedFd<'_>, kind: Kind) -> io::Result<()> {
    enter_process(fd, kind.flag())
}

/// Moves the calling thread into all the namespaces of `kinds` that the process of `pidfd` is in, in one call.
///
/// It is all or nothing, and the kernel finds the order in which rights suffice (`setns(2)` with a pidfd, Linux 5.8).
/// # Errors
/// As [`enter`]; `ESRCH` where the process has ended.
pub fn enter_process(pidfd: BorrowedFd<'_>, kinds: ThreadNameSpaceType) -> io::Result<()> {
    Ok(rustix::thread::move_into_thread_name_spaces(pidfd, kinds)?)
}

/// Gives the calling thread a new namespace of type `kind`: `unshare(2)`.
///
/// A new pid or time namespace is for the children that are made afterwards; the caller stays where it is.
pub fn unshare(kind: Kind) -> io::Result<()> {
    // SAFETY: a `Kind` is a namespace's flag, never CLONE_FILES, so the descriptor table stays shared.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::from_bits_retain(kind.flag().bits())) }?)
}

/// Requests of include/uapi/linux/nsfs.h; `SIOCGSKNS` is a socket's (include/uapi/linux/sockios.h).
const NS_GET_USERNS: libc::Ioctl = 0xb701;
const NS_GET_PARENT: libc::Ioctl = 0xb702;
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
const NS_GET_OWNER_UID: libc::Ioctl = 0xb704;
const NS_GET_ID: libc::Ioctl = 0x8008_b70d;
const SIOCGSKNS: libc::Ioctl = 0x894c;

/// Opens the user namespace that owns the namespace `fd`. `EPERM` where it is not visible from the caller's own.
pub fn owner(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    related(fd, NS_GET_USERNS)
}

/// Opens the parent of the user or pid namespace `fd`. `EPERM` where it has none that the caller can see.
pub fn parent(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    related(fd, NS_GET_PARENT)
}

/// Opens the network namespace that a socket was made in: `SIOCGSKNS`.
pub fn of_socket(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    related(socket, SIOCGSKNS)
}

/// Returns the type of the namespace `fd`, or `None` where it is one that this crate does not know.
pub fn kind(fd: BorrowedFd<'_>) -> io::Result<Option<Kind>> {
    // SAFETY: NS_GET_NSTYPE takes no argument.
    let flag = check(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) })?;
    Ok(Kind::ALL.into_iter().find(|kind| u32::try_from(flag) == Ok(kind.flag().bits())))
}

/// Returns the uid of the user who made the user namespace `fd`, as the caller numbers users.
pub fn owner_uid(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut uid: libc::uid_t = 0;
    // SAFETY: NS_GET_OWNER_UID writes one `uid_t` to its argument.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_OWNER_UID, &raw mut uid) })?;
    Ok(uid)
}

/// Returns the number that never is used twice in one boot, unlike the inode number (since Linux 6.18).
///
/// # Errors
/// `ENOTTY` on older kernels: callers go on with the inode number, which is another namespace's some time after this
/// one's end.
pub fn unique_id(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut id = 0_u64;
    // SAFETY: NS_GET_ID writes one `u64` to its argument.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_ID, &raw mut id) })?;
    Ok(id)
}

/// `struct file_handle` with what nsfs fills it with, `struct nsfs_file_handle` (since Linux 6.18).
#[repr(C)]
struct Handle {
    bytes: u32,
    sort: i32,
    id: u64,
    kind: u32,
    inode: u32,
}

/// Opens the namespace with that unique number. Before Linux 6.19 its inode number has to be given too: `ESTALE` tells that
/// it is missing or another one's.
pub fn open_by_id(kind: Kind, id: u64, inode: Option<u64>) -> io::Result<OwnedFd> {
    const FD_NSFS_ROOT: libc::c_int = -10003;
    const FILEID_NSFS: i32 = 0xf1;
    let number = inode.map(u32::try_from).transpose().map_err(|_| io::ErrorKind::InvalidInput)?;
    // Either all three or the unique number alone.
    let (of_kind, number) = number.map_or((0, 0), |number| (kind.flag().bits(), number));
    let handle = Handle { bytes: 16, sort: FILEID_NSFS, id, kind: of_kind, inode: number };
    // SAFETY: the handle has the 16 bytes that it says behind its head, and the kernel only reads it.
    opened(unsafe {
        libc::syscall(libc::SYS_open_by_handle_at, FD_NSFS_ROOT, &raw const handle, libc::O_RDONLY | libc::O_CLOEXEC)
    })
}

/// `struct ns_id_req` (since Linux 6.19).
#[repr(C)]
struct Request {
    size: u32,
    spare: u32,
    after: u64,
    kinds: u32,
    spare_too: u32,
    owner: u64,
}

/// Returns the unique numbers of all namespaces of that type which the caller may see, whatever holds them: listns(2).
/// `ENOSYS` before Linux 6.19.
pub fn list(kind: Kind) -> io::Result<Vec<u64>> {
    const LISTNS: libc::c_long = 470;
    const SIZE: u32 = 32;
    let mut all: Vec<u64> = vec![];
    let mut page = [0_u64; 512];
    loop {
        let after = all.last().copied().unwrap_or_default();
        let kinds = kind.flag().bits();
        let request = Request { size: SIZE, spare: 0, after, kinds, spare_too: 0, owner: 0 };
        // SAFETY: the request has the size that it says, and the kernel writes at most as many numbers as `page` has.
        let count = unsafe { libc::syscall(LISTNS, &raw const request, page.as_mut_ptr(), page.len(), 0) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        let found = page.get(..count).unwrap_or_default();
        // A page that brings nothing new would be asked for for ever.
        if found.is_empty() || found.last() == all.last() {
            return Ok(all);
        }
        all.extend(found);
    }
}

fn related(fd: BorrowedFd<'_>, request: libc::Ioctl) -> io::Result<OwnedFd> {
    // SAFETY: the three requests used here take no argument.
    opened(unsafe { libc::ioctl(fd.as_raw_fd(), request) })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_kernel_and_we_agree_on_the_types() {
        for kind in Kind::ALL {
            let file = File::open(format!("/proc/self/ns/{}", kind.name())).unwrap();
            assert_eq!(super::kind(file.as_fd()).unwrap(), Some(kind));
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
        }
    }

    #[test]
    fn a_unique_number_leads_back_where_the_kernel_can() {
        let file = File::open("/proc/self/ns/uts").unwrap();
        let inode = rustix::fs::fstat(&file).unwrap().st_ino;
        let Ok(id) = unique_id(file.as_fd()) else { return };
        let opened = |inode| open_by_id(Kind::Uts, id, inode).map(|fd| rustix::fs::fstat(fd).unwrap().st_ino);
        match opened(Some(inode)) {
            Ok(found) => assert_eq!(found, inode),
            // The privilege, or the kernel's support, may be missing.
            Err(error) => assert!(matches!(error.raw_os_error(), Some(libc::EPERM | libc::EBADF | libc::EOPNOTSUPP))),
        }
        assert!(open_by_id(Kind::Uts, id, Some(inode + 1)).is_err());
        match list(Kind::Uts) {
            Ok(all) => assert!(all.contains(&id) && opened(None).is_ok_and(|found| found == inode)),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOSYS)),
        }
    }

    #[test]
    fn a_file_that_is_no_namespace_has_no_type() {
        let file = File::open("/proc/self/status").unwrap();
        assert!(kind(file.as_fd()).is_err());
        assert!(owner(file.as_fd()).is_err());
    }
}
