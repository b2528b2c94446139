//! The command line of `ns`.

mod add;
mod connect;
mod enter;
mod list;
mod membership;
mod network;
mod settings;
mod show;
mod tree;
mod upkeep;

use clap::{Parser, Subcommand};

pub(crate) use add::{Add, Del};
pub(crate) use connect::Connection;
pub(crate) use enter::{Enter, Nsenter};
pub(crate) use list::{List, Lsns};
pub(crate) use network::Networks;
pub(crate) use settings::{Driver, Settings};
pub(crate) use show::Show;
pub(crate) use tree::{Diff, Draw};
pub(crate) use upkeep::Upkeep;

const EXAMPLES: &str = include_str!("examples.txt");

/// List, show, enter, add and delete namespaces
#[derive(Parser, Debug)]
#[command(name = "ns", version, about, arg_required_else_help = true)]
#[command(after_help = EXAMPLES)]
pub(crate) struct NsArgs {
    #[command(subcommand)]
    pub(crate) command: NsVerb,
}

#[derive(Subcommand, Debug)]
pub(crate) enum NsVerb {
    Add(Box<Add>),
    /// Check that the containers' networks have everything they need on the host
    ///
    /// It compares bridges with their ports and addresses, forwarding and the firewall's rules with the records in the bundles.
    Check(Upkeep),
    /// Connect a running container to one more network
    ///
    /// The others lead outwards before this one. After a restart the container is in all of them.
    Connect(Connection),
    Del(Del),
    Diff(Diff),
    /// Disconnect a running container from a network
    Disconnect(Connection),
    Enter(Box<Enter>),
    List(List),
    Network(Networks),
    /// Restore what the containers' networks have lost, as by a flush of the firewall or an interface
    Restore(Upkeep),
    Show(Show),
    Tree(Draw),
}
