//! `--socket-activate`: listening sockets that are there before the container, from systemd (`sd_listen_fds(3)`) or anybody
//! who does as it does. The container starts when somebody comes to one of them; `portmap` serves them from then on.

use std::env;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::net::sockopt::socket_acceptconn;
use sys::ready::readable;
use sys::signal::SignalFd;

/// The first descriptor that is handed over.
const FIRST: u32 = 3;

/// Returns the numbers of the sockets that are for this process.
pub(crate) fn handed_over() -> Result<Vec<u32>, cli::Usage> {
    let sockets = numbers()?;
    let listens = |number: u32| open(number).is_ok_and(|socket| socket_acceptconn(socket).unwrap_or(false));
    // What is open at such a number later may be this program's own.
    match sockets.iter().find(|number| !listens(**number)) {
        Some(number) => Err(cli::Usage(format!("--socket-activate: descriptor {number} is not a listening socket"))),
        None => Ok(sockets),
    }
}

/// Returns the socket that a container may speak to; none if nobody listens. An abstract one is not in any file system.
pub(crate) fn manager() -> Result<Option<OsString>, cli::Usage> {
    let socket = env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty());
    if socket.as_ref().is_some_and(|socket| !socket.as_encoded_bytes().starts_with(b"/")) {
        let what = "--sdnotify container: $NOTIFY_SOCKET is not a path; use conmon or healthy";
        return Err(cli::Usage(what.to_owned()));
    }
    Ok(socket)
}

fn open(number: u32) -> Result<OwnedFd> {
    sys::child::inherited(number).with_context(|| format!("take descriptor {number}"))
}

fn numbers() -> Result<Vec<u32>, cli::Usage> {
    match sys::child::listen_fds() {
        0 => Err(cli::Usage("--socket-activate: no sockets were passed ($LISTEN_FDS, $LISTEN_PID)".to_owned())),
        count => Ok((FIRST..FIRST.saturating_add(count)).collect()),
    }
}

/// Waits until somebody comes to one of the sockets, or a signal does, which is returned.
pub(crate) fn wait(sockets: &[u32], signals: &SignalFd) -> Result<Option<u32>> {
    log::debug!("wait until a client connects to a socket");
    let sockets: Vec<OwnedFd> = sockets.iter().map(|number| open(*number)).collect::<Result<_>>()?;
    loop {
        let fds = std::iter::once(signals.as_fd()).chain(sockets.iter().map(AsFd::as_fd));
        let come = readable(fds, None).context("poll")?.iter().skip(1).any(|ready| *ready);
        if let Some(received) = signals.read()? {
            return Ok(Some(received.signal));
        }
        if come {
            return Ok(None);
        }
    }
}
