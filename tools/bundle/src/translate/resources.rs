//! `linux.resources` and `process.rlimits` (runtime-spec, config-linux.md, "Control groups").

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use crate::device::{CgroupRule, Device};
use crate::options::Limits;
use crate::ulimit::Ulimit;

/// Docker's: less does not start a process.
const LEAST_MEMORY: i64 = 6 << 20;
/// The window in which CPU time is counted, microseconds.
const CPU_PERIOD: i64 = 100_000;
/// null, zero, full, random, urandom, tty, console, and nothing of fuse unless it is asked for.
const DEVICES: [(&str, u32, u32, bool); 7] = [
    ("c", 1, 5, true),
    ("c", 1, 3, true),
    ("c", 1, 9, true),
    ("c", 1, 8, true),
    ("c", 5, 0, true),
    ("c", 5, 1, true),
    ("c", 10, 229, false),
];

/// Returns `linux.resources`.
pub(super) fn resources(limits: &Limits, rules: Vec<Value>, block_io: Option<&Value>) -> Result<Value> {
    let mut resources = Map::new();
    resources.insert("devices".into(), Value::Array(rules));
    let memory = memory(limits)?;
    if !memory.is_empty() {
        resources.insert("memory".into(), Value::Object(memory));
    }
    let cpu = cpu(limits);
    if !cpu.is_empty() {
        resources.insert("cpu".into(), Value::Object(cpu));
    }
    // Zero and less: no limit, which is also the default.
    if let Some(limit) = limits.pids_limit.filter(|limit| *limit > 0) {
        resources.insert("pids".into(), json!({"limit": limit}));
    }
    if let Some(limits) = block_io {
        resources.insert("blockIO".into(), limits.clone());
    }
    Ok(Value::Object(resources))
}

/// Returns who may use which devices.
pub(super) fn rules(privileged: bool, devices: &[Device], further: &[CgroupRule]) -> Vec<Value> {
    if privileged {
        return vec![json!({"allow": true, "access": "rwm"})];
    }
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    rules.extend(DEVICES.map(|(kind, major, minor, allow)| {
        json!({"allow": allow, "type": kind, "major": major, "minor": minor, "access": "rwm"})
    }));
    rules.extend(devices.iter().map(Device::rule));
    rules.extend(further.iter().map(CgroupRule::rule));
    rules
}

fn memory(limits: &Limits) -> Result<Map<String, Value>> {
    let mut memory = Map::new();
    let limit = limits.memory.map(|bytes| bytes.0).filter(|bytes| *bytes != 0);
    if let Some(limit) = limit {
        if limit < LEAST_MEMORY {
            bail!(cli::Usage("the least memory for a container is 6m".to_owned()));
        }
        memory.insert("limit".into(), json!(limit));
    }
    if let Some(reservation) = limits.memory_reservation.map(|bytes| bytes.0).filter(|bytes| *bytes != 0) {
        if limit.is_some_and(|limit| reservation > limit) {
            bail!(cli::Usage("the memory reservation is above the memory".to_owned()));
        }
        memory.insert("reservation".into(), json!(reservation));
    }
    let swap = match (limits.memory_swap.map(|swap| swap.0).filter(|swap| *swap != 0), limit) {
        (Some(swap), None) if swap > 0 => bail!(cli::Usage("--memory-swap needs --memory".to_owned())),
        (Some(swap), Some(limit)) if (0..limit).contains(&swap) => {
            bail!(cli::Usage("--memory-swap is memory and swap together: it is below --memory".to_owned()))
        }
        (Some(swap), _) => Some(swap),
        (None, limit) => limit.map(|limit| limit.saturating_mul(2)),
    };
    if let Some(swap) = swap {
        memory.insert("swap".into(), json!(swap));
    }
    if let Some(swappiness) = limits.memory_swappiness.filter(|swappiness| *swappiness >= 0) {
        memory.insert("swappiness".into(), json!(swappiness));
    }
    if limits.oom_kill_disable {
        memory.insert("disableOOMKiller".into(), json!(true));
    }
    Ok(memory)
}

fn cpu(limits: &Limits) -> Map<String, Value> {
    let mut cpu = Map::new();
    if let Some(shares) = limits.cpu_shares.filter(|shares| *shares != 0) {
        cpu.insert("shares".into(), json!(shares));
    }
    if let Some(cpus) = limits.cpus {
        cpu.insert("quota".into(), json!(cpus.0 * (CPU_PERIOD / 1000)));
        cpu.insert("period".into(), json!(CPU_PERIOD));
    }
    for (name, value) in [("quota", limits.cpu_quota), ("realtimeRuntime", limits.cpu_rt_runtime)] {
        if let Some(value) = value.filter(|value| *value != 0) {
            cpu.insert(name.into(), json!(value));
        }
    }
    for (name, value) in [("period", limits.cpu_period), ("realtimePeriod", limits.cpu_rt_period)] {
        if let Some(value) = value.filter(|value| *value != 0) {
            cpu.insert(name.into(), json!(value));
        }
    }
    for (name, list) in [("cpus", &limits.cpuset_cpus), ("mems", &limits.cpuset_mems)] {
        if let Some(list) = list {
            cpu.insert(name.into(), json!(list));
        }
    }
    cpu
}

/// Returns `process.rlimits`; of two of one name the later one counts.
pub(super) fn rlimits(ulimits: &[Ulimit]) -> Vec<Value> {
    let last =
        |(number, limit): &(usize, &Ulimit)| !ulimits[number + 1..].iter().any(|other| other.name() == limit.name());
    ulimits.iter().enumerate().filter(last).map(|(_, limit)| limit.to_json()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits::default()
    }

    #[test]
    fn limits_become_resources_as_with_docker() {
        for (limits, want) in [
            (limits(), json!({})),
            (
                Limits { memory: "64m".parse().ok(), ..limits() },
                json!({"memory": {"limit": 67_108_864, "swap": 134_217_728}}),
            ),
            (
                Limits { memory: "64m".parse().ok(), memory_swap: "-1".parse().ok(), ..limits() },
                json!({"memory": {"limit": 67_108_864, "swap": -1}}),
            ),
            (
                Limits { memory_reservation: "32m".parse().ok(), ..limits() },
                json!({"memory": {"reservation": 33_554_432}}),
            ),
            (Limits { cpus: "1.5".parse().ok(), ..limits() }, json!({"cpu": {"quota": 150_000, "period": 100_000}})),
            (
                Limits { cpu_shares: Some(512), cpuset_cpus: Some("0-1".into()), ..limits() },
                json!({"cpu": {"shares": 512, "cpus": "0-1"}}),
            ),
            (
                Limits { cpu_quota: Some(-1), cpu_period: Some(1000), cpu_rt_runtime: Some(5), ..limits() },
                json!({"cpu": {"quota": -1, "realtimeRuntime": 5, "period": 1000}}),
            ),
            (
                Limits { memory_swappiness: Some(0), oom_kill_disable: true, ..limits() },
                json!({"memory": {"swappiness": 0, "disableOOMKiller": true}}),
            ),
            (Limits { memory_swappiness: Some(-1), ..limits() }, json!({})),
            (Limits { pids_limit: Some(100), ..limits() }, json!({"pids": {"limit": 100}})),
            (Limits { pids_limit: Some(-1), ..limits() }, json!({})),
        ] {
            let mut resources = resources(&limits, Vec::new(), None).unwrap();
            resources.as_object_mut().unwrap().shift_remove("devices");
            assert_eq!(resources, want);
        }
    }

    #[test]
    fn limits_that_contradict_are_refused() {
        for limits in [
            Limits { memory: "1m".parse().ok(), ..limits() },
            Limits { memory_swap: "64m".parse().ok(), ..limits() },
            Limits { memory: "64m".parse().ok(), memory_swap: "32m".parse().ok(), ..limits() },
            Limits { memory: "64m".parse().ok(), memory_reservation: "65m".parse().ok(), ..limits() },
        ] {
            assert!(resources(&limits, Vec::new(), None).is_err(), "{limits:?}");
        }
    }

    #[test]
    fn devices_are_denied_but_for_the_harmless_ones() {
        let rules = rules(false, &[], &[]);
        assert_eq!(rules[0], json!({"allow": false, "access": "rwm"}));
        assert_eq!(rules.iter().filter(|rule| rule["allow"] == true).count(), 6);
        assert_eq!(super::rules(true, &[], &[]), [json!({"allow": true, "access": "rwm"})]);
    }

    #[test]
    fn the_later_limit_of_a_name_counts() {
        let limits: Vec<Ulimit> = ["nofile=1", "core=0", "nofile=2"].map(|text| text.parse().unwrap()).into();
        let kinds: Vec<Value> = rlimits(&limits).iter().map(|limit| json!([limit["type"], limit["soft"]])).collect();
        assert_eq!(kinds, [json!(["RLIMIT_CORE", 0]), json!(["RLIMIT_NOFILE", 2])]);
    }
}
