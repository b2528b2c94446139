//! A blocking netlink socket (netlink(7)): requests with acknowledgement, dumps and atomic batches, for rtnetlink and
//! nfnetlink. A message is [`Raw`]: a type, and the bytes that [`Attributes`] are built and read from.
//!
//! A socket stays in the network namespace in which it was opened, so a caller that works in two namespaces opens two
//! sockets and changes back.
//!
//! ```no_run
//! // Whether the link `br0` is up. A request for one object; the kernel's answer is read without trusting any length.
//! let mut router = netlink::route::Router::open()?;
//! let link = router.link("br0")?;
//! println!("{:?}", link.map(|link| link.up));
//! # Ok::<(), netlink::Error>(())
//! ```

#![forbid(unsafe_code)]

mod attribute;
mod error;
pub mod foreign;
pub mod forwarding;
mod frame;
pub mod nft;
mod raw;
pub mod route;
mod socket;
mod transaction;

pub use attribute::{Attribute, Attributes, find, parse};
pub use error::{Error, unless};
pub use raw::Raw;
pub use socket::{Batch, NetlinkFamily, Socket};

/// Flags of a request (include/uapi/linux/netlink.h) beside those that the socket sets itself.
pub mod flag {
    /// `NLM_F_REPLACE`: change it if it is there.
    pub const REPLACE: u16 = 0x100;
    /// `NLM_F_EXCL`: refuse where it is there already.
    pub const EXCL: u16 = 0x200;
    /// `NLM_F_CREATE`: make it if it is not there.
    pub const CREATE: u16 = 0x400;
    /// `NLM_F_APPEND`: add at the end of the list.
    pub const APPEND: u16 = 0x800;
}
