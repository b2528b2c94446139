//! What is asked of `bundle`, whatever the words for it are. The options' help describes the members.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ::container::{ContainerId, Owner};
use cli::{Bytes, Cpus, Limit};

use crate::borrow::VolumesFrom;
use crate::capability::Choice;
use crate::cdi::{DeviceOption, Gpus};
use crate::cp::end::CopyEnd;
use crate::device::{CgroupRule, OnDevice};
use crate::environment::Variable;
use crate::hosts::HostEntry;
use crate::mount::{Mount, MountFlag, TmpfsFlag, VolumeFlag};
use crate::namespace::Namespace;
use crate::security::SecurityOption;
use crate::ulimit::Ulimit;

/// What a bundle is made of.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct BundleRequest {
    pub(crate) input: Option<PathBuf>,
    pub(crate) command: Vec<String>,
    pub(crate) id: Option<ContainerId>,
    pub(crate) owner: Option<Owner>,
    pub(crate) config: Option<PathBuf>,
    pub(crate) print: bool,
    pub(crate) patch: Vec<PathBuf>,
    pub(crate) overlay: bool,
    pub(crate) volatile: bool,
    pub(crate) env: Vec<Variable>,
    pub(crate) env_file: Vec<PathBuf>,
    pub(crate) user: Option<String>,
    pub(crate) group_add: Vec<String>,
    pub(crate) cwd: Option<String>,
    pub(crate) entrypoint: Option<String>,
    pub(crate) tty: bool,
    pub(crate) init: bool,
    pub(crate) umask: Option<u32>,
    pub(crate) stop_signal: Option<String>,
    pub(crate) stop_timeout: Option<u32>,
    pub(crate) volume: Vec<VolumeFlag>,
    pub(crate) mount: Vec<MountFlag>,
    pub(crate) tmpfs: Vec<TmpfsFlag>,
    pub(crate) volumes_from: Vec<VolumesFrom>,
    pub(crate) shm_size: Option<Bytes>,
    pub(crate) read_only: bool,
    pub(crate) device: Vec<DeviceOption>,
    pub(crate) device_cgroup_rule: Vec<CgroupRule>,
    pub(crate) gpus: Vec<Gpus>,
    pub(crate) limits: LimitOptions,
    pub(crate) cap_add: Vec<Choice>,
    pub(crate) cap_drop: Vec<Choice>,
    pub(crate) privileged: bool,
    pub(crate) confinement: Vec<SecurityOption>,
    pub(crate) sysctl: Vec<(String, String)>,
    pub(crate) namespaces: NamespaceOptions,
    pub(crate) names: NameOptions,
    pub(crate) health: HealthOptions,
}

/// The control group and the limits.
#[derive(Debug, Default)]
pub(crate) struct LimitOptions {
    pub(crate) memory: Option<Bytes>,
    pub(crate) memory_swap: Option<Limit>,
    pub(crate) memory_reservation: Option<Bytes>,
    pub(crate) memory_swappiness: Option<i64>,
    pub(crate) oom_kill_disable: bool,
    pub(crate) cpus: Option<Cpus>,
    pub(crate) cpu_shares: Option<u64>,
    pub(crate) cpu_quota: Option<i64>,
    pub(crate) cpu_period: Option<u64>,
    pub(crate) cpu_rt_runtime: Option<i64>,
    pub(crate) cpu_rt_period: Option<u64>,
    pub(crate) cpuset_cpus: Option<String>,
    pub(crate) cpuset_mems: Option<String>,
    pub(crate) pids_limit: Option<i64>,
    pub(crate) ulimit: Vec<Ulimit>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) cgroup_parent: Option<String>,
    pub(crate) blkio_weight: Option<u16>,
    pub(crate) blkio_weight_device: Vec<OnDevice>,
    pub(crate) device_read_bps: Vec<OnDevice>,
    pub(crate) device_write_bps: Vec<OnDevice>,
    pub(crate) device_read_iops: Vec<OnDevice>,
    pub(crate) device_write_iops: Vec<OnDevice>,
}

/// What the container shares.
#[derive(Debug, Default)]
pub(crate) struct NamespaceOptions {
    pub(crate) network: Option<Namespace>,
    pub(crate) pid: Option<Namespace>,
    pub(crate) ipc: Option<Namespace>,
    pub(crate) uts: Option<Namespace>,
    pub(crate) cgroupns: Option<Namespace>,
    pub(crate) userns: Option<Namespace>,
}

/// Names and labels.
#[derive(Debug, Default)]
pub(crate) struct NameOptions {
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    pub(crate) add_host: Vec<HostEntry>,
    pub(crate) dns: Vec<IpAddr>,
    pub(crate) dns_search: Vec<String>,
    pub(crate) dns_option: Vec<String>,
    pub(crate) expose: Vec<String>,
    pub(crate) annotation: Vec<(String, String)>,
    pub(crate) label: Vec<(String, String)>,
    pub(crate) label_file: Vec<PathBuf>,
}

/// Health checks.
#[derive(Debug, Default)]
pub(crate) struct HealthOptions {
    pub(crate) probe: Option<String>,
    pub(crate) interval: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) start_period: Option<Duration>,
    pub(crate) start_interval: Option<Duration>,
    pub(crate) retries: Option<u32>,
    pub(crate) no_healthcheck: bool,
}

impl BundleRequest {
    /// Returns what the options themselves mount.
    pub(crate) fn given(&self) -> impl Iterator<Item = &Mount> {
        let given = self.volume.iter().map(|flag| &flag.0).chain(self.mount.iter().map(|flag| &flag.0));
        given.chain(self.tmpfs.iter().map(|flag| &flag.0))
    }
}

/// What is copied, and whither.
pub(crate) struct CopyRequest {
    pub(crate) archive: bool,
    pub(crate) follow_link: bool,
    pub(crate) source: CopyEnd,
    pub(crate) destination: CopyEnd,
}
