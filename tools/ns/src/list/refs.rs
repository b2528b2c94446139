//! What keeps namespaces beside processes: mounts of nsfs, threads, open descriptors, sockets.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, openat, readlinkat_raw, stat, statat};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use sys::namespace::{self, Kind};

use super::process::read;
use super::relation::inode;
use super::scan::{Scan, link, numbers, parse_link, process_links};

/// Adds what is mounted somewhere in this mount namespace: one file to read.
pub(crate) fn mounts(scan: &mut Scan, kinds: &[Kind]) {
    for (kind, inode, path) in parse_mounts(&String::from_utf8_lossy(&read("/proc/self/mountinfo"))) {
        if kinds.contains(&kind) {
            scan.entry(inode, kind).held.mounts.push(path);
        }
    }
}

pub(crate) fn parse_mounts(mountinfo: &str) -> Vec<(Kind, u64, String)> {
    let parse = |line: &str| {
        let (mount, fs) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (kind, inode) = parse_link(fields.next()?)?;
        (fs.split(' ').next() == Some("nsfs")).then(|| fields.next().map(|path| (kind, inode, unescape(path))))?
    };
    mountinfo.lines().filter_map(parse).collect()
}

/// Undoes the kernel's escapes.
pub(crate) fn unescape(path: &str) -> String {
    String::from_utf8_lossy(&sys::file::unescape(path.as_bytes())).into_owned()
}

/// Adds what threads, descriptors and sockets keep: every process's tables are read. What the kernel lists beside that is
/// held out of our sight, by a mount in another mount namespace mostly.
pub(crate) fn all(proc: BorrowedFd<'_>, scan: &mut Scan, kinds: &[Kind]) {
    for (pid, own) in scan.processes.clone() {
        threads(proc, pid, &own, scan, kinds);
        descriptors(proc, pid, scan, kinds);
    }
    for kind in kinds {
        // A kernel that does not list them is no error.
        for id in namespace::list(*kind).unwrap_or_default() {
            if let Some(inode) = namespace::open_by_id(*kind, id, None).ok().and_then(|fd| inode(fd.as_fd())) {
                scan.entry(inode, *kind).held.listed = Some(id);
            }
        }
    }
}

fn threads(proc: BorrowedFd<'_>, pid: i32, own: &[u64; 8], scan: &mut Scan, kinds: &[Kind]) {
    // unshare(2) and setns(2) are a thread's: one of a process's threads may be the only one in a namespace. Types
    // that belong to all threads (user, pid for itself) never differ.
    let Ok(tasks) = open_directory(proc, &format!("{pid}/task")) else { return };
    let Ok(threads) = numbers(&tasks) else { return };
    for thread in threads.into_iter().filter(|thread| *thread != pid) {
        let Some(links) = process_links(tasks.as_fd(), &format!("{thread}/ns"), kinds) else { continue };
        for ((inode, leader), kind) in links.iter().zip(own).zip(Kind::ALL) {
            if *inode != 0 && inode != leader {
                let path = format!("/proc/{pid}/task/{thread}/ns/{}", kind.name());
                scan.entry(*inode, kind).held.thread.get_or_insert(path);
            }
        }
    }
}

fn descriptors(proc: BorrowedFd<'_>, pid: i32, scan: &mut Scan, kinds: &[Kind]) {
    let Ok(directory) = open_directory(proc, &format!("{pid}/fd")) else { return };
    let Ok(numbers) = numbers(&directory) else { return };
    let mut sockets = vec![];
    for number in numbers {
        let name = number.to_string();
        match what(&directory, &name) {
            Descriptor::Namespace(kind, inode) if kinds.contains(&kind) => {
                scan.entry(inode, kind).held.descriptor.get_or_insert(format!("/proc/{pid}/fd/{name}"));
            }
            Descriptor::Socket if kinds.contains(&Kind::Network) => sockets.push(number),
            _ => {}
        }
    }
    for number in sockets {
        let Some(netns) = socket_namespace(pid, number) else { continue };
        let Some(inode) = inode(netns.as_fd()) else { continue };
        scan.entry(inode, Kind::Network).held.socket.get_or_insert((pid, number));
    }
}

/// Opens the network namespace of another process's socket: the descriptor is duplicated by `pidfd_getfd(2)`.
pub(crate) fn socket_namespace(pid: i32, descriptor: i32) -> Option<OwnedFd> {
    // pidfd_getfd(2) needs the rights of ptrace(2) over the process: where they lack, the socket is not seen.
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let socket = pidfd_getfd(&pidfd, descriptor, PidfdGetfdFlags::empty()).ok()?;
    namespace::of_socket(socket.as_fd()).ok()
}

/// What a descriptor is, as far as it matters here.
enum Descriptor {
    Namespace(Kind, u64),
    Socket,
    Other,
}

fn what(directory: &OwnedFd, name: &str) -> Descriptor {
    if let Some((kind, inode)) = link(directory, name) {
        return Descriptor::Namespace(kind, inode);
    }
    // Eight bytes tell `socket:[` from all the others: the number in it is not wanted.
    let mut buffer = [MaybeUninit::uninit(); 8];
    let Ok((text, _)) = readlinkat_raw(directory, name, &mut buffer) else { return Descriptor::Other };
    if text.starts_with(b"socket:") {
        return Descriptor::Socket;
    }
    // A namespace that was opened where it is mounted has that path for a name, or what is left of it.
    if !text.starts_with(b"/") || !is_nsfs(directory, name) {
        return Descriptor::Other;
    }
    // Only after the device has shown that it is a namespace: to open a FIFO could hang, and a tape could rewind.
    let opened = openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let known = opened.ok().and_then(|fd| Some((namespace::kind(fd.as_fd()).ok()??, inode(fd.as_fd())?)));
    known.map_or(Descriptor::Other, |(kind, inode)| Descriptor::Namespace(kind, inode))
}

/// Tells whether the descriptor is a file of nsfs: asked of the device, because opening others may have effects.
fn is_nsfs(directory: &OwnedFd, name: &str) -> bool {
    let own = stat("/proc/self/ns/net").map(|stat| stat.st_dev);
    own.is_ok_and(|own| statat(directory, name, AtFlags::empty()).is_ok_and(|stat| stat.st_dev == own))
}

fn open_directory(proc: BorrowedFd<'_>, path: &str) -> rustix::io::Result<OwnedFd> {
    openat(proc, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_of_namespaces_are_taken() {
        let text = "64 63 0:4 net:[4026532540] /run/netns/a\\040b rw shared:2 - nsfs nsfs rw\n\
                    65 63 0:4 / / rw - ext4 /dev/vda rw\n\
                    66 63 0:4 net:[1] /x rw - tmpfs net:[1] rw\n\
                    67 63 0:4 mnt:[7] /m rw - nsfs nsfs rw\n";
        let want = [(Kind::Network, 4_026_532_540, "/run/netns/a b".to_owned()), (Kind::Mount, 7, "/m".to_owned())];
        assert_eq!(parse_mounts(text), want);
    }

    #[test]
    fn a_backslash_that_is_no_escape_stays() {
        for (path, want) in [(r"a\134b", r"a\b"), (r"a\9b", r"a\9b"), ("", ""), (r"\", r"\")] {
            assert_eq!(unescape(path), want);
        }
    }
}
