//! The command line of `portmap`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use container::{ContainerId, Owner};
use netlink::foreign::Forward;

use crate::spec::Wish;

/// Publish a container's ports on the host
#[derive(Parser, Debug)]
#[command(
    name = "portmap",
    version,
    about,
    args_conflicts_with_subcommands = true,
    after_help = include_str!("examples.txt")
)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) add: Add,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Add(Add),
    Del(Del),
    List(List),
    Check(Check),
    Gc(Gc),
    Restore(Restore),
}

/// Publish ports; this is what `portmap` does without a verb
#[derive(Args, Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct Add {
    /// A record, or a container's id [default: a record on stdin]
    #[arg(value_name = "RECORD|ID")]
    pub(crate) target: Option<PathBuf>,
    /// Publish a port: [IP:][HOST-PORT:]PORT[/tcp|udp|sctp], ranges as 7000-7010:7000-7010; at either side of a proxy
    /// also unix:PATH, and as the host's side fd:N, a socket that was inherited; or target=80,published=8080,protocol=tcp
    #[arg(short, long, value_name = "SPEC")]
    pub(crate) publish: Vec<Wish>,
    /// Publish every port that the image exposes on a random port
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    /// Take the container's network from this process
    #[arg(long, value_name = "PID", conflicts_with = "target", value_parser = pid)]
    pub(crate) pid: Option<rustix::process::Pid>,
    /// Take the container's network from this namespace
    #[arg(long, value_name = "PATH", conflicts_with = "target")]
    pub(crate) netns: Option<PathBuf>,
    /// Name the container that the ports belong to [default: the record's id]
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<ContainerId>,
    /// What to do where another firewall drops forwarded packets: warn, insert a rule that lets published ports through, off
    #[arg(long, default_value_t = Forward::Warn, value_name = "HOW")]
    pub(crate) forward: Forward,
    /// Publish a port even where a process of the host has it
    #[arg(long)]
    pub(crate) no_bind_check: bool,
    /// Serve the ports by a proxy that connects from inside the container [default where it has no address, or nftables may not be used]
    #[arg(long)]
    pub(crate) proxy: bool,
    /// Serve the -p for the port that this inherited socket is at by the socket, and so for those of `$LISTEN_FDS`
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(u32).range(3..))]
    pub(crate) listen_fd: Vec<u32>,
    /// Tell the container each client's address, by the PROXY protocol; implies --proxy
    #[arg(long, value_enum, value_name = "VERSION")]
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    /// Serve in the background; in a pipe a proxy always does
    #[arg(long)]
    pub(crate) detach: bool,
    /// Publish only as long as this process lives; however it ends, nothing is left
    #[arg(long = "while", value_name = "PID", value_parser = pid)]
    pub(crate) while_process: Vec<rustix::process::Pid>,
    #[command(flatten)]
    pub(crate) roots: cli::Roots,
}

/// How the container learns whom a connection is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProxyProtocol {
    /// A line of text
    V1,
    /// The binary form
    V2,
}

/// Withdraw a container's ports
#[derive(Args, Debug)]
pub(crate) struct Del {
    /// A container's id, or the path of a record, with a slash [default: a record on stdin]
    #[arg(value_name = "ID|RECORD")]
    pub(crate) target: Option<PathBuf>,
    /// Only this port, as it was published; without HOST-PORT, all that lead to PORT
    #[arg(short, long, value_name = "SPEC")]
    pub(crate) publish: Vec<Wish>,
    /// Only what this owner has, as the record's `owner` names it
    #[arg(long, value_name = "OWNER")]
    pub(crate) owner: Option<Owner>,
    #[command(flatten)]
    pub(crate) roots: cli::Roots,
}

/// List what is published
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Only this container's
    #[arg(value_name = "ID")]
    pub(crate) id: Option<ContainerId>,
    /// One record for each container, one a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Only the containers' ids
    #[arg(long, short)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) roots: cli::Roots,
}

/// Check that everything is there that published ports need
#[derive(Args, Debug)]
pub(crate) struct Check {
    /// A container's id, or the path of a record, with a slash [default: all that is published]
    #[arg(value_name = "ID|RECORD")]
    pub(crate) target: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) roots: cli::Roots,
}

/// Withdraw the ports of containers that are no more
#[derive(Args, Debug)]
pub(crate) struct Gc {
    /// Also of every container but these
    #[arg(long, value_name = "ID")]
    pub(crate) keep: Vec<ContainerId>,
    #[command(flatten)]
    pub(crate) roots: cli::Roots,
}

/// Publish again what containers had, after a firewall was flushed, and have `ns restore` put back their networks
#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// What `portmap list --json` has listed [default: stdin, or where that is empty what the bundles say]
    #[arg(value_name = "FILE")]
    pub(crate) list: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) roots: cli::Roots,
}

fn pid(text: &str) -> Result<rustix::process::Pid, &'static str> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.and_then(rustix::process::Pid::from_raw).ok_or("a process id is a number from 1 on")
}
