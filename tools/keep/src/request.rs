//! What is asked of `keep`, whatever the words for it are. The options' help describes the members.

use std::path::PathBuf;

use container::ContainerId;
use serde::{Deserialize, Serialize};

use crate::filter::ContainerFilter;
use crate::notify::Ready;
use crate::output::LogOptions;
use crate::restart::Policy;

/// `keep` as the last stage.
pub(crate) struct Begin {
    pub(crate) input: Option<PathBuf>,
    pub(crate) options: KeeperOptions,
    pub(crate) join: Join,
    pub(crate) log: LogOptions,
    pub(crate) claim_fd: Option<u32>,
}

/// What the keeper has to know too, as `keep.json` names it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct KeeperOptions {
    pub(crate) rm: bool,
    pub(crate) restart: Policy,
    #[serde(default, rename = "attached")]
    pub(crate) attach: bool,
    pub(crate) interactive: bool,
    pub(crate) timeout: Option<u64>,
    #[serde(default, rename = "ready")]
    pub(crate) sdnotify: Ready,
    pub(crate) preserve_fds: u32,
}

/// How a container is joined.
#[derive(Clone)]
pub(crate) struct Join {
    pub(crate) no_stdin: bool,
    pub(crate) sig_proxy: bool,
    pub(crate) detach_keys: Keys,
}

/// A sequence of keys, as the bytes that a terminal makes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys(pub(crate) Vec<u8>);

/// Whose log is printed, and which lines of it.
pub(crate) struct LogLines {
    pub(crate) id: ContainerId,
    pub(crate) follow: bool,
    pub(crate) tail: Tail,
    pub(crate) since: Option<String>,
    pub(crate) until: Option<String>,
    pub(crate) timestamps: bool,
}

/// How much of the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail(pub(crate) Option<usize>);

/// Which containers are listed, and how.
pub(crate) struct Selection {
    pub(crate) form: cli::ListForm,
    pub(crate) running: bool,
    pub(crate) filter: Vec<ContainerFilter>,
    pub(crate) last: Option<usize>,
    pub(crate) ids: Vec<ContainerId>,
}

/// Which containers are started again.
pub(crate) struct Start {
    pub(crate) attach: bool,
    pub(crate) join: Join,
    pub(crate) sdnotify: Option<Ready>,
    pub(crate) boot: bool,
    pub(crate) ids: Vec<ContainerId>,
}

/// Which containers are stopped, and how.
pub(crate) struct Stop {
    pub(crate) time: Option<u64>,
    pub(crate) signal: Option<String>,
    pub(crate) ids: Vec<ContainerId>,
}
