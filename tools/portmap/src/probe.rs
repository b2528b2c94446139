//! Whether a process of the host has a port: translation would take it away from that process without a word.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use anyhow::anyhow;
use container::Directories;
use record::{Id, Protocol, Record};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use sys::sockets::{self, PortSocket};

use crate::control::Sockets;
use crate::spec::Served;

/// Binds a socket to a port, which it alone may have as soon as it listens.
pub(crate) fn bound(address: SocketAddr, protocol: Protocol) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, Some(number))?;
    if address.is_ipv6() {
        // Otherwise a socket on `::` takes the port of IPv4, too, and meets the one that was bound for it just
        // before: ipv6(7), `IPV6_V6ONLY`.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if protocol == Protocol::Tcp {
        // socket(7), `SO_REUSEADDR`: connections in TIME_WAIT of a server that has gone are no hindrance; one that
        // listens still is. UDP has no such states, and two that set the option there have one port.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    net::bind(&socket, &address)?;
    Ok(socket)
}

/// Binds to a port and lets it go again: an error if a process has it. With port 0, returns one that the system chose.
pub(crate) fn bind(address: SocketAddr, protocol: Protocol) -> Result<u16, Errno> {
    match bound(address, protocol) {
        // A kernel without the protocol has nobody who uses it.
        Err(Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT) if address.port() != 0 => Ok(address.port()),
        socket => Ok(SocketAddr::try_from(net::getsockname(socket?)?)?.port()),
    }
}

/// Says that a port cannot be had, and who has it.
pub(crate) fn refusal(
    address: SocketAddr,
    protocol: Protocol,
    directories: Option<&Directories>,
    error: Errno,
) -> anyhow::Error {
    if error != Errno::ADDRINUSE {
        return io::Error::from(error).into();
    }
    let holder = proxied(address.port(), protocol, directories).or_else(|| process(address, protocol));
    anyhow!("port is taken by {}", holder.as_deref().unwrap_or("a process of the host"))
}

/// Names the container for which a proxy serves a port.
fn proxied(port: u16, protocol: Protocol, directories: Option<&Directories>) -> Option<String> {
    let serves =
        |record: &Record| Served::of_record(record).unwrap_or_default().iter().any(|served| served.has(port, protocol));
    let all = [Sockets::below(directories?, None), Sockets::beside(directories?, None)];
    let id = all.iter().filter_map(|some| some.records().ok()).flatten().find(serves)?.part::<Id>().ok()?;
    Some(format!("container {}", id.0))
}

/// Names the process that has a port, as far as /proc tells: `nginx (process 12)`.
fn process(address: SocketAddr, protocol: Protocol) -> Option<String> {
    let table = match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => return None,
    };
    // Not one that is connected: a server's many are at its port.
    let waits = |socket: &PortSocket| socket.address.port() == address.port() && (socket.is_open || table == "udp");
    let sockets = ["", "6"].into_iter().flat_map(|suffix| sockets::with_port(&format!("{table}{suffix}")));
    let inodes: Vec<u64> = sockets.filter(waits).map(|socket| socket.inode).collect();
    processes().find(|pid| sockets::of_process(*pid).any(|inode| inodes.contains(&inode))).map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("{} (process {pid})", name.trim_end())
    })
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_listened_at_is_taken_and_its_process_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let wildcard = SocketAddr::new(crate::spec::any(true), address.port());
        for taken in [address, wildcard] {
            assert_eq!(bind(taken, Protocol::Tcp), Err(Errno::ADDRINUSE));
        }
        assert!(process(address, Protocol::Tcp).unwrap().ends_with(&format!("(process {})", std::process::id())));
        drop(listener);
        assert_eq!(bind(address, Protocol::Tcp).unwrap(), address.port());
    }
}
