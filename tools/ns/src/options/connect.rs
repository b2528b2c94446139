//! The command lines of `ns connect` and `ns disconnect`, and what further networks make of the options in the record.

use anyhow::{Context, Result, ensure};
use clap::Args;
use container::ContainerId;
use record::{NetworkOptions, Record};

use super::add::{ROOM, room};
use super::membership::Membership;
use crate::network::{self, Target};

/// A container that runs, and a network.
#[derive(Args, Debug)]
pub(crate) struct Connection {
    /// The network: NAME[:KEY=VALUE,…], as `ns add --network` has it
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
fn target(roots: &cli::Roots, id: &ContainerId) -> Result<Target> {
    let directories = roots.directories();
    let record = Record::known_of(&directories.bundle(id))?.unwrap_or_default();
    Ok(Target { runs: true, ..network::target(record, Some(id.clone()), directories)? })
}

/// Adds options of further networks to those in the record.
pub(super) fn join(target: &mut Target, further: &[String]) -> Result<()> {
    let NetworkOptions(mut words) = target.record.find()?.unwrap_or_default();
    let is_alone = |word: &&String| ["--cni=", "--join=", "--user-mode"].iter().any(|way| word.starts_with(way));
    let odd = words.iter().find(is_alone).or_else(|| further.iter().find(|word| !is_network(word)));
    ensure!(odd.is_none(), cli::Usage(format!("{}: not with further networks", odd.map_or("", String::as_str))));
    if words.first().is_some_and(|word| word == "--none") {
        words.clear();
    } else if !words.iter().any(|word| is_network(word)) {
        words.push("--network=bridge".to_owned());
    }
    words.extend_from_slice(further);
    Ok(target.record.set_options(&NetworkOptions(words))?)
}

fn is_network(word: &str) -> bool {
    word.starts_with("--network=")
}

/// Takes a network from options. What is not said of a network by its name is about the first.
fn without(words: &[String], network: &str) -> Vec<String> {
    let is_it = |word: &str| word.parse::<Membership>().is_ok_and(|named| named.network == network);
    let is_gone = |word: &&String| word.strip_prefix("--network=").is_some_and(is_it);
    let is_first = words.iter().find(|word| is_network(word)).is_none_or(|first| is_gone(&first));
    let stays = |word: &&String| !is_gone(word) && (!is_first || is_network(word) || word.starts_with("--forward="));
    let rest: Vec<String> = words.iter().filter(stays).cloned().collect();
    if is_first && !rest.iter().any(|word| is_network(word)) { vec!["--none".to_owned()] } else { rest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_and_go_with_their_network() {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (before, gone, want) in [
            ("", "drayage0", "--none"),
            ("--subnet=10.0.0.0/8 --ip=10.0.0.2", "drayage0", "--none"),
            ("--network=a --network=b:ip=10.0.0.2 --ipv6 --forward=off", "a", "--network=b:ip=10.0.0.2 --forward=off"),
            ("--network=a --network=name=b,alias=x --ipv6", "b", "--network=a --ipv6"),
            ("--network=bridge --network=b", "drayage0", "--network=b"),
            ("--network=a --ipv6", "b", "--network=a --ipv6"),
        ] {
            assert_eq!(without(&words(before), gone), words(want), "{before}");
        }
    }
}
