//! The only crate with `unsafe`: system calls that rustix has no safe face for, each wrapped so that its caller needs
//! no `unsafe`. Functions take `BorrowedFd` and give `OwnedFd`; a raw descriptor occurs in no signature.

#![allow(unsafe_code, reason = "this crate exists so that all the others may forbid it")]

pub mod bpf;
pub mod child;
pub mod clone;
pub mod confinement;
pub mod datagram;
pub mod file;
pub mod launch;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod network;
pub mod packet;
mod raw;
pub mod ready;
pub mod signal;
pub mod sockets;
pub mod start;
pub mod terminal;

use std::error::Error;

use rustix::io::Errno;

/// Returns what was done; `None` where the kernel's reason not to do it is one of these.
///
/// # Errors
/// As it came, for every other reason: an [`Errno`], or what std makes of one.
pub fn unless<T, E: Error + 'static>(reasons: &[Errno], done: Result<T, E>) -> Result<Option<T>, E> {
    let errno = |error: &(dyn Error + 'static)| {
        error.downcast_ref().copied().or_else(|| Errno::from_io_error(error.downcast_ref()?))
    };
    match done {
        Err(error) if errno(&error).is_some_and(|errno| reasons.contains(&errno)) => Ok(None),
        done => done.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn only_these_reasons_are_no_errors() {
        for (errno, want) in [(Errno::NOENT, Ok(None)), (Errno::NOTDIR, Ok(None)), (Errno::ACCESS, Err(Errno::ACCESS))]
        {
            let reasons = [Errno::NOENT, Errno::NOTDIR];
            assert_eq!(unless(&reasons, Err::<(), _>(errno)), want);
            let of_std = unless(&reasons, Err::<(), _>(io::Error::from(errno)));
            assert_eq!(of_std.map_err(|error| Errno::from_io_error(&error)), want.map_err(Some));
        }
        assert_eq!(unless(&[Errno::NOENT], Ok::<_, Errno>(1)), Ok(Some(1)));
    }
}
