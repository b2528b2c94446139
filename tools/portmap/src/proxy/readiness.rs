//! Whether somebody listens in the container: read from the namespace's own table of sockets, since trying to connect
//! would be seen by the container's program.
//!
//! The kernel tells nobody that a socket begins to listen, so the table is read again and again: from 5 ms on, each
//! time twice as long, up to 100 ms, and up to a second after a minute. Once all listen, nothing is read any more,
//! until a connection fails.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::io::Errno;
use sys::sockets;

use super::destination::{Destination, unix_table};
use super::frontend::{Frontends, Inside};

const SOONEST: Duration = Duration::from_millis(5);
const LATEST: Duration = Duration::from_millis(100);
/// After a minute it is no start any more: the program may never listen at all.
const LATEST_OF_ALL: Duration = Duration::from_secs(1);
const START: Duration = Duration::from_secs(60);

/// When to look next.
#[derive(Debug)]
pub(super) struct Readiness {
    waiting: bool,
    pause: Duration,
    next: Instant,
    began: Instant,
}

impl Readiness {
    pub(super) fn of(frontends: &Frontends) -> Self {
        let waiting = frontends.iter().any(|(_, frontend)| !frontend.is_for_datagrams());
        Self { waiting, pause: SOONEST, next: Instant::now(), began: Instant::now() }
    }

    /// Looks again soon: somebody does not listen any more.
    pub(super) fn begin(&mut self) {
        *self = Self { waiting: true, pause: SOONEST, next: Instant::now() + SOONEST, began: Instant::now() };
    }

    /// Returns how long nothing needs to be looked at; `None` if all listen.
    pub(super) fn interval(&self) -> Option<Duration> {
        self.waiting.then(|| self.next.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)))
    }

    /// Opens the frontends for which somebody listens now.
    pub(super) fn check(&mut self, frontends: &Frontends) -> anyhow::Result<()> {
        if !self.waiting || Instant::now() < self.next {
            return Ok(());
        }
        let (mut tcp, mut unix) = (None, None);
        self.waiting = false;
        for (index, frontend) in frontends.iter() {
            if frontend.is_for_datagrams() || frontend.is_open() {
                continue;
            }
            let to = match &frontend.inside {
                Inside::Address(address) => Some(Destination::Address(*address)),
                Inside::Nothing => continue,
                Inside::Port(port) => {
                    // One reading for all frontends, however many there are.
                    let to = tcp.get_or_insert_with(listening).iter().find(|address| address.port() == *port);
                    to.map(|to| Destination::Address(reachable(*to)))
                }
                Inside::Path(path) => {
                    let is_there = path.is_listened_at(unix.get_or_insert_with(unix_table));
                    is_there.then(|| Destination::Path(path.clone()))
                }
            };
            match to {
                Some(to) => match frontends.open(index, to) {
                    // Somebody was quicker: their end is waited for.
                    Err(error) if error == Errno::ADDRINUSE => {
                        log::warn!("listen for {}: {error}", frontend.served);
                        self.waiting = true;
                    }
                    opened => opened.context("listen for the container")?,
                },
                None => self.waiting = true,
            }
        }
        let latest = if self.began.elapsed() < START { LATEST } else { LATEST_OF_ALL };
        self.pause = (self.pause * 2).min(latest);
        self.next = Instant::now() + self.pause;
        Ok(())
    }
}

/// Returns where in the thread's network namespace somebody listens, IPv4 first.
fn listening() -> Vec<SocketAddr> {
    open_at(["tcp", "tcp6"]).collect()
}

/// Returns where in the thread's network namespace datagrams for a port are received.
pub(super) fn receiving(port: u16) -> SocketAddr {
    open_at(["udp", "udp6"])
        .find(|to| to.port() == port)
        .map_or_else(|| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), reachable)
}

/// Returns where in the thread's network namespace sockets take what comes.
fn open_at(tables: [&str; 2]) -> impl Iterator<Item = SocketAddr> {
    tables.into_iter().flat_map(sockets::with_port).filter(|socket| socket.is_open).map(|socket| socket.address)
}

/// Returns the address at which somebody who listens at every address is reached from inside.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_reached_by_the_loopback_one() {
        for (listening, want) in [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("10.0.0.2:8", "10.0.0.2:8")]
        {
            assert_eq!(reachable(listening.parse().unwrap()), want.parse().unwrap());
        }
    }
}
