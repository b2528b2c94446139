//! `ns show`: all that is to be seen of a process's, a container's or one namespace's inside.

mod capability;
mod diff;
mod net;
mod text;

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use serde_json::{Map, Value, json};
use sys::namespace::Kind;

use crate::enter::EnterTarget;
use crate::list::{Scan, Scanned, ScannedProcess, Wanted, mounts, open_proc, unescape};

/// Shows what a pid, a namespace's number, a container's id or a named namespace stands for.
pub(crate) fn show(what: &str, states: &Path, as_json: bool) -> Result<()> {
    let proc = open_proc()?;
    let proc = proc.as_fd();
    let mut scan = Scan::read(proc, &Kind::ALL)?;
    mounts(&mut scan, &Kind::ALL);
    let shown = match what.parse::<u64>().ok().and_then(|inode| scan.namespaces.get(&inode)) {
        Some(namespace) => one(namespace, proc, &scan)?,
        None => match EnterTarget::find(what, || states.to_owned())? {
            EnterTarget::Process { pid, .. } | EnterTarget::Foreign { pid, .. } => process(pid, proc, &scan)?,
            EnterTarget::Network(path) => json!({"path": path, "net": net::describe(&path, proc, &scan)?}),
        },
    };
    let text = if as_json { shown.to_string() + "\n" } else { text::write(&shown) };
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

/// Shows what two processes, or containers, have in common and what not.
pub(crate) fn diff(names: [&str; 2], states: &Path, as_json: bool) -> Result<()> {
    let proc = open_proc()?;
    let scan = Scan::read(proc.as_fd(), &Kind::ALL)?;
    let describe = |name: &str| process(EnterTarget::find(name, || states.to_owned())?.pid()?, proc.as_fd(), &scan);
    let compared = diff::compare(&describe(names[0])?, &describe(names[1])?);
    let text = if as_json { compared.to_string() + "\n" } else { diff::write(&compared) };
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

/// One namespace: what its type has to show.
fn one(namespace: &Scanned, proc: BorrowedFd<'_>, scan: &Scan) -> Result<Value> {
    let kind = namespace.kind;
    let mut shown = Map::new();
    let mut put = |name: &str, value: Value| drop(shown.insert(name.to_owned(), value));
    put("ns", json!(namespace.inode));
    put("type", json!(kind.name()));
    put("nprocs", json!(namespace.nprocs));
    put("paths", json!(namespace.held.mounts));
    if let Some(pid) = namespace.lead {
        put("pid", json!(pid));
        put("container", json!(container(pid)));
    }
    let lead = namespace.lead.map(|pid| PathBuf::from(format!("/proc/{pid}/ns/{}", kind.name())));
    match (kind, namespace.lead) {
        (Kind::Network, _) => {
            let path = lead.or_else(|| namespace.held.mounts.first().map(PathBuf::from));
            let path = path.ok_or_else(|| anyhow!("nothing leads to {}", namespace.inode))?;
            put("net", net::describe(&path, proc, scan)?);
        }
        (Kind::User, Some(pid)) => put("user", user(pid)),
        (Kind::Mount, Some(pid)) => put("mounts", mount_table(pid)),
        (Kind::Cgroup, Some(pid)) => put("cgroups", cgroups(pid)),
        _ => {}
    }
    put("processes", processes(namespace.inode, proc, scan));
    Ok(Value::Object(shown))
}

/// A process: all of it.
fn process(pid: i32, proc: BorrowedFd<'_>, scan: &Scan) -> Result<Value> {
    let own = scan.processes.iter().find(|(other, _)| *other == pid).map(|(_, inodes)| *inodes);
    let own = own.ok_or_else(|| anyhow!("process {pid} is gone, or its namespaces may not be read"))?;
    let names: Map<String, Value> =
        Kind::ALL.iter().zip(own).map(|(kind, n)| (kind.name().to_owned(), json!(n))).collect();
    let wanted = Wanted { command: true, uid: true, ppid: true, cgroups: false };
    let [command] = ScannedProcess::read_all(proc, &[pid], wanted).try_into().unwrap_or_default();
    let status = status(pid);
    let field = |name: &str| status.get(name).cloned().unwrap_or_default();
    let mode = field("Seccomp").parse().unwrap_or(usize::MAX);
    let seccomp = ["disabled", "strict", "filter"].get(mode).unwrap_or(&"unknown");
    let sets = [
        ("effective", "CapEff"),
        ("permitted", "CapPrm"),
        ("inheritable", "CapInh"),
        ("bounding", "CapBnd"),
        ("ambient", "CapAmb"),
    ];
    let sets: Map<String, Value> =
        sets.iter().map(|(name, member)| ((*name).to_owned(), json!(capability::names(&field(member))))).collect();
    let pid_namespace = Kind::ALL.iter().position(|kind| *kind == Kind::Pid).and_then(|place| own.get(place));
    Ok(json!({
        "pid": pid,
        "ppid": command.1.ppid,
        "uid": command.1.uid,
        "command": command.1.command,
        "container": container(pid),
        "namespaces": names,
        "cgroups": cgroups(pid),
        "capabilities": sets,
        "seccomp": seccomp,
        "noNewPrivileges": field("NoNewPrivs") == "1",
        "user": user(pid),
        "net": net::describe(&PathBuf::from(format!("/proc/{pid}/ns/net")), proc, scan)?,
        "mounts": mount_table(pid),
        "processes": processes(pid_namespace.copied().unwrap_or_default(), proc, scan),
    }))
}

fn status(pid: i32) -> HashMap<String, String> {
    let text = fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k.to_owned(), v.trim().to_owned())).collect()
}

fn lines(pid: i32, file: &str) -> Vec<String> {
    let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
}

fn container(pid: i32) -> Option<String> {
    crate::list::in_cgroups(&lines(pid, "cgroup").join("\n"))
}

fn cgroups(pid: i32) -> Value {
    lines(pid, "cgroup").into()
}

/// The maps of the user namespace: inside, outside, how many.
fn user(pid: i32) -> Value {
    let map = |file: &str| -> Vec<String> {
        lines(pid, file).iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    json!({"uid_map": map("uid_map"), "gid_map": map("gid_map")})
}

/// The mounts, each with how deep it lies below the root's.
fn mount_table(pid: i32) -> Value {
    let mut depth: HashMap<String, usize> = HashMap::new();
    let mount = |line: &String| {
        let (mount, fs) = line.split_once(" - ")?;
        let fields: Vec<_> = mount.split(' ').collect();
        let [id, parent, _, root, target, options, ..] = fields.as_slice() else { return None };
        let mut fs = fs.split(' ');
        let (kind, source) = (fs.next()?, fs.next().unwrap_or_default());
        let below = depth.get(*parent).map_or(0, |depth| depth + 1);
        depth.insert((*id).to_owned(), below);
        let target = unescape(target);
        Some(
            json!({"target": target, "depth": below, "type": kind, "source": unescape(source), "root": unescape(root), "options": options}),
        )
    };
    lines(pid, "mountinfo").iter().filter_map(mount).collect()
}

/// The processes in a namespace, with the pids that they have there and above.
fn processes(inode: u64, proc: BorrowedFd<'_>, scan: &Scan) -> Value {
    let wanted = Wanted { ppid: true, command: true, uid: true, cgroups: false };
    let all = ScannedProcess::read_all(proc, &scan.pids_in(inode), wanted);
    let describe = |(pid, process): &(i32, ScannedProcess)| {
        let pids = status(*pid).get("NSpid").cloned().unwrap_or_default();
        let inner: Vec<i32> = pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        json!({"pid": pid, "pids": inner, "ppid": process.ppid, "uid": process.uid, "command": process.command})
    };
    all.iter().map(describe).collect()
}
