//! What a trace tells of a request.

use std::fmt::{self, Display};

use crate::Raw;

/// The messages that are sent here, as the kernel's headers call them: linux/rtnetlink.h, nfnetlink.h.
const NAMES: &str = include_str!("names.txt");

/// Begins the span of a request and its answers.
pub(crate) fn span(message: &Raw) -> trace::Timed {
    trace::span("netlink", Kind(message.kind))
}

struct Kind(u16);

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = format!("{} ", self.0);
        match NAMES.lines().find_map(|name| name.strip_prefix(&number)) {
            Some(name) => f.write_str(name),
            None => write!(f, "message {:#x}", self.0),
        }
    }
}
