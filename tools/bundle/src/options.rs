//! The command line: docker's names for what docker has. Below this module nobody sees clap.

use std::path::PathBuf;

use ::container::{ContainerId, Owner};
use clap::{Args, Parser, Subcommand};
use cli::{Bytes, Cpus, Limit};

use crate::borrow::VolumesFrom;
use crate::capability::Choice;
use crate::cdi::{DeviceOption, Gpus};
use crate::cp;
use crate::device::CgroupRule;
use crate::environment::Variable;
use crate::files::HostEntry;
use crate::mount::{MountFlag, TmpfsFlag, VolumeFlag};
use crate::namespace::Namespace;
use crate::security::SecurityOption;
use crate::throttle::{self, OnDevice};
use crate::ulimit::Ulimit;

/// Turn an image's config and your options into an OCI runtime bundle
#[derive(Debug, Parser)]
#[command(
    name = "bundle",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  \
        pull nginx | unpack | bundle --id web -v ./site:/usr/share/nginx/html:ro | spawn\n  \
        pull busybox | unpack | bundle --print -- sh -c 'echo hello'\n  \
        bundle ./rootfs --id shell --tty -- sh\n  \
        bundle delete web"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) create: Create,
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
    #[command(flatten)]
    pub(crate) roots: cli::Roots,
}

/// What can be done with bundles that are there.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Copy files between a container and the host
    Cp(Cp),
    /// Unmount bundles and remove them
    Delete {
        /// Also when a container of it seems to run; and say nothing of what is not there
        #[arg(long, short)]
        force: bool,
        /// Only where it is this owner's, as the record's `owner` names it
        #[arg(long, value_name = "OWNER")]
        owner: Option<Owner>,
        /// Ids, or paths of bundles; with --force also none: what killed removals have left goes with any
        #[arg(required_unless_present = "force", value_name = "ID|PATH")]
        bundles: Vec<String>,
        #[command(flatten)]
        roots: cli::Roots,
    },
    /// Run a command as the first process of a container
    #[command(hide = true)]
    Init {
        /// The command
        #[arg(required = true, last = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// List the bundles
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        roots: cli::Roots,
    },
    /// Mount the root file system of a bundle again, whose container has ended, and print the bundle's record
    Mount {
        /// Id or path
        #[arg(value_name = "BUNDLE")]
        bundle: String,
        #[command(flatten)]
        roots: cli::Roots,
    },
    /// Unmount the root file systems of bundles whose containers have ended; what is half-made goes altogether
    Unmount {
        /// Only where it is this owner's, as the record's `owner` names it
        #[arg(long, value_name = "OWNER")]
        owner: Option<Owner>,
        /// Ids or paths
        #[arg(value_name = "BUNDLE", required = true)]
        bundles: Vec<String>,
        #[command(flatten)]
        roots: cli::Roots,
    },
    /// Remove what no container runs from: half-made bundles and those whose root file system is not mounted
    Prune {
        /// Every bundle that no container runs from
        #[arg(long, short)]
        all: bool,
        #[command(flatten)]
        roots: cli::Roots,
    },
}

/// `cp`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bundle cp web:/etc/nginx/nginx.conf .
  bundle cp ./site/. web:/usr/share/nginx/html
  bundle cp web:/var/log - | tar -t")]
pub(crate) struct Cp {
    /// Keep owners, attributes and the bits to become others, instead of making all the caller's or the container's root's
    #[arg(long, short)]
    pub(crate) archive: bool,
    /// Copy what a source that is a link leads to
    #[arg(long, short = 'L')]
    pub(crate) follow_link: bool,
    /// `CONTAINER:PATH`, a path, or `-` for a tar archive
    #[arg(value_name = "SOURCE", allow_hyphen_values = true)]
    pub(crate) source: cp::Name,
    /// The same
    #[arg(value_name = "DESTINATION", allow_hyphen_values = true)]
    pub(crate) destination: cp::Name,
    #[command(flatten)]
    pub(crate) roots: cli::Roots,
}

/// What a bundle is made of.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Create {
    /// A record's file, `-`, or a directory: a root file system [default: the record on stdin]
    #[arg(value_name = "RECORD|ROOTFS")]
    pub(crate) input: Option<PathBuf>,
    /// Command instead of the image's Cmd; the image's Entrypoint stays
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
    /// Name of the container [default: twelve random hexadecimal digits]
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<ContainerId>,
    /// Whose it is, as the record's `owner` names it [default: a new owner]
    #[arg(long, value_name = "OWNER")]
    pub(crate) owner: Option<Owner>,
    /// Image config (JSON) for a root file system that comes without one
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print config.json and write nothing
    #[arg(long)]
    pub(crate) print: bool,
    /// Change config.json by a JSON merge patch (RFC 7396)
    #[arg(long, value_name = "FILE")]
    pub(crate) patch: Vec<PathBuf>,
    /// Lay a writable layer over a flat root file system, so that it stays as it is
    #[arg(long)]
    pub(crate) overlay: bool,
    /// Never wait until its changes are on the disk: for a container that leaves nothing
    #[arg(long)]
    pub(crate) volatile: bool,
    #[command(flatten)]
    pub(crate) process: Process,
    #[command(flatten)]
    pub(crate) mounts: Mounts,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) security: Security,
    #[command(flatten)]
    pub(crate) namespaces: Namespaces,
    #[command(flatten)]
    pub(crate) names: Names,
    #[command(flatten)]
    pub(crate) health: Health,
}

/// The process.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Process")]
pub(crate) struct Process {
    /// Set a variable; without a value, pass the caller's own
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<Variable>,
    /// Set the variables of a file, one a line
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// User and group, by name or number
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Further groups, by name or number
    #[arg(long, value_name = "GROUP")]
    pub(crate) group_add: Vec<String>,
    /// Working directory
    #[arg(long, short = 'w', visible_alias = "workdir", value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// Program instead of the image's Entrypoint; the image's Cmd goes with it
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Give the process a terminal
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// Run a small first process that hands signals on and reaps orphans
    #[arg(long)]
    pub(crate) init: bool,
    /// File mode creation mask, in octal
    #[arg(long, value_name = "MASK", value_parser = octal)]
    pub(crate) umask: Option<u32>,
    /// Signal that stops the container
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// Seconds that the container has to stop
    #[arg(long, value_name = "SECONDS")]
    pub(crate) stop_timeout: Option<u32>,
}

/// The files.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Files")]
pub(crate) struct Mounts {
    /// Mount a path of the host, or a volume by name
    #[arg(long, short, value_name = "[SOURCE:]DESTINATION[:OPTIONS]")]
    pub(crate) volume: Vec<VolumeFlag>,
    /// Mount, in docker's long form
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub(crate) mount: Vec<MountFlag>,
    /// Mount an empty directory in memory
    #[arg(long, value_name = "DESTINATION[:OPTIONS]")]
    pub(crate) tmpfs: Vec<TmpfsFlag>,
    /// Mount the volumes of another container
    #[arg(long, value_name = "CONTAINER[:ro]")]
    pub(crate) volumes_from: Vec<VolumesFrom>,
    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "SIZE")]
    pub(crate) shm_size: Option<Bytes>,
    /// Make the root file system read-only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Give access to a device of the host, or to a CDI device
    #[arg(long, value_name = "HOST[:CONTAINER][:PERMISSIONS]|VENDOR/CLASS=NAME")]
    pub(crate) device: Vec<DeviceOption>,
    /// Allow access to devices by number, as in `c 10:200 rwm`; * is any
    #[arg(long, value_name = "RULE")]
    pub(crate) device_cgroup_rule: Vec<CgroupRule>,
    /// Give access to graphics processors by CDI: all, a number, or device=LIST
    #[arg(long, value_name = "REQUEST", value_parser = Gpus::parse)]
    pub(crate) gpus: Vec<Gpus>,
}

/// The control group and the limits.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// Memory
    #[arg(long, short, value_name = "SIZE")]
    pub(crate) memory: Option<Bytes>,
    /// Memory and swap together; -1: no limit [default: twice the memory]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<Limit>,
    /// Memory that is left alone when memory is scarce
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_reservation: Option<Bytes>,
    /// How readily its memory is swapped out, of 100; -1: as the host's
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, value_parser = clap::value_parser!(i64).range(-1..=100))]
    pub(crate) memory_swappiness: Option<i64>,
    /// Let processes wait for memory instead of killing one
    #[arg(long)]
    pub(crate) oom_kill_disable: bool,
    /// Number of CPUs
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpus: Option<Cpus>,
    /// Share of the CPUs beside others, of 1024
    #[arg(long, short, value_name = "NUMBER")]
    pub(crate) cpu_shares: Option<u64>,
    /// CPU time in each period, in microseconds, where --cpus is not given; -1: no limit
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true, conflicts_with = "cpus")]
    pub(crate) cpu_quota: Option<i64>,
    /// The period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", conflicts_with = "cpus", value_parser = clap::value_parser!(u64).range(1000..=1_000_000))]
    pub(crate) cpu_period: Option<u64>,
    /// Real-time CPU time in each real-time period, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_rt_runtime: Option<i64>,
    /// The real-time period, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_rt_period: Option<u64>,
    /// CPUs to run on
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// Number of processes and threads; -1: no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Resource limit of the process
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<Ulimit>,
    /// Who is killed first when memory is out: -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    pub(crate) oom_score_adj: Option<i32>,
    /// Control group above the container's
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<String>,
    #[command(flatten)]
    pub(crate) blocks: Blocks,
}

/// Block devices.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Blocks {
    /// Weight beside others at block devices, 10 to 1000
    #[arg(long, value_name = "NUMBER", value_parser = throttle::weight)]
    pub(crate) blkio_weight: Option<u16>,
    /// Weight at one device
    #[arg(long, value_name = "DEVICE:NUMBER", value_parser = OnDevice::weight)]
    pub(crate) blkio_weight_device: Vec<OnDevice>,
    /// Bytes a second that are read from a device
    #[arg(long, value_name = "DEVICE:SIZE", value_parser = OnDevice::bytes)]
    pub(crate) device_read_bps: Vec<OnDevice>,
    /// Bytes a second that are written to a device
    #[arg(long, value_name = "DEVICE:SIZE", value_parser = OnDevice::bytes)]
    pub(crate) device_write_bps: Vec<OnDevice>,
    /// Reads a second from a device
    #[arg(long, value_name = "DEVICE:NUMBER", value_parser = OnDevice::operations)]
    pub(crate) device_read_iops: Vec<OnDevice>,
    /// Writes a second to a device
    #[arg(long, value_name = "DEVICE:NUMBER", value_parser = OnDevice::operations)]
    pub(crate) device_write_iops: Vec<OnDevice>,
}

/// What the process may do.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Privileges")]
pub(crate) struct Security {
    /// Add a capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub(crate) cap_add: Vec<Choice>,
    /// Take a capability away, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub(crate) cap_drop: Vec<Choice>,
    /// Give every capability and device, and no system call filter
    #[arg(long)]
    pub(crate) privileged: bool,
    /// seccomp=FILE|unconfined, no-new-privileges, apparmor=PROFILE, systempaths=unconfined
    #[arg(long = "security-opt", value_name = "OPTION")]
    pub(crate) confinement: Vec<SecurityOption>,
    /// Set a kernel parameter of the container's namespaces
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    pub(crate) sysctl: Vec<(String, String)>,
}

/// What the container shares.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Namespaces")]
pub(crate) struct Namespaces {
    /// none, host, container:ID or ns:PATH [default: a new one, for `ns add`]
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    pub(crate) network: Option<Namespace>,
    /// host, container:ID or ns:PATH
    #[arg(long, value_name = "MODE")]
    pub(crate) pid: Option<Namespace>,
    /// none, private, shareable, host, container:ID or ns:PATH
    #[arg(long, value_name = "MODE")]
    pub(crate) ipc: Option<Namespace>,
    /// host or ns:PATH
    #[arg(long, value_name = "MODE")]
    pub(crate) uts: Option<Namespace>,
    /// host or private [default: private where the host has control groups of version 2 only]
    #[arg(long, value_name = "MODE")]
    pub(crate) cgroupns: Option<Namespace>,
    /// host, or ns:PATH of a user namespace that is there
    #[arg(long, value_name = "MODE")]
    pub(crate) userns: Option<Namespace>,
}

/// Names and labels.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Names")]
pub(crate) struct Names {
    /// Host name [default: the first twelve characters of the id]
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// NIS domain name
    #[arg(long, value_name = "NAME")]
    pub(crate) domainname: Option<String>,
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub(crate) add_host: Vec<HostEntry>,
    /// Name server instead of the host's
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dns: Vec<std::net::IpAddr>,
    /// Search domain instead of the host's; `.` for none
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) dns_search: Vec<String>,
    /// Option of resolv.conf(5)
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    pub(crate) dns_option: Vec<String>,
    /// Port that is published like those that the image exposes, or several: 8000-8010
    #[arg(long, value_name = "PORT[/PROTOCOL]", value_parser = port)]
    pub(crate) expose: Vec<String>,
    /// Add an annotation
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) annotation: Vec<(String, String)>,
    /// Add a label, which becomes an annotation as the image's labels do
    #[arg(long, short, value_name = "KEY[=VALUE]", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    /// Add the labels of a file, one a line
    #[arg(long, value_name = "FILE")]
    pub(crate) label_file: Vec<PathBuf>,
}

/// Health checks.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Health")]
pub(crate) struct Health {
    /// Command for the shell that looks at the container's health
    #[arg(long = "health-cmd", value_name = "COMMAND")]
    pub(crate) probe: Option<String>,
    /// Time between two looks [default: 30s]
    #[arg(long = "health-interval", value_name = "DURATION", value_parser = cli::duration)]
    pub(crate) interval: Option<std::time::Duration>,
    /// Time that a look may take [default: 30s]
    #[arg(long = "health-timeout", value_name = "DURATION", value_parser = cli::duration)]
    pub(crate) timeout: Option<std::time::Duration>,
    /// Time to start, in which failures do not count
    #[arg(long = "health-start-period", value_name = "DURATION", value_parser = cli::duration)]
    pub(crate) start_period: Option<std::time::Duration>,
    /// Time between two looks while it starts [default: 5s]
    #[arg(long = "health-start-interval", value_name = "DURATION", value_parser = cli::duration)]
    pub(crate) start_interval: Option<std::time::Duration>,
    /// Failures in a row that make it unhealthy [default: 3]
    #[arg(long = "health-retries", value_name = "NUMBER")]
    pub(crate) retries: Option<u32>,
    /// No check, whatever the image says
    #[arg(long, conflicts_with_all = ["probe", "interval", "timeout", "start_period", "start_interval", "retries"])]
    pub(crate) no_healthcheck: bool,
}

/// Checks an exposed port, and gives it its protocol, as images have it.
fn port(text: &str) -> Result<String, String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last && ["tcp", "udp", "sctp"].contains(&protocol) => {
            Ok(format!("{ports}/{protocol}"))
        }
        _ => Err("not PORT, PORT-PORT or PORT/PROTOCOL".to_owned()),
    }
}

fn octal(text: &str) -> Result<u32, String> {
    let mask = u32::from_str_radix(text, 8).ok().filter(|mask| *mask <= 0o777);
    mask.ok_or_else(|| format!("`{text}` is not an octal number up to 777"))
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("not NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() { Err("empty key".to_owned()) } else { Ok((name.to_owned(), value.to_owned())) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_follows_the_dashes_is_the_command() {
        let arguments = Arguments::parse_from(["bundle", "-e", "A=1", "--", "sh", "-c", "--id"]);
        assert_eq!(arguments.create.command, ["sh", "-c", "--id"]);
        assert_eq!(arguments.create.input, None);
        let arguments = Arguments::parse_from(["bundle", "./rootfs", "-m", "64m", "--", "true"]);
        assert_eq!(arguments.create.input, Some("./rootfs".into()));
        assert!(matches!(Arguments::parse_from(["bundle", "delete", "-f", "x"]).verb, Some(Verb::Delete { .. })));
    }
}
