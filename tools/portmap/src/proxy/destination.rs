//! Where in the container a connection goes: an address, or a socket in the container's file system.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix};

use crate::control::stream_socket;

/// Where somebody listens in the container.
#[derive(Clone, Debug)]
pub(super) enum Destination {
    Address(SocketAddr),
    Path(SocketPath),
}

/// A socket in a container's file system.
#[derive(Clone, Debug)]
pub(crate) struct SocketPath {
    pub(super) root: Arc<File>,
    pub(super) path: PathBuf,
}

impl Destination {
    /// Begins to connect.
    pub(super) fn connect(&self) -> Result<OwnedFd, Errno> {
        let family = match self {
            Self::Address(SocketAddr::V4(_)) => AddressFamily::INET,
            Self::Address(SocketAddr::V6(_)) => AddressFamily::INET6,
            Self::Path(_) => AddressFamily::UNIX,
        };
        let socket = stream_socket(family)?;
        let connected = match self {
            Self::Address(address) => net::connect(&socket, address),
            Self::Path(path) => path.connect(&socket),
        };
        sys::unless(&[Errno::INPROGRESS], connected).map(|_| socket)
    }
}

impl SocketPath {
    fn connect(&self, socket: &OwnedFd) -> Result<(), Errno> {
        let found = self.open()?;
        // By the open file: between a look-up and a connect by path the container could exchange it for a link to the
        // host's.
        net::connect(socket, &SocketAddrUnix::new(format!("/proc/self/fd/{}", found.as_raw_fd()))?)
    }

    /// Tells whether somebody listens there, by the table of the thread's network namespace: unix(7). It has names as they
    /// were given to bind(2), relative or by way of links, so that only the last part is sure to be the same.
    pub(super) fn is_listened_at(&self, table: &str) -> bool {
        let is_socket = || self.open().and_then(kind) == Ok(FileType::Socket);
        self.path.file_name().is_some_and(|name| accepts(table, name)) && is_socket()
    }

    /// The path is the container's to say, links in it too: it never leads out of its root.
    fn open(&self) -> Result<OwnedFd, Errno> {
        root::open(self.root.as_fd(), &self.path)
    }
}

fn kind(file: OwnedFd) -> Result<FileType, Errno> {
    Ok(FileType::from_raw_mode(fstat(file)?.st_mode))
}

/// Tells whether one of the listed sockets with this file name takes connections.
fn accepts(table: &str, name: &OsStr) -> bool {
    const ACCEPTS: &str = "00010000";
    table.lines().skip(1).any(|line| {
        let mut words = line.split_ascii_whitespace();
        let flags = words.nth(3);
        flags == Some(ACCEPTS) && words.nth(3).is_some_and(|path| Path::new(path).file_name() == Some(name))
    })
}

/// Returns the table of UNIX sockets.
pub(super) fn unix_table() -> String {
    fs::read_to_string("/proc/thread-self/net/unix").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_that_accepts_is_listened_at() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
                     ffff888004a48c00: 00000002 00000000 00010000 0001 01 20718 /run/app.sock\n\
                     ffff888004a48c00: 00000003 00000000 00000000 0001 03 20719 /run/other.sock\n";
        for (name, want) in [("app.sock", true), ("other.sock", false), ("app", false)] {
            assert_eq!(accepts(table, OsStr::new(name)), want, "{name}");
        }
    }
}
