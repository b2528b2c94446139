//! The command line of `ns show`.

use anyhow::{Context, Result};
use clap::Args;

/// Show the inside of a process, a container or a namespace
///
/// It shows namespaces, interfaces with their peers, addresses, routes, listening processes, user maps, mounts, processes
/// with their pids inside, cgroup, capabilities and seccomp.
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
