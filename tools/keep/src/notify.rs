//! `--sdnotify`: what a service manager is told of a container, by the protocol of `sd_notify(3)`.

use std::ffi::OsStr;

use anyhow::{Context, Result};
use rustix::net::SendFlags;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

/// The variable that names the manager's socket.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Who says that the container is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ready {
    /// Nobody.
    #[default]
    Ignore,
    /// The container, which has the manager's socket.
    Container,
    /// Its keeper, when it has started.
    #[serde(alias = "keeper")]
    Conmon,
    /// Its keeper, when the first health check has passed.
    Healthy,
}

/// The container has started.
pub(crate) fn started(ready: Ready, container: Pid) {
    let keeper = rustix::process::getpid().as_raw_pid();
    match ready {
        Ready::Ignore => {}
        Ready::Container => tell(&format!("MAINPID={}", container.as_raw_pid())),
        Ready::Conmon => tell(&format!("MAINPID={keeper}\nREADY=1")),
        Ready::Healthy => tell(&format!("MAINPID={keeper}")),
    }
}

/// It has become healthy.
pub(crate) fn healthy(ready: Ready) {
    if ready == Ready::Healthy {
        tell("READY=1");
    }
}

/// It has ended for good.
pub(crate) fn ending(ready: Ready) {
    if matches!(ready, Ready::Conmon | Ready::Healthy) {
        tell("STOPPING=1");
    }
}

/// Without a manager there is nobody to tell; one that does not listen must not end the container.
fn tell(words: &str) {
    let Some(socket) = std::env::var_os(SOCKET).filter(|socket| !socket.is_empty()) else { return };
    cli::warn(send(&socket, words));
}

fn send(socket: &OsStr, words: &str) -> Result<()> {
    // Nor must one whose queue is full.
    let tell = |manager| sys::packet::tell(&manager, words.as_bytes(), SendFlags::DONTWAIT);
    sys::packet::manager(socket).and_then(tell).with_context(|| format!("tell {} of it", socket.to_string_lossy()))
}
