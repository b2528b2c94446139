//! What a trace tells of a request.

use std::fmt::{self, Display};

use netlink_packet_core::NetlinkSerializable;

/// The messages that are sent here, as the kernel's headers call them: linux/rtnetlink.h, nfnetlink.h.
const NAMES: [(u16, &str); 26] = [
    (16, "RTM_NEWLINK"),
    (17, "RTM_DELLINK"),
    (18, "RTM_GETLINK"),
    (19, "RTM_SETLINK"),
    (20, "RTM_NEWADDR"),
    (21, "RTM_DELADDR"),
    (22, "RTM_GETADDR"),
    (24, "RTM_NEWROUTE"),
    (25, "RTM_DELROUTE"),
    (26, "RTM_GETROUTE"),
    (28, "RTM_NEWNEIGH"),
    (88, "RTM_NEWNSID"),
    (90, "RTM_GETNSID"),
    (0x0100, "IPCTNL_MSG_CT_NEW"),
    (0x0101, "IPCTNL_MSG_CT_GET"),
    (0x0102, "IPCTNL_MSG_CT_DELETE"),
    (0x0a00, "NFT_MSG_NEWTABLE"),
    (0x0a01, "NFT_MSG_GETTABLE"),
    (0x0a02, "NFT_MSG_DELTABLE"),
    (0x0a04, "NFT_MSG_GETCHAIN"),
    (0x0a06, "NFT_MSG_NEWRULE"),
    (0x0a07, "NFT_MSG_GETRULE"),
    (0x0a0a, "NFT_MSG_GETSET"),
    (0x0a0d, "NFT_MSG_GETSETELEM"),
    (0x0a10, "NFT_MSG_GETGEN"),
    (0x0a13, "NFT_MSG_GETOBJ"),
];

/// Begins the span of a request and its answers.
pub(crate) fn span(message: &impl NetlinkSerializable) -> trace::Span {
    trace::span("netlink", Kind(message.message_type()))
}

struct Kind(u16);

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(kind, _)| *kind == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "message {:#x}", self.0),
        }
    }
}
