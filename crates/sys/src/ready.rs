//! Waiting for whichever of several descriptors has something first (`poll(2)`).

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Waits until one of them can be read, or until that moment; returns which can.
pub fn readable<'a>(fds: impl IntoIterator<Item = BorrowedFd<'a>>, until: Option<Instant>) -> io::Result<Vec<bool>> {
    let mut polled: Vec<_> = fds.into_iter().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        match poll(&mut polled, left.and_then(|left| left.try_into().ok()).as_ref()) {
            Err(Errno::INTR) => {}
            done => return Ok(done.map(|_| polled.iter().map(|fd| !fd.revents().is_empty()).collect())?),
        }
    }
}
