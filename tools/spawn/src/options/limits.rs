//! The limits that `update` has options for.

use anyhow::ensure;
use clap::Args;
use serde_json::{Value, json};

/// Which limits change, and to what.
#[derive(Args)]
#[rustfmt::skip] // An option a line.
pub(crate) struct Limits {
    /// Weight of block I/O
    #[arg(long)] blkio_weight: Option<u16>,
    /// CPU period in microseconds
    #[arg(long)] cpu_period: Option<u64>,
    /// CPU time in a period in microseconds
    #[arg(long, allow_negative_numbers = true)] cpu_quota: Option<i64>,
    /// CPU burst in microseconds
    #[arg(long)] cpu_burst: Option<u64>,
    /// Relative share of CPU time
    #[arg(long, visible_alias = "cpu-shares")] cpu_share: Option<u64>,
    /// Realtime period in microseconds
    #[arg(long)] cpu_rt_period: Option<u64>,
    /// Realtime CPU time in a period in microseconds
    #[arg(long, allow_negative_numbers = true)] cpu_rt_runtime: Option<i64>,
    /// Schedule it as idle (1), or not (0)
    #[arg(long, allow_negative_numbers = true)] cpu_idle: Option<i64>,
    /// CPUs to use
    #[arg(long)] cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long)] cpuset_mems: Option<String>,
    /// Ignored, because kernels no longer have this limit
    #[arg(long, hide = true)] kernel_memory: Option<String>,
    /// Kernel memory for TCP
    #[arg(long, hide = true)] kernel_memory_tcp: Option<String>,
    /// Memory limit in bytes, or with a unit
    #[arg(long, allow_negative_numbers = true)] memory: Option<String>,
    /// Memory reservation
    #[arg(long, allow_negative_numbers = true)] memory_reservation: Option<String>,
    /// Memory and swap limit; -1: none
    #[arg(long, allow_negative_numbers = true)] memory_swap: Option<String>,
    /// Number of processes
    #[arg(long, allow_negative_numbers = true)] pids_limit: Option<i64>,
    /// Intel RDT: cache schema
    #[arg(long)] l3_cache_schema: Option<String>,
    /// Intel RDT: memory bandwidth schema
    #[arg(long)] mem_bw_schema: Option<String>,
}

impl Limits {
    /// Returns them as `linux.resources`.
    pub(crate) fn resources(&self) -> anyhow::Result<Value> {
        let bytes = |text: &Option<String>, option: &str| {
            let parse = |text: &String| text.parse().map(|cli::Limit(bytes)| bytes);
            let wrong = |error: String| anyhow::anyhow!("invalid value for {option}: {error}");
            text.as_ref().map(parse).transpose().map_err(wrong)
        };
        ensure!(self.l3_cache_schema.is_none(), "Intel RDT/CAT: l3 cache schema is not enabled");
        ensure!(self.mem_bw_schema.is_none(), "Intel RDT/MBA: memory bandwidth schema is not enabled");
        if self.kernel_memory.is_some() || self.kernel_memory_tcp.is_some() {
            log::warn!("Kernel memory settings are ignored and will be removed");
        }
        let mut resources = serde_json::Map::new();
        for (group, member, value) in [
            ("memory", "limit", json!(bytes(&self.memory, "memory")?)),
            ("memory", "reservation", json!(bytes(&self.memory_reservation, "memory-reservation")?)),
            ("memory", "swap", json!(bytes(&self.memory_swap, "memory-swap")?)),
            ("cpu", "shares", json!(self.cpu_share)),
            ("cpu", "quota", json!(self.cpu_quota)),
            ("cpu", "burst", json!(self.cpu_burst)),
            ("cpu", "period", json!(self.cpu_period)),
            ("cpu", "realtimeRuntime", json!(self.cpu_rt_runtime)),
            ("cpu", "realtimePeriod", json!(self.cpu_rt_period)),
            ("cpu", "cpus", json!(self.cpuset_cpus)),
            ("cpu", "mems", json!(self.cpuset_mems)),
            ("cpu", "idle", json!(self.cpu_idle)),
            ("blockIO", "weight", json!(self.blkio_weight)),
            ("pids", "limit", json!(self.pids_limit)),
        ] {
            if !value.is_null() {
                resources.entry(group).or_insert_with(|| json!({}))[member] = value;
            }
        }
        Ok(resources.into())
    }
}
