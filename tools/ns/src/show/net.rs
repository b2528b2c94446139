//! A network namespace from inside: links with their peers, addresses, routes, and who listens.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use anyhow::{Context, Result};
use netlink::route::{Link, Route, Router};
use serde_json::{Value, json};
use sys::sockets::{self, PortSocket};

use crate::list::{Scan, ScannedProcess, Wanted, inode};
use crate::network::{mac_text, within};

/// Describes the network namespace at `path`.
pub(super) fn describe(path: &Path, proc: BorrowedFd<'_>, scan: &Scan) -> Result<Value> {
    let netns = File::open(path).with_context(|| format!("open {}", path.display()))?;
    // The socket stays of the namespace in which it was made, so that only the making happens inside; /proc/net,
    // which shows the reader's own namespace, has to be read there, too.
    let (mut inside, tables) = within(netns.as_fd(), || Ok((Router::open()?, tables())))
        .with_context(|| format!("enter {}", path.display()))?;
    let host = Router::open()?.links(None)?;
    let addresses = inside.addresses()?;
    let links = inside.links(None)?;
    let name = |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    let interface = |link: &Link| {
        let own = addresses.iter().filter(|address| address.index == link.index);
        let own: Vec<String> = own.map(|address| address.address.to_string()).collect();
        json!({
            "name": link.name, "index": link.index, "up": link.up, "kind": link.kind, "mac": mac_text(&link.mac),
            "mtu": link.mtu, "addresses": own, "alias": link.alias, "peer": peer(link, &host),
        })
    };
    let interfaces: Vec<Value> = links.iter().map(interface).collect();
    let route = |route: &Route| {
        let device = route.index.and_then(name);
        json!({"dst": route.destination.to_string(), "gw": route.gateway, "src": route.source, "dev": device})
    };
    let routes: Vec<Value> = inside.routes()?.iter().map(route).collect();
    let holders = holders(inode(netns.as_fd()).unwrap_or_default(), proc, scan);
    let mut listening = Vec::new();
    for (protocol, table) in &tables {
        for socket in table.iter().filter(|socket| socket.is_open) {
            let holder = holders.get(&socket.inode);
            listening.push(json!({
                "protocol": protocol, "address": socket.address.ip(), "port": socket.address.port(),
                "pid": holder.map(|(pid, _)| pid), "command": holder.map(|(_, command)| command),
            }));
        }
    }
    Ok(json!({"interfaces": interfaces, "routes": routes, "listening": listening}))
}

/// The other end of a pair, where it is on the host: its name there.
fn peer(link: &Link, host: &[Link]) -> Option<Value> {
    let index = link.peer?;
    // Indexes are each namespace's own: that both name each other, and are of one kind, is as sure as it gets without
    // entering.
    let is_it = |other: &&Link| other.index == index && other.peer == Some(link.index) && other.kind == link.kind;
    let name = host.iter().find(is_it).map(|other| other.name.clone());
    Some(json!({"index": index, "netnsid": link.peer_namespace, "name": name}))
}

fn tables() -> [(&'static str, Vec<PortSocket>); 4] {
    ["tcp", "tcp6", "udp", "udp6"].map(|protocol| (protocol, sockets::with_port(protocol)))
}

/// Finds the sockets of the processes in the namespace: by inode number the pid and the command.
fn holders(netns: u64, proc: BorrowedFd<'_>, scan: &Scan) -> HashMap<u64, (i32, String)> {
    let mut found = HashMap::new();
    let wanted = Wanted { command: true, ..Wanted::default() };
    for (pid, process) in ScannedProcess::read_all(proc, &scan.pids_in(netns), wanted) {
        for number in sockets::of_process(pid) {
            found.entry(number).or_insert_with(|| (pid, process.command.clone()));
        }
    }
    found
}
