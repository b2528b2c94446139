//! How a program of ours begins: in C's `main`, without std's. That one reads /proc/self/maps, and installs handlers and a
//! stack for them, to tell a stack overflow from another crash; it takes a tenth of what the start of a small program does.

use std::process::ExitCode;

use libc::{O_RDWR, POLLNVAL, pollfd};

/// Makes a function, `fn main() -> ExitCode`, the program. The crate says `#![cfg_attr(not(test), no_main)]`.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        #[cfg(not(test))]
        const _: () = {
            // SAFETY: a program has one `main`, and C's is called with what this one does not look at.
            #[unsafe(export_name = "main")]
            extern "C" fn begin() -> std::ffi::c_int {
                $crate::start::run($main)
            }
        };
    };
}

/// Runs a program, and ends it: what [`program`] expands to.
///
/// Of what std does for it, a write to a pipe that nobody reads is an error and no signal, and the three standard descriptors
/// are open, so that no file gets their numbers.
#[expect(clippy::exit, reason = "as std ends a program: what is left in stdout's buffer is written")]
pub fn run(main: fn() -> ExitCode) -> ! {
    open_standard();
    // SAFETY: no handler of ours is replaced.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let code = main();
    // std does not tell the number.
    let number = (0..=u8::MAX).find(|number| ExitCode::from(*number) == code);
    std::process::exit(number.map_or(1, i32::from))
}

/// Opens those of the three standard descriptors that are closed: /dev/null.
pub(crate) fn open_standard() {
    let mut standard = [0, 1, 2].map(|fd| pollfd { fd, events: 0, revents: 0 });
    // SAFETY: the kernel writes to three entries.
    unsafe { libc::poll(standard.as_mut_ptr(), 3, 0) };
    for _closed in standard.iter().filter(|standard| standard.revents & POLLNVAL != 0) {
        // SAFETY: the path ends with NUL. It gets the lowest number that is free.
        if unsafe { libc::open(c"/dev/null".as_ptr(), O_RDWR) } < 0 {
            std::process::abort();
        }
    }
}
