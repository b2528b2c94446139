//! The command lines of `ns check` and `ns restore`.

use anyhow::Result;
use clap::Args;
use container::Directories;

use super::add::{ROOM, room};

#[derive(Args, Debug)]
pub(crate) struct Upkeep {
    #[command(flatten)]
    roots: cli::Roots,
}

impl Upkeep {
    /// Checks the networks, or puts them back.
    pub(crate) fn run(&self, act: impl FnOnce(&Directories) -> Result<()>) -> Result<()> {
        confine::enter(&room(ROOM))?;
        act(&self.roots.directories())
    }
}
