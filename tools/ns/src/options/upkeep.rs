//! The command lines of `ns check` and `ns restore`.

use anyhow::Result;
use clap::Args;

use super::add::ROOM;
use crate::network;

/// Check that the containers' networks have all that they need on the host
///
/// Bridges with their ports and addresses, forwarding, and the firewall's rules, by what the records in the bundles say.
#[derive(Args, Debug)]
pub(crate) struct Check {
    #[command(flatten)]
    roots: cli::Roots,
}

impl Check {
    /// Checks it.
    pub(crate) fn run(&self) -> Result<()> {
        confine::enter(&ROOM)?;
        network::check(&self.roots.directories())
    }
}

/// Put back what somebody has taken from the containers' networks, as by flushing the firewall or an interface
#[derive(Args, Debug)]
pub(crate) struct Restore {
    #[command(flatten)]
    roots: cli::Roots,
}

impl Restore {
    /// Puts it back.
    pub(crate) fn run(&self) -> Result<()> {
        confine::enter(&ROOM)?;
        network::restore(&self.roots.directories())
    }
}
