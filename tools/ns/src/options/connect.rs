//! The command lines of `ns connect` and `ns disconnect`.

use anyhow::{Context, Result};
use clap::Args;
use container::ContainerId;
use record::{NetworkOptions, Record};

use super::add::{ROOM, room};
use super::membership::{Membership, join, without};
use crate::network::{self, Joiner};

/// A container that runs, and a network.
#[derive(Args, Debug)]
pub(crate) struct Connection {
    /// The network: NAME[:KEY=VALUE,…], as `ns add --network` takes it
    network: String,
    /// The container
    id: ContainerId,
    #[command(flatten)]
    roots: cli::Roots,
}

impl Connection {
    /// Connects it.
    pub(crate) fn connect(self) -> Result<()> {
        confine::enter(&room(ROOM))?;
        let membership: Membership = self.network.parse().map_err(cli::Usage)?;
        let lock = network::lock()?;
        let mut target = target(&self.roots, &self.id)?;
        join(&mut target, &[format!("--network={}", self.network)])?;
        let requests = [membership.request(&target)];
        network::add(target, &requests, &lock).with_context(|| format!("connect {}", self.id))
    }

    /// Disconnects it.
    pub(crate) fn disconnect(self) -> Result<()> {
        let Membership { network, .. } = self.network.parse().map_err(cli::Usage)?;
        let lock = network::lock()?;
        let mut target = target(&self.roots, &self.id)?;
        if let Some(NetworkOptions(words)) = target.record.find()? {
            target.record.set(&NetworkOptions(without(&words, &network)));
        }
        network::disconnect(&mut target, &network, &lock).with_context(|| format!("disconnect {}", self.id))
    }
}

/// Returns a container that runs, with its bundle's record if it has one.
fn target(roots: &cli::Roots, id: &ContainerId) -> Result<Joiner> {
    let directories = roots.directories();
    let record = Record::known_of(&directories.bundle(id))?.unwrap_or_default();
    Ok(Joiner { runs: true, ..network::target(record, Some(id.clone()), directories)? })
}
