//! Network interfaces, as far as `netdevice(7)` requests reach them.

use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::raw::done;

/// `ETHTOOL_GLINK` of linux/ethtool.h: ask whether there is a carrier.
const ETHTOOL_GLINK: u32 = 0x0a;

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Tells whether a link of the calling thread's network namespace has a carrier. The kernel runs the link's watch for this,
/// so that what has changed is true for everybody at once and not up to a second later: a bridge forwards to the port from
/// then on.
pub fn has_carrier(link: &str) -> io::Result<bool> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut value = EthtoolValue { command: ETHTOOL_GLINK, data: 0 };
    let mut request = named(link);
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: SIOCETHTOOL reads a name and a pointer out of an ifreq; the pointer is to an ethtool_value, which is what
    // ETHTOOL_GLINK reads and writes, and both live as long as the call.
    done(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) })?;
    Ok(value.data != 0)
}

/// Returns a request about a link. A name that is too long for one is cut: the kernel knows no such link.
fn named(link: &str) -> libc::ifreq {
    // SAFETY: all bytes zero are a valid ifreq: a name, and a union of integers and addresses.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let last = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..last].iter_mut().zip(link.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request
}

/// Brings `lo` up in the calling thread's network namespace: a new namespace has it, but down. Where it is up already, no
/// privilege is needed.
pub fn loopback_up() -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut request = named("lo");
    // SAFETY: SIOCGIFFLAGS reads a name out of an ifreq and writes its flags; `request` lives as long as the call.
    done(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) })?;
    // SAFETY: the kernel has just written the flags, and a c_short has no invalid values.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    let up = libc::c_short::try_from(libc::IFF_UP).unwrap_or_default();
    // SIOCSIFFLAGS takes CAP_NET_ADMIN even where nothing changes.
    if flags & up != 0 {
        return Ok(());
    }
    request.ifr_ifru.ifru_flags = flags | up;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, and `request` is one that lives as long as the call.
    done(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })?;
    crate::file::leave_open(socket);
    Ok(())
}
