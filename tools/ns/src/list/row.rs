//! A namespace's values, read as far as columns or filter need them.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};

use netlink::route::Router;
use sys::namespace::Kind;

use super::column::Column;
use super::container::Containers;
use super::process::{ScannedProcess, Wanted};
use super::relation::{self, Relation};
use super::scan::Scanned;
use super::table::Cell;
use super::users::Users;
use super::{ListRequest, RowTree};

/// Where the values come from.
pub(crate) struct RowSource<'a> {
    proc: BorrowedFd<'a>,
    relations: HashMap<u64, Relation>,
    wanted: Wanted,
    processes: HashMap<i32, ScannedProcess>,
    users: Users,
    router: Option<Router>,
    containers: Option<Containers>,
    nsids: bool,
}

/// A namespace with its values.
#[derive(Debug)]
pub(crate) struct Described<'a> {
    namespace: &'a Scanned,
    process: Option<&'a ScannedProcess>,
    pub(crate) relation: Relation,
    uid: Option<u32>,
    user: Option<String>,
    netnsid: Option<String>,
    container: Option<String>,
    nsid: Option<u64>,
}

impl<'a> RowSource<'a> {
    /// Makes ready what `needed` columns need.
    pub(crate) fn new(
        proc: BorrowedFd<'a>,
        relations: HashMap<u64, Relation>,
        needed: &[Column],
        request: &ListRequest,
    ) -> Self {
        let needs = |column| needed.contains(&column);
        Self {
            proc,
            relations,
            wanted: Wanted {
                ppid: needs(Column::Ppid) || request.tree == Some(RowTree::Process),
                uid: needs(Column::Uid) || needs(Column::User),
                command: needs(Column::Command),
                cgroups: needs(Column::Container),
            },
            processes: HashMap::new(),
            users: if needs(Column::User) { Users::read() } else { Users::default() },
            // Without one (no netlink, a seccomp filter) no namespace has a number.
            router: if needs(Column::Netnsid) { Router::open().ok() } else { None },
            containers: needs(Column::Container).then(|| Containers::read(proc, &request.states)),
            nsids: needs(Column::Nsid),
        }
    }

    /// Reads the processes that rows are about.
    pub(crate) fn read_processes(&mut self, mut pids: Vec<i32>) {
        if self.wanted == Wanted::default() {
            return;
        }
        pids.sort_unstable();
        pids.dedup();
        self.processes = ScannedProcess::read_all(self.proc, &pids, self.wanted).into_iter().collect();
    }

    /// Returns what a namespace is related to.
    pub(crate) fn relation(&self, inode: u64) -> Relation {
        self.relations.get(&inode).copied().unwrap_or_default()
    }

    /// Reads a namespace's values.
    pub(crate) fn describe<'s>(&'s mut self, namespace: &'s Scanned) -> Described<'s> {
        let netnsid = self.netnsid(namespace);
        let process = namespace.lead.and_then(|pid| self.processes.get(&pid));
        let relation = self.relation(namespace.inode);
        let nsid = self.nsid(namespace);
        let uid = match process {
            _ if !self.wanted.uid => None,
            Some(process) => Some(process.uid),
            None => relation.uid.or_else(|| relation::maker(self.proc, namespace)),
        };
        Described {
            namespace,
            relation,
            nsid,
            uid,
            user: uid.map(|uid| self.users.name(uid)),
            netnsid,
            container: self
                .containers
                .as_mut()
                .and_then(|containers| containers.find(namespace.inode, namespace.lead.zip(process))),
            process,
        }
    }

    fn nsid(&self, namespace: &Scanned) -> Option<u64> {
        let fd = self.nsids.then(|| relation::open(self.proc, namespace))??;
        sys::namespace::unique_id(fd.as_fd()).ok()
    }

    fn netnsid(&mut self, namespace: &Scanned) -> Option<String> {
        let router = self.router.as_mut().filter(|_| namespace.kind == Kind::Network)?;
        let id = relation::open(self.proc, namespace).and_then(|netns| router.namespace_id(netns.as_fd()).ok()?);
        Some(id.map_or_else(|| "unassigned".to_owned(), |id| id.to_string()))
    }
}

impl Described<'_> {
    /// Returns the parent of the lowest process; 0 where there is none.
    pub(crate) fn ppid(&self) -> i32 {
        self.process.map_or(0, |process| process.ppid)
    }

    /// Returns the value of a column.
    pub(crate) fn cell(&self, column: Column) -> Cell {
        let text = |text: &Option<String>| text.clone().map_or(Cell::None, Cell::Text);
        let pid = |pid: i32| u64::try_from(pid).map_or(Cell::None, Cell::Number);
        let namespace = self.namespace;
        let process = self.process;
        match column {
            Column::Ns => Cell::Number(namespace.inode),
            Column::Type => Cell::Text(namespace.kind.name().to_owned()),
            Column::Path => self.path().map_or(Cell::None, Cell::Text),
            Column::Nprocs => Cell::Number(namespace.nprocs.into()),
            Column::Pid => namespace.lead.map_or(Cell::None, pid),
            Column::Ppid => process.map_or(Cell::None, |process| pid(process.ppid)),
            Column::Command => process.map_or(Cell::None, |process| Cell::Text(process.command.clone())),
            Column::Uid => self.uid.map_or(Cell::None, |uid| Cell::Number(uid.into())),
            Column::User => text(&self.user),
            Column::Netnsid => text(&self.netnsid),
            Column::Nsfs if namespace.held.mounts.is_empty() => Cell::None,
            Column::Nsfs => Cell::Lines(namespace.held.mounts.clone()),
            Column::Pns => Cell::Number(self.relation.parent),
            Column::Ons => Cell::Number(self.relation.owner),
            Column::Container => text(&self.container),
            Column::Nsid => self.nsid.map_or(Cell::None, Cell::Number),
            Column::HeldBy => Cell::Lines(self.held_by().into_iter().map(str::to_owned).collect()),
        }
    }

    fn path(&self) -> Option<String> {
        let (namespace, held) = (self.namespace, &self.namespace.held);
        let kind = namespace.kind.name();
        namespace
            .lead
            .map(|pid| format!("/proc/{pid}/ns/{kind}"))
            .or_else(|| held.mounts.iter().chain(&held.thread).chain(&held.descriptor).next().cloned())
    }

    fn held_by(&self) -> Vec<&'static str> {
        let held = &self.namespace.held;
        let mut by: Vec<_> = [
            ("process", self.namespace.nprocs > 0),
            ("thread", held.thread.is_some()),
            ("mount", !held.mounts.is_empty()),
            ("fd", held.descriptor.is_some()),
            ("socket", held.socket.is_some()),
            ("namespace", held.related),
        ]
        .into_iter()
        .filter_map(|(name, holds)| holds.then_some(name))
        .collect();
        if by.is_empty() && held.listed.is_some() {
            by.push("unseen");
        }
        by
    }
}
