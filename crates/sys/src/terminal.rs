//! The user's terminal while a container has it, and descriptors that take no more at the moment.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, Result};
use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr};

/// The user's terminal in raw mode; as it was again when this is dropped.
#[derive(Debug)]
pub struct RawTerminal(Termios);

impl RawTerminal {
    /// Switches stdin, if it is a terminal, to hand every key to the container. With `alone`, whoever reads our output may
    /// write on this terminal, and expects it to begin lines at the left.
    pub fn enter(alone: bool) -> Option<Self> {
        let before = tcgetattr(rustix::stdio::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        // The container's terminal has turned newlines into carriage returns and newlines already; ours must not do
        // so again.
        raw.output_modes.set(OutputModes::OPOST, alone);
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // The terminal may be gone; then nobody sees how it is left.
        let _gone = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Writes all of it to a descriptor that may be one that does not block.
pub fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(&fd, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
