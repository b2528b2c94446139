//! The host's side: sockets that hold ports and paths from the start on.

use std::fs::File;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use container::Directories;
use record::{PortMapping, Protocol};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketType, sockopt};

use crate::control::{SocketName, stream_socket};
use crate::probe;
use crate::spec::{ContainerEnd, HostEnd, HostPorts, PortSpec, PublishFlag, Served, SocketSpec, Span, any};

use super::destination::SocketPath;
use super::frontend::{BACKLOG, Frontend, Inside, Origin, hold_alone, relay_well};

/// A socket at the host's side.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(super) frontend: Frontend,
    pub(super) name: Option<SocketName>,
}

impl Listener {
    fn new(socket: OwnedFd, origin: Origin, served: Served, inside: Inside) -> Self {
        Self { frontend: Frontend::new(socket, origin, served, inside), name: None }
    }

    /// Has it serve what translation cannot lead to the container's addresses, from outside.
    pub(crate) fn beside(mut self, addresses: &[IpAddr]) -> Self {
        let (Some((at, _)), Inside::Port(port)) = (self.port(), &self.frontend.inside) else { return self };
        let of_family = addresses.iter().find(|address| address.is_ipv4() == at.is_ipv4());
        self.frontend.inside = match (of_family.or(addresses.first()), at.is_ipv4() && of_family.is_some()) {
            (Some(address), false) => Inside::Address(SocketAddr::new(*address, *port)),
            _ => Inside::Nothing,
        };
        self
    }

    /// Closes the socket, which a child has from now on, and leaves the name to that.
    pub(crate) fn hand_on(self) {
        // Its drop would remove the socket's file, which is the child's now.
        std::mem::forget(self.name);
    }

    /// Returns what records say of it.
    pub(crate) fn served(&self) -> &Served {
        &self.frontend.served
    }

    /// Returns the port that it holds, if it made that itself.
    pub(crate) fn port(&self) -> Option<(SocketAddr, Protocol)> {
        match (self.frontend.origin, self.served()) {
            (Origin::Port(address), Served::Port(port)) => Some((address, port.protocol)),
            (Origin::Port(address), Served::Socket(_)) => Some((address, Protocol::Tcp)),
            _ => None,
        }
    }
}

/// What listening needs to know beside what is published.
pub(crate) struct Surroundings<'a> {
    /// Where the processes are found that have ports.
    pub(crate) directories: &'a Directories,
    /// The container's root directory, where a process of it is known.
    pub(crate) root: Option<Arc<File>>,
}

/// Takes what is asked for.
pub(crate) fn listen(flags: &[PublishFlag], surroundings: &Surroundings<'_>) -> anyhow::Result<Vec<Listener>> {
    super::relay_limit();
    let mut listeners = Vec::new();
    for flag in flags {
        listeners.extend(match flag {
            PublishFlag::Ports(spec) => at_ports(spec, surroundings)?,
            PublishFlag::Socket(spec) => at_socket(spec, surroundings).with_context(|| format!("publish {spec}"))?,
        });
    }
    Ok(listeners)
}

fn at_ports(spec: &PortSpec, surroundings: &Surroundings<'_>) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    let host_ip = spec.host_ip.filter(|ip| !ip.is_unspecified());
    spec.choose(|host, first| {
        for (host_port, container_port) in host.ports().zip(first..) {
            listeners.extend(at_port(spec, host_port, surroundings)?.into_iter().map(|(socket, at)| {
                let port = PortMapping { host_ip, host_port: at.port(), container_port, protocol: spec.protocol };
                Listener::new(socket, Origin::Port(at), Served::Port(port), Inside::Port(container_port))
            }));
        }
        Ok(())
    })?;
    Ok(listeners)
}

/// Takes one end of a socket's.
fn at_socket(spec: &SocketSpec, surroundings: &Surroundings<'_>) -> anyhow::Result<Vec<Listener>> {
    let inside = match &spec.container {
        ContainerEnd::Port(port) => Inside::Port(*port),
        ContainerEnd::Path(path) => {
            let root = surroundings.root.clone();
            let root = root.context("no process of the container is known, whose file system has the socket")?;
            Inside::Path(SocketPath { root, path: path.clone() })
        }
    };
    let listener = |(socket, origin, served)| Listener::new(socket, origin, served, inside.clone());
    let socket = |host: HostEnd| Served::Socket(SocketSpec { host, ..spec.clone() });
    Ok(match &spec.host {
        HostEnd::Port(port) => {
            let taken = at_port(port, port.host.first(), surroundings)?;
            let chosen = taken.first().map_or(0, |(_, address)| address.port());
            let served = socket(HostEnd::Port(PortSpec { host: HostPorts::Exactly(Span::one(chosen)), ..*port }));
            taken.into_iter().map(|(socket, at)| listener((socket, Origin::Port(at), served.clone()))).collect()
        }
        HostEnd::Path(path) => {
            let bound = at_path(path).with_context(|| format!("listen at {}", path.display()))?;
            let unnamed = listener((bound, Origin::Path, socket(spec.host.clone())));
            vec![Listener { name: Some(SocketName(path.clone())), ..unnamed }]
        }
        HostEnd::Descriptor(number) => {
            let (inherited, address) = inherit(*number).with_context(|| format!("take descriptor {number}"))?;
            ioctl_fionbio(&inherited, true).with_context(|| format!("take descriptor {number}"))?;
            let served = match (address, &spec.container) {
                (Some((address, protocol)), ContainerEnd::Port(container_port)) => {
                    let host_ip = Some(address.ip()).filter(|ip| !ip.is_unspecified());
                    let host_port = address.port();
                    Served::Port(PortMapping { host_ip, host_port, container_port: *container_port, protocol })
                }
                (Some((_, Protocol::Udp)), ContainerEnd::Path(_)) => bail!("datagrams lead to a port"),
                _ => socket(spec.host.clone()),
            };
            vec![listener((inherited, Origin::Inherited, served))]
        }
    })
}

/// Takes a name in the file system; one that a killed process has left is taken over.
fn at_path(path: &Path) -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let open = || stream_socket(AddressFamily::UNIX);
    let socket = open()?;
    match net::bind(&socket, &address) {
        // Of any other file connect(2) says ECONNREFUSED, too: that is somebody's, and stays.
        Err(Errno::ADDRINUSE)
            if path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket())
                && net::connect(open()?, &address) == Err(Errno::CONNREFUSED) =>
        {
            rustix::fs::unlink(path)?;
            net::bind(&socket, &address)?;
        }
        bound => bound?,
    }
    // A socket that nobody listens at answers ECONNREFUSED, which is how a left one is told above. So it listens from
    // the start, and clients wait in its queue.
    net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Returns the port that an inherited socket is at, if it is at one.
pub(crate) fn inherited_port(number: u32) -> anyhow::Result<Option<Port>> {
    Ok(inherit(number)?.1)
}

type Port = (SocketAddr, Protocol);

/// Takes a socket that the caller of this program has made. Returns the port that it is at, if it is at one.
fn inherit(number: u32) -> anyhow::Result<(OwnedFd, Option<Port>)> {
    let socket = sys::child::inherited(number)?;
    let protocol = match sockopt::socket_type(&socket)? {
        SocketType::STREAM => Protocol::Tcp,
        SocketType::DGRAM => Protocol::Udp,
        _ => bail!("neither a stream socket nor a datagram socket"),
    };
    ensure!(protocol == Protocol::Udp || sockopt::socket_acceptconn(&socket)?, "that socket does not listen");
    let address = SocketAddr::try_from(net::getsockname(&socket)?).ok();
    ensure!(address.is_some() || protocol == Protocol::Tcp, "datagrams come to a port");
    Ok((socket, address.map(|address| (address, protocol))))
}

/// Takes a port, in both families where no address says which.
fn at_port(spec: &PortSpec, port: u16, surroundings: &Surroundings<'_>) -> anyhow::Result<Vec<(OwnedFd, SocketAddr)>> {
    let addresses = spec.host_ip.map_or_else(|| vec![any(true), any(false)], |ip| vec![ip]);
    let mut taken: Vec<(OwnedFd, SocketAddr)> = Vec::new();
    for ip in addresses {
        // Port 0 lets the kernel choose; the second family then takes the same number.
        let port = taken.first().map_or(port, |(_, first)| first.port());
        let address = SocketAddr::new(ip, port);
        match bind(address, spec.protocol) {
            Ok(bound) => taken.push(bound),
            // A host without IPv6.
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {}
            Err(error) => {
                let refused = probe::refusal(address, spec.protocol, Some(surroundings.directories), error);
                return Err(refused.context(format!("listen at {address}/{}", spec.protocol)));
            }
        }
    }
    Ok(taken)
}

fn bind(address: SocketAddr, protocol: Protocol) -> Result<(OwnedFd, SocketAddr), Errno> {
    if protocol == Protocol::Sctp {
        return Err(Errno::PROTONOSUPPORT);
    }
    let socket = probe::bound(address, protocol)?;
    if protocol == Protocol::Tcp {
        relay_well(&socket);
        hold_alone(&socket, true)?;
    } else {
        let told = sys::datagram::tell_destination(socket.as_fd(), address.is_ipv4());
        told.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))?;
    }
    let bound = SocketAddr::try_from(net::getsockname(&socket)?)?;
    Ok((socket, bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_port_is_the_same_in_both_families_and_held() {
        let directories = Directories::below("/no/such".into());
        let surroundings = Surroundings { directories: &directories, root: None };
        let listeners = listen(&["80".parse().unwrap()], &surroundings).unwrap();
        let ports: Vec<_> = listeners.iter().filter_map(Listener::port).map(|(address, _)| address.port()).collect();
        assert!(ports.iter().all(|port| *port == ports[0] && *port != 0));
        let served = |port| PortMapping { host_ip: None, host_port: port, container_port: 80, protocol: Protocol::Tcp };
        assert!(listeners.iter().all(|listener| *listener.served() == Served::Port(served(ports[0]))));
        let again = format!("{}:80", ports[0]);
        let error = listen(&[again.parse().unwrap()], &surroundings).err().map(|error| format!("{error:#}"));
        assert!(error.is_some_and(|error| error.contains("port is taken")));
        for (address, protocol) in listeners.iter().filter_map(Listener::port) {
            assert!(probe::bind(address, protocol).is_err(), "{address}");
        }
    }
}
