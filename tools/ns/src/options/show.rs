//! The command line of `ns show`.

use anyhow::{Context, Result};
use clap::Args;

/// Show the inside of a process, a container or a namespace
///
/// Namespaces, interfaces with their peers, addresses, routes, who listens; user maps, mounts, processes with the pids
/// that they have inside; cgroup, capabilities, seccomp.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  ns show web
  ns show 4711 --json | jq .capabilities.effective
  ns show $(stat -c %i /run/netns/web)")]
pub(crate) struct Show {
    /// Process, namespace's inode number, container, or named network namespace
    #[arg(value_name = "PID|INODE|ID")]
    what: String,
    /// Write one JSON object
    #[arg(short = 'J', long)]
    json: bool,
    #[command(flatten)]
    roots: cli::Roots,
}

impl Show {
    /// Shows it.
    pub(crate) fn run(&self) -> Result<()> {
        crate::show::show(&self.what, &self.roots.directories().states(), self.json)
            .with_context(|| format!("show {}", self.what))
    }
}
