//! Waiting for whichever of several descriptors has something first (`poll(2)`).

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Longer than anybody waits.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Returns the moment that is so much later, or a century: users and files may name spans that no clock has.
pub fn after(limit: Duration) -> Instant {
    Instant::now() + limit.min(CENTURY)
}

/// Waits until one of them can be read, or until that moment; returns which can.
///
/// An end or an error counts as readable, because the next read returns at once. With `until` in the past it only
/// looks.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_span_is_too_long() {
        assert!(after(Duration::MAX) > Instant::now() + Duration::from_secs(1 << 31));
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        drop(theirs);
        assert_eq!(readable([std::os::fd::AsFd::as_fd(&ours)], Some(after(Duration::MAX))).unwrap(), [true]);
    }
}
