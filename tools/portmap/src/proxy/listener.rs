//! The host's side of the ports: sockets that hold them from the start on.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::anyhow;
use record::{PortMapping, Protocol};
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, Shutdown, SocketFlags, SocketType, sockopt};

use crate::control::Sockets;
use crate::probe;
use crate::spec::{HostPorts, PortSpec};

/// Connections that wait while all are being served; the kernel takes net.core.somaxconn if that is less.
const BACKLOG: i32 = 4096;
const RANDOM_TRIES: usize = 100;

/// A socket at a port of the host.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(super) socket: OwnedFd,
    pub(crate) address: SocketAddr,
    pub(crate) protocol: Protocol,
    /// The port in the container.
    pub(crate) container: u16,
    /// Where in the container somebody listens; `None` as long as nobody does.
    pub(super) to: Option<SocketAddr>,
}

impl Listener {
    pub(super) fn is_datagram(&self) -> bool {
        self.protocol == Protocol::Udp
    }

    pub(super) fn accept(&self) -> Result<OwnedFd, Errno> {
        net::accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
    }

    /// Begins to take connections, for somebody who listens in the container.
    pub(super) fn start(&mut self, to: SocketAddr, epoll: &OwnedFd, index: u32) -> Result<(), Errno> {
        net::listen(&self.socket, BACKLOG)?;
        let data = super::Token::Listener(index).data();
        match epoll::add(epoll, &self.socket, data, epoll::EventFlags::IN) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        self.to = Some(to);
        Ok(())
    }

    /// Refuses connections again, and still holds the port: a listening socket that is shut down stays bound.
    pub(super) fn stop(&mut self, epoll: &OwnedFd) -> Result<(), Errno> {
        if self.to.take().is_none() {
            return Ok(());
        }
        epoll::delete(epoll, &self.socket)?;
        net::shutdown(&self.socket, Shutdown::Read)
    }
}

/// Takes the ports that are asked for. Returns them with what records say of them.
pub(crate) fn listen(specs: &[PortSpec], sockets: &Sockets) -> anyhow::Result<(Vec<Listener>, Vec<PortMapping>)> {
    let mut listeners = Vec::new();
    let mut ports = Vec::new();
    for spec in specs {
        let mut take = |host_port: u16, container_port: u16| -> anyhow::Result<()> {
            let taken = at_port(spec, host_port, container_port, sockets)?;
            let host_port = taken.first().map_or(host_port, |listener| listener.address.port());
            listeners.extend(taken);
            let host_ip = spec.host_ip.filter(|ip| !ip.is_unspecified());
            ports.push(PortMapping { host_ip, host_port, container_port, protocol: spec.protocol });
            Ok(())
        };
        match spec.host {
            HostPorts::Exactly(host) => {
                for (host_port, container_port) in host.ports().zip(spec.container.ports()) {
                    take(host_port, container_port)?;
                }
            }
            HostPorts::FirstFree(host) => host
                .ports()
                .find_map(|port| take(port, spec.container.first).ok())
                .ok_or_else(|| anyhow!("listen at {host}/{}: all of these ports are taken", spec.protocol))?,
            HostPorts::Random => {
                for container_port in spec.container.ports() {
                    // The second family may not have free what the first one chose.
                    let mut last = Ok(());
                    for _ in 0..RANDOM_TRIES {
                        last = take(0, container_port);
                        if last.is_ok() {
                            break;
                        }
                    }
                    last?;
                }
            }
        }
    }
    Ok((listeners, ports))
}

/// Takes a port, in both families where no address says which.
fn at_port(spec: &PortSpec, port: u16, container: u16, sockets: &Sockets) -> anyhow::Result<Vec<Listener>> {
    let addresses = spec.host_ip.map_or_else(|| vec![probe::any(true), probe::any(false)], |ip| vec![ip]);
    let mut taken: Vec<Listener> = Vec::new();
    for ip in addresses {
        let port = taken.first().map_or(port, |first| first.address.port());
        let address = SocketAddr::new(ip, port);
        match bind(address, spec.protocol) {
            Ok((socket, address)) => {
                taken.push(Listener { socket, address, protocol: spec.protocol, container, to: None });
            }
            // A host without IPv6.
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {}
            Err(error) => return Err(refusal(address, spec.protocol, sockets, error)),
        }
    }
    Ok(taken)
}

fn bind(address: SocketAddr, protocol: Protocol) -> Result<(OwnedFd, SocketAddr), Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
        Protocol::Sctp => return Err(Errno::PROTONOSUPPORT),
    };
    let socket = net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if protocol == Protocol::Tcp {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    net::bind(&socket, &address)?;
    let bound = SocketAddr::try_from(net::getsockname(&socket)?)?;
    Ok((socket, bound))
}

fn refusal(address: SocketAddr, protocol: Protocol, sockets: &Sockets, error: Errno) -> anyhow::Error {
    let what = format!("listen at {address}/{protocol}");
    if error != Errno::ADDRINUSE {
        return anyhow::Error::from(std::io::Error::from(error)).context(what);
    }
    match probe::holder(address, protocol, Some(sockets)) {
        Some(holder) => anyhow!("port is taken by {holder}"),
        None => anyhow!("port is taken"),
    }
    .context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_port_is_the_same_in_both_families_and_held() {
        let sockets = Sockets::below(std::path::Path::new("/no/such"));
        let (listeners, ports) = listen(&["80".parse().unwrap()], &sockets).unwrap();
        assert!(listeners.iter().all(|listener| listener.address.port() == ports[0].host_port));
        let again = format!("{}:80", ports[0].host_port);
        let error = listen(&[again.parse().unwrap()], &sockets).err().map(|error| format!("{error:#}"));
        // Nobody listens yet, so that only another socket's options decide; what counts is that one port is one mapping.
        assert!(error.is_none_or(|error| error.contains("port is taken")));
        assert_eq!((ports.len(), ports[0].container_port), (1, 80));
    }
}
