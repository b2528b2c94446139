//! What the kernel answers where it does not do what it was asked.

use std::fmt;

use rustix::io::Errno;

/// Why a request was not done. Callers decide on [`Error::errno`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The kernel refused a message.
    #[error("{}", Refusal(*errno, message.as_deref()))]
    Refused {
        /// The reason's number.
        errno: Errno,
        /// The kernel's own words (`NLMSGERR_ATTR_MSG`), where it has any.
        message: Option<String>,
    },
    /// The socket itself failed.
    #[error("netlink socket: {0}")]
    Socket(Errno),
    /// What was dumped changed all the time, so that no consistent picture could be had (`NLM_F_DUMP_INTR`).
    #[error("netlink dump: interrupted by changes again and again")]
    Interrupted,
    /// The kernel ended without the answer that was asked for.
    #[error("netlink: no answer")]
    NoAnswer,
    /// An answer that does not follow the protocol.
    #[error("netlink answer: {0}")]
    Malformed(String),
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::Socket(errno)
    }
}

impl Error {
    /// Returns the system's reason, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } | Self::Socket(errno) => Some(*errno),
            Self::Interrupted | Self::NoAnswer | Self::Malformed(_) => None,
        }
    }
}

struct Refusal<'a>(Errno, Option<&'a str>);

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // "Operation not permitted (os error 1)" says the number to people who did not ask for it.
        let text = std::io::Error::from(self.0).to_string();
        f.write_str(text.split(" (os error").next().unwrap_or(&text))?;
        self.1.map_or(Ok(()), |message| write!(f, " ({message})"))
    }
}
