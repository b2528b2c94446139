//! A network namespace from inside: links with their peers, addresses, routes, and who listens.

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use anyhow::{Context, Result};
use netlink::route::{Link, Router};
use serde_json::{Value, json};
use sys::namespace::Kind;

use crate::list::{Process, Scan, Wanted, inode};
use crate::network::{mac_text, within};

/// Describes the network namespace at `path`.
pub(super) fn describe(path: &Path, proc: BorrowedFd<'_>, scan: &Scan) -> Result<Value> {
    let netns = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let (mut inside, tables) = within(netns.as_fd(), || Ok((Router::open()?, tables())))
        .with_context(|| format!("enter {}", path.display()))?;
    let host = Router::open()?.links(None)?;
    let addresses = inside.addresses()?;
    let links = inside.links(None)?;
    let name = |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    let interfaces: Vec<Value> = links
        .iter()
        .map(|link| {
            let own = addresses.iter().filter(|address| address.index == link.index);
            let own: Vec<String> = own.map(|address| address.address.to_string()).collect();
            json!({
                "name": link.name, "index": link.index, "up": link.up, "kind": link.kind, "mac": mac_text(&link.mac),
                "mtu": link.mtu, "addresses": own, "alias": link.alias, "peer": peer(link, &host),
            })
        })
        .collect();
    let routes: Vec<Value> = inside
        .routes()?
        .iter()
        .map(|route| {
            json!({"dst": route.destination.to_string(), "gw": route.gateway, "src": route.source, "dev": route.index.and_then(name)})
        })
        .collect();
    let holders = holders(inode(netns.as_fd()).unwrap_or_default(), proc, scan);
    let listening: Vec<Value> = tables
        .iter()
        .flat_map(|(protocol, table)| table.lines().skip(1).filter_map(|line| socket(protocol, line)))
        .map(|socket| {
            let holder = holders.get(&socket.inode);
            json!({
                "protocol": socket.protocol, "address": socket.address, "port": socket.port,
                "pid": holder.map(|(pid, _)| pid), "command": holder.map(|(_, command)| command),
            })
        })
        .collect();
    Ok(json!({"interfaces": interfaces, "routes": routes, "listening": listening}))
}

/// The other end of a pair, where it is on the host: its name there.
fn peer(link: &Link, host: &[Link]) -> Option<Value> {
    let index = link.peer?;
    let name = host
        .iter()
        .find(|other| other.index == index && other.peer == Some(link.index) && other.kind == link.kind)
        .map(|other| other.name.clone());
    Some(json!({"index": index, "netnsid": link.peer_namespace, "name": name}))
}

fn tables() -> Vec<(&'static str, String)> {
    let read = |name| (name, fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default());
    ["tcp", "tcp6", "udp", "udp6"].map(read).into()
}

struct Listening {
    protocol: String,
    address: IpAddr,
    port: u16,
    inode: u64,
}

/// Reads a line of /proc/net/tcp and the like: place, local, remote, state, …, inode.
fn socket(protocol: &str, line: &str) -> Option<Listening> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let [_, local, _, state, ..] = fields.as_slice() else { return None };
    // A TCP socket that listens, a UDP one that is connected to nobody.
    if *state != if protocol.starts_with("tcp") { "0A" } else { "07" } {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    Some(Listening {
        protocol: protocol.to_owned(),
        address: address_of(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// Words of 32 bits in the machine's order.
fn address_of(text: &str) -> Option<IpAddr> {
    let word = |part: &[u8]| Some(u32::from_str_radix(std::str::from_utf8(part).ok()?, 16).ok()?.to_ne_bytes());
    let bytes: Vec<u8> = text.as_bytes().chunks(8).map(word).collect::<Option<Vec<_>>>()?.concat();
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|bytes| Ipv4Addr::from(bytes).into()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|bytes| Ipv6Addr::from(bytes).into()),
        _ => None,
    }
}

/// Finds the sockets of the processes in the namespace: by inode number the pid and the command.
fn holders(netns: u64, proc: BorrowedFd<'_>, scan: &Scan) -> HashMap<u64, (i32, String)> {
    let place = Kind::ALL.iter().position(|kind| *kind == Kind::Network).unwrap_or_default();
    let inside = scan.processes.iter().filter(|(_, inodes)| inodes.get(place) == Some(&netns));
    let pids: Vec<i32> = inside.map(|(pid, _)| *pid).collect();
    let mut found = HashMap::new();
    for (pid, process) in Process::read_all(proc, &pids, Wanted { command: true, ..Wanted::default() }) {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for entry in entries.flatten() {
            let link = fs::read_link(entry.path()).unwrap_or_default();
            let number = link.to_str().and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(number) = number {
                found.entry(number).or_insert_with(|| (pid, process.command.clone()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_socket_is_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0";
        let found = socket("tcp", line).unwrap();
        assert_eq!((found.address.to_string().as_str(), found.port, found.inode), ("127.0.0.1", 8080, 4711));
        assert!(socket("udp", line).is_none());
        let six = address_of("00000000000000000000000001000000").unwrap();
        assert_eq!(six.to_string(), "::1");
    }
}
