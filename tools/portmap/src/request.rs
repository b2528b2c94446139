//! What is asked of `portmap`, whatever the words for it are. The options' help describes the members.

use std::path::PathBuf;

use container::ContainerId;
use netlink::foreign::Forward;
use rustix::process::Pid;

use crate::spec::PublishFlag;

/// Which ports are published, whose, and how.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct Add {
    pub(crate) target: Option<PathBuf>,
    pub(crate) publish: Vec<PublishFlag>,
    pub(crate) publish_all: bool,
    pub(crate) pid: Option<Pid>,
    pub(crate) netns: Option<PathBuf>,
    pub(crate) id: Option<ContainerId>,
    pub(crate) forward: Forward,
    pub(crate) no_bind_check: bool,
    pub(crate) proxy: bool,
    pub(crate) listen_fd: Vec<u32>,
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    pub(crate) detach: bool,
    pub(crate) while_process: Vec<Pid>,
    pub(crate) roots: cli::Roots,
}

/// How the container learns a client's address.
#[derive(Clone, Copy)]
pub(crate) enum ProxyProtocol {
    /// A line of text.
    V1,
    /// The binary form.
    V2,
}
