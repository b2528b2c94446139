//! `linux.seccomp` of a container: its filter, and the listener of a filter with `SCMP_ACT_NOTIFY` (runtime-spec,
//! config-linux.md, "The Container Process State").

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use rustix::process::{Pid, PidfdGetfdFlags, pidfd_getfd};

use crate::config::{Config, Linux};
use crate::tty;

/// Compiles the filter that a container's processes get, where its configuration has one.
pub(crate) fn of(linux: &Linux) -> anyhow::Result<Option<seccomp::Filter>> {
    // An empty one is what some engines write for none.
    let profile =
        linux.seccomp.as_ref().filter(|profile| !profile.default_action.is_empty() || !profile.syscalls.is_empty());
    let filter = profile.map(seccomp::compile).transpose().context("compile the seccomp filter")?;
    if let Some(filter) = &filter {
        log::debug!("seccomp filter flags: {}", filter.flags);
    }
    Ok(filter)
}

/// Fetches the listener, which is the process's descriptor `number`, and sends it with the process's state to whoever
/// waits on `listenerPath`.
pub(crate) fn pass_listener(
    config: &Config,
    state: &record::State,
    (pid, pidfd): (Pid, &OwnedFd),
    number: i32,
) -> anyhow::Result<()> {
    let Some(profile) = &config.linux.seccomp else { return Ok(()) };
    // The launching program cannot send a descriptor, and its filter might not let it: write(2) of a number is all it
    // takes.
    let listener = pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty()).context("fetch the seccomp listener")?;
    let message = serde_json::json!({
        "ociVersion": crate::SPEC_VERSION,
        "fds": ["seccompFd"],
        "pid": pid.as_raw_pid(),
        "metadata": profile.listener_metadata,
        "state": state,
    });
    let agent = connect(&profile.listener_path)?;
    sys::packet::send(&agent, &[message.to_string().as_bytes()], Some(listener.as_fd()))
        .with_context(|| format!("tell the seccomp agent {}", profile.listener_path.display()))
}

/// Does so for a new container. Behind hooks inside the container the filter comes at `start` only; that nobody waits for
/// its listener fails `create` all the same.
pub(crate) fn before(config: &Config) -> anyhow::Result<Option<seccomp::Filter>> {
    let filter = of(&config.linux)?;
    let agent = filter.as_ref().and_then(|filter| filter.listener.as_ref());
    let agent = agent.filter(|_| !config.hooks.start_container.is_empty());
    agent.map_or(Ok(()), |(agent, _)| connect(agent).map(drop))?;
    Ok(filter)
}

fn connect(agent: &Path) -> anyhow::Result<OwnedFd> {
    tty::connect(agent).with_context(|| format!("failed to connect with seccomp agent {}", agent.display()))
}
