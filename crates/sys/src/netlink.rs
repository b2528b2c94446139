//! Options of a netlink socket: netlink(7), "Socket options".

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What a netlink socket can be told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetlinkOption {
    /// `NETLINK_CAP_ACK`: an answer does not repeat the request.
    CapAck,
    /// `NETLINK_EXT_ACK`: an answer says in words what is wrong.
    ExtendedAck,
    /// `NETLINK_GET_STRICT_CHK`: the header of a dump's request filters.
    StrictCheck,
}

/// Turns an option on.
pub fn enable(socket: BorrowedFd<'_>, option: NetlinkOption) -> io::Result<()> {
    let option = match option {
        NetlinkOption::CapAck => libc::NETLINK_CAP_ACK,
        NetlinkOption::ExtendedAck => libc::NETLINK_EXT_ACK,
        NetlinkOption::StrictCheck => libc::NETLINK_GET_STRICT_CHK,
    };
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or_default();
    // SAFETY: the kernel reads `size` bytes, the size of `on`, which outlives the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
