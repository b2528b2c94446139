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
pub(crate) struct PortmapArgs {
    #[command(subcommand)]
    pub(crate) command: Option<PortmapVerb>,
    #[command(flatten)]
    pub(crate) add: Add,
}

#[derive(Subcommand, Debug)]
pub(crate) enum PortmapVerb {
    Add(Add),
    Del(Del),
    List(List),
    Check(Check),
    Gc(Gc),
    Restore(Restore),
}

/// Publish ports, as `portmap` does without a verb
#[derive(Args, Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct Add {
    /// A record, or a container's id [default: a record on stdin]
    #[arg(value_name = "RECORD|ID")]
    pub(crate) target: Option<PathBuf>,
    /// Publish a port: [IP:][HOST-PORT:]PORT[/tcp|udp|sctp], a range 7000-7010:7000-7010, or
    /// target=80,published=8080,protocol=tcp; a proxy takes unix:PATH at either side, and fd:N, an inherited socket, at the host's
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
    /// If another firewall drops forwarded packets: warn, insert a rule that accepts published ports, off
    #[arg(long, default_value_t = Forward::Warn, value_name = "HOW")]
    pub(crate) forward: Forward,
    /// Publish a port even if a process of the host has it
    #[arg(long)]
    pub(crate) no_bind_check: bool,
    /// Serve the ports by a proxy that connects from inside the container [default if it has no address, or nftables may not be used]
    #[arg(long)]
    pub(crate) proxy: bool,
    /// Inherited socket, which serves the -p for its port; those of `$LISTEN_FDS` need no option
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(u32).range(3..))]
    pub(crate) listen_fd: Vec<u32>,
    /// Tell the container each client's address, by the PROXY protocol; implies --proxy
    #[arg(long, value_enum, value_name = "VERSION")]
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    /// Serve in the background; in a pipe a proxy always does
    #[arg(long)]
    pub(crate) detach: bool,
    /// Publish only while this process lives; nothing is left, however it ends
    #[arg(long = "while", value_name = "PID", value_parser = pid)]
    pub(crate) while_process: Vec<rustix::process::Pid>,
    #[command(flatten)]
    pub(crate) roots: cli::Roots,
}

/// How the container learns a client's address.
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
    /// Only this port, as it was published; without HOST-PORT, all ports that lead to PORT
    #[arg(short, long, value_name = "SPEC")]
    pub(crate) publish: Vec<Wish>,
    /// Withdraw only ports of this owner, the record's `owner`
    #[arg(long, value_name = "OWNER")]
    pub(crate) owner: Option<Owner>,
    #[command(flatten)]
    pub(crate) roots: cli::Roots,
}

/// List published ports
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Only this container's ports
    #[arg(value_name = "ID")]
    pub(crate) id: Option<ContainerId>,
    /// Print one record for each container, one a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Print only the containers' ids
    #[arg(long, short)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) roots: cli::Roots,
}

/// Check that published ports have everything they need
#[derive(Args, Debug)]
pub(crate) struct Check {
    /// A container's id, or the path of a record, with a slash [default: all published ports]
    #[arg(value_name = "ID|RECORD")]
    pub(crate) target: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) roots: cli::Roots,
}

/// Withdraw the ports of containers that are gone
#[derive(Args, Debug)]
pub(crate) struct Gc {
    /// Withdraw also the ports of every container but these
    #[arg(long, value_name = "ID")]
    pub(crate) keep: Vec<ContainerId>,
    #[command(flatten)]
    pub(crate) roots: cli::Roots,
}

/// Publish containers' ports again after a flush of the firewall, and have `ns restore` put back their networks
#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// Output of `portmap list --json` [default: stdin, or the bundles' records if stdin is empty]
    #[arg(value_name = "FILE")]
    pub(crate) list: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) roots: cli::Roots,
}

fn pid(text: &str) -> Result<rustix::process::Pid, &'static str> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.and_then(rustix::process::Pid::from_raw).ok_or("a process id is a number from 1 on")
}
