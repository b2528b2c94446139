//! Ctrl-C and its kin as a value that is asked for between two steps, so that every one of them ends whole or undone.

use anyhow::{Result, anyhow};
use rustix::process::Signal;
use sys::signal::SignalFd;

/// The signals that end a program politely, read instead of obeyed.
pub(crate) struct Interrupt(SignalFd);

impl Interrupt {
    /// From now on the signals wait to be asked for.
    pub(crate) fn watch() -> Result<Self> {
        Ok(Self(SignalFd::block(&[Signal::INT, Signal::TERM, Signal::HUP])?))
    }

    /// Fails once a signal has come, with the exit code that a shell gives to a program it has killed.
    pub(crate) fn check(&self) -> Result<()> {
        let Some(received) = self.0.read()? else { return Ok(()) };
        let code = u8::try_from(received.signal).ok().and_then(|signal| signal.checked_add(128)).unwrap_or(1);
        Err(cli::ExitError::new(code, anyhow!("interrupted by signal {}", received.signal)).into())
    }
}
