//! The sockets of a network namespace, as the tables in /proc/PID/net list them: proc(5).

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A state in which a TCP socket takes connections, and one in which a UDP socket is connected to nobody
/// (`include/net/tcp_states.h`).
const LISTENS: &str = "0A";
const RECEIVES: &str = "07";

/// A socket that has a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSocket {
    /// Its own address.
    pub address: SocketAddr,
    /// The number by which processes have it.
    pub inode: u64,
    /// Whether it takes what anybody sends.
    pub is_open: bool,
}

/// Returns those of a table of the calling thread's network namespace: `tcp`, `tcp6`, `udp` or `udp6`.
pub fn with_port(table: &str) -> Vec<PortSocket> {
    let opened = File::open(format!("/proc/thread-self/net/{table}"));
    opened.map(|file| parse(BufReader::new(file), table.starts_with("tcp"))).unwrap_or_default()
}

/// Returns the numbers of a process's sockets, as far as they may be seen.
///
/// Those that may not be seen (`EACCES`) are left out: the caller asks about its own processes, or is root.
pub fn of_process(pid: i32) -> impl Iterator<Item = u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
}

/// Line by line, since connections that have ended are tens of thousands of lines behind the ones who listen.
fn parse(table: impl BufRead, is_tcp: bool) -> Vec<PortSocket> {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        // The columns of net/ipv4/tcp_ipv4.c and udp.c: number, local address, remote address, state, …, inode as the
        // tenth.
        let (address, port) = words.nth(1)?.split_once(':')?;
        let is_open = words.nth(1)? == if is_tcp { LISTENS } else { RECEIVES };
        let address = SocketAddr::new(ip(address)?, u16::from_str_radix(port, 16).ok()?);
        Some(PortSocket { address, inode: words.nth(5)?.parse().ok()?, is_open })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_tells_who_listens() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1 0 100 0 0 10 0\n   \
             1: 0100007F:1F90 0100007F:A000 01 00000000:00000000 00:00000000 00000000     0        0 8 1 0 100 0 0 10 0\n";
        let socket = |address: &str, inode, is_open| PortSocket { address: address.parse().unwrap(), inode, is_open };
        let want = [socket("0.0.0.0:80", 7, true), socket("127.0.0.1:8080", 8, false)];
        assert_eq!(parse(table.as_bytes(), true), want);
        assert_eq!(ip("00000000000000000000000001000000"), Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
    }
}
