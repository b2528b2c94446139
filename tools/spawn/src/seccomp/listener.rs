//! The listener of a filter with `SCMP_ACT_NOTIFY` (runtime-spec, config-linux.md, "The Container Process State").

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdGetfdFlags, pidfd_getfd};

use crate::config::Config;

/// Fetches the listener, which is the process's descriptor `number`, and sends it with the process's state to whoever
/// waits on `listenerPath`.
pub(crate) fn pass(
    config: &Config,
    state: &record::State,
    (pid, pidfd): (Pid, &OwnedFd),
    number: i32,
) -> anyhow::Result<()> {
    let Some(seccomp) = &config.linux.seccomp else { return Ok(()) };
    let listener = pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty()).context("fetch the seccomp listener")?;
    let message = serde_json::json!({
        "ociVersion": crate::SPEC_VERSION,
        "fds": ["seccompFd"],
        "pid": pid.as_raw_pid(),
        "metadata": seccomp.listener_metadata,
        "state": state,
    });
    let send = || -> io::Result<()> {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(&seccomp.listener_path)?)?;
        crate::sync::send_with_fd(socket.as_fd(), message.to_string().as_bytes(), listener.as_fd())
    };
    send().with_context(|| format!("failed to connect with seccomp agent {}", seccomp.listener_path.display()))
}
