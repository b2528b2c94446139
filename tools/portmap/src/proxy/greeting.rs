//! The PROXY protocol (haproxy.org, proxy-protocol.txt, versions 1 and 2): what a client's address is, said to the container
//! before the client's first byte.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use netlink::route::octets;
use rustix::net;

use crate::request::ProxyProtocol;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, and the command PROXY.
const VERSION_AND_COMMAND: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// Returns what is sent to the container for an accepted client.
pub(super) fn of(client: &OwnedFd, version: ProxyProtocol) -> Vec<u8> {
    let address = |address: rustix::io::Result<net::SocketAddrAny>| SocketAddr::try_from(address.ok()?).ok();
    // A client at a UNIX socket has no address.
    let ends = address(net::getpeername(client).and_then(|peer| peer.ok_or(rustix::io::Errno::NOTCONN)))
        .zip(address(net::getsockname(client)))
        .map(|(source, destination)| (canonical(source), canonical(destination)));
    match version {
        ProxyProtocol::V1 => first(ends),
        ProxyProtocol::V2 => second(ends),
    }
}

/// A socket of both families shows IPv4 as IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

type Ends = Option<(SocketAddr, SocketAddr)>;

fn first(ends: Ends) -> Vec<u8> {
    let known = |(source, destination): (SocketAddr, SocketAddr)| {
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        format!("{family} {} {} {} {}", source.ip(), destination.ip(), source.port(), destination.port())
    };
    format!("PROXY {}\r\n", ends.map_or("UNKNOWN".to_owned(), known)).into_bytes()
}

fn second(ends: Ends) -> Vec<u8> {
    let (family, addresses) = match ends {
        Some((source, destination)) => {
            let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
            let family = if source.is_ipv4() { TCP4 } else { TCP6 };
            (family, [octets(source.ip()), octets(destination.ip()), ports].concat())
        }
        None => (UNSPECIFIED, Vec::new()),
    };
    let length = u16::try_from(addresses.len()).unwrap_or_default().to_be_bytes();
    [SIGNATURE, &[VERSION_AND_COMMAND, family], &length, &addresses].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_are_those_of_the_specification() {
        let ends = |source: &str, destination: &str| Some((source.parse().unwrap(), destination.parse().unwrap()));
        let v4 = ends("192.168.0.1:56324", "192.168.0.11:443");
        let v6 = ends("[fd03::2]:1", "[fd03::1]:65535");
        for (ends, line) in [
            (v4, "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"),
            (v6, "PROXY TCP6 fd03::2 fd03::1 1 65535\r\n"),
            (None, "PROXY UNKNOWN\r\n"),
        ] {
            assert_eq!(String::from_utf8(first(ends)).unwrap(), line);
        }
        let header = |rest: &[u8]| [b"\r\n\r\n\0\r\nQUIT\n\x21", rest].concat();
        assert_eq!(second(None), header(&[0, 0, 0]));
        assert_eq!(second(v4), header(&[0x11, 0, 12, 192, 168, 0, 1, 192, 168, 0, 11, 0xdc, 0x04, 0x01, 0xbb]));
        assert_eq!(second(v6).get(13..16), Some(&[0x21, 0, 36][..]));
    }

    #[test]
    fn an_address_in_the_other_familys_clothes_is_undressed() {
        assert_eq!(canonical("[::ffff:10.0.0.1]:80".parse().unwrap()), "10.0.0.1:80".parse().unwrap());
    }
}
