//! Datagrams: each client gets a socket of its own in the container's namespace, so that the container can tell clients
//! apart and answers find their way back, from the address of the host that was asked; it is closed when nothing comes or
//! goes by it any more.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::Token;
use super::frontend::{Frontend, Frontends, Inside};
use super::readiness;

/// As long as connection tracking keeps a flow that goes both ways.
const IDLE: Duration = Duration::from_secs(120);
const SWEEP: Duration = Duration::from_secs(10);
/// More clients than this push out the one that was quiet for longest.
const MOST: usize = 1024;
const DATAGRAM: usize = 1 << 16;
const EACH_TURN: usize = 64;

/// What tells a flow from others: the frontend, who sends, and the address of the host that datagrams are sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends {
    frontend: u32,
    client: SocketAddr,
    host: Option<IpAddr>,
}

#[derive(Debug)]
struct Flow {
    socket: OwnedFd,
    ends: Ends,
    used: Instant,
}

/// The clients that send datagrams.
#[derive(Debug, Default)]
pub(super) struct Flows {
    by_index: HashMap<u32, Flow>,
    of_ends: HashMap<Ends, u32>,
    next: u32,
    swept: Option<Instant>,
    buffer: Vec<u8>,
}

impl Flows {
    /// Hands what came from clients to the container.
    pub(super) fn receive(&mut self, index: u32, frontend: &Frontend, epoll: &OwnedFd) {
        self.buffer.resize(DATAGRAM, 0);
        for _ in 0..EACH_TURN {
            let (length, client, host) = match sys::datagram::receive(frontend.socket.as_fd(), &mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => continue,
                Err(_) => return,
            };
            // Each client has its own socket, since the answer's only address is the port that the container answers
            // to.
            let Ok(flow) = self.flow(Ends { frontend: index, client, host }, &frontend.inside, epoll) else { continue };
            let socket = self.by_index.get_mut(&flow).map(|flow| {
                flow.used = Instant::now();
                &flow.socket
            });
            // A datagram that nobody takes is lost, as on any way.
            let datagram = self.buffer.get(..length).unwrap_or_default();
            let sent = socket.map(|socket| net::send(socket, datagram, SendFlags::empty()));
            if sent == Some(Err(Errno::CONNREFUSED)) {
                self.remove(flow);
            }
        }
    }

    /// Hands the container's answers to the client.
    pub(super) fn answer(&mut self, index: u32, frontends: &Frontends) {
        self.buffer.resize(DATAGRAM, 0);
        for _ in 0..EACH_TURN {
            let Some(flow) = self.by_index.get_mut(&index) else { return };
            match net::recv(&flow.socket, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((_, length)) => {
                    flow.used = Instant::now();
                    let datagram = self.buffer.get(..length).unwrap_or_default();
                    let Ends { frontend, client, host } = flow.ends;
                    let socket = frontends.get(frontend).map(|frontend| frontend.socket.as_fd());
                    // From the address that the client asked: on a host with several, any other would be thrown away
                    // by it.
                    let _lost = socket.map(|socket| sys::datagram::send(socket, datagram, client, host));
                }
                Err(Errno::AGAIN) => return,
                // Nobody receives in the container: another place is looked for when the client sends again.
                Err(_) => return self.remove(index),
            }
        }
    }

    /// Closes what is not used any more.
    pub(super) fn expire(&mut self) {
        if self.by_index.is_empty() || self.swept.is_some_and(|swept| swept.elapsed() < SWEEP) {
            return;
        }
        self.swept = Some(Instant::now());
        self.by_index.retain(|_, flow| flow.used.elapsed() <= IDLE);
        self.of_ends.retain(|_, index| self.by_index.contains_key(index));
    }

    pub(super) fn interval(&self) -> Option<Duration> {
        (!self.by_index.is_empty()).then_some(SWEEP)
    }

    fn flow(&mut self, ends: Ends, inside: &Inside, epoll: &OwnedFd) -> Result<u32, Errno> {
        if let Some(index) = self.of_ends.get(&ends) {
            return Ok(*index);
        }
        if self.by_index.len() >= MOST {
            let quietest = self.by_index.iter().min_by_key(|(_, flow)| flow.used).map(|(index, _)| *index);
            if let Some(index) = quietest {
                self.remove(index);
            }
        }
        let to = match inside {
            Inside::Port(port) => readiness::receiving(*port),
            Inside::Address(address) => *address,
            Inside::Path(_) | Inside::Nothing => return Err(Errno::CONNREFUSED),
        };
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::socket_with(family, SocketType::DGRAM, flags, None)?;
        // A connected socket gets answers from that address alone, and hears of ICMP's "port unreachable" as
        // ECONNREFUSED (udp(7)).
        net::connect(&socket, &to)?;
        let index = self.next;
        self.next = self.next.wrapping_add(1);
        epoll::add(epoll, &socket, Token::Flow(index).data(), epoll::EventFlags::IN)?;
        self.by_index.insert(index, Flow { socket, ends, used: Instant::now() });
        self.of_ends.insert(ends, index);
        Ok(index)
    }

    fn remove(&mut self, index: u32) {
        if let Some(flow) = self.by_index.remove(&index) {
            self.of_ends.remove(&flow.ends);
        }
    }
}
