//! What the kernel answers where it does not do what it was asked.

use rustix::io::Errno;

/// Why a request was not done. Callers decide on [`Error::errno`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The kernel refused a message.
    #[error("{}", refusal(*errno, message.as_deref()))]
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
    ///
    /// It is what callers decide on: `EEXIST` for an address or a port that another one has, `ENOENT` for what
    /// somebody has flushed meanwhile, `ENODEV` for a link that is gone.
    pub fn errno(&self) -> Option<Errno> {
        let (Self::Refused { errno, .. } | Self::Socket(errno)) = self else { return None };
        Some(*errno)
    }
}

/// Returns what was done, or `None` where the kernel's reason not to do it is this one.
pub fn unless<T>(reason: Errno, done: Result<T, Error>) -> Result<Option<T>, Error> {
    match done {
        Err(error) if error.errno() == Some(reason) => Ok(None),
        done => done.map(Some),
    }
}

/// "Operation not permitted (os error 1)" says the number to people who did not ask for it.
fn refusal(errno: Errno, message: Option<&str>) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    message.map_or_else(|| text.to_owned(), |message| format!("{text} ({message})"))
}
