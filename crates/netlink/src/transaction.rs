//! What a trace tells of a request.

use std::fmt::{self, Display};

use crate::Raw;

/// The messages that are sent here, as the kernel's headers call them: linux/rtnetlink.h, nfnetlink.h.
const NAMES: &str = "16 RTM_NEWLINK, 17 RTM_DELLINK, 18 RTM_GETLINK, 19 RTM_SETLINK, 20 RTM_NEWADDR, 21 RTM_DELADDR, \
    22 RTM_GETADDR, 24 RTM_NEWROUTE, 25 RTM_DELROUTE, 26 RTM_GETROUTE, 28 RTM_NEWNEIGH, 88 RTM_NEWNSID, \
    90 RTM_GETNSID, 108 RTM_NEWLINKPROP, 109 RTM_DELLINKPROP, 256 IPCTNL_MSG_CT_NEW, 257 IPCTNL_MSG_CT_GET, \
    258 IPCTNL_MSG_CT_DELETE, 2560 NFT_MSG_NEWTABLE, 2561 NFT_MSG_GETTABLE, 2562 NFT_MSG_DELTABLE, \
    2564 NFT_MSG_GETCHAIN, 2566 NFT_MSG_NEWRULE, 2567 NFT_MSG_GETRULE, 2570 NFT_MSG_GETSET, \
    2573 NFT_MSG_GETSETELEM, 2576 NFT_MSG_GETGEN, 2579 NFT_MSG_GETOBJ";

/// Begins the span of a request and its answers.
pub(crate) fn span(message: &Raw) -> trace::Span {
    trace::span("netlink", Kind(message.kind))
}

struct Kind(u16);

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = format!("{} ", self.0);
        match NAMES.split(", ").find_map(|name| name.strip_prefix(&number)) {
            Some(name) => f.write_str(name),
            None => write!(f, "message {:#x}", self.0),
        }
    }
}
