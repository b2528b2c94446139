//! Whether somebody listens in the container: read from the namespace's own table of sockets, since trying to connect
//! would be seen by the container's program.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::io::Errno;

use super::destination::{Destination, unix_table};
use super::door::Doors;
use super::listener::Inside;

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
    pub(super) fn of(doors: &Doors) -> Self {
        let waiting = doors.iter().any(|(_, door)| !door.is_for_datagrams());
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

    /// Opens the doors for which somebody listens now.
    pub(super) fn check(&mut self, doors: &Doors) -> anyhow::Result<()> {
        if !self.waiting || Instant::now() < self.next {
            return Ok(());
        }
        let (mut tcp, mut unix) = (None, None);
        self.waiting = false;
        for (index, door) in doors.iter() {
            if door.is_for_datagrams() || door.is_open() {
                continue;
            }
            let to = match &door.inside {
                Inside::Address(address) => Some(Destination::Address(*address)),
                Inside::Nothing => continue,
                Inside::Port(port) => {
                    let to = tcp.get_or_insert_with(listening).iter().find(|address| address.port() == *port);
                    to.map(|to| Destination::Address(reachable(*to)))
                }
                Inside::Path(path) => {
                    let is_there = path.is_listened_at(unix.get_or_insert_with(unix_table));
                    is_there.then(|| Destination::Path(path.clone()))
                }
            };
            match to {
                Some(to) => match doors.open(index, to) {
                    // Somebody was quicker: their end is waited for.
                    Err(error) if error == Errno::ADDRINUSE => {
                        log::warn!("listen for {}: {error}", door.served);
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
    ["tcp", "tcp6"].into_iter().flat_map(|table| read(table, LISTENS)).collect()
}

/// Returns where in the thread's network namespace datagrams for a port are received.
pub(super) fn receiving(port: u16) -> SocketAddr {
    let found = ["udp", "udp6"].into_iter().flat_map(|table| read(table, RECEIVES)).find(|to| to.port() == port);
    found.map_or_else(|| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), reachable)
}

/// The states of sockets that take what comes (`include/net/tcp_states.h`).
const LISTENS: &str = "0A";
const RECEIVES: &str = "07";

fn read(table: &str, state: &str) -> Vec<SocketAddr> {
    let opened = File::open(format!("/proc/thread-self/net/{table}"));
    opened.map(|file| parse(BufReader::new(file), state)).unwrap_or_default()
}

/// Reads /proc/net/tcp, udp and those of IPv6: proc(5). Line by line, since connections that have ended are tens of
/// thousands of lines behind the ones who listen.
fn parse(table: impl BufRead, state: &str) -> Vec<SocketAddr> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let local = words.nth(1)?;
        (words.nth(1)? == state).then_some(())?;
        let (address, port) = local.split_once(':')?;
        Some(SocketAddr::new(ip(address)?, u16::from_str_radix(port, 16).ok()?))
    };
    table.lines().skip(1).map_while(Result::ok).filter_map(|text| line(&text)).collect()
}

/// Words of four bytes, each printed as a number of the machine's own byte order.
fn ip(hex: &str) -> Option<IpAddr> {
    let word = |index: usize| u32::from_str_radix(hex.get(index * 8..index * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let octets: Vec<u8> = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?)))
        }
        _ => None,
    }
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
    fn only_those_who_listen_are_found() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n   \
             1: 0100007F:1F90 0100007F:A000 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0\n   \
             2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0\n";
        assert_eq!(
            parse(table.as_bytes(), LISTENS),
            ["0.0.0.0:80".parse().unwrap(), "127.0.0.1:8081".parse().unwrap()]
        );
        assert_eq!(reachable(parse(table.as_bytes(), LISTENS)[0]), "127.0.0.1:80".parse().unwrap());
        assert_eq!(ip("00000000000000000000000001000000"), Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
    }
}
