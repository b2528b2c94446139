//! The command line: docker's names for what docker has. Below this module nobody sees clap.

use std::path::PathBuf;

use ::container::{ContainerId, Owner, VolumeName};
use clap::{Arg, Args, Parser, Subcommand};
use cli::{Bytes, Cpus, Limit};

use crate::borrow::VolumesFrom;
use crate::capability::Choice;
use crate::cdi::{DeviceOption, Gpus};
use crate::cp::end::CopyEnd;
use crate::device::{self, CgroupRule, OnDevice};
use crate::environment::Variable;
use crate::hosts::HostEntry;
use crate::mount::{Mount, MountFlag, TmpfsFlag, VolumeFlag};
use crate::namespace::Namespace;
use crate::security::SecurityOption;
use crate::ulimit::Ulimit;

/// Turn an image's config and your options into an OCI runtime bundle
#[derive(Debug, Parser)]
#[command(
    name = "bundle",
    version,
    args_conflicts_with_subcommands = true,
    mut_args = described,
    after_help = include_str!("examples.txt")
)]
pub(crate) struct BundleArgs {
    #[command(flatten)]
    pub(crate) create: Create,
    #[command(subcommand)]
    pub(crate) verb: Option<BundleVerb>,
    #[command(flatten)]
    pub(crate) roots: cli::Roots,
}

/// What can be done with bundles that are there.
#[derive(Debug, Subcommand)]
pub(crate) enum BundleVerb {
    /// Copy files between a container and the host
    Cp(Cp),
    /// Unmount bundles and remove them
    Delete {
        /// Delete it even if its container seems to run, and ignore bundles that do not exist
        #[arg(long, short)]
        force: bool,
        /// Act only on bundles of this owner, the record's `owner`
        #[arg(long, value_name = "OWNER")]
        owner: Option<Owner>,
        /// Ids, or paths of bundles; may be empty with --force, to remove the rest of killed removals
        #[arg(required_unless_present = "force", value_name = "ID|PATH")]
        bundles: Vec<String>,
    },
    /// Run a command as the first process of a container
    #[command(hide = true)]
    Init {
        /// The command
        #[arg(required = true, last = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// List the bundles
    List(cli::ListForm),
    /// Mount the root file system of an ended container again, and print its record
    Mount {
        /// Id or path
        #[arg(value_name = "BUNDLE")]
        bundle: String,
    },
    /// Unmount the root file systems of ended containers, and remove half-made bundles
    Unmount {
        /// Act only on bundles of this owner, the record's `owner`
        #[arg(long, value_name = "OWNER")]
        owner: Option<Owner>,
        /// Ids or paths
        #[arg(value_name = "BUNDLE", required = true)]
        bundles: Vec<String>,
    },
    /// Remove unused bundles: half-made ones, and those whose root file system is not mounted
    Prune {
        /// Remove every bundle without a running container
        #[arg(long, short)]
        all: bool,
    },
    /// List, make and remove named volumes
    #[command(subcommand)]
    Volume(Volume),
}

/// `volume`.
#[derive(Debug, Subcommand)]
pub(crate) enum Volume {
    /// Make volumes
    Create {
        /// Names
        #[arg(value_name = "VOLUME", required = true)]
        names: Vec<VolumeName>,
    },
    /// List volumes and the containers that use them
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        form: cli::ListForm,
        /// Names [default: all]
        #[arg(value_name = "VOLUME")]
        names: Vec<VolumeName>,
    },
    /// Remove all volumes that no container uses
    Prune,
    /// Remove volumes that no container uses
    #[command(visible_alias = "remove")]
    Rm {
        /// Ignore volumes that do not exist
        #[arg(long, short)]
        force: bool,
        /// Names
        #[arg(value_name = "VOLUME", required = true)]
        names: Vec<VolumeName>,
    },
}

/// `cp`.
#[derive(Args, Debug)]
#[command(after_help = include_str!("cp/examples.txt"))]
pub(crate) struct Cp {
    /// Keep owners, attributes and set-id bits, instead of giving all files to the caller or the container's root
    #[arg(long, short)]
    pub(crate) archive: bool,
    /// Follow a source that is a link
    #[arg(long, short = 'L')]
    pub(crate) follow_link: bool,
    /// `CONTAINER:PATH`, a path, or `-` for a tar archive
    #[arg(value_name = "SOURCE", allow_hyphen_values = true)]
    pub(crate) source: CopyEnd,
    /// The destination, in the same forms
    #[arg(value_name = "DESTINATION", allow_hyphen_values = true)]
    pub(crate) destination: CopyEnd,
}

/// What a bundle is made of.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Create {
    /// A record's file, `-`, or a directory: a root file system [default: the record on stdin]
    #[arg(value_name = "RECORD|ROOTFS")]
    pub(crate) input: Option<PathBuf>,
    /// Command that replaces the image's Cmd; the image's Entrypoint stays
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
    /// Name of the container [default: twelve random hexadecimal digits]
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<ContainerId>,
    /// Owner, as the record's `owner` names it [default: a new owner]
    #[arg(long, value_name = "OWNER")]
    pub(crate) owner: Option<Owner>,
    /// Image config (JSON) for a root file system that comes without one
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print config.json and write nothing
    #[arg(long)]
    pub(crate) print: bool,
    /// JSON merge patches.
    #[arg(long)]
    pub(crate) patch: Vec<PathBuf>,
    /// Lay a writable layer over a flat root file system, so that it stays unchanged
    #[arg(long)]
    pub(crate) overlay: bool,
    /// Skip syncing to disk (for containers that are thrown away)
    #[arg(long)]
    pub(crate) volatile: bool,
    #[command(flatten)]
    pub(crate) process: Process,
    #[command(flatten)]
    pub(crate) mounts: Mounts,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) blocks: Blocks,
    #[command(flatten)]
    pub(crate) security: Security,
    #[command(flatten)]
    pub(crate) namespaces: Namespaces,
    #[command(flatten)]
    pub(crate) names: Names,
    #[command(flatten)]
    pub(crate) health: Health,
}

/// Groups of options that stand in the table which `run` reads, too (`cli::passed`): a value's type is said here, and an
/// option's name where it is not its field's.
macro_rules! groups {
    ($($(#[$doc:meta])* struct $group:ident { $($(#[$more:meta])* $field:ident $(= $long:literal)?: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Args, Clone, Debug, Default)]
            pub(crate) struct $group {
                $($(#[$more])* #[arg(long $(= $long)?)] pub(crate) $field: $type,)*
            }
        )*
    };
}

groups! {
    /// The process.
    struct Process {
        env: Vec<Variable>,
        env_file: Vec<PathBuf>,
        user: Option<String>,
        group_add: Vec<String>,
        cwd = "workdir": Option<String>,
        entrypoint: Option<String>,
        tty: bool,
        init: bool,
        #[arg(value_parser = octal)]
        umask: Option<u32>,
        stop_signal: Option<String>,
        stop_timeout: Option<u32>,
    }

    /// The files.
    struct Mounts {
        volume: Vec<VolumeFlag>,
        mount: Vec<MountFlag>,
        tmpfs: Vec<TmpfsFlag>,
        volumes_from: Vec<VolumesFrom>,
        shm_size: Option<Bytes>,
        read_only: bool,
        device: Vec<DeviceOption>,
        device_cgroup_rule: Vec<CgroupRule>,
        #[arg(value_parser = Gpus::parse)]
        gpus: Vec<Gpus>,
    }

    /// The control group and the limits.
    struct Limits {
        memory: Option<Bytes>,
        memory_swap: Option<Limit>,
        memory_reservation: Option<Bytes>,
        #[arg(value_parser = clap::value_parser!(i64).range(-1..=100))]
        memory_swappiness: Option<i64>,
        oom_kill_disable: bool,
        cpus: Option<Cpus>,
        cpu_shares: Option<u64>,
        #[arg(conflicts_with = "cpus")]
        cpu_quota: Option<i64>,
        #[arg(conflicts_with = "cpus", value_parser = clap::value_parser!(u64).range(1000..=1_000_000))]
        cpu_period: Option<u64>,
        cpu_rt_runtime: Option<i64>,
        cpu_rt_period: Option<u64>,
        cpuset_cpus: Option<String>,
        cpuset_mems: Option<String>,
        pids_limit: Option<i64>,
        ulimit: Vec<Ulimit>,
        #[arg(value_parser = clap::value_parser!(i32).range(-1000..=1000))]
        oom_score_adj: Option<i32>,
        cgroup_parent: Option<String>,
    }

    /// Block devices.
    struct Blocks {
        #[arg(value_parser = device::weight)]
        blkio_weight: Option<u16>,
        #[arg(value_parser = OnDevice::weight)]
        blkio_weight_device: Vec<OnDevice>,
        #[arg(value_parser = OnDevice::bytes)]
        device_read_bps: Vec<OnDevice>,
        #[arg(value_parser = OnDevice::bytes)]
        device_write_bps: Vec<OnDevice>,
        #[arg(value_parser = OnDevice::operations)]
        device_read_iops: Vec<OnDevice>,
        #[arg(value_parser = OnDevice::operations)]
        device_write_iops: Vec<OnDevice>,
    }

    /// What the process may do.
    struct Security {
        cap_add: Vec<Choice>,
        cap_drop: Vec<Choice>,
        privileged: bool,
        confinement = "security-opt": Vec<SecurityOption>,
        #[arg(value_parser = assignment)]
        sysctl: Vec<(String, String)>,
    }

    /// What the container shares.
    struct Namespaces {
        /// none, host, container:ID or ns:PATH [default: a new one, for `ns add`]
        #[arg(visible_alias = "net", value_name = "NETWORK", help_heading = "Namespaces")]
        network: Option<Namespace>,
        pid: Option<Namespace>,
        ipc: Option<Namespace>,
        uts: Option<Namespace>,
        cgroupns: Option<Namespace>,
        userns: Option<Namespace>,
    }

    /// Names and labels.
    struct Names {
        hostname: Option<String>,
        domainname: Option<String>,
        add_host: Vec<HostEntry>,
        dns: Vec<std::net::IpAddr>,
        dns_search: Vec<String>,
        dns_option: Vec<String>,
        #[arg(value_parser = port)]
        expose: Vec<String>,
        #[arg(value_parser = label)]
        annotation: Vec<(String, String)>,
        #[arg(value_parser = label)]
        label: Vec<(String, String)>,
        label_file: Vec<PathBuf>,
    }

    /// Health checks.
    struct Health {
        probe = "health-cmd": Option<String>,
        #[arg(value_parser = cli::duration)]
        interval = "health-interval": Option<std::time::Duration>,
        #[arg(value_parser = cli::duration)]
        timeout = "health-timeout": Option<std::time::Duration>,
        #[arg(value_parser = cli::duration)]
        start_period = "health-start-period": Option<std::time::Duration>,
        #[arg(value_parser = cli::duration)]
        start_interval = "health-start-interval": Option<std::time::Duration>,
        retries = "health-retries": Option<u32>,
        #[arg(conflicts_with_all = ["probe", "interval", "timeout", "start_period", "start_interval", "retries"])]
        no_healthcheck: bool,
    }
}

impl Mounts {
    /// Returns what the options themselves mount.
    pub(crate) fn given(&self) -> impl Iterator<Item = &Mount> {
        let given = self.volume.iter().map(|flag| &flag.0).chain(self.mount.iter().map(|flag| &flag.0));
        given.chain(self.tmpfs.iter().map(|flag| &flag.0))
    }
}

/// Describes an option as the table has it. `-h` asks for help here.
fn described(arg: Arg) -> Arg {
    let Some(passed) = cli::passed().iter().find(|passed| Some(passed.long) == arg.get_long()) else { return arg };
    let short = passed.short.filter(|short| *short != 'h');
    passed.describe(arg).short(short)
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
        BundleArgs::command().debug_assert();
    }

    #[test]
    fn what_follows_the_dashes_is_the_command() {
        let arguments = BundleArgs::parse_from(["bundle", "-e", "A=1", "--", "sh", "-c", "--id"]);
        assert_eq!(arguments.create.command, ["sh", "-c", "--id"]);
        assert_eq!(arguments.create.input, None);
        let arguments = BundleArgs::parse_from(["bundle", "./rootfs", "-m", "64m", "--", "true"]);
        assert_eq!(arguments.create.input, Some("./rootfs".into()));
        assert!(matches!(
            BundleArgs::parse_from(["bundle", "delete", "-f", "x"]).verb,
            Some(BundleVerb::Delete { .. })
        ));
    }
}
