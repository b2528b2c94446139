//! The command line of `ns`.

mod add;
mod connect;
mod enter;
mod list;
mod membership;
mod network;
mod settings;
mod tree;

use clap::{Parser, Subcommand};

pub(crate) use add::{Add, Del, ROOM, room};
pub(crate) use connect::Connection;
pub(crate) use enter::{Enter, Nsenter};
pub(crate) use list::{List, Lsns};
pub(crate) use network::Networks;
pub(crate) use tree::Draw;

/// List, show, enter, add and delete namespaces
#[derive(Parser)]
#[command(name = "ns", version, about, arg_required_else_help = true)]
#[command(after_help = include_str!("examples.txt"))]
pub(crate) struct NsArgs {
    #[command(subcommand)]
    pub(crate) command: NsVerb,
}

#[derive(Subcommand)]
#[rustfmt::skip] // An option a line.
pub(crate) enum NsVerb {
    Add(Box<Add>),
    /// Check that the containers' networks have everything they need on the host
    ///
    /// It compares bridges with their ports and addresses, forwarding and the firewall's rules with the records in the bundles.
    Check { #[command(flatten)] roots: cli::Roots },
    /// Connect a running container to one more network
    ///
    /// The others lead outwards before this one. After a restart the container is in all of them.
    Connect(Connection),
    Del(Del),
    /// Compare two processes: the namespaces that they share, and the differences
    ///
    /// It compares namespaces, user maps, mounts, interfaces, routes, cgroups, capabilities and seccomp. `-` marks things that
    /// only the first has, `+` things that only the second has.
    #[command(after_help = include_str!("examples/diff.txt"))]
    Diff {
        /// Process or container
        #[arg(value_name = "PID|ID")] first: String,
        /// The other one
        #[arg(value_name = "PID|ID")] second: String,
        /// Write one JSON object
        #[arg(short = 'J', long)] json: bool,
        #[command(flatten)] roots: cli::Roots,
    },
    /// Disconnect a running container from a network
    Disconnect(Connection),
    Enter(Box<Enter>),
    List(List),
    Network(Networks),
    /// Restore what the containers' networks have lost, as by a flush of the firewall or an interface
    Restore { #[command(flatten)] roots: cli::Roots },
    /// Show the inside of a process, a container or a namespace
    ///
    /// It shows namespaces, interfaces with their peers, addresses, routes, listening processes, user maps, mounts, processes
    /// with their pids inside, cgroup, capabilities and seccomp.
    #[command(after_help = include_str!("examples/show.txt"))]
    Show {
        /// Process, namespace's inode number, container, or named network namespace
        #[arg(value_name = "PID|INODE|ID")] what: String,
        /// Write one JSON object
        #[arg(short = 'J', long)] json: bool,
        #[command(flatten)] roots: cli::Roots,
    },
    Tree(Draw),
}
