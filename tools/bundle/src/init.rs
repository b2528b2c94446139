//! The first process of a container that was made with `--init`: starts the command, hands signals on to it, and takes
//! the exit status of every orphan, which nobody else would. It is this program itself, mounted into the container.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, anyhow};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use sys::child::exit_code;
use sys::ready::readable;
use sys::signal::SignalFd;

/// Where it stands in the container: on a tmpfs, so that it leaves nothing in the container's layer.
pub(crate) const PATH: &str = "/dev/init";

#[rustfmt::skip]
const HANDED_ON: [Signal; 12] = [
    Signal::HUP, Signal::INT, Signal::QUIT, Signal::USR1, Signal::USR2, Signal::ALARM, Signal::TERM, Signal::CONT,
    Signal::TSTP, Signal::WINCH, Signal::IO, Signal::POWER,
];

/// Runs a command until it ends, and returns its exit code: 128 and more where a signal has killed it.
pub(crate) fn run(command: &[OsString]) -> Result<ExitCode> {
    let (program, arguments) = command.split_first().context("no command")?;
    let mut awaited = HANDED_ON.to_vec();
    awaited.push(Signal::CHILD);
    // Before the child is there: its end, or a signal, that comes earlier would be lost. What the child inherits, the
    // mask, its start clears.
    let signals = SignalFd::block(&awaited)?;
    let mut command = Command::new(program);
    // Killed with us: as the first process of the pid namespace that is so anyway, but `--pid host` has another
    // first.
    let child = sys::child::die_with_parent(command.args(arguments), Signal::KILL).spawn();
    let child = child.map_err(|error| {
        let code = if error.kind() == ErrorKind::NotFound { 127 } else { 126 };
        cli::ExitError::new(code, anyhow!("run {}: {error}", program.to_string_lossy()))
    })?;
    let child = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a child without a pid")?;
    loop {
        readable([signals.as_fd()], None)?;
        while let Some(received) = signals.read()? {
            let signal = awaited.iter().find(|signal| u32::try_from(signal.as_raw()) == Ok(received.signal));
            // What the terminal sends reaches the command without us.
            // `si_code` is `SI_KERNEL` for Ctrl-C: the terminal sends to the whole foreground group, which the
            // command is in, and twice would be once too often.
            if let Some(signal) = signal.filter(|signal| received.from_process && **signal != Signal::CHILD) {
                // It may have ended just now.
                let _gone = kill_process(child, *signal);
            }
        }
        if let Some(code) = reap(child)? {
            return Ok(ExitCode::from(code));
        }
    }
}

/// Takes every exit status that is there; returns the command's.
fn reap(child: Pid) -> Result<Option<u8>> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == child => return Ok(Some(exit_code(status))),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}
