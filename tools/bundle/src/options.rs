//! The command line: docker's names for what docker has.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ::container::{ContainerId, Owner, VolumeName};
use clap::{Arg, Parser, Subcommand};
use cli::{Bytes, Cpus, Limit};

use crate::borrow::VolumesFrom;
use crate::capability::Choice;
use crate::cdi::{DeviceOption, Gpus};
use crate::cp::end::CopyEnd;
use crate::device::{self, CgroupRule, OnDevice};
use crate::environment::Variable;
use crate::hosts::HostEntry;
use crate::mount::{MountFlag, TmpfsFlag, VolumeFlag};
use crate::namespace::Namespace;
use crate::request::{BundleRequest, CopyRequest, HealthOptions, LimitOptions, NameOptions, NamespaceOptions};
use crate::security::SecurityOption;
use crate::ulimit::Ulimit;

/// Turn an image's config and your options into an OCI runtime bundle
#[derive(Parser)]
#[command(name = "bundle", version, args_conflicts_with_subcommands = true, mut_args = described)]
#[command(after_help = include_str!("examples.txt"))]
#[rustfmt::skip] // An option a line.
pub(crate) struct BundleArgs {
    #[command(flatten)] pub(crate) create: BundleRequest,
    #[command(subcommand)] pub(crate) verb: Option<BundleVerb>,
    #[command(flatten)] pub(crate) roots: cli::Roots,
}

/// What can be done with bundles that are there.
#[derive(Subcommand)]
#[rustfmt::skip] // An option a line.
pub(crate) enum BundleVerb {
    /// Copy files between a container and the host
    Cp(CopyRequest),
    /// Unmount bundles and remove them
    Delete {
        /// Delete it even if its container seems to run, and ignore bundles that do not exist
        #[arg(long, short)] force: bool,
        /// Act only on bundles of this owner, the record's `owner`
        #[arg(long, value_name = "OWNER")] owner: Option<Owner>,
        /// Ids, paths of bundles, or `-` for a record on stdin; may be empty with --force, to remove the rest of killed removals
        #[arg(required_unless_present = "force", value_name = "ID|PATH")] bundles: Vec<String>,
    },
    /// Run a command as the first process of a container
    #[command(hide = true)]
    Init {
        /// The command
        #[arg(required = true, last = true)] command: Vec<std::ffi::OsString>,
    },
    /// List the bundles
    List(cli::ListForm),
    /// Mount the root file system of an ended container again, and print its record
    Mount {
        /// Id or path
        #[arg(value_name = "BUNDLE")] bundle: String,
    },
    /// Unmount the root file systems of ended containers, and remove half-made bundles
    Unmount {
        /// Act only on bundles of this owner, the record's `owner`
        #[arg(long, value_name = "OWNER")] owner: Option<Owner>,
        /// Ids, paths, or `-` for a record on stdin
        #[arg(value_name = "BUNDLE", required = true)] bundles: Vec<String>,
    },
    /// Remove unused bundles: half-made ones, and those whose root file system is not mounted
    Prune {
        /// Remove every bundle without a running container
        #[arg(long, short)] all: bool,
    },
    /// List, make and remove named volumes
    #[command(subcommand)]
    Volume(Volume),
}

/// `volume`.
#[derive(Subcommand)]
#[rustfmt::skip] // An option a line.
pub(crate) enum Volume {
    /// Make volumes
    Create {
        /// Names
        #[arg(value_name = "VOLUME", required = true)] names: Vec<VolumeName>,
    },
    /// List volumes and the containers that use them
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)] form: cli::ListForm,
        /// Names [default: all]
        #[arg(value_name = "VOLUME")] names: Vec<VolumeName>,
    },
    /// Remove all volumes that no container uses
    Prune,
    /// Remove volumes that no container uses
    #[command(visible_alias = "remove")]
    Rm {
        /// Ignore volumes that do not exist
        #[arg(long, short)] force: bool,
        /// Names
        #[arg(value_name = "VOLUME", required = true)] names: Vec<VolumeName>,
    },
}

// Options of the table which `run` reads, too (`cli::passed`), have their letter, help and value's name from there.
cli::options! {
    BundleRequest {
        /// A record's file, `-`, or a directory: a root file system [default: the record on stdin]
        #[arg(value_name = "RECORD|ROOTFS")] input: Option<PathBuf>,
        /// Command that replaces the image's Cmd; the image's Entrypoint stays
        #[arg(last = true, value_name = "CMD")] command: Vec<String>,
        /// Name of the container [default: twelve random hexadecimal digits]
        #[arg(long, value_name = "ID")] id: Option<ContainerId>,
        /// Owner, as the record's `owner` names it [default: a new owner]
        #[arg(long, value_name = "OWNER")] owner: Option<Owner>,
        /// Image config (JSON) for a root file system that comes without one
        #[arg(long, value_name = "FILE")] config: Option<PathBuf>,
        /// Print config.json and write nothing
        #[arg(long)] print: bool,
        /// JSON merge patches.
        #[arg(long)] patch: Vec<PathBuf>,
        /// Lay a writable layer over a flat root file system, so that it stays unchanged
        #[arg(long)] overlay: bool,
        /// Skip syncing to disk (for containers that are thrown away)
        #[arg(long)] volatile: bool,
        #[arg(long)] env: Vec<Variable>,
        #[arg(long)] env_file: Vec<PathBuf>,
        #[arg(long)] user: Option<String>,
        #[arg(long)] group_add: Vec<String>,
        #[arg(long = "workdir")] cwd: Option<String>,
        #[arg(long)] entrypoint: Option<String>,
        #[arg(long)] tty: bool,
        #[arg(long)] init: bool,
        #[arg(long, value_parser = octal)] umask: Option<u32>,
        #[arg(long)] stop_signal: Option<String>,
        #[arg(long)] stop_timeout: Option<u32>,
        #[arg(long)] volume: Vec<VolumeFlag>,
        #[arg(long)] mount: Vec<MountFlag>,
        #[arg(long)] tmpfs: Vec<TmpfsFlag>,
        #[arg(long)] volumes_from: Vec<VolumesFrom>,
        #[arg(long)] shm_size: Option<Bytes>,
        #[arg(long)] read_only: bool,
        #[arg(long)] device: Vec<DeviceOption>,
        #[arg(long)] device_cgroup_rule: Vec<CgroupRule>,
        #[arg(long, value_parser = Gpus::parse)] gpus: Vec<Gpus>,
        #[command(flatten)] limits: LimitOptions,
        #[arg(long)] cap_add: Vec<Choice>,
        #[arg(long)] cap_drop: Vec<Choice>,
        #[arg(long)] privileged: bool,
        #[arg(long = "security-opt")] confinement: Vec<SecurityOption>,
        #[arg(long, value_parser = assignment)] sysctl: Vec<(String, String)>,
        #[command(flatten)] namespaces: NamespaceOptions,
        #[command(flatten)] names: NameOptions,
        #[command(flatten)] health: HealthOptions,
    }

    LimitOptions {
        #[arg(long)] memory: Option<Bytes>,
        #[arg(long)] memory_swap: Option<Limit>,
        #[arg(long)] memory_reservation: Option<Bytes>,
        #[arg(long, value_parser = clap::value_parser!(i64).range(-1..=100))] memory_swappiness: Option<i64>,
        #[arg(long)] oom_kill_disable: bool,
        #[arg(long)] cpus: Option<Cpus>,
        #[arg(long)] cpu_shares: Option<u64>,
        #[arg(long, conflicts_with = "cpus")] cpu_quota: Option<i64>,
        #[arg(long, conflicts_with = "cpus", value_parser = clap::value_parser!(u64).range(1000..=1_000_000))]
        cpu_period: Option<u64>,
        #[arg(long)] cpu_rt_runtime: Option<i64>,
        #[arg(long)] cpu_rt_period: Option<u64>,
        #[arg(long)] cpuset_cpus: Option<String>,
        #[arg(long)] cpuset_mems: Option<String>,
        #[arg(long)] pids_limit: Option<i64>,
        #[arg(long)] ulimit: Vec<Ulimit>,
        #[arg(long, value_parser = clap::value_parser!(i32).range(-1000..=1000))] oom_score_adj: Option<i32>,
        #[arg(long)] cgroup_parent: Option<String>,
        #[arg(long, value_parser = device::weight)] blkio_weight: Option<u16>,
        #[arg(long, value_parser = OnDevice::weight)] blkio_weight_device: Vec<OnDevice>,
        #[arg(long, value_parser = OnDevice::bytes)] device_read_bps: Vec<OnDevice>,
        #[arg(long, value_parser = OnDevice::bytes)] device_write_bps: Vec<OnDevice>,
        #[arg(long, value_parser = OnDevice::operations)] device_read_iops: Vec<OnDevice>,
        #[arg(long, value_parser = OnDevice::operations)] device_write_iops: Vec<OnDevice>,
    }

    NamespaceOptions {
        /// none, host, container:ID or ns:PATH [default: a new one, for `ns add`]
        #[arg(long, visible_alias = "net", value_name = "NETWORK", help_heading = "Namespaces")]
        network: Option<Namespace>,
        #[arg(long)] pid: Option<Namespace>,
        #[arg(long)] ipc: Option<Namespace>,
        #[arg(long)] uts: Option<Namespace>,
        #[arg(long)] cgroupns: Option<Namespace>,
        #[arg(long)] userns: Option<Namespace>,
    }

    NameOptions {
        #[arg(long)] hostname: Option<String>,
        #[arg(long)] domainname: Option<String>,
        #[arg(long)] add_host: Vec<HostEntry>,
        #[arg(long)] dns: Vec<IpAddr>,
        #[arg(long)] dns_search: Vec<String>,
        #[arg(long)] dns_option: Vec<String>,
        #[arg(long, value_parser = port)] expose: Vec<String>,
        #[arg(long, value_parser = label)] annotation: Vec<(String, String)>,
        #[arg(long, value_parser = label)] label: Vec<(String, String)>,
        #[arg(long)] label_file: Vec<PathBuf>,
    }

    HealthOptions {
        #[arg(long = "health-cmd")] probe: Option<String>,
        #[arg(long = "health-interval", value_parser = cli::duration)] interval: Option<Duration>,
        #[arg(long = "health-timeout", value_parser = cli::duration)] timeout: Option<Duration>,
        #[arg(long = "health-start-period", value_parser = cli::duration)] start_period: Option<Duration>,
        #[arg(long = "health-start-interval", value_parser = cli::duration)]
        start_interval: Option<Duration>,
        #[arg(long = "health-retries")] retries: Option<u32>,
        #[arg(long, conflicts_with_all = ["probe", "interval", "timeout", "start_period", "start_interval", "retries"])]
        no_healthcheck: bool,
    }

    #[command(after_help = include_str!("cp/examples.txt"))]
    CopyRequest {
        /// Keep owners, attributes and set-id bits, instead of giving all files to the caller or the container's root
        #[arg(long, short)] archive: bool,
        /// Follow a source that is a link
        #[arg(long, short = 'L')] follow_link: bool,
        /// `CONTAINER:PATH`, a path, or `-` for a tar archive
        #[arg(value_name = "SOURCE", allow_hyphen_values = true)] source: CopyEnd,
        /// The destination, in the same forms
        #[arg(value_name = "DESTINATION", allow_hyphen_values = true)] destination: CopyEnd,
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
