//! Every process's namespaces, read from /proc: eight links a process and nothing else, so that the time grows with the
//! processes alone.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw};
use sys::namespace::Kind;

/// One namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// Its inode number, which is its name.
    pub(crate) inode: u64,
    /// Its type.
    pub(crate) kind: Kind,
    /// How many processes are in it.
    pub(crate) nprocs: u32,
    /// The lowest of their pids.
    pub(crate) lead: Option<i32>,
    /// What else keeps it.
    pub(crate) held: Held,
}

impl Scanned {
    /// Returns a namespace that no process is known of.
    pub(crate) fn empty(inode: u64, kind: Kind) -> Self {
        Self { inode, kind, nprocs: 0, lead: None, held: Held::default() }
    }
}

/// What keeps a namespace beside its processes: a path of each sort, through which it can be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Where it is mounted.
    pub(crate) mounts: Vec<String>,
    /// A thread that has left its process's namespace.
    pub(crate) thread: Option<String>,
    /// An open descriptor.
    pub(crate) descriptor: Option<String>,
    /// A process and its descriptor of a socket made in it.
    pub(crate) socket: Option<(i32, i32)>,
    /// It is another namespace's parent or owner.
    pub(crate) related: bool,
    /// Its unique number, where the kernel has listed it: whatever holds it may be out of our sight.
    pub(crate) listed: Option<u64>,
}

/// The namespaces by inode number, and each process's.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// All that are known.
    pub(crate) namespaces: HashMap<u64, Scanned>,
    /// The namespaces of each process, by pid, in the order of [`Kind::ALL`]; 0 where a link cannot be read.
    pub(crate) processes: Vec<(i32, [u64; 8])>,
}

/// How many processes are worth a second thread.
const WORTH_A_THREAD: usize = 128;

impl Scan {
    /// Reads the namespaces of those types of all processes.
    pub(crate) fn read(proc: BorrowedFd<'_>, kinds: &[Kind]) -> Result<Self> {
        let pids = numbers(proc).context("read /proc")?;
        let processes = in_threads(&pids, |pids| links(proc, pids, kinds));
        let mut scan = Self { namespaces: HashMap::with_capacity(processes.len()), processes };
        for (pid, inodes) in &scan.processes {
            for (inode, kind) in inodes.iter().zip(Kind::ALL).filter(|(inode, _)| **inode != 0) {
                let namespace = scan.namespaces.entry(*inode).or_insert_with(|| Scanned::empty(*inode, kind));
                namespace.nprocs += 1;
                // lsns calls the lowest pid the namespace's process. It need not be the oldest: numbers start anew at
                // `pid_max`.
                namespace.lead = Some(namespace.lead.map_or(*pid, |lead| lead.min(*pid)));
            }
        }
        Ok(scan)
    }

    /// Returns the namespace of that number, made known if it is not.
    pub(crate) fn entry(&mut self, inode: u64, kind: Kind) -> &mut Scanned {
        self.namespaces.entry(inode).or_insert_with(|| Scanned::empty(inode, kind))
    }

    /// Returns the processes in the namespace of that number, in order.
    pub(crate) fn pids_in(&self, inode: u64) -> Vec<i32> {
        let inside = self.processes.iter().filter(|(_, inodes)| inodes.contains(&inode));
        let mut pids: Vec<i32> = inside.map(|(pid, _)| *pid).collect();
        pids.sort_unstable();
        pids
    }
}

/// Does `work` on shares of the pids, in as many threads as there are processors and work for.
pub(crate) fn in_threads<T: Send>(pids: &[i32], work: impl Fn(&[i32]) -> Vec<T> + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(8);
    let share = pids.len().div_ceil(threads).max(WORTH_A_THREAD);
    let work = &work;
    std::thread::scope(|scope| {
        let begin = |pids| std::thread::Builder::new().spawn_scoped(scope, move || work(pids));
        // Where there may be no more threads, this one does it.
        let rest: Vec<_> =
            pids.chunks(share).skip(1).map(|pids| begin(pids).map_err(|_no_thread| work(pids))).collect();
        let mut all = pids.chunks(share).next().map(work).unwrap_or_default();
        for part in rest {
            // Threads that read files have nothing to panic about.
            all.extend(part.map_or_else(|done| done, |thread| thread.join().unwrap_or_default()));
        }
        all
    })
}

/// Opens /proc.
pub(crate) fn open_proc() -> Result<OwnedFd> {
    openat(CWD, "/proc", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).context("open /proc")
}

/// Returns the entries of an open directory that are numbers, in its order.
pub(crate) fn numbers(directory: impl AsFd) -> std::io::Result<Vec<i32>> {
    // getdents64(2) with a large buffer: a call for some four thousand processes.
    let mut buffer = vec![MaybeUninit::uninit(); 1 << 17];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut found = vec![];
    while let Some(entry) = entries.next() {
        found.extend(entry?.file_name().to_str().ok().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(found)
}

fn links(proc: BorrowedFd<'_>, pids: &[i32], kinds: &[Kind]) -> Vec<(i32, [u64; 8])> {
    pids.iter()
        .filter_map(|pid| {
            let inodes = process_links(proc, &format!("{pid}/ns"), kinds)?;
            inodes.iter().any(|inode| *inode != 0).then_some((*pid, inodes))
        })
        .collect()
}

/// Reads the links in a `ns` directory. A process that is gone, or whose links we may not read, has none.
pub(crate) fn process_links(proc: BorrowedFd<'_>, path: &str, kinds: &[Kind]) -> Option<[u64; 8]> {
    // `O_PATH`: the links are read relative to one look-up of /proc/PID/ns, and all are of the same process, even if
    // its number passes on.
    let directory = openat(proc, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut inodes = [0; 8];
    for (inode, kind) in inodes.iter_mut().zip(Kind::ALL) {
        if kinds.contains(&kind) {
            *inode = link(&directory, kind.name()).map_or(0, |(_, inode)| inode);
        }
    }
    Some(inodes)
}

/// Reads a link that names a namespace, as `net:[4026531840]`.
pub(crate) fn link(directory: impl AsFd, name: &str) -> Option<(Kind, u64)> {
    let mut buffer = [MaybeUninit::uninit(); 64];
    let (text, _) = readlinkat_raw(directory, name, &mut buffer).ok()?;
    parse_link(std::str::from_utf8(text).ok()?)
}

/// Reads the name that the kernel gives a namespace.
pub(crate) fn parse_link(text: &str) -> Option<(Kind, u64)> {
    let (kind, inode) = text.strip_suffix(']')?.split_once(":[")?;
    Some((Kind::from_name(kind)?, inode.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_names_are_read() {
        for (text, want) in [
            ("net:[4026531840]", Some((Kind::Network, 4_026_531_840))),
            ("pid_for_children:[1]", None),
            ("net:[]", None),
            ("net:4026531840", None),
            ("socket:[123]", None),
        ] {
            assert_eq!(parse_link(text), want, "{text}");
        }
    }

    #[test]
    fn this_process_is_in_one_namespace_of_each_type() {
        let proc = open_proc().unwrap();
        let scan = Scan::read(proc.as_fd(), &Kind::ALL).unwrap();
        let pid = i32::try_from(std::process::id()).unwrap();
        let (_, inodes) = scan.processes.iter().find(|(other, _)| *other == pid).unwrap();
        for (inode, kind) in inodes.iter().zip(Kind::ALL) {
            let namespace = &scan.namespaces[inode];
            assert_eq!(namespace.kind, kind);
            assert!(namespace.nprocs >= 1 && namespace.lead.unwrap() <= pid);
        }
    }
}
