//! Parents and owners of namespaces, asked of the kernel: once for each namespace, however many processes it has.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fstat, openat};
use sys::namespace::{self, Kind};

use super::scan::{Scan, Scanned};

/// What a namespace is related to; 0 where there is nothing, or nothing that we may see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Relation {
    /// The parent of a user or pid namespace.
    pub(crate) parent: u64,
    /// The user namespace whose root has power over it.
    pub(crate) owner: u64,
    /// Who made it, if it is a user namespace.
    pub(crate) uid: Option<u32>,
}

/// Opens a namespace through whatever holds it.
pub(crate) fn open(proc: BorrowedFd<'_>, namespace: &Scanned) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    if let Some(pid) = namespace.lead {
        return openat(proc, format!("{pid}/ns/{}", namespace.kind.name()), flags, Mode::empty()).ok();
    }
    let held = &namespace.held;
    let paths = held.mounts.iter().chain(&held.thread).chain(&held.descriptor);
    let mut opened = paths.filter_map(|path| File::open(path).ok().map(OwnedFd::from));
    // A mount may be covered by another one: only the number tells.
    let by_path = opened.find(|fd| inode(fd.as_fd()) == Some(namespace.inode));
    let by_socket = || held.socket.and_then(|(pid, descriptor)| super::refs::socket_namespace(pid, descriptor));
    let by_number = || namespace::open_by_id(namespace.kind, held.listed?, None).ok();
    by_path.or_else(by_socket).or_else(by_number)
}

/// Asks for the relations of all namespaces. Those that only are another one's parent or owner become known by it.
pub(crate) fn read(proc: BorrowedFd<'_>, scan: &mut Scan) -> HashMap<u64, Relation> {
    let mut relations = HashMap::with_capacity(scan.namespaces.len());
    let known: Vec<Scanned> = scan.namespaces.values().cloned().collect();
    for namespace in known {
        if let Some(fd) = open(proc, &namespace) {
            ask(fd.as_fd(), namespace.inode, namespace.kind, scan, &mut relations);
        }
    }
    relations
}

/// Asks who made the user namespace that this one belongs to, or is.
pub(crate) fn maker(proc: BorrowedFd<'_>, namespace: &Scanned) -> Option<u32> {
    let fd = open(proc, namespace)?;
    if namespace.kind == Kind::User {
        return namespace::owner_uid(fd.as_fd()).ok();
    }
    namespace::owner_uid(namespace::owner(fd.as_fd()).ok()?.as_fd()).ok()
}

fn ask(fd: BorrowedFd<'_>, inode: u64, kind: Kind, scan: &mut Scan, relations: &mut HashMap<u64, Relation>) {
    if relations.contains_key(&inode) {
        return;
    }
    let mut relation = Relation::default();
    relations.insert(inode, relation);
    if let Ok(owner) = namespace::owner(fd) {
        relation.owner = follow(&owner, Kind::User, scan, relations);
    }
    if kind == Kind::User {
        // A user namespace's parent is its owner.
        relation.parent = relation.owner;
        relation.uid = namespace::owner_uid(fd).ok();
    } else if kind == Kind::Pid {
        if let Ok(parent) = namespace::parent(fd) {
            relation.parent = follow(&parent, Kind::Pid, scan, relations);
        }
    }
    relations.insert(inode, relation);
}

fn follow(fd: &OwnedFd, kind: Kind, scan: &mut Scan, relations: &mut HashMap<u64, Relation>) -> u64 {
    let Some(inode) = inode(fd.as_fd()) else { return 0 };
    // The walk upwards ends at one that is known, and at the first namespace of all, which has no owner that may be
    // seen.
    if !scan.namespaces.contains_key(&inode) {
        scan.entry(inode, kind).held.related = true;
        ask(fd.as_fd(), inode, kind, scan, relations);
    }
    inode
}

/// Returns the inode number of an open namespace.
pub(crate) fn inode(fd: BorrowedFd<'_>) -> Option<u64> {
    fstat(fd).ok().map(|stat| stat.st_ino)
}
