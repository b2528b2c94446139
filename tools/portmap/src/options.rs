//! The command line of `portmap`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use container::{ContainerId, Owner};
use netlink::foreign::Forward;
use rustix::process::Pid;

use crate::request::{Add, ProxyProtocol};
use crate::spec::PublishFlag;

/// Publish a container's ports on the host
#[derive(Parser)]
#[command(name = "portmap", version, about, args_conflicts_with_subcommands = true)]
#[command(after_help = include_str!("examples.txt"))]
pub(crate) struct PortmapArgs {
    #[command(subcommand)]
    pub(crate) command: Option<PortmapVerb>,
    #[command(flatten)]
    pub(crate) add: Add,
}

#[derive(Subcommand)]
#[rustfmt::skip] // An option a line.
pub(crate) enum PortmapVerb {
    Add(Box<Add>),
    /// Withdraw a container's ports
    Del {
        /// A container's id, or the path of a record, with a slash [default: a record on stdin]
        #[arg(value_name = "ID|RECORD")] target: Option<PathBuf>,
        /// Only this port, as it was published; without HOST-PORT, all ports that lead to PORT
        #[arg(short, long, value_name = "SPEC")] publish: Vec<PublishFlag>,
        /// Withdraw only ports of this owner, the record's `owner`
        #[arg(long, value_name = "OWNER")] owner: Option<Owner>,
        #[command(flatten)] roots: cli::Roots,
    },
    /// List published ports
    List {
        /// Only this container's ports
        #[arg(value_name = "ID")] id: Option<ContainerId>,
        /// Print one record for each container, one a line
        #[arg(long)] json: bool,
        /// Print only the containers' ids
        #[arg(long, short)] quiet: bool,
        #[command(flatten)] roots: cli::Roots,
    },
    /// Check that published ports have everything they need
    Check {
        /// A container's id, or the path of a record, with a slash [default: all published ports]
        #[arg(value_name = "ID|RECORD")] target: Option<PathBuf>,
        #[command(flatten)] roots: cli::Roots,
    },
    /// Withdraw the ports of containers that are gone
    Gc {
        /// Withdraw also the ports of every container but these
        #[arg(long, value_name = "ID")] keep: Vec<ContainerId>,
        #[command(flatten)] roots: cli::Roots,
    },
    /// Publish containers' ports again after a flush of the firewall, and have `ns restore` put back their networks
    Restore {
        /// Output of `portmap list --json` [default: stdin, or the bundles' records if stdin is empty]
        #[arg(value_name = "FILE")] list: Option<PathBuf>,
        #[command(flatten)] roots: cli::Roots,
    },
}

cli::options! {
    /// Publish ports, as `portmap` does without a verb
    Add {
        /// A record, or a container's id [default: a record on stdin]
        #[arg(value_name = "RECORD|ID")] target: Option<PathBuf>,
        /// Publish a port: [IP:][HOST-PORT:]PORT[/tcp|udp|sctp], a range 7000-7010:7000-7010, or
        /// target=80,published=8080,protocol=tcp; a proxy takes unix:PATH at either side, and fd:N, an inherited socket, at the host's
        #[arg(short, long, value_name = "SPEC")] publish: Vec<PublishFlag>,
        /// Publish every port that the image exposes on a random port
        #[arg(short = 'P', long)] publish_all: bool,
        /// Take the container's network from this process
        #[arg(long, value_name = "PID", conflicts_with = "target", value_parser = pid)] pid: Option<Pid>,
        /// Take the container's network from this namespace
        #[arg(long, value_name = "PATH", conflicts_with = "target")] netns: Option<PathBuf>,
        /// Name the container that the ports belong to [default: the record's id]
        #[arg(long, value_name = "ID")] id: Option<ContainerId>,
        /// If another firewall drops forwarded packets: warn, insert a rule that accepts published ports, off
        #[arg(long, default_value_t = Forward::Warn, value_name = "HOW")] forward: Forward,
        /// Publish a port even if a process of the host has it
        #[arg(long)] no_bind_check: bool,
        /// Serve the ports by a proxy that connects from inside the container [default if it has no address, or nftables may not be used]
        #[arg(long)] proxy: bool,
        /// Inherited socket, which serves the -p for its port; those of `$LISTEN_FDS` need no option
        #[arg(long, value_name = "FD", value_parser = clap::value_parser!(u32).range(3..))] listen_fd: Vec<u32>,
        /// Tell the container each client's address, by the PROXY protocol; implies --proxy
        #[arg(long, value_enum, value_name = "VERSION")] proxy_protocol: Option<ProxyProtocol>,
        /// Serve in the background; in a pipe a proxy always does
        #[arg(long)] detach: bool,
        /// Publish only while this process lives; nothing is left, however it ends
        #[arg(long = "while", value_name = "PID", value_parser = pid)] while_process: Vec<Pid>,
        #[command(flatten)] roots: cli::Roots,
    }
}

cli::values! {
    ProxyProtocol {
        V1 = "v1" "A line of text",
        V2 = "v2" "The binary form",
    }
}

fn pid(text: &str) -> Result<Pid, &'static str> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.and_then(Pid::from_raw).ok_or("a process id is a number from 1 on")
}
