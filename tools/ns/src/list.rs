//! `ns list`: what `lsns(8)` lists, in linear time, and the containers that namespaces belong to.

mod column;
mod container;
mod dot;
mod filter;
mod json;
mod process;
mod refs;
mod relation;
mod row;
mod scan;
mod table;
mod users;

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use sys::namespace::Kind;

pub(crate) use column::Column;
pub(crate) use container::in_cgroups;
pub(crate) use dot::COLUMNS as DOT_COLUMNS;
pub(crate) use filter::RowFilter;
pub(crate) use process::{ScannedProcess, Wanted};
pub(crate) use refs::{mounts, unescape};
pub(crate) use relation::inode;
use row::RowSource;
pub(crate) use scan::{Scan, Scanned, open_proc};
pub(crate) use table::Look;
use table::{Row, RowTable};

/// What is listed.
#[derive(Clone, Default)]
pub(crate) struct ListRequest {
    /// The types.
    pub(crate) kinds: Vec<Kind>,
    /// The columns.
    pub(crate) columns: Vec<Column>,
    /// Which rows.
    pub(crate) filter: Option<RowFilter>,
    /// What makes a row stand below another.
    pub(crate) tree: Option<RowTree>,
    /// Only one process's namespaces, or one namespace's processes.
    pub(crate) only: Option<Only>,
    /// Only namespaces without a process.
    pub(crate) persistent: bool,
    /// Only network namespaces that have a name.
    pub(crate) named: bool,
    /// Those, too, that only a thread, a descriptor or a socket keeps.
    pub(crate) refs: bool,
    /// Where our containers' states are.
    pub(crate) states: PathBuf,
}

/// What makes a row stand below another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowTree {
    /// The lowest process is a child of the other's.
    Process,
    /// The other is its parent.
    Parent,
    /// The other is the user namespace that owns it.
    Owner,
}

/// A part of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Only {
    /// The namespaces of this process.
    Task(i32),
    /// The processes in this namespace.
    Namespace(u64),
}

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListFormat {
    /// For people.
    Text(Look),
    /// One line a row.
    Raw(Look),
    /// One document in lsns's shape; several texts of one cell stand side by side, with commas, or on a line each.
    Json { no_wrap: bool },
    /// One object a line.
    Lines,
    /// A graph.
    Dot,
}

/// Lists namespaces on stdout.
pub(crate) fn list(request: &ListRequest, format: ListFormat) -> Result<()> {
    let table = table(request)?;
    let text = match format {
        ListFormat::Text(_) if table.rows.is_empty() => String::new(),
        ListFormat::Text(look) => table.to_text(look),
        ListFormat::Raw(look) => table.to_raw(look),
        ListFormat::Json { no_wrap } => json::document(&table, if no_wrap { "," } else { "\n" }),
        ListFormat::Lines => json::lines(&table),
        ListFormat::Dot => dot::write(&table),
    };
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

/// Lists the columns that there are.
pub(crate) fn list_columns(lsns: bool, format: ListFormat) -> Result<()> {
    let columns: Vec<Column> = Column::all(lsns).collect();
    let width = columns.iter().map(|column| column.name().len()).max().unwrap_or_default();
    let line = |column: &Column| {
        let (name, holds, help) = (column.name(), column.type_name(), column.help());
        match format {
            ListFormat::Raw(_) => format!("{name} {holds} {}\n", table::raw(help)),
            ListFormat::Lines => {
                serde_json::json!({"holder": name, "type": holds, "description": help}).to_string() + "\n"
            }
            _ => format!("{name:>width$} {holds:<9} {help}\n"),
        }
    };
    let text = match format {
        ListFormat::Json { .. } => json::columns(&columns),
        _ => columns.iter().map(line).collect(),
    };
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

fn table(request: &ListRequest) -> Result<RowTable> {
    let proc = open_proc()?;
    let proc = proc.as_fd();
    let mut scan = Scan::read(proc, &request.kinds)?;
    let mut needed = request.columns.clone();
    needed.extend(request.filter.iter().flat_map(RowFilter::columns));
    let of_task = matches!(request.only, Some(Only::Task(_)));
    if !of_task || needed.contains(&Column::Nsfs) {
        mounts(&mut scan, &request.kinds);
    }
    if !of_task && request.refs {
        refs::all(proc, &mut scan, &request.kinds);
    }
    let related = matches!(request.tree, Some(RowTree::Parent | RowTree::Owner));
    let relations = if related || needed.contains(&Column::Pns) || needed.contains(&Column::Ons) {
        relation::read(proc, &mut scan)
    } else {
        std::collections::HashMap::default()
    };
    let mut source = RowSource::new(proc, relations, &needed, request);
    if let Some(Only::Namespace(inode)) = request.only {
        let namespace = scan.namespaces.get(&inode).filter(|namespace| request.kinds.contains(&namespace.kind));
        ensure!(namespace.is_some(), "not found namespace: {inode}");
        return Ok(processes(&scan, inode, &mut source, request));
    }
    let mut namespaces: Vec<&Scanned> =
        scan.namespaces.values().filter(|namespace| wanted(namespace, &scan, request, related)).collect();
    // What is mounted where another mount covers it is out of everybody's reach.
    let is_reached = |namespace: &Scanned| namespace.nprocs > 0 || namespace.held.related;
    namespaces.retain(|namespace| is_reached(namespace) || relation::open(proc, namespace).is_some());
    namespaces.sort_by_key(|namespace| namespace.inode);
    source.read_processes(namespaces.iter().filter_map(|namespace| namespace.lead).collect());
    if related {
        namespaces = related_first(&namespaces, &source, request.tree == Some(RowTree::Parent));
    }
    Ok(rows(&namespaces, &mut source, request))
}

/// Opens the namespace with that unique number. A kernel that wants the inode number too is offered all there are.
pub(crate) fn by_id(kind: Kind, id: u64) -> Result<OwnedFd> {
    let error = match sys::namespace::open_by_id(kind, id, None) {
        Ok(fd) => return Ok(fd),
        Err(error) => error,
    };
    let mut scan = Scan::read(open_proc()?.as_fd(), &[kind])?;
    mounts(&mut scan, &[kind]);
    let mut inodes = scan.namespaces.keys();
    Ok(inodes.find_map(|inode| sys::namespace::open_by_id(kind, id, Some(*inode)).ok()).ok_or(error)?)
}

/// lsns writes a namespace's owner before it, whatever their numbers, and in a tree of parents its parent too.
fn related_first<'a>(namespaces: &[&'a Scanned], source: &RowSource<'_>, parents: bool) -> Vec<&'a Scanned> {
    let mut left: std::collections::HashMap<u64, &Scanned> =
        namespaces.iter().map(|namespace| (namespace.inode, *namespace)).collect();
    let mut ordered = vec![];
    for namespace in namespaces {
        let mut line = vec![namespace.inode];
        while let Some(inode) = line.last().copied() {
            let relation = source.relation(inode);
            let parent = if parents { relation.parent } else { 0 };
            let above = [parent, relation.owner].into_iter().find(|above| {
                // A line that comes back to itself would never end.
                left.contains_key(above) && !line.contains(above)
            });
            if let Some(above) = above.filter(|_| left.contains_key(&inode)) {
                line.push(above);
            } else {
                ordered.extend(left.remove(&inode));
                line.pop();
            }
        }
    }
    ordered
}

fn wanted(namespace: &Scanned, scan: &Scan, request: &ListRequest, related: bool) -> bool {
    let held = &namespace.held;
    let alive = namespace.nprocs > 0;
    let seen = !held.mounts.is_empty() || held.thread.is_some() || held.descriptor.is_some() || held.socket.is_some();
    let kept = seen || held.listed.is_some();
    // In a tree what is above stands there even if it is of another type.
    let above = related && held.related;
    if !(above || (alive || kept) && request.kinds.contains(&namespace.kind)) {
        return false;
    }
    let has_name = || held.mounts.iter().any(|path| Path::new(path).starts_with(::container::NAMESPACES));
    if request.named && !has_name() || request.persistent && alive {
        return false;
    }
    let Some(Only::Task(pid)) = request.only else { return true };
    scan.processes.iter().any(|(other, inodes)| *other == pid && inodes.contains(&namespace.inode))
}

/// One row a namespace.
fn rows(namespaces: &[&Scanned], source: &mut RowSource<'_>, request: &ListRequest) -> RowTable {
    let mut rows: Vec<Row> = vec![];
    // Where a process was last the lowest one of a namespace; where a namespace's own row is.
    let mut of_process = std::collections::HashMap::new();
    let mut of_namespace = std::collections::HashMap::new();
    let mut above = vec![];
    for namespace in namespaces {
        let described = source.describe(namespace);
        if request.filter.as_ref().is_some_and(|filter| !filter.accepts(&|column| described.cell(column))) {
            continue;
        }
        let parent = match request.tree {
            Some(RowTree::Process) => of_process.get(&described.ppid()).copied(),
            _ => None,
        };
        above.push(match request.tree {
            Some(RowTree::Parent) => described.relation.parent,
            Some(RowTree::Owner) => described.relation.owner,
            _ => 0,
        });
        if let Some(pid) = namespace.lead {
            of_process.insert(pid, rows.len());
        }
        of_namespace.insert(namespace.inode, rows.len());
        rows.push(Row { cells: request.columns.iter().map(|column| described.cell(*column)).collect(), parent });
    }
    if matches!(request.tree, Some(RowTree::Parent | RowTree::Owner)) {
        for (row, above) in rows.iter_mut().zip(above) {
            row.parent = of_namespace.get(&above).copied();
        }
    }
    let tree = match request.tree {
        Some(RowTree::Process) => Some(Column::Command),
        Some(RowTree::Parent | RowTree::Owner) => Some(Column::Ns),
        None => None,
    };
    RowTable { columns: request.columns.clone(), rows, tree }
}

/// One row a process of one namespace.
fn processes(scan: &Scan, inode: u64, source: &mut RowSource<'_>, request: &ListRequest) -> RowTable {
    let pids = scan.pids_in(inode);
    source.read_processes(pids.clone());
    let place: std::collections::HashMap<i32, usize> = pids.iter().enumerate().map(|(row, pid)| (*pid, row)).collect();
    let mut rows = vec![];
    for pid in pids {
        let Some(namespace) = scan.namespaces.get(&inode) else { continue };
        let of_process = Scanned { lead: Some(pid), ..namespace.clone() };
        let described = source.describe(&of_process);
        if request.filter.as_ref().is_none_or(|filter| filter.accepts(&|column| described.cell(column))) {
            let parent = place.get(&described.ppid()).copied();
            let cells = request.columns.iter().map(|column| described.cell(*column)).collect();
            rows.push(Row { cells, parent });
        }
    }
    RowTable { columns: request.columns.clone(), rows, tree: request.tree.map(|_| Column::Command) }
}
