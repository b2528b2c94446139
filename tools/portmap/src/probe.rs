//! Whether a process of the host has a port: translation would take it away from that process without a word.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;

use record::{Id, Protocol, Record};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::control::Sockets;
use crate::spec::Served;

/// Binds to a port and lets it go again: an error if a process has it. With port 0, returns one that the system chose.
pub(crate) fn bind(address: SocketAddr, protocol: Protocol) -> io::Result<u16> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = match net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(number)) {
        Ok(socket) => socket,
        // A kernel without the protocol has nobody who uses it.
        Err(Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT) if address.port() != 0 => return Ok(address.port()),
        Err(error) => return Err(error.into()),
    };
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if protocol == Protocol::Tcp {
        // Connections of a server that has gone are no hindrance; one that listens still is.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    net::bind(&socket, &address)?;
    let bound = net::getsockname(&socket)?;
    let bound = SocketAddr::try_from(bound).map_err(io::Error::from)?;
    Ok(bound.port())
}

/// Names who has a port: the container that a proxy serves, or a process, as far as /proc tells: `nginx (process 12)`.
pub(crate) fn holder(address: SocketAddr, protocol: Protocol, sockets: Option<&Sockets>) -> Option<String> {
    proxied(address.port(), protocol, sockets).or_else(|| process(address, protocol))
}

fn proxied(port: u16, protocol: Protocol, sockets: Option<&Sockets>) -> Option<String> {
    let serves =
        |record: &Record| Served::of_record(record).unwrap_or_default().iter().any(|served| served.has(port, protocol));
    let id = sockets?.holders().ok()?.into_iter().find(serves)?.part::<Id>().ok()?;
    Some(format!("container {}", id.0))
}

fn process(address: SocketAddr, protocol: Protocol) -> Option<String> {
    let table = match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => return None,
    };
    let inodes: Vec<u64> = ["", "6"]
        .iter()
        .filter_map(|suffix| fs::read_to_string(format!("/proc/thread-self/net/{table}{suffix}")).ok())
        .flat_map(|text| inodes(&text, address.port(), protocol))
        .collect();
    processes().find(|pid| sockets(*pid).any(|inode| inodes.contains(&inode))).map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("{} (process {pid})", name.trim_end())
    })
}

/// Reads the sockets that wait at a port out of /proc/net/tcp: proc(5).
fn inodes(table: &str, port: u16, protocol: Protocol) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let of_line = |line: &str| {
        let mut words = line.split_whitespace();
        let local = words.nth(1)?;
        let state = words.nth(1)?;
        let waits = protocol != Protocol::Tcp || state == LISTEN;
        let here = local.rsplit_once(':').is_some_and(|(_, hex)| u16::from_str_radix(hex, 16) == Ok(port));
        (waits && here).then(|| words.nth(5)?.parse().ok())?
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn sockets(pid: u32) -> impl Iterator<Item = u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::metadata(entry.path()).ok().map(|metadata| metadata.ino()))
}

/// Returns the address that stands for all of a family.
pub(crate) fn any(is_ipv4: bool) -> IpAddr {
    if is_ipv4 { IpAddr::V4(0.into()) } else { IpAddr::V6(0.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_listened_at_is_taken_and_its_process_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let wildcard = SocketAddr::new(any(true), address.port());
        for taken in [address, wildcard] {
            assert_eq!(bind(taken, Protocol::Tcp).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
        assert!(holder(address, Protocol::Tcp, None).unwrap().ends_with(&format!("(process {})", std::process::id())));
        drop(listener);
        assert_eq!(bind(address, Protocol::Tcp).unwrap(), address.port());
    }
}
