//! Packets on a pair of Unix sockets whose other end may be closed at any time.

use rustix::io::{Errno, Result};

/// Receives a packet. Who ends without having read what was sent to it resets the connection: that is reported once, before
/// what it has said (`unix_release_sock` of the kernel), and is no error, as no signal is. The end is what `receive` returns
/// then.
pub fn hear<T>(mut receive: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match receive() {
            Err(Errno::INTR | Errno::CONNRESET) => {}
            received => return received,
        }
    }
}
