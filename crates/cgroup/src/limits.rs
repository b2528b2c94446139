//! `linux.resources` as lines to write into cgroup files: pure, so that both versions are tested anywhere.
//!
//! The order of lines matters to the kernel: a quota may not exceed what its period allows, realtime runtime needs
//! its period first, and memory must not exceed memory and swap together at any moment.

use crate::resources::{BlockIo, Cpu, Memory, Resources, ThrottleDevice};

/// One value for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The v1 controller, and on v2 the part of the file's name before the dot.
    pub controller: String,
    pub file: String,
    pub value: String,
    /// The kernel may lack the file; then the limit is not to be had, and nobody asked for it by name.
    ///
    /// The kernel was built without it, or swap accounting is off (`swapaccount=0`).
    pub optional: bool,
}

#[derive(Default)]
struct Lines(Vec<Line>);

#[allow(clippy::needless_pass_by_value, reason = "numbers and texts alike")]
impl Lines {
    fn add(&mut self, file: &str, value: impl std::fmt::Display) {
        let controller = file.split('.').next().unwrap_or(file).to_owned();
        self.0.push(Line { controller, file: file.to_owned(), value: value.to_string(), optional: false });
    }

    fn maybe(&mut self, file: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.add(file, value);
        }
    }

    fn optional(&mut self) {
        if let Some(last) = self.0.last_mut() {
            last.optional = true;
        }
    }
}

/// What cgroup v1 gets, in an order that never passes through a forbidden state.
pub(super) fn v1(resources: &Resources) -> Vec<Line> {
    let mut lines = Lines::default();
    resources.cpu.iter().for_each(|cpu| v1_cpu(&mut lines, cpu));
    resources.memory.iter().for_each(|memory| v1_memory(&mut lines, memory));
    lines.maybe("pids.max", pids_max(resources));
    resources.block_io.iter().for_each(|io| v1_block_io(&mut lines, io));
    for huge in &resources.hugepage_limits {
        lines.add(&format!("hugetlb.{}.limit_in_bytes", huge.page_size), huge.limit);
        lines.add(&format!("hugetlb.{}.rsvd.limit_in_bytes", huge.page_size), huge.limit);
        lines.optional();
    }
    if let Some(network) = &resources.network {
        lines.maybe("net_cls.classid", network.class_id);
        for interface in &network.priorities {
            lines.add("net_prio.ifpriomap", format!("{} {}", interface.name, interface.priority));
        }
    }
    rdma(&mut lines, resources);
    lines.0
}

fn v1_cpu(lines: &mut Lines, cpu: &Cpu) {
    lines.maybe("cpu.idle", cpu.idle);
    lines.maybe("cpu.shares", cpu.shares);
    lines.maybe("cpu.rt_period_us", cpu.realtime_period);
    lines.maybe("cpu.rt_runtime_us", cpu.realtime_runtime);
    lines.maybe("cpu.cfs_period_us", cpu.period);
    lines.maybe("cpu.cfs_quota_us", cpu.quota);
    lines.maybe("cpu.cfs_burst_us", cpu.burst);
    cpusets(lines, cpu);
}

fn cpusets(lines: &mut Lines, cpu: &Cpu) {
    lines.maybe("cpuset.cpus", Some(&cpu.cpus).filter(|cpus| !cpus.is_empty()));
    lines.maybe("cpuset.mems", Some(&cpu.mems).filter(|mems| !mems.is_empty()));
}

fn v1_memory(lines: &mut Lines, memory: &Memory) {
    lines.maybe("memory.limit_in_bytes", memory.limit);
    // Without a swap limit of its own an unlimited memory means unlimited swap.
    let swap = memory.swap.or(memory.limit.filter(|limit| *limit == -1));
    lines.maybe("memory.memsw.limit_in_bytes", swap);
    if memory.swap.is_none() {
        lines.0.last_mut().filter(|line| line.file.contains("memsw")).into_iter().for_each(|line| line.optional = true);
    }
    lines.maybe("memory.soft_limit_in_bytes", memory.reservation);
    lines.maybe("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp);
    // Some engines write -1 for what they do not set.
    lines.maybe("memory.swappiness", memory.swappiness.filter(|value| *value != u64::MAX));
    lines.maybe("memory.oom_control", (memory.disable_oom_killer == Some(true)).then_some(1));
}

fn v1_block_io(lines: &mut Lines, io: &BlockIo) {
    lines.maybe("blkio.weight", io.weight);
    lines.maybe("blkio.leaf_weight", io.leaf_weight);
    for device in &io.weight_device {
        let of = |weight: Option<u16>| weight.map(|weight| format!("{}:{} {weight}", device.major, device.minor));
        lines.maybe("blkio.weight_device", of(device.weight));
        lines.maybe("blkio.leaf_weight_device", of(device.leaf_weight));
    }
    for (file, _, ThrottleDevice { major, minor, rate }) in throttles(io) {
        lines.add(&format!("blkio.throttle.{file}_device"), format!("{major}:{minor} {rate}"));
    }
}

/// Returns the throttled devices, each with what v1 and v2 call the rate.
fn throttles(io: &BlockIo) -> impl Iterator<Item = (&str, &str, &ThrottleDevice)> {
    let all = [
        ("read_bps", "rbps", &io.throttle_read_bps_device),
        ("write_bps", "wbps", &io.throttle_write_bps_device),
        ("read_iops", "riops", &io.throttle_read_iops_device),
        ("write_iops", "wiops", &io.throttle_write_iops_device),
    ];
    all.into_iter().flat_map(|(v1, v2, devices)| devices.iter().map(move |device| (v1, v2, device)))
}

fn rdma(lines: &mut Lines, resources: &Resources) {
    for (device, limit) in &resources.rdma {
        let of = |name: &str, value: Option<u32>| value.map(|value| format!(" {name}={value}")).unwrap_or_default();
        let value = [of("hca_handle", limit.hca_handles), of("hca_object", limit.hca_objects)].concat();
        lines.add("rdma.max", format!("{device}{value}"));
    }
}

/// What cgroup v2 gets.
pub(super) fn v2(resources: &Resources) -> anyhow::Result<Vec<Line>> {
    let mut lines = Lines::default();
    resources.cpu.iter().for_each(|cpu| v2_cpu(&mut lines, cpu));
    if let Some(memory) = &resources.memory {
        v2_memory(&mut lines, memory)?;
    }
    lines.maybe("pids.max", pids_max(resources));
    resources.block_io.iter().for_each(|io| v2_io(&mut lines, io));
    for huge in &resources.hugepage_limits {
        lines.add(&format!("hugetlb.{}.max", huge.page_size), huge.limit);
        lines.add(&format!("hugetlb.{}.rsvd.max", huge.page_size), huge.limit);
        lines.optional();
    }
    rdma(&mut lines, resources);
    for (file, value) in &resources.unified {
        let is_name = !file.contains('/') && file.contains('.');
        anyhow::ensure!(is_name, "unified resource {file:?} must be a file name (no slashes)");
        lines.add(file, value);
    }
    Ok(lines.0)
}

fn v2_cpu(lines: &mut Lines, cpu: &Cpu) {
    lines.maybe("cpu.idle", cpu.idle);
    // `cpu.weight` cannot be written while `cpu.idle` is 1 (EINVAL).
    lines.maybe("cpu.weight", cpu.shares.filter(|_| cpu.idle.is_none_or(|idle| idle == 0)).map(weight));
    if cpu.quota.is_some() || cpu.period.is_some() {
        let quota = cpu.quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
        // The kernel's default, 100 ms; `cpu.max` takes both numbers in one line.
        let period = cpu.period.unwrap_or(100_000);
        lines.add("cpu.max", format!("{quota} {period}"));
    }
    lines.maybe("cpu.max.burst", cpu.burst);
    cpusets(lines, cpu);
}

fn v2_memory(lines: &mut Lines, memory: &Memory) -> anyhow::Result<()> {
    let text = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
    let limit = memory.limit;
    let swap = memory.swap.or(limit.filter(|limit| *limit == -1));
    if let Some(swap) = swap {
        // v1 limits memory and swap together, v2 swap alone.
        let alone = match limit {
            _ if swap < 0 => -1,
            Some(limit) if limit > 0 => {
                anyhow::ensure!(swap >= limit, "memory+swap limit should be >= memory limit");
                swap - limit
            }
            _ => anyhow::bail!("unable to set swap limit without memory limit"),
        };
        lines.add("memory.swap.max", text(alone));
        if memory.swap.is_none() {
            lines.optional();
        }
    }
    lines.maybe("memory.max", limit.map(text));
    // A best-effort protection, as v1's soft limit; `memory.min` would be a promise.
    lines.maybe("memory.low", memory.reservation.map(text));
    Ok(())
}

fn v2_io(lines: &mut Lines, io: &BlockIo) {
    if let Some(weight) = io.weight {
        lines.add("io.bfq.weight", weight);
        lines.optional();
        // 10–1000 of v1 on 1–10000.
        lines.add("io.weight", 1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990);
        lines.optional();
    }
    for device in &io.weight_device {
        lines.maybe("io.bfq.weight", device.weight.map(|weight| format!("{}:{} {weight}", device.major, device.minor)));
    }
    for (_, key, ThrottleDevice { major, minor, rate }) in throttles(io) {
        lines.add("io.max", format!("{major}:{minor} {key}={rate}"));
    }
}

/// The kernel lets nobody in where the limit is 0, so that the least which means anything is 1.
fn pids_max(resources: &Resources) -> Option<String> {
    let limit = resources.pids.as_ref()?.limit?;
    Some(if limit < 0 { "max".into() } else { limit.max(1).to_string() })
}

/// Turns v1's shares, 2–262144 about 1024, into v2's weight, 1–10000 about 100: quadratic in the logarithm, so that both
/// ends and both defaults meet.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "within 1–10000"
)]
fn weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let logarithm = (shares as f64).log2();
    let exponent = (logarithm * logarithm + 125.0 * logarithm) / 612.0 - 7.0 / 34.0;
    10_f64.powf(exponent).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: Vec<Line>) -> Vec<String> {
        lines
            .into_iter()
            .map(|line| format!("{}={}{}", line.file, line.value, if line.optional { "?" } else { "" }))
            .collect()
    }

    #[test]
    fn each_limit_has_its_line_on_both_versions() {
        for (json, one, two) in [
            (r#"{"pids":{"limit":0}}"#, &["pids.max=1"][..], &["pids.max=1"][..]),
            // What docker sends with every update of anything: 0 for what is not set.
            (
                r#"{"cpu":{"shares":0,"quota":0,"period":0,"realtimeRuntime":0,"realtimePeriod":0,"cpus":"","mems":""},
                    "memory":{"limit":0,"swap":0,"reservation":0,"kernel":0,"kernelTCP":0},"network":{"classID":0},
                    "blockIO":{"weight":0,"leafWeight":0,"weightDevice":[{"major":8,"minor":0,"weight":0,"leafWeight":0}]}}"#,
                &[],
                &[],
            ),
            (
                r#"{"cpu":{"shares":null,"quota":null,"period":null},"memory":{"limit":null,"swap":null},"pids":{"limit":null}}"#,
                &[],
                &[],
            ),
            (
                r#"{"cpu":{"quota":-1,"period":50000,"burst":0,"idle":0}}"#,
                &["cpu.idle=0", "cpu.cfs_period_us=50000", "cpu.cfs_quota_us=-1", "cpu.cfs_burst_us=0"],
                &["cpu.idle=0", "cpu.max=max 50000", "cpu.max.burst=0"],
            ),
            (
                r#"{"memory":{"limit":-1,"swap":-1,"reservation":-1}}"#,
                &["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1", "memory.soft_limit_in_bytes=-1"],
                &["memory.swap.max=max", "memory.max=max", "memory.low=max"],
            ),
            (r#"{"memory":{"swappiness":18446744073709551615}}"#, &[], &[]),
            (r#"{"blockIO":{"weight":10}}"#, &["blkio.weight=10"], &["io.bfq.weight=10?", "io.weight=1?"]),
            (r#"{"pids":{"limit":-1}}"#, &["pids.max=max"][..], &["pids.max=max"][..]),
            (r#"{"pids":{"limit":9}}"#, &["pids.max=9"], &["pids.max=9"]),
            (
                r#"{"memory":{"limit":100,"swap":150,"reservation":50}}"#,
                &["memory.limit_in_bytes=100", "memory.memsw.limit_in_bytes=150", "memory.soft_limit_in_bytes=50"],
                &["memory.swap.max=50", "memory.max=100", "memory.low=50"],
            ),
            (
                r#"{"memory":{"limit":-1}}"#,
                &["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1?"],
                &["memory.swap.max=max?", "memory.max=max"],
            ),
            (
                r#"{"cpu":{"shares":1024,"quota":50000,"cpus":"0-1"}}"#,
                &["cpu.shares=1024", "cpu.cfs_quota_us=50000", "cpuset.cpus=0-1"],
                &["cpu.weight=100", "cpu.max=50000 100000", "cpuset.cpus=0-1"],
            ),
            (
                r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":7}]}}"#,
                &["blkio.throttle.read_bps_device=8:0 7"],
                &["io.max=8:0 rbps=7"],
            ),
            (r#"{"unified":{"memory.high":"7"}}"#, &[], &["memory.high=7"]),
        ] {
            let resources: Resources = serde_json::from_str(json).unwrap();
            assert_eq!(text(v1(&resources)), one, "{json}");
            assert_eq!(text(v2(&resources).unwrap()), two, "{json}");
        }
    }

    #[test]
    fn no_processes_at_all_is_a_limit_since_the_specification_says_so() {
        for (version, limit, want) in [
            ("1.0.2", 0, None),
            ("1.2.0", 0, None),
            ("1.3.0", 0, Some(0)),
            ("2.0.0", 0, Some(0)),
            ("1.0.2", -1, Some(-1)),
        ] {
            let mut resources: Resources = serde_json::from_str(&format!(r#"{{"pids":{{"limit":{limit}}}}}"#)).unwrap();
            resources.of_version(version);
            assert_eq!(resources.pids.and_then(|pids| pids.limit), want, "{version} {limit}");
        }
    }

    #[test]
    fn shares_become_weights_at_both_ends_and_in_the_middle() {
        for (shares, want) in [(2, 1), (1024, 100), (262_144, 10_000), (1, 1), (u64::MAX, 10_000)] {
            assert_eq!(weight(shares), want, "{shares}");
        }
    }

    #[test]
    fn unified_files_are_names() {
        let resources: Resources = serde_json::from_str(r#"{"unified":{"../cgroup.procs":"1"}}"#).unwrap();
        assert!(v2(&resources).is_err());
    }
}
