//! `linux.resources` of config.json, and what `update` changes (runtime-spec, config-linux.md, "Control groups"). Names and
//! units are the specification's; where it leaves open what a number means, the kernel's files decide.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// All limits of a container; what is absent is left as it is. Where engines write 0 for "not set", that is absent too.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// Rules for device files, of which the last that matches decides.
    pub devices: Vec<DeviceRule>,
    /// Limits of memory.
    pub memory: Option<Memory>,
    /// Shares and limits of processor time.
    pub cpu: Option<Cpu>,
    /// The limit of processes.
    pub pids: Option<Pids>,
    /// Shares and limits of block I/O.
    #[serde(rename = "blockIO")]
    pub block_io: Option<BlockIo>,
    /// Limits of huge pages.
    pub hugepage_limits: Vec<HugepageLimit>,
    /// Marks of packets; v1 only.
    pub network: Option<NetworkClass>,
    /// Limits of RDMA devices, by their names.
    pub rdma: BTreeMap<String, Rdma>,
    /// Values for files of cgroup v2, by their names.
    pub unified: BTreeMap<String, String>,
}

/// A rule of the device controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct DeviceRule {
    /// Whether what matches may be done.
    pub allow: bool,
    /// `b`, `c`, or `a` (or nothing) for both.
    #[serde(rename = "type")]
    pub kind: String,
    /// The major number; none, or a negative one, is any.
    pub major: Option<i64>,
    /// The minor number; none, or a negative one, is any.
    pub minor: Option<i64>,
    /// Some of `rwm`: read, write, mknod; nothing is all.
    pub access: String,
}

/// Limits of memory, in bytes; -1 is none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// Beyond it processes are killed.
    #[serde(deserialize_with = "unless_zero")]
    pub limit: Option<i64>,
    /// What is taken back last when memory is short.
    #[serde(deserialize_with = "unless_zero")]
    pub reservation: Option<i64>,
    /// Memory and swap together.
    #[serde(deserialize_with = "unless_zero")]
    pub swap: Option<i64>,
    /// The kernel's own memory; v1 only, and ignored by kernels since 5.16.
    pub kernel: Option<i64>,
    /// The kernel's buffers for TCP; v1 only.
    #[serde(rename = "kernelTCP", deserialize_with = "unless_zero")]
    pub kernel_tcp: Option<i64>,
    /// How readily pages are swapped out, 0 to 100; v1 only.
    pub swappiness: Option<u64>,
    /// Let processes wait instead of killing them; v1 only.
    #[serde(rename = "disableOOMKiller")]
    pub disable_oom_killer: Option<bool>,
    /// Count the groups below; v1 only, and always so since 5.11.
    pub use_hierarchy: Option<bool>,
    /// Refuse a limit below what is in use already.
    pub check_before_update: Option<bool>,
}

/// Shares and limits of processor time.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cpu {
    /// The weight among others, 2 to 262,144; 1,024 is the ordinary one.
    #[serde(deserialize_with = "unless_zero")]
    pub shares: Option<u64>,
    /// Microseconds in each period; negative is no limit.
    #[serde(deserialize_with = "unless_zero")]
    pub quota: Option<i64>,
    /// Microseconds of unused quota that may be kept for later.
    pub burst: Option<u64>,
    /// Microseconds.
    #[serde(deserialize_with = "unless_zero")]
    pub period: Option<u64>,
    /// Microseconds of realtime scheduling in each period; v1 only.
    #[serde(deserialize_with = "unless_zero")]
    pub realtime_runtime: Option<i64>,
    /// Microseconds; v1 only.
    #[serde(deserialize_with = "unless_zero")]
    pub realtime_period: Option<u64>,
    /// Processors, as `cpuset(7)` lists them.
    pub cpus: String,
    /// Nodes of memory, as `cpuset(7)` lists them.
    pub mems: String,
    /// 1: only what nobody else wants.
    pub idle: Option<i64>,
}

/// The limit of processes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pids {
    /// How many; -1 is no limit. Before version 1.3 of the specification 0 is none given, too.
    pub limit: Option<i64>,
}

/// Shares and limits of block I/O.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockIo {
    /// The weight among others, 10 to 1,000.
    #[serde(deserialize_with = "unless_zero")]
    pub weight: Option<u16>,
    /// The weight against the groups below; v1 only, and gone with CFQ in 5.0.
    #[serde(deserialize_with = "unless_zero")]
    pub leaf_weight: Option<u16>,
    /// Weights for single devices.
    pub weight_device: Vec<WeightDevice>,
    /// Bytes read in a second.
    pub throttle_read_bps_device: Vec<ThrottleDevice>,
    /// Bytes written in a second.
    pub throttle_write_bps_device: Vec<ThrottleDevice>,
    /// Reads in a second.
    #[serde(rename = "throttleReadIOPSDevice")]
    pub throttle_read_iops_device: Vec<ThrottleDevice>,
    /// Writes in a second.
    #[serde(rename = "throttleWriteIOPSDevice")]
    pub throttle_write_iops_device: Vec<ThrottleDevice>,
}

/// Weights for one device.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WeightDevice {
    /// The device's major number.
    pub major: i64,
    /// The device's minor number.
    pub minor: i64,
    /// As [`BlockIo::weight`].
    #[serde(deserialize_with = "unless_zero")]
    pub weight: Option<u16>,
    /// As [`BlockIo::leaf_weight`].
    #[serde(deserialize_with = "unless_zero")]
    pub leaf_weight: Option<u16>,
}

/// A limit for one device.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ThrottleDevice {
    /// The device's major number.
    pub major: i64,
    /// The device's minor number.
    pub minor: i64,
    /// Bytes, or operations, in a second.
    pub rate: u64,
}

/// A limit of huge pages of one size.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HugepageLimit {
    /// As files name it: `2MB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}

/// How packets are marked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NetworkClass {
    /// For tc(8): major and minor number in the upper and lower half.
    #[serde(rename = "classID", deserialize_with = "unless_zero")]
    pub class_id: Option<u32>,
    /// Priorities, by interface.
    pub priorities: Vec<InterfacePriority>,
}

/// The priority of what leaves by one interface.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct InterfacePriority {
    /// The interface's name.
    pub name: String,
    /// The priority, as `SO_PRIORITY` sets it (`socket(7)`).
    pub priority: u32,
}

/// Limits of one RDMA device.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rdma {
    /// Handles that may be open.
    pub hca_handles: Option<u32>,
    /// Objects that may be made.
    pub hca_objects: Option<u32>,
}

impl Resources {
    /// Reads the limits as `version` of the specification means them: until 1.3 engines write 0 for "no limit of
    /// processes given", which only since then is a limit.
    pub fn of_version(&mut self, version: &str) {
        let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
        if (numbers.next(), numbers.next()) < (Some(1), Some(3)) {
            self.pids = self.pids.take().filter(|pids| pids.limit != Some(0));
        }
    }
}

/// Reads 0 as the member's absence.
fn unless_zero<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + PartialEq + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.filter(|value| *value != T::default()))
}
