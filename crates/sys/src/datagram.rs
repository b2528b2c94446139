//! Datagrams with the address of the host that they came to, so that answers come from there (`ip(7)`, `IP_PKTINFO`;
//! `ipv6(7)`, `IPV6_PKTINFO`; RFC 3542, 6): on a socket that is bound to every address the kernel would choose another one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::raw;

/// Bytes of `struct cmsghdr` before its data, and what the data is aligned to: `cmsg(3)` on 64-bit machines.
const HEADER: usize = size_of::<libc::cmsghdr>();
const ALIGNMENT: usize = size_of::<usize>();
/// Room for one header with either family's `pktinfo`.
const CONTROL: usize = 64;

/// A buffer that is aligned as `struct cmsghdr` is.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Has [`receive`] tell the address that datagrams came to.
pub fn tell_destination(socket: BorrowedFd<'_>, is_ipv4: bool) -> io::Result<()> {
    let (level, option) =
        if is_ipv4 { (libc::IPPROTO_IP, libc::IP_PKTINFO) } else { (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) };
    raw::turn_on(socket, level, option)
}

/// Receives a datagram: its length, who sent it, and which address of the host it came to, where the kernel tells.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Option<IpAddr>)> {
    // The larger of both families' addresses; an IPv4 one leaves its end as it is.
    let mut name = [0_u8; size_of::<libc::sockaddr_in6>()];
    let mut control = Control([0; CONTROL]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut message = message(&mut name, &mut part, &mut control);
    // SAFETY: `message` names `name`, `buffer` and `control` with their lengths; all of them live as long as the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    // The kernel has replaced the room that was offered by what it has used.
    let told = control.0.get(..message.msg_controllen).unwrap_or_default();
    let from = address(&name).ok_or(io::ErrorKind::InvalidData)?;
    Ok((length, from, destination(told)))
}

/// Sends a datagram from an address of the host; the kernel chooses one where none is given.
pub fn send(socket: BorrowedFd<'_>, datagram: &[u8], to: SocketAddr, from: Option<IpAddr>) -> io::Result<()> {
    let mut name = [0_u8; size_of::<libc::sockaddr_in6>()];
    let name_length = write_address(&mut name, to);
    let mut control = Control([0; CONTROL]);
    let control_length = from.map_or(0, |from| write_source(&mut control.0, from));
    // The kernel only reads what is sent.
    let mut part = libc::iovec { iov_base: datagram.as_ptr().cast_mut().cast(), iov_len: datagram.len() };
    let mut message = message(&mut name, &mut part, &mut control);
    message.msg_namelen = u32::try_from(name_length).unwrap_or_default();
    message.msg_controllen = control_length;
    // SAFETY: `message` names `name`, `datagram` and `control` with their lengths; all live as long as the call, which
    // writes to none of them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map(drop).map_err(|_| io::Error::last_os_error())
}

fn message(name: &mut [u8], part: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: all bytes zero are a valid msghdr: null pointers and lengths of 0.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_namelen = u32::try_from(name.len()).unwrap_or_default();
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_controllen = control.0.len();
    message.msg_control = control.0.as_mut_ptr().cast();
    message
}

/// Reads a `struct sockaddr_in` or `sockaddr_in6`.
fn address(name: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(array(name, 0)?));
    let port = u16::from_be_bytes(array(name, 2)?);
    match family {
        libc::AF_INET => Some(SocketAddr::new(Ipv4Addr::from(array::<4>(name, 4)?).into(), port)),
        libc::AF_INET6 => {
            let scope = u32::from_ne_bytes(array(name, 24)?);
            Some(SocketAddrV6::new(Ipv6Addr::from(array::<16>(name, 8)?), port, 0, scope).into())
        }
        _ => None,
    }
}

/// Writes one, and returns its length.
fn write_address(name: &mut [u8], to: SocketAddr) -> usize {
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    name[..2].copy_from_slice(&u16::try_from(family).unwrap_or_default().to_ne_bytes());
    name[2..4].copy_from_slice(&to.port().to_be_bytes());
    match to {
        SocketAddr::V4(to) => {
            name[4..8].copy_from_slice(&to.ip().octets());
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(to) => {
            name[8..24].copy_from_slice(&to.ip().octets());
            name[24..28].copy_from_slice(&to.scope_id().to_ne_bytes());
            size_of::<libc::sockaddr_in6>()
        }
    }
}

/// Finds the address in a `struct in_pktinfo` (`ipi_spec_dst`) or `in6_pktinfo` among control messages.
fn destination(mut control: &[u8]) -> Option<IpAddr> {
    while control.len() > HEADER {
        let length = usize::from_ne_bytes(array(control, 0)?);
        let (level, kind) = (i32::from_ne_bytes(array(control, 8)?), i32::from_ne_bytes(array(control, 12)?));
        let data = control.get(HEADER..length)?;
        match (level, kind) {
            // `ipi_spec_dst`, not `ipi_addr` behind it: for a broadcast or multicast the latter is no address to
            // answer from.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => return Some(Ipv4Addr::from(array::<4>(data, 4)?).into()),
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => return Some(Ipv6Addr::from(array::<16>(data, 0)?).into()),
            _ => control = control.get(length.next_multiple_of(ALIGNMENT)..)?,
        }
    }
    None
}

/// Writes one control message that says where a datagram is from, and returns its length.
fn write_source(control: &mut [u8], from: IpAddr) -> usize {
    let (level, kind, data) = match from {
        IpAddr::V4(from) => {
            let mut data = [0; size_of::<libc::in_pktinfo>()];
            data[4..8].copy_from_slice(&from.octets());
            (libc::IPPROTO_IP, libc::IP_PKTINFO, data.to_vec())
        }
        IpAddr::V6(from) => {
            let mut data = [0; size_of::<libc::in6_pktinfo>()];
            data[..16].copy_from_slice(&from.octets());
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, data.to_vec())
        }
    };
    let length = HEADER + data.len();
    control[..8].copy_from_slice(&length.to_ne_bytes());
    control[8..12].copy_from_slice(&level.to_ne_bytes());
    control[12..16].copy_from_slice(&kind.to_ne_bytes());
    control[HEADER..length].copy_from_slice(&data);
    length.next_multiple_of(ALIGNMENT)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn an_answer_comes_from_where_it_was_asked() {
        for (any, asked) in [("0.0.0.0:0", "127.0.0.7"), ("[::]:0", "::1")] {
            let server = UdpSocket::bind(any).unwrap();
            tell_destination(server.as_fd(), any.starts_with('0')).unwrap();
            let asked = SocketAddr::new(asked.parse().unwrap(), server.local_addr().unwrap().port());
            let client = UdpSocket::bind(SocketAddr::new(asked.ip(), 0)).unwrap();
            client.connect(asked).unwrap();
            client.send(b"question").unwrap();
            let mut buffer = [0; 64];
            let (length, from, to) = receive(server.as_fd(), &mut buffer).unwrap();
            assert_eq!(
                (&buffer[..length], from, to),
                (&b"question"[..], client.local_addr().unwrap(), Some(asked.ip()))
            );
            // The client is connected: from another address it would not get it.
            send(server.as_fd(), b"answer", from, to).unwrap();
            let length = client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"answer");
        }
    }
}
