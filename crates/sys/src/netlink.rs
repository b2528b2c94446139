//! Options of a netlink socket: netlink(7), "Socket options".

use std::io;
use std::os::fd::BorrowedFd;

use crate::raw::turn_on;

/// What a netlink socket can be told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum NetlinkOption {
    /// `NETLINK_CAP_ACK`: an answer does not repeat the request.
    CapAck = libc::NETLINK_CAP_ACK,
    /// `NETLINK_EXT_ACK`: an answer says in words what is wrong.
    ExtendedAck = libc::NETLINK_EXT_ACK,
    /// `NETLINK_GET_STRICT_CHK`: the header of a dump's request filters.
    StrictCheck = libc::NETLINK_GET_STRICT_CHK,
}

/// Turns an option on.
pub fn enable(socket: BorrowedFd<'_>, option: NetlinkOption) -> io::Result<()> {
    turn_on(socket, libc::SOL_NETLINK, option as i32)
}
