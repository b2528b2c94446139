//! Options of a netlink socket: netlink(7), "Socket options".

use std::io;
use std::os::fd::BorrowedFd;

use crate::raw::turn_on;

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
    turn_on(socket, libc::SOL_NETLINK, option)
}
