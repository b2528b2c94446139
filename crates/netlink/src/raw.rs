//! A message as bytes.

/// What stands behind `struct nlmsghdr`, as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    /// `nlmsg_type`.
    pub kind: u16,
    /// The family's header and the attributes.
    pub payload: Vec<u8>,
}
